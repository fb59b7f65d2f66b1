//! Go's `text/template`, as `--format` of Docker's command line uses it.
//!
//! A [`Template`] is parsed once and executed on a [`Value`]: data that prints, compares and is walked as Go's reflection
//! would do it. Values come from anything that serialises ([`Value::of`] keeps structs apart from maps, as Go does: a
//! missing field of a struct is an error, a missing key of a map is `<no value>`), or are an [`Object`], whose fields
//! are computed when they are asked for.
//!
//! The language is that of Go 1.24 with Docker's functions (`json`, `join`, `split`, `lower`, `upper`, `title`, `pad`,
//! `truncate`); the messages are Go's too, since people search for them. What differs: complex numbers do not exist,
//! integers have no size, and nothing can be called but functions and the methods of objects.
//!
//! A template is the user's, the data may be an image author's: both are only read. Nesting, steps and output are
//! bounded, and nothing panics.

mod ast;
mod exec;
mod functions;
mod lex;
mod parse;
mod printf;
mod serialize;
mod strings;
mod value;

use std::collections::BTreeMap;

pub use functions::FunctionSet;
pub use value::{Map, Object, Struct, Value};

/// Longest template that is read.
pub const MAX_TEMPLATE: usize = 1 << 20;
/// Most bytes that one execution writes.
pub const MAX_OUTPUT: usize = 64 << 20;
/// Most nodes that one execution visits.
pub const MAX_STEPS: u64 = 50_000_000;
/// Deepest nesting of a template's text, and of templates that call templates.
pub const MAX_DEPTH: usize = 100;

/// Why a template could not be parsed or executed, in Go's words: `template: :1:2: executing "" at <.X>: ...`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// What a key that a map does not have gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingKey {
    /// `<no value>`.
    #[default]
    NoValue,
    /// An error, as `inspect` wants it for data it has no type of.
    Error,
}

/// A parsed template and those it defines.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    trees: BTreeMap<String, Vec<ast::Node>>,
}

impl Template {
    /// Parses `text`; the template's own name is empty, as Docker's are.
    ///
    /// # Errors
    /// Go's message of what is wrong with it and on which line.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_TEMPLATE {
            return Err(Error(format!("template: the text is longer than {MAX_TEMPLATE} bytes")));
        }
        let trees = parse::parse(text).map_err(Error)?;
        Ok(Self { text: text.to_owned(), trees })
    }

    /// Executes the template on `data`.
    ///
    /// # Errors
    /// Go's message with the place in the template.
    pub fn execute(&self, data: &Value, missing: MissingKey, functions: FunctionSet) -> Result<String, Error> {
        exec::execute(self, data, missing, functions).map_err(Error)
    }

    /// Executes the template with Docker's functions; missing keys are `<no value>`.
    ///
    /// # Errors
    /// As [`Template::execute`].
    pub fn render(&self, data: &Value) -> Result<String, Error> {
        self.execute(data, MissingKey::NoValue, FunctionSet::Values)
    }
}

#[cfg(test)]
mod tests;
