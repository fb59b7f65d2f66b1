//! `hull build`: flags and outputs, `RUN` steps, caches that are shared, and where files come from.

mod caches;
mod flags;
mod sources;
mod steps;
