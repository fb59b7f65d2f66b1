//! The Dockerfile language, up to frontend version 1.26: text to a typed tree, and what can be said about it without
//! touching a file, an image or a network.
//!
//! * [`ast`]: what a parsed Dockerfile is.
//!
//! Everything here is pure. Input is hostile: sizes are bounded, nothing panics, every error has a line.

pub mod ast;
