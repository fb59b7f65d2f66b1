//! Rules about which requests a socket allows.
//!
//! A rule that cannot be understood is an error when the server starts, never a request that passes.

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

    /// Whether a request is one of these.
    pub(crate) fn allows(&self, method: &str, path: &str) -> bool {
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
