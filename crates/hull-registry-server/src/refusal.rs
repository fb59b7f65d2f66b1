//! What the server refuses, with the codes of the distribution specification.

use std::io;

use hyper::StatusCode;
use serde_json::json;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// More headers.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn missing(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    /// The server's own failure. The client learns what failed; paths stay in the server's log.
    pub(crate) fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        crate::log(format_args!("{what}: {error}"));
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", format!("{what} failed: see the registry's log"))
    }

    /// A failure of the storage: a full disk has a status of its own.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        let mut refusal = Self::internal(what, error);
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            refusal.status = StatusCode::INSUFFICIENT_STORAGE;
            refusal.message = "the registry's disk is full".to_owned();
        }
        refusal
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The body that the specification gives errors.
    pub(crate) fn body(&self) -> Vec<u8> {
        json!({"errors": [{"code": self.code, "message": self.message, "detail": null}]}).to_string().into_bytes()
    }
}
