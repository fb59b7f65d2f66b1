//! Paths to endpoints: the grammar of names, tags and digests. Pure.

use hull_oci::Digest;

use crate::refusal::Refusal;

/// A repository's name is at most so long.
const MAX_NAME: usize = 255;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/NAME/tags/list`
    Tags(String),
    /// `/v2/NAME/manifests/REFERENCE`
    Manifest(String, Target),
    /// `/v2/NAME/blobs/DIGEST`
    Blob(String, Digest),
    /// `/v2/NAME/blobs/uploads/`
    Uploads(String),
    /// `/v2/NAME/blobs/uploads/ID`
    Upload(String, String),
    /// `/v2/NAME/referrers/DIGEST`
    Referrers(String, Digest),
}

/// How a manifest is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Tag(String),
    Digest(Digest),
}

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains(':') {
            return Ok(Self::Digest(digest(text)?));
        }
        tag(text)?;
        Ok(Self::Tag(text.to_owned()))
    }
}

/// A digest of an algorithm that Hull computes, of exactly its length.
pub(crate) fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error| Refusal::bad("DIGEST_INVALID", format!("{error}")))
}

/// Checks `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`: such a tag is safe as a file name.
pub(crate) fn tag(text: &str) -> Result<(), Refusal> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    if fits {
        Ok(())
    } else {
        Err(Refusal::bad("MANIFEST_INVALID", "invalid tag: expected [a-zA-Z0-9_][a-zA-Z0-9._-]*"))
    }
}

/// Checks a repository's name: such a name is safe as a relative path, and no part of it begins with `_` or `.`.
pub(crate) fn name(text: &str) -> Result<(), Refusal> {
    if !text.is_empty() && text.len() <= MAX_NAME && text.split('/').all(is_component) {
        return Ok(());
    }
    Err(Refusal::bad("NAME_INVALID", "invalid repository name"))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let mut separator = String::new();
    let mut begun = false;
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => {
                let joins = separator.is_empty()
                    || matches!(separator.as_str(), "." | "_" | "__")
                    || separator.bytes().all(|byte| byte == b'-');
                if !joins || (!begun && !separator.is_empty()) {
                    return false;
                }
                separator.clear();
                begun = true;
            }
            b'.' | b'_' | b'-' => separator.push(char::from(byte)),
            _ => return false,
        }
    }
    begun && separator.is_empty()
}

impl Route {
    /// The endpoint of a path; names and digests are checked.
    pub(crate) fn parse(path: &str) -> Result<Self, Refusal> {
        let unknown = || Refusal::missing("NAME_UNKNOWN", "no such endpoint: the protocol's paths begin with /v2/");
        let path = decode(path).ok_or_else(|| Refusal::bad("NAME_INVALID", "invalid escape in the path"))?;
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some(rest) => rest.strip_prefix('/').ok_or_else(unknown)?,
            None => return Err(unknown()),
        };
        if rest == "_catalog" {
            return Ok(Self::Catalog);
        }
        let checked = |text: &str| name(text).map(|()| text.to_owned());
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(checked(repository)?));
        }
        let uploads = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"));
        if let Some(repository) = uploads {
            return Ok(Self::Uploads(checked(repository)?));
        }
        let (head, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        if let Some(repository) = head.strip_suffix("/blobs/uploads") {
            let repository = checked(repository)?;
            if last.len() != 32 || !last.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()) {
                return Err(Refusal::missing("BLOB_UPLOAD_UNKNOWN", "no such upload"));
            }
            return Ok(Self::Upload(repository, last.to_owned()));
        }
        let (repository, kind) = head.rsplit_once('/').ok_or_else(unknown)?;
        match kind {
            "manifests" => Ok(Self::Manifest(checked(repository)?, Target::parse(last)?)),
            "blobs" => Ok(Self::Blob(checked(repository)?, digest(last)?)),
            "referrers" => Ok(Self::Referrers(checked(repository)?, digest(last)?)),
            _ => Err(unknown()),
        }
    }
}

/// Undoes `%XX`; nothing for a wrong escape or what is not UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok().filter(|text| !text.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

/// The parameters of a query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let bad = || Refusal::bad("UNSUPPORTED", "invalid escape in the query");
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()).take(64) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(key).ok_or_else(bad)?, decode(&value.replace('+', " ")).ok_or_else(bad)?));
        }
        Ok(Self(pairs))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'q>(&'q self, key: &'q str) -> impl Iterator<Item = &'q str> + 'q {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Escapes a value for a query in a `Link` header.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "library/debian", "a.b/c_d/e__f/g---h", "blobs/manifests", "0"] {
            assert!(name(good).is_ok(), "{good}");
        }
        let long = "a/".repeat(200);
        for bad in ["", "A", "a/", "/a", "a//b", "..", "a/../b", "_a", "a_", "a___b", "a..b", "a.-b", ".a", "é", &long]
        {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths() {
        let hex = "a".repeat(64);
        let code = |path: &str| Route::parse(path).err().map(|refusal| refusal.code);
        assert_eq!(Route::parse("/v2/").ok(), Some(Route::Base));
        assert_eq!(Route::parse("/v2/tags/list/tags/list").ok(), Some(Route::Tags("tags/list".into())));
        assert_eq!(
            Route::parse("/v2/blobs/uploads/manifests/v1").ok(),
            Some(Route::Manifest("blobs/uploads".into(), Target::Tag("v1".into())))
        );
        assert!(matches!(Route::parse(&format!("/v2/a/blobs/sha256%3A{hex}")), Ok(Route::Blob(..))));
        assert_eq!(code(&format!("/v2/a/blobs/sha256:{}", &hex[1..])), Some("DIGEST_INVALID"));
        assert_eq!(code("/v2/a/blobs/sha256:../../../etc"), Some("NAME_UNKNOWN"));
        assert_eq!(code("/v2/a/blobs/md5:aaaa"), Some("DIGEST_INVALID"));
        assert_eq!(code("/v2/a/../b/tags/list"), Some("NAME_INVALID"));
        assert_eq!(code("/v2/a/%2e%2e/tags/list"), Some("NAME_INVALID"));
        assert_eq!(code("/v2/a/blobs/uploads/..%2f"), Some("NAME_UNKNOWN"));
        assert_eq!(code("/v2/a/blobs/uploads/xyz"), Some("BLOB_UPLOAD_UNKNOWN"));
        assert_eq!(code("/v2/a/manifests/-x"), Some("MANIFEST_INVALID"));
        assert_eq!(code("/v2/a/%zz/tags/list"), Some("NAME_INVALID"));
        assert_eq!(code("/v1/"), Some("NAME_UNKNOWN"));
    }
}
