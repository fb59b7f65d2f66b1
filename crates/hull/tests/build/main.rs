//! `hull build`: flags and outputs, `RUN` steps, caches that are shared, what is recorded, where files come from, and the
//! examples.

mod attest;
mod caches;
mod emulation;
mod examples;
mod flags;
mod hostile;
mod machine;
mod platforms;
mod record;
mod sources;
mod steps;
