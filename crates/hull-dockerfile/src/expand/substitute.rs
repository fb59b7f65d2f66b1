//! Patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?`, neither of which matches a line feed.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Exactly(char),
    One,
    Many,
}

/// Most steps that one match may take: the pattern's length times the text's.
const MAX_STEPS: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' if tokens.last() == Some(&Token::Many) => continue,
                '*' => Token::Many,
                '?' => Token::One,
                // `}` and `/` are escaped for the sake of the substitution's syntax.
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\')) => Token::Exactly(c),
                    other => {
                        let c = other.unwrap_or(char::REPLACEMENT_CHARACTER);
                        return Err(format!("invalid pattern ({text}) in substitution: invalid escape '\\{c}'"));
                    }
                },
                c => Token::Exactly(c),
            });
        }
        Ok(Self(tokens))
    }

    /// Refuses a pattern that would take too long on `text`.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        // Without `*` every place of the text is looked at once and for all.
        let many = self.0.contains(&Token::Many);
        if many && self.0.len().saturating_mul(text.len()) > MAX_STEPS {
            return Err("the pattern is too long for the text that it is matched with".into());
        }
        Ok(())
    }

    /// `text` without the shortest or longest beginning that matches.
    pub(super) fn trim_start(&self, text: &str, longest: bool) -> String {
        let chars: Vec<char> = text.chars().collect();
        let end = ends(&self.0, &chars, 0, longest).unwrap_or(0);
        chars[end..].iter().collect()
    }

    /// `text` without the shortest or longest end that matches.
    pub(super) fn trim_end(&self, text: &str, longest: bool) -> String {
        let chars: Vec<char> = text.chars().rev().collect();
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let end = ends(&tokens, &chars, 0, longest).unwrap_or(0);
        chars[end..].iter().rev().collect()
    }

    /// `text` with the first match or all of them replaced, matches being as long as possible.
    pub(super) fn replace(&self, text: &str, with: &str, all: bool, room: usize) -> Result<String, String> {
        let chars: Vec<char> = text.chars().collect();
        let mut out = String::with_capacity(text.len());
        // Where matches can begin is known beforehand, so that no position is tried in vain.
        let starts = starts(&self.0, &chars);
        let (mut at, mut last_end, mut found) = (0, None, 0usize);
        while at <= chars.len() {
            let end = if starts[at] && (all || found == 0) { ends(&self.0, &chars, at, true) } else { None };
            match end {
                // Nothing right behind a match is no match of its own.
                Some(end) if end > at || last_end != Some(at) => {
                    out.push_str(with);
                    found += 1;
                    last_end = Some(end);
                    if end == at {
                        out.extend(chars.get(at));
                        at += 1;
                    } else {
                        at = end;
                    }
                }
                _ => {
                    out.extend(chars.get(at));
                    at += 1;
                }
            }
            if out.len() > room {
                return Err(format!("the text expands to more than {} bytes", super::MAX_OUTPUT));
            }
        }
        Ok(out)
    }
}

/// Where a match of `tokens` that begins at `start` can end: the nearest or the farthest place.
fn ends(tokens: &[Token], text: &[char], start: usize, longest: bool) -> Option<usize> {
    // Places reached so far, in order.
    let mut places = vec![start];
    for token in tokens {
        let mut next = Vec::with_capacity(places.len());
        match token {
            Token::Exactly(c) => next.extend(places.iter().filter(|at| text.get(**at) == Some(c)).map(|at| at + 1)),
            Token::One => {
                next.extend(places.iter().filter(|at| text.get(**at).is_some_and(|c| *c != '\n')).map(|at| at + 1));
            }
            Token::Many => {
                for at in places {
                    // What an earlier place reached covers this one and its line's rest.
                    if next.last().is_some_and(|last| *last >= at) {
                        continue;
                    }
                    next.push(at);
                    let line = text[at..].iter().take_while(|c| **c != '\n').count();
                    next.extend(at + 1..=at + line);
                }
            }
        }
        if next.is_empty() {
            return None;
        }
        places = next;
    }
    if longest { places.last().copied() } else { places.first().copied() }
}

/// Which places of `text` a match of `tokens` can begin at.
fn starts(tokens: &[Token], text: &[char]) -> Vec<bool> {
    let mut here = vec![true; text.len() + 1];
    for token in tokens.iter().rev() {
        let mut next = vec![false; text.len() + 1];
        for at in (0..=text.len()).rev() {
            next[at] = match token {
                Token::Exactly(c) => text.get(at) == Some(c) && here[at + 1],
                Token::One => text.get(at).is_some_and(|c| *c != '\n') && here[at + 1],
                Token::Many => here[at] || (text.get(at).is_some_and(|c| *c != '\n') && next[at + 1]),
            };
        }
        here = next;
    }
    here
}
