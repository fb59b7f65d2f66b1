//! `hull build`: flags and outputs, `RUN` steps, and where files come from.

mod flags;
mod sources;
mod steps;
