//! Who may what: sockets that only read, that allow only some requests, or that see only what has certain labels.
//!
//! What is not allowed is refused before anything is looked at.

use crate::http::Request;
use crate::options::Options;
use crate::refusal::Refusal;

/// Reads by their method, and writes by what they do.
const WRITES: [&str; 2] = ["/attach/ws", "/session"];

/// Refuses what this socket does not allow.
pub(crate) fn check(options: &Options, request: &Request) -> Result<(), Refusal> {
    let (method, path) = (request.method.as_str(), request.path.as_str());
    // Asking whether somebody is there is always allowed.
    if path == "/_ping" || path == "/version" {
        return Ok(());
    }
    let reads = matches!(method, "GET" | "HEAD") && !WRITES.iter().any(|end| path.ends_with(end));
    if options.read_only && !reads {
        return Err(Refusal::forbidden("this socket is read-only"));
    }
    if !options.allow.is_empty() && !options.allow.iter().any(|rule| rule.allows(method, path)) {
        return Err(Refusal::forbidden(format!(
            "this socket does not allow {method} {}",
            hull_oci::spec::one_line(path)
        )));
    }
    Ok(())
}
