//! Control files (deb822(5)): paragraphs of `Field: value` lines, read in place.

/// One paragraph. Names are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paragraph<'t> {
    fields: Vec<(&'t str, &'t str)>,
}

impl<'t> Paragraph<'t> {
    /// A field's value: the text after the colon, with its continuation lines, trimmed.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'t str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The words of a value.
    #[must_use]
    pub fn words(&self, name: &str) -> Vec<&'t str> {
        self.get(name).unwrap_or_default().split_ascii_whitespace().collect()
    }

    /// Whether a field says `yes`.
    #[must_use]
    pub fn yes(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("yes"))
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// The paragraphs of a text, in order. Lines that are neither a field nor a continuation are passed over, as are comments.
pub fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut found = Paragraph::default();
        // Start and end of the value that may go on in the next line.
        let mut open: Option<(&str, usize, usize)> = None;
        let mut place = 0;
        let source = rest;
        while place < source.len() {
            let end = source[place..].find('\n').map_or(source.len(), |at| place + at);
            let line = &source[place..end];
            let start = place;
            place = (end + 1).min(source.len());
            if line.trim().is_empty() {
                if found.is_empty() && open.is_none() {
                    continue;
                }
                break;
            }
            if line.starts_with('#') {
                continue;
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, _, last)) = &mut open {
                    *last = end;
                }
                continue;
            }
            if let Some((name, start, end)) = open.take() {
                found.fields.push((name, source[start..end].trim()));
            }
            if let Some(colon) = line.find(':') {
                open = Some((&line[..colon], start + colon + 1, end));
            }
        }
        if let Some((name, start, end)) = open {
            found.fields.push((name, source[start..end].trim()));
        }
        rest = &source[place..];
        (!found.is_empty()).then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_continuations_and_comments() {
        let text = "\n\nPackage: a\nDescription: one\n two\n .\n# note\n three\nEmpty:\n\n\nPackage: b\r\n";
        let all: Vec<_> = paragraphs(text).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("package"), Some("a"));
        assert_eq!(all[0].get("Description"), Some("one\n two\n .\n# note\n three"));
        assert_eq!(all[0].get("Empty"), Some(""));
        assert_eq!(all[0].get("Missing"), None);
        assert_eq!(all[1].get("Package"), Some("b"));
    }

    #[test]
    fn nothing_and_nonsense() {
        assert_eq!(paragraphs("").count(), 0);
        assert_eq!(paragraphs("\n \n\n").count(), 0);
        assert_eq!(paragraphs("no colon here\n continuation\n").count(), 0);
        assert_eq!(paragraphs(" leading\nA: 1").next().and_then(|one| one.get("A")), Some("1"));
    }
}
