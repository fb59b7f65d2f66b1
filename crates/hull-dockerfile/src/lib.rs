//! The Dockerfile language, up to frontend version 1.26: text to a typed tree, and what can be said about it without
//! touching a file, an image or a network.
//!
//! * [`ast`]: what a parsed Dockerfile is; [`parse`] and [`parse_onbuild`] make it.
//! * [`expand`]: variables and quotes in words.
//! * [`stages`]: how stages depend on each other.
//! * [`ignore`]: `.dockerignore`; [`pattern`]: its patterns, and those of `COPY`; [`mode`]: `--chmod`; [`expose`]: ports.
//! * [`lint`]: the rules of `--check`, and what a file offers.
//!
//! Messages are `BuildKit`'s, as are the lines they speak of. Everything here is pure. Input is hostile: sizes are
//! bounded, nothing panics, every error has a line.

pub mod ast;
mod directive;
mod error;
pub mod expand;
pub mod expose;
mod heredoc;
pub mod ignore;
mod lex;
pub mod lint;
pub mod mode;
mod parse;
pub mod pattern;
mod platform;
mod signal;
pub mod stages;
mod words;

pub use directive::{Syntax, detect_syntax};
pub use error::{Error, Excerpt, Warning};
pub use lex::{MAX_LINE, MAX_SOURCE};
pub use parse::{parse, parse_onbuild};
