//! The patterns that options and filters take where Docker takes regular expressions. Of them these are known: `^`, `$`,
//! `.`, `*`, `+`, `?`, `\`, and `|` between whole patterns. Names of images have patterns as those of shells.

use hull_oci::Reference;

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

/// Whether an image's name fits a shell pattern such as `debian:1*`, by the whole name or without its tag.
#[must_use]
pub fn names(pattern: &str, name: &Reference) -> bool {
    glob(pattern, &name.familiar()) || glob(pattern, &name.familiar_repository())
}

/// Shell patterns, where `*` and `?` do not go beyond a slash.
fn glob(pattern: &str, text: &str) -> bool {
    fn here(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                let run = text.iter().take_while(|one| **one != '/').count();
                (0..=run).any(|count| here(rest, &text[count..]))
            }
            (['?', rest @ ..], [one, after @ ..]) => *one != '/' && here(rest, after),
            (['[', rest @ ..], [one, after @ ..]) => {
                let Some(end) = rest.iter().position(|one| *one == ']') else { return false };
                let (set, rest) = (&rest[..end], &rest[end + 1..]);
                let (negated, set) = match set {
                    ['^', set @ ..] => (true, set),
                    set => (false, set),
                };
                let range = set.windows(3).any(|range| range[1] == '-' && (range[0]..=range[2]).contains(one));
                (range || set.contains(one)) != negated && here(rest, after)
            }
            (['\\', literal, rest @ ..], [one, after @ ..]) | ([literal, rest @ ..], [one, after @ ..]) => {
                literal == one && here(rest, after)
            }
            _ => false,
        }
    }
    let characters = |text: &str| text.chars().collect::<Vec<_>>();
    here(&characters(pattern), &characters(text))
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

    #[test]
    fn patterns_stop_at_slashes() {
        for (pattern, text, expected) in [
            ("alpine", "alpine", true),
            ("alpine:3.*", "alpine:3.20", true),
            ("alp*", "alpine:latest", true),
            ("*", "localhost:5000/team/app", false),
            ("localhost:5000/*/app", "localhost:5000/team/app", true),
            ("alpin?", "alpine", true),
            ("alpine:[0-3].*", "alpine:3.20", true),
            ("alpine:[^0-3].*", "alpine:3.20", false),
            ("a\\*", "a*", true),
            ("[", "[", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
        let name: Reference = "docker.io/library/alpine:3.20".parse().expect("parses");
        assert!(names("alpine", &name) && names("alpine:3.20", &name));
        assert!(!names("alpine:3.19", &name) && !names("debian", &name));
    }
}
