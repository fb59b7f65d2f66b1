//! `.dockerignore`: which files of a context are not part of it.
//!
//! Patterns are taken in order: one that matches a path, or decided about a directory above it, excludes it, and `!` lets
//! it in again. A pattern is only looked at if it would change something, so one that matches a directory which is
//! excluded already does not count for what another lets in below it: `a`, `!a/b/c`, `a/b` leaves `a/b/c` in. That is
//! how `BuildKit` has it, and files are the same only if this is. An excluded directory needs to be entered only if a `!`
//! pattern can match below it, which [`Ignore::prunes`] says.

use crate::pattern::{BadPattern, MAX_PATTERN, Pattern, clean};

/// Most bytes that a file of patterns may have.
pub const MAX_FILE: usize = 1 << 20;

/// What is wrong with a file of patterns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is too long to be one.
    #[error("the file is longer than {MAX_FILE} bytes")]
    TooLong,
    /// A line does not fit a pattern.
    #[error("line {line}: a pattern is longer than {MAX_PATTERN} bytes")]
    LongPattern {
        /// The line.
        line: usize,
    },
    /// `!` with nothing behind it.
    #[error("line {line}: illegal exclusion pattern: \"!\"")]
    Nothing {
        /// The line.
        line: usize,
    },
    /// A pattern that is none.
    #[error("line {line}: {source}")]
    Pattern {
        /// The line.
        line: usize,
        /// What is wrong with it.
        source: BadPattern,
    },
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    /// `!`: lets in what it matches.
    lets_in: bool,
}

/// Patterns in order.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

/// What the patterns say of a directory; what they say of its entries begins with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Patterns that had a say, by index.
    decided: u128,
    /// Beyond as many patterns as there are bits: one more than the index of the one that decided.
    by: usize,
    /// The path is excluded.
    pub excluded: bool,
}

/// Patterns that a [`Verdict`] keeps apart. Of more than these simply the last one that matches decides.
const APART: usize = u128::BITS as usize;

impl Ignore {
    /// Reads a file: a pattern each line, comments and empty lines aside, relative to the context's root.
    ///
    /// # Errors
    /// The line of the first pattern that is none.
    pub fn parse(file: &[u8]) -> Result<Self, Error> {
        if file.len() > MAX_FILE {
            return Err(Error::TooLong);
        }
        let text = String::from_utf8_lossy(file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file));
        let mut ignore = Self::default();
        for (index, line) in text.lines().enumerate() {
            if !line.starts_with('#') {
                ignore.add(line, index + 1, true)?;
            }
        }
        Ok(ignore)
    }

    /// Takes patterns as they come, `--exclude`'s for instance. One that begins with `/` matches nothing.
    ///
    /// # Errors
    /// As for [`Ignore::parse`]; the line is the pattern's number.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let mut ignore = Self::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            ignore.add(pattern, index + 1, false)?;
        }
        Ok(ignore)
    }

    fn add(&mut self, text: &str, line: usize, rooted: bool) -> Result<(), Error> {
        let text = text.trim();
        let (lets_in, text) = match text.strip_prefix('!') {
            Some(text) => (true, text.trim()),
            None => (false, text),
        };
        if text.is_empty() {
            return if lets_in { Err(Error::Nothing { line }) } else { Ok(()) };
        }
        if text.len() > MAX_PATTERN {
            return Err(Error::LongPattern { line });
        }
        let cleaned = clean(text);
        let relative = cleaned.strip_prefix('/').filter(|rest| rooted && !rest.is_empty()).unwrap_or(&cleaned);
        let pattern = Pattern::parse(relative).map_err(|source| Error::Pattern { line, source })?;
        self.rules.push(Rule { pattern, lets_in });
        Ok(())
    }

    /// There are no patterns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Some pattern lets in what others exclude.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.lets_in)
    }

    /// The patterns as they are matched, `!` included.
    pub fn patterns(&self) -> impl Iterator<Item = String> {
        self.rules.iter().map(|rule| format!("{}{}", if rule.lets_in { "!" } else { "" }, rule.pattern.as_str()))
    }

    /// What the patterns say of `path`, given what they say of the directory it is in; the context's root has the default
    /// verdict. Paths have no leading `/`.
    #[must_use]
    pub fn verdict(&self, above: Verdict, path: &str) -> Verdict {
        if self.rules.len() > APART {
            let found = self.rules[above.by..].iter().rposition(|rule| rule.pattern.matches(path));
            return match found.map(|index| above.by + index) {
                Some(index) => Verdict { decided: 0, by: index + 1, excluded: !self.rules[index].lets_in },
                None => above,
            };
        }
        let mut verdict = Verdict { excluded: false, ..above };
        for (index, rule) in self.rules.iter().enumerate() {
            let bit = 1 << index;
            if above.decided & bit != 0 || rule.lets_in == verdict.excluded && rule.pattern.matches(path) {
                verdict.decided |= bit;
                verdict.excluded = !rule.lets_in;
            }
        }
        verdict
    }

    /// Whether a path is excluded, whatever is known of the directories above it.
    #[must_use]
    pub fn excludes(&self, path: &str) -> bool {
        let mut verdict = Verdict::default();
        for (at, _) in path.match_indices('/') {
            verdict = self.verdict(verdict, &path[..at]);
        }
        self.verdict(verdict, path).excluded
    }

    /// Whether nothing below an excluded directory can be let in, so that it need not be read.
    #[must_use]
    pub fn prunes(&self, verdict: Verdict, directory: &str) -> bool {
        // What excludes the directory excludes what an earlier pattern would let in below it.
        let excluding = (0..self.rules.len().min(APART)).rev();
        let mut excluding = excluding.filter(|index| verdict.decided >> index & 1 != 0 && !self.rules[*index].lets_in);
        let later = if self.rules.len() > APART { verdict.by } else { excluding.next().map_or(0, |index| index + 1) };
        let lets_in = |rule: &Rule| rule.lets_in && rule.pattern.may_match_below(directory);
        verdict.excluded && !self.rules[later..].iter().any(lets_in)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_match_wins_and_directories_pass_theirs_on() {
        let ignore =
            Ignore::parse(b"\xef\xbb\xbf# no\n\n  node_modules \n/dist/\n*.log\n!keep.log\nsub\n!sub/a/**\nsub/a/x\n")
                .unwrap();
        for (path, excluded) in [
            ("node_modules", true),
            ("node_modules/a/b", true),
            ("src/node_modules", false),
            ("dist/x", true),
            ("a.log", true),
            ("keep.log", false),
            ("x/a.log", false),
            ("sub", true),
            ("sub/b", true),
            ("sub/a", true),
            ("sub/a/b", false),
            ("sub/a/x", true),
            ("# no", false),
        ] {
            assert_eq!(ignore.excludes(path), excluded, "{path}");
        }
        let many: String = (0..200).map(|i| format!("x{i}\n")).collect();
        let many = Ignore::parse(format!("{many}sub\n!sub/a\nsub/a/x\n").as_bytes()).unwrap();
        assert!(
            many.excludes("x7/y") && many.excludes("sub/b") && !many.excludes("sub/a/b") && many.excludes("sub/a/x")
        );
        let verdict = |path: &str| ignore.verdict(Verdict::default(), path);
        assert!(ignore.prunes(verdict("node_modules"), "node_modules"));
        assert!(!ignore.prunes(verdict("sub"), "sub"));
        assert!(!ignore.prunes(verdict("src"), "src"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_line() {
        let refused = |text: &str| Ignore::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(refused("a\n[\n"), "line 2: syntax error in pattern \"[\"");
        assert_eq!(refused("!\n"), "line 1: illegal exclusion pattern: \"!\"");
        assert_eq!(refused(&"x".repeat(5000)), "line 1: a pattern is longer than 4096 bytes");
    }

    proptest! {
        /// Pruning is only a way to be quicker.
        #[test]
        fn nothing_that_is_let_in_is_pruned(
            patterns in proptest::collection::vec("!?[ab*?/]{1,5}", 0..6),
            path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
        ) {
            let Ok(ignore) = Ignore::new(patterns.iter().map(String::as_str)) else { return Ok(()) };
            let mut verdict = Verdict::default();
            let mut pruned = false;
            for (at, _) in path.match_indices('/') {
                verdict = ignore.verdict(verdict, &path[..at]);
                pruned |= ignore.prunes(verdict, &path[..at]);
            }
            let last = ignore.verdict(verdict, &path);
            prop_assert_eq!(last.excluded, ignore.excludes(&path));
            prop_assert!(!pruned || last.excluded);
        }
    }
}
