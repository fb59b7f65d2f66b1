//! The patterns that options and filters take where Docker takes regular expressions. Of them these are known: `^`, `$`,
//! `.`, `*`, `+`, `?`, `\`, and `|` between whole patterns.

/// Whether a text has a match of a pattern.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    pattern.split('|').any(|pattern| {
        let pattern: Vec<char> = pattern.chars().collect();
        match pattern.split_first() {
            Some(('^', rest)) => here(rest, &text),
            _ => (0..=text.len()).any(|start| here(&pattern, &text[start..])),
        }
    })
}

fn here(pattern: &[char], text: &[char]) -> bool {
    let (one, rest, escaped) = match pattern {
        [] => return true,
        ['$'] => return text.is_empty(),
        ['\\', one, rest @ ..] => (*one, rest, true),
        [one, rest @ ..] => (*one, rest, false),
    };
    let same = |found: &char| *found == one || (one == '.' && !escaped);
    let (least, most, rest) = match rest {
        ['*', rest @ ..] => (0, text.len(), rest),
        ['+', rest @ ..] => (1, text.len(), rest),
        ['?', rest @ ..] => (0, 1, rest),
        _ => (1, 1, rest),
    };
    let run = text.iter().take(most).take_while(|found| same(found)).count();
    (least..=run).any(|count| here(rest, &text[count..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_parts_of_texts() {
        for (pattern, text, expected) in [
            ("web", "my-web-1", true),
            ("^web", "my-web-1", false),
            ("^web$", "web", true),
            ("^web$", "web1", false),
            ("w.b", "wxb", true),
            ("w\\.b", "wxb", false),
            ("^a.*z$", "abcz", true),
            ("^a+b?$", "aaa", true),
            ("x|web", "web", true),
            ("", "anything", true),
            ("*", "*", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
