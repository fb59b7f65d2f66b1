//! `hull build`: flags and outputs, `RUN` steps, caches that are shared, what is recorded, and where files come from.

mod caches;
mod flags;
mod record;
mod sources;
mod steps;
