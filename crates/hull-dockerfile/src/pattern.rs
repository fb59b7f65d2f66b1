//! Patterns of paths: `*`, `?` and `[a-z]` within one component, `**` across them.
//!
//! One engine serves `.dockerignore`, `--exclude` and `--parents` ([`Pattern::parse`]) and the plain wildcards of `COPY`
//! and `ADD` ([`Pattern::wildcard`], to which `**` is nothing special). All alternatives are followed at once, so no
//! pattern takes more than its length times the path's.

use std::collections::BTreeSet;

/// Longest pattern.
pub const MAX_PATTERN: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Exactly(char),
    /// `?`.
    One,
    /// `*`.
    Many,
    /// `[...]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**/`: nothing, or whole components; the token behind it stands for being in the midst of them.
    Components,
    InComponents,
    /// `**` at the end: anything.
    Rest,
}

/// A pattern that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {}", crate::error::quote(.0))]
pub struct BadPattern(pub String);

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    tokens: Vec<Token>,
    /// What every match begins with, and how many tokens that are.
    prefix: String,
    prefix_tokens: usize,
    /// What every match ends with, behind the prefix: most paths are told by it at once.
    suffix: String,
    /// The prefix is all there is.
    literal: bool,
}

impl Pattern {
    /// A pattern in which `**` goes across components, cleaned like a path.
    ///
    /// # Errors
    /// A bracket that is not closed, an escape of nothing, or more than [`MAX_PATTERN`] bytes.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let cleaned = clean(text);
        Self::compile(&cleaned, true).ok_or_else(|| BadPattern(text.to_owned()))
    }

    /// A wildcard as `COPY` and `ADD` have it without `--parents`: `**` is two stars, each within a component.
    ///
    /// # Errors
    /// As for [`Pattern::parse`].
    pub fn wildcard(text: &str) -> Result<Self, BadPattern> {
        Self::compile(text, false).ok_or_else(|| BadPattern(text.to_owned()))
    }

    /// The pattern as it is matched.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn compile(text: &str, deep: bool) -> Option<Self> {
        if text.len() > MAX_PATTERN {
            return None;
        }
        let mut tokens = Vec::new();
        // `**name` without any other wildcard is a suffix of the path, wherever in a component it begins.
        let suffix = text.strip_prefix("**").filter(|rest| deep && !rest.starts_with('/') && !wild(rest));
        let mut rest = suffix.unwrap_or(text);
        if suffix.is_some() {
            tokens.push(Token::Rest);
        }
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '*' if deep && rest.starts_with('*') => {
                    rest = &rest[1..];
                    rest = rest.strip_prefix('/').unwrap_or(rest);
                    if rest.is_empty() {
                        tokens.push(Token::Rest);
                    } else {
                        tokens.extend([Token::Components, Token::InComponents]);
                    }
                }
                '*' => tokens.push(Token::Many),
                '?' => tokens.push(Token::One),
                '[' => {
                    let (class, after) = class(rest)?;
                    tokens.push(class);
                    rest = after;
                }
                '\\' => {
                    let escaped = rest.chars().next()?;
                    rest = &rest[escaped.len_utf8()..];
                    tokens.push(Token::Exactly(escaped));
                }
                c => tokens.push(Token::Exactly(c)),
            }
        }
        let exact = |token: &Token| if let Token::Exactly(c) = token { Some(*c) } else { None };
        let prefix: String = tokens.iter().map_while(exact).collect();
        let prefix_tokens = tokens.iter().map_while(exact).count();
        let literal = prefix_tokens == tokens.len();
        let mut suffix: Vec<char> = tokens[prefix_tokens..].iter().rev().map_while(exact).collect();
        suffix.reverse();
        let suffix = suffix.into_iter().collect();
        Some(Self { text: text.to_owned(), tokens, prefix, prefix_tokens, suffix, literal })
    }

    /// Whether the pattern is that path: `/` between components, none at the ends.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        if self.literal {
            return path == self.prefix;
        }
        let Some(rest) = path.strip_prefix(&self.prefix) else { return false };
        rest.ends_with(&self.suffix) && self.reads(rest, false).0
    }

    /// Whether some path below the directory can match.
    #[must_use]
    pub fn may_match_below(&self, directory: &str) -> bool {
        if directory.is_empty() || directory == "." {
            return true;
        }
        let shared = self.prefix.len().min(directory.len());
        if self.prefix.as_bytes()[..shared] != directory.as_bytes()[..shared] {
            return false;
        }
        if self.prefix.len() > directory.len() {
            return self.prefix.as_bytes()[directory.len()] == b'/';
        }
        self.reads(&directory[self.prefix.len()..], true).1
    }

    /// Whether a match can end where `rest`, which follows the prefix, has been read, and whether one can go on there;
    /// `below` reads one more `/`.
    fn reads(&self, rest: &str, below: bool) -> (bool, bool) {
        // Nearly every pattern is short enough for its places to be bits of a number.
        if self.tokens.len() < u128::BITS as usize {
            self.follow::<u128>(rest, below)
        } else {
            self.follow::<BTreeSet<usize>>(rest, below)
        }
    }

    fn follow<P: Places>(&self, rest: &str, below: bool) -> (bool, bool) {
        let (mut here, mut next) = (P::default(), P::default());
        self.reach(&mut here, self.prefix_tokens);
        for c in rest.chars().chain(below.then_some('/')) {
            while let Some(place) = here.take() {
                let Some(token) = self.tokens.get(place) else { continue };
                match token {
                    Token::Exactly(wanted) if *wanted == c => self.reach(&mut next, place + 1),
                    Token::One if c != '/' => self.reach(&mut next, place + 1),
                    Token::Class { negated, ranges } if c != '/' && holds(ranges, c) != *negated => {
                        self.reach(&mut next, place + 1);
                    }
                    Token::Many if c != '/' => self.reach(&mut next, place),
                    Token::Rest => self.reach(&mut next, place),
                    Token::Components | Token::InComponents => {
                        let inside = place + usize::from(*token == Token::Components);
                        self.reach(&mut next, inside);
                        if c == '/' {
                            self.reach(&mut next, inside + 1);
                        }
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut here, &mut next);
        }
        let (mut ends, mut goes_on) = (false, false);
        while let Some(place) = here.take() {
            ends |= place == self.tokens.len();
            goes_on |= place < self.tokens.len();
        }
        (ends, goes_on)
    }

    /// Adds a place, and those that are reached from it without reading anything.
    fn reach(&self, places: &mut impl Places, mut place: usize) {
        while places.add(place) {
            place += match self.tokens.get(place) {
                Some(Token::Many | Token::Rest) => 1,
                Some(Token::Components) => 2,
                _ => return,
            };
        }
    }
}

/// A set of places in a pattern.
trait Places: Default {
    /// Adds a place; false if it is in the set already.
    fn add(&mut self, place: usize) -> bool;
    /// Takes a place out.
    fn take(&mut self) -> Option<usize>;
}

impl Places for u128 {
    fn add(&mut self, place: usize) -> bool {
        let before = *self;
        *self |= 1 << place;
        *self != before
    }

    fn take(&mut self) -> Option<usize> {
        let place = (*self != 0).then(|| self.trailing_zeros() as usize);
        *self &= self.wrapping_sub(1);
        place
    }
}

impl Places for BTreeSet<usize> {
    fn add(&mut self, place: usize) -> bool {
        self.insert(place)
    }

    fn take(&mut self) -> Option<usize> {
        self.pop_first()
    }
}

fn holds(ranges: &[(char, char)], c: char) -> bool {
    ranges.iter().any(|(low, high)| (*low..=*high).contains(&c))
}

/// A class's ranges, and what follows its `]`.
fn class(text: &str) -> Option<(Token, &str)> {
    let (negated, mut rest) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    while !rest.starts_with(']') || ranges.is_empty() {
        let (low, after) = class_character(rest)?;
        rest = after;
        let mut high = low;
        if let Some(after) = rest.strip_prefix('-') {
            (high, rest) = class_character(after)?;
        }
        if high < low {
            return None;
        }
        ranges.push((low, high));
    }
    Some((Token::Class { negated, ranges }, &rest[1..]))
}

fn class_character(text: &str) -> Option<(char, &str)> {
    let text = match text.chars().next()? {
        '-' | ']' => return None,
        '\\' => &text[1..],
        _ => text,
    };
    let c = text.chars().next()?;
    Some((c, &text[c.len_utf8()..]))
}

fn wild(text: &str) -> bool {
    text.contains(['*', '?', '[', ']', '\\'])
}

/// Whether a source of `COPY` or `ADD` is a wildcard: `*`, `?` or `[` that is not escaped.
#[must_use]
pub fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// The leading components without wildcards, and the others: where to begin to look for matches of the latter.
#[must_use]
pub fn split_wildcards(path: &str) -> (&str, &str) {
    let mut at = 0;
    for component in path.split_inclusive('/') {
        if has_wildcards(component) {
            break;
        }
        at += component.len();
    }
    (path[..at].trim_end_matches('/'), &path[at..])
}

/// A path as Go's `path.Clean` gives it: no empty components, no `.`, no `..` but leading ones; `.` for nothing.
#[must_use]
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn stars_stay_in_a_component_and_double_stars_do_not() {
        for (pattern, path, expected) in [
            ("*", "a", true),
            ("*", "a/b", false),
            ("a/*.go", "a/x.go", true),
            ("a/*.go", "a/b/x.go", false),
            ("**", "a/b", true),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("**/x", "a/bx", false),
            ("**x", "a/bx", true),
            ("**x*", "a/bxy", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("a**", "abc/d", true),
            ("**/*.o", "a/b/c.o", true),
            ("**/a/**/b/*", "x/a/b/b/c", true),
            ("[a-c]?", "bz", true),
            ("[^a-c]?", "bz", false),
            ("[^a]", "/", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a+(b)", "a+(b)", true),
            ("a.b", "axb", false),
            ("./a//b/", "a/b", true),
            ("a/../b", "b", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn wildcards_of_copy_have_no_double_star() {
        let wildcard = |pattern: &str, path: &str| Pattern::wildcard(pattern).unwrap().matches(path);
        assert!(wildcard("a/**", "a/b"));
        assert!(!wildcard("a/**", "a/b/c"));
        assert!(!wildcard("**/x", "x"));
    }

    #[test]
    fn bad_patterns_are_refused() {
        for pattern in ["[", "[]", "[a", "[a-", "a\\", "[-]", "[a-]", "[z-a]", "[^]", &"x".repeat(5000)] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn long_patterns_match_like_short_ones() {
        let long = "a".repeat(200);
        assert!(matches(&format!("**/{long}?*"), &format!("x/y/{long}bc")));
        assert!(!matches(&format!("**/{long}?*"), &format!("x/y/{long}")));
        assert!(Pattern::parse(&format!("x/*/{long}")).unwrap().may_match_below("x/y"));
        assert!(!Pattern::parse(&format!("x/*/{long}")).unwrap().may_match_below("x/y/z"));
    }

    #[test]
    fn sources_are_cut_where_their_wildcards_begin() {
        assert_eq!(split_wildcards("a/b/*.c/d"), ("a/b", "*.c/d"));
        assert_eq!(split_wildcards("*"), ("", "*"));
        assert_eq!(split_wildcards("a\\*b/c"), ("a\\*b/c", ""));
    }

    /// Every way to match, tried one by one.
    fn slow(pattern: &str, path: &str) -> bool {
        let Some(c) = pattern.chars().next() else { return path.is_empty() };
        let cuts = |across: bool| (0..=path.len()).filter(move |at| across || !path[..*at].contains('/'));
        if let Some(rest) = pattern.strip_prefix("**") {
            let rest = rest.strip_prefix('/').unwrap_or(rest);
            return rest.is_empty()
                || slow(rest, path)
                || cuts(true).any(|at| path[..at].ends_with('/') && slow(rest, &path[at..]));
        }
        match c {
            '*' => cuts(false).any(|at| slow(&pattern[1..], &path[at..])),
            '?' => path.chars().next().is_some_and(|c| c != '/') && slow(&pattern[1..], &path[1..]),
            c => path.starts_with(c) && slow(&pattern[1..], &path[1..]),
        }
    }

    proptest! {
        #[test]
        fn the_engine_agrees_with_trying_everything(pattern in "[ab*?/]{1,8}", path in "[ab]{1,3}(/[ab]{1,3}){0,3}") {
            let cleaned = clean(&pattern);
            let suffix = cleaned.strip_prefix("**").is_some_and(|rest| !rest.starts_with('/') && !wild(rest));
            prop_assume!(!suffix);
            prop_assert_eq!(matches(&pattern, &path), slow(&cleaned, &path));
        }

        #[test]
        fn what_cannot_match_below_does_not(pattern in "[ab*?/]{1,8}", path in "[ab]{1,3}(/[ab]{1,3}){0,3}") {
            let parsed = Pattern::parse(&pattern).unwrap();
            if parsed.matches(&path) {
                for (at, _) in path.match_indices('/') {
                    prop_assert!(parsed.may_match_below(&path[..at]), "{} below {}", pattern, &path[..at]);
                }
            }
        }

        #[test]
        fn any_pattern_is_compiled_or_refused(pattern in "\\PC{0,30}", path in "\\PC{0,30}") {
            if let Ok(parsed) = Pattern::parse(&pattern) {
                let _ = parsed.matches(&path);
                let _ = parsed.may_match_below(&path);
            }
        }
    }
}
