//! Names of images: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, in Docker's grammar and with its defaults.
//!
//! A [`Reference`] is always whole: `debian` is `docker.io/library/debian`. [`Reference::familiar`] gives back what a
//! user would write. Docker's error texts are kept where scripts read them.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";

/// The longest repository name, without tag and digest.
const MAX_NAME: usize = 255;

/// A parsed name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Text that names no image. The messages are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not fit the grammar.
    #[error("invalid reference format")]
    Format,
    /// Upper-case letters in the repository name.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// 64 hexadecimal digits look like an ID.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    HexName(String),
    /// More than 255 characters.
    #[error("repository name must not be more than {MAX_NAME} characters")]
    TooLong,
    /// What follows the `@` is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Host and port of the registry, such as `docker.io`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry, such as `library/debian`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `HOST/PATH` without tag and digest.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as a user writes it: without `docker.io/` and `library/`.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        let short = self.path.strip_prefix(OFFICIAL).filter(|rest| !rest.contains('/'));
        short.unwrap_or(&self.path).to_owned()
    }

    /// The whole name as a user writes it.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_repository())
    }

    /// With the tag `latest` where neither tag nor digest is given.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The same repository under another tag, without digest.
    ///
    /// # Errors
    /// [`ReferenceError::Format`].
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository at a digest, without tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

/// The whole name: what records and registries know it by.
impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.with_suffix(self.repository()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Err(ReferenceError::HexName(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (domain, remainder) = split_domain(rest);
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (remainder, None),
        };
        let (domain, domain_given) = match domain {
            Some(LEGACY_DOMAIN) => (DEFAULT_DOMAIN, true),
            Some(domain) => (domain, true),
            None => (DEFAULT_DOMAIN, false),
        };
        let path =
            if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("{OFFICIAL}{path}") } else { path.to_owned() };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let shown = if domain_given { rest } else { &path };
            return Err(ReferenceError::UpperCase(shown.split(':').next().unwrap_or_default().to_owned()));
        }
        if !is_domain(domain) || !path.split('/').all(is_component) || !tag.is_none_or(is_tag) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
    }
}

/// The first part is a host when it looks like one; a lone `localhost` does.
fn split_domain(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

fn is_domain(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else { return false };
        let address_ok = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        return address_ok && (after.is_empty() || after.strip_prefix(':').is_some_and(is_port));
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lower-case words joined by one dot, one or two underscores, or any number of hyphens.
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |byte: Option<u8>| byte.is_some_and(word);
    if !ends(text.bytes().next()) || !ends(text.bytes().next_back()) {
        return false;
    }
    text.split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn whole(text: &str) -> String {
        text.parse::<Reference>().unwrap_or_else(|error| panic!("{text}: {error}")).or_latest().to_string()
    }

    #[test]
    fn defaults_are_dockers() {
        assert_eq!(whole("debian"), "docker.io/library/debian:latest");
        assert_eq!(whole("user/app:1.0"), "docker.io/user/app:1.0");
        assert_eq!(whole("localhost/app"), "localhost/app:latest");
        assert_eq!(whole("localhost:5000/a/b__c--d:T_x.y-z"), "localhost:5000/a/b__c--d:T_x.y-z");
        assert_eq!(whole("index.docker.io/debian"), "docker.io/library/debian:latest");
        assert_eq!(whole("[::1]:5000/a"), "[::1]:5000/a:latest");
        assert_eq!(whole("HOST/a"), "HOST/a:latest");
        let pinned = format!("quay.io/a/b:tag@sha256:{HEX}");
        assert_eq!(whole(&pinned), pinned);
    }

    #[test]
    fn the_familiar_name_is_what_was_written() {
        for text in ["debian", "debian:12", "user/app", "quay.io/a/b:c", &format!("debian@sha256:{HEX}")] {
            assert_eq!(text.parse::<Reference>().expect("valid").familiar(), text);
        }
    }

    #[test]
    fn what_fits_no_grammar_is_refused() {
        for bad in [
            "",
            ":tag",
            "a:",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:b c",
            "../x",
            "a@",
            "a b",
            "x.y:port/a",
            "a:.x",
            "docker.io/",
            "https://x/y",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        let upper = "library/Foo".parse::<Reference>().expect_err("upper case").to_string();
        assert_eq!(upper, "invalid reference format: repository name (library/Foo) must be lowercase");
        assert!(matches!(HEX.parse::<Reference>(), Err(ReferenceError::HexName(_))));
        assert_eq!("a/".repeat(200).parse::<Reference>(), Err(ReferenceError::Format));
        assert_eq!(format!("{}b", "a/".repeat(200)).parse::<Reference>(), Err(ReferenceError::TooLong));
    }
}
