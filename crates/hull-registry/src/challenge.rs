//! What a server wants before it answers: `WWW-Authenticate` (RFC 9110 section 11.6.1) and its answer's tokens.

use serde::Deserialize;

/// A header longer than this is not read.
const MAX_HEADER: usize = 8 << 10;

/// One way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password.
    Basic,
    /// A token that another server gives.
    Bearer(Bearer),
}

/// Where a token is had, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bearer {
    /// Address of the token server.
    pub realm: String,
    /// The registry's name for itself.
    pub service: Option<String>,
    /// What the token must allow, such as `repository:library/debian:pull`; several are separated by spaces.
    pub scope: Option<String>,
    /// Why a token that was sent is not good enough, such as `insufficient_scope`.
    pub error: Option<String>,
}

/// The challenges of one header. What cannot be read is left out: a server that offers only that is refused later.
#[must_use]
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let Some(mut rest) = header.get(..header.len().min(MAX_HEADER)) else { return found };
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',']).unwrap_or(rest.len());
        let (scheme, after) = rest.split_at(end);
        if scheme.is_empty() {
            return found;
        }
        let (parameters, after) = parameters(after);
        rest = after;
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") {
            let mut bearer = Bearer::default();
            for (name, value) in parameters {
                match name.to_ascii_lowercase().as_str() {
                    "realm" => bearer.realm = value,
                    "service" => bearer.service = Some(value),
                    "scope" => bearer.scope = Some(value),
                    "error" => bearer.error = Some(value),
                    _ => {}
                }
            }
            if !bearer.realm.is_empty() {
                found.push(Challenge::Bearer(bearer));
            }
        }
    }
}

/// `name=value` pairs up to the next scheme, and what follows them.
fn parameters(mut rest: &str) -> (Vec<(&str, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let end = start.find(|character: char| !is_token(character)).unwrap_or(start.len());
        let (name, after) = start.split_at(end);
        let Some(value) = after.trim_start().strip_prefix('=').map(str::trim_start) else { return (found, rest) };
        if name.is_empty() {
            return (found, "");
        }
        let (value, after) = if let Some(quoted) = value.strip_prefix('"') {
            let Some((text, after)) = unquote(quoted) else { return (found, "") };
            (text, after)
        } else {
            let end = value.find([' ', '\t', ',']).unwrap_or(value.len());
            (value[..end].to_owned(), &value[end..])
        };
        found.push((name, value));
        rest = after;
    }
}

fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

/// The text up to the closing quote, with backslashes resolved, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// What a token server answers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TokenAnswer {
    token: String,
    access_token: String,
    expires_in: Option<u64>,
    /// A token that new tokens can be had for.
    pub refresh_token: Option<String>,
}

impl TokenAnswer {
    /// The token; servers use one of two names.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        // A header is made of it: what could end the line is no token.
        [&self.token, &self.access_token]
            .into_iter()
            .find(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .map(String::as_str)
    }

    /// Seconds that the token is good for. Servers that do not say mean a minute; less than that is a mistake.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.expires_in.unwrap_or(60).max(60)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_registries_send() {
        let header =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer(bearer)) = parse(header).pop() else { panic!("no bearer") };
        assert_eq!(bearer.realm, "https://auth.example/token");
        assert_eq!(bearer.service.as_deref(), Some("registry.example"));
        assert_eq!(bearer.scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(parse(r#"Basic realm="Registry Realm""#), [Challenge::Basic]);
        assert_eq!(parse("basic"), [Challenge::Basic]);
    }

    #[test]
    fn several_challenges_in_one_header() {
        let found = parse(r#"Negotiate, Basic realm="a, b", Bearer realm=http://x,error="insufficient_scope""#);
        assert_eq!(found.len(), 2, "{found:?}");
        let Challenge::Bearer(bearer) = &found[1] else { panic!("{found:?}") };
        assert_eq!((bearer.realm.as_str(), bearer.error.as_deref()), ("http://x", Some("insufficient_scope")));
    }

    #[test]
    fn a_token_is_one_word() {
        let answer = |text: &str| serde_json::from_str::<TokenAnswer>(text).expect("valid");
        assert_eq!(answer(r#"{"access_token":"t"}"#).token(), Some("t"));
        assert_eq!(answer(r#"{"token":"a\r\nX-Evil: 1"}"#).token(), None);
        assert_eq!(answer(r#"{"token":"t","expires_in":1}"#).seconds(), 60);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_header_panics(header in ".{0,200}") {
            let _ = parse(&header);
        }

        #[test]
        fn quoted_values_come_back(value in "[ -~]{0,60}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let found = parse(&format!("Bearer realm=\"x\",service=\"{quoted}\""));
            let expected = Bearer { realm: "x".to_owned(), service: Some(value), ..Bearer::default() };
            prop_assert_eq!(found, vec![Challenge::Bearer(expected)]);
        }
    }
}
