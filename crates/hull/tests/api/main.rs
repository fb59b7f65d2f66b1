//! The Engine API: requests as Docker's clients make them, against a server over a home of its own.

mod build;
mod containers;
mod docker;
mod endpoints;
mod entitlements;
mod images;
mod killed;
mod refusals;
mod schema;
mod server;
mod streams;
