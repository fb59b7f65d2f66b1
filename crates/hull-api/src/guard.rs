//! Who may what: sockets that only read, that allow only some requests, or that see only what has certain labels.
//!
//! What is not allowed is refused before anything is looked at. A rule that cannot be understood is an error when the
//! server starts, never a request that passes.

use crate::refusal::Refusal;
use crate::{Options, Request};

/// `METHOD PATTERN`: `*` stands for any method, and in the pattern for any part of a path, of any length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    method: String,
    pattern: String,
}

impl Rule {
    /// `GET *`, `POST /containers/*/start`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?}: expected METHOD PATTERN, such as 'GET *' or 'POST /containers/*/start'");
        let (method, pattern) = text.trim().split_once(' ').ok_or_else(expected)?;
        let (method, pattern) = (method.to_ascii_uppercase(), pattern.trim());
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "*"].contains(&method.as_str());
        if !known || !(pattern == "*" || pattern.starts_with('/')) {
            return Err(expected());
        }
        Ok(Self { method, pattern: pattern.to_owned() })
    }

    fn allows(&self, method: &str, path: &str) -> bool {
        (self.method == "*" || self.method == method) && fits(self.pattern.as_bytes(), path.as_bytes())
    }
}

/// Whether a pattern with `*` is a whole text; linear in both but for the last star.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut star, mut mark, mut in_pattern) = (0, None, 0, 0);
    while at < text.len() {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                star = Some(in_pattern);
                mark = at;
                in_pattern += 1;
            }
            Some(byte) if *byte == text[at] => {
                in_pattern += 1;
                at += 1;
            }
            _ => match star {
                Some(star) => {
                    in_pattern = star + 1;
                    mark += 1;
                    at = mark;
                }
                None => return false,
            },
        }
    }
    pattern[in_pattern..].iter().all(|byte| *byte == b'*')
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_fail_closed() {
        for wrong in ["", "GET", "get", "FETCH /x", "GET x", " *"] {
            assert!(Rule::parse(wrong).is_err(), "{wrong}");
        }
        let rule = Rule::parse("post /containers/*/start").unwrap();
        assert!(rule.allows("POST", "/containers/a/start"));
        assert!(!rule.allows("POST", "/containers/a/stop") && !rule.allows("GET", "/containers/a/start"));
        assert!(Rule::parse("GET *").unwrap().allows("GET", "/anything/at/all"));
        assert!(Rule::parse("* /a*b*c").unwrap().allows("PUT", "/axxbyyc") && !fits(b"/a*b", b"/axbc"));
    }
}
