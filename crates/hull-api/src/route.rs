//! An endpoint, and the version of the API in which it is asked.

use std::sync::Arc;

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;

/// Answers a request, on a thread that may block.
pub(crate) type Handler = fn(&Arc<Api>, &mut Request) -> Result<Reply, Refusal>;

/// One endpoint. In the pattern `{name}` is one part of the path, and `{name...}` one or more.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub(crate) method: &'static str,
    pub(crate) pattern: &'static str,
    pub(crate) handler: Handler,
}

impl Route {
    /// `Route::new("GET", "/images/{name...}/json", inspect)`.
    pub(crate) const fn new(method: &'static str, pattern: &'static str, handler: Handler) -> Self {
        Self { method, pattern, handler }
    }
}
