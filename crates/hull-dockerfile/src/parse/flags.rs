//! Flags of instructions.

use crate::error::with_suggestion;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// A value.
    One,
    /// A value, as often as one likes.
    Many,
}

/// An instruction's flags with the values they were given.
#[derive(Debug)]
pub(super) struct Flags {
    known: &'static [(&'static str, Takes)],
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Checks `words` against the flags that the instruction has.
    pub(super) fn parse(words: &[String], known: &'static [(&'static str, Takes)]) -> Result<Self, String> {
        let mut flags = Self { known, given: Vec::new() };
        for word in words {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word.as_str(), None),
            };
            // A word in quotes need not begin with what made it a flag.
            let Some(name) = flag.strip_prefix("--") else {
                return Err(format!("arg should start with -- : {word}"));
            };
            let Some((name, takes)) = known.iter().find(|(known, _)| *known == name).copied() else {
                let message = format!("unknown flag: {flag}");
                return Err(with_suggestion(message, name, known.iter().map(|(name, _)| *name), true));
            };
            if takes != Takes::Many && flags.one(name).is_some() {
                return Err(format!("duplicate flag specified: {flag}"));
            }
            let missing = || Err(format!("missing a value on flag: {flag}"));
            let value = match (takes, value) {
                (Takes::Bool, None) => "true".to_owned(),
                (Takes::Bool, Some("")) | (_, None) => return missing(),
                (Takes::Bool, Some(value)) => match value.to_lowercase().as_str() {
                    word @ ("true" | "false") => word.to_owned(),
                    _ => return Err(format!("expecting boolean value for flag {flag}, not: {value}")),
                },
                (_, Some(value)) => value.to_owned(),
            };
            flags.given.push((name, value));
        }
        Ok(flags)
    }

    /// A flag's value.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        debug_assert!(self.known.iter().any(|(known, _)| *known == name), "no such flag: {name}");
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// A flag's value unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.one(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// All values of a flag.
    pub(super) fn many(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect()
    }

    /// A switch, if it was given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.one(name).map(|value| value == "true")
    }
}
