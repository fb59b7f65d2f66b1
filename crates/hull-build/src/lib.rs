//! Builds: from a Dockerfile and a context to an image, or whatever else was asked for.
//!
//! ```text
//! hull_dockerfile::ast ── plan ──> graph ── solve ──> layers ── output ──> image, archive, directory, registry
//!                          │                  │  └─ cache   results by content, in the store
//!                          │                  ├─ files      contexts, downloads, repositories; COPY and ADD to layers
//!                          │                  └─ run        a step is a container
//!                          └─ what is asked for: request
//! ```
//!
//! * [`graph`]: steps and what they need; everything is decided there except contents.

pub mod graph;
