//! HTTP requests from a static binary.
//!
//! `ureq` speaks the protocol; what it would leave to the C library or to one fixed policy is here: [`dns`] looks names
//! up in the machine's files and at its servers, [`proxy`] follows the usual environment variables, and each [`Tls`]
//! setting has its own connections. [`pipe`] speaks to a server behind a program's streams instead. Redirects are never followed here: whoever knows what may be sent to whom does
//! that. No body is ever held in memory whole, and a server that falls silent for a minute has failed.

mod absolute;
mod client;
pub mod dns;
pub mod pipe;
pub mod proxy;
mod tls;

pub use client::{Body, Client, Error, ErrorKind, Response, Tls};
