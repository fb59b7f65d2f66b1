//! How images were built: predicates of SLSA provenance, kept with the images that were built here, and statements about
//! them as in-toto has these.

use hull_db::Sync;
use hull_oci::{Digest, Reference};
use rusqlite::{OptionalExtension as _, params};
use serde_json::{Value, json};

use crate::{Error, Store};

/// The type of the predicates.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// The type of statements.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// The statement that something was built so.
#[must_use]
pub fn statement(name: &str, digest: &Digest, predicate: &Value) -> Value {
    statement_of(&[name.to_owned()], digest, PREDICATE, predicate)
}

/// The statement that something is so of what has these names.
#[must_use]
pub fn statement_of(names: &[String], digest: &Digest, kind: &str, predicate: &Value) -> Value {
    let mut of = serde_json::Map::new();
    of.insert(digest.algorithm().as_str().to_owned(), json!(digest.hex()));
    let subject: Vec<Value> = names.iter().map(|name| json!({"name": name, "digest": of})).collect();
    json!({
        "_type": STATEMENT,
        "predicateType": kind,
        "subject": subject,
        "predicate": predicate,
    })
}

/// As package URLs have text.
#[must_use]
pub fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// A package URL of an image.
#[must_use]
pub fn package_url(reference: &str, platform: &str) -> String {
    let platform = escaped(platform);
    match reference.parse::<Reference>() {
        Ok(parsed) => {
            let familiar = parsed.familiar();
            let (name, version) = match familiar.split_once('@') {
                Some((name, digest)) => (name.to_owned(), digest.to_owned()),
                None => match familiar.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
                    Some((name, tag)) => (name.to_owned(), tag.to_owned()),
                    None => (familiar.clone(), "latest".to_owned()),
                },
            };
            let name: Vec<String> = name.split('/').map(escaped).collect();
            format!("pkg:docker/{}@{}?platform={platform}", name.join("/"), escaped(&version))
        }
        Err(_) => format!("pkg:docker/{}?platform={platform}", escaped(reference)),
    }
}

impl Store {
    /// How an image was built, if that is known.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn provenance(&self, image: &Digest) -> Result<Option<Value>, Error> {
        let text: Option<String> = self.database().read(|connection| -> Result<_, Error> {
            let sql = "SELECT predicate FROM provenance JOIN images ON id = image WHERE digest = ?1";
            Ok(connection.query_row(sql, [image.to_string()], |row| row.get(0)).optional()?)
        })?;
        // What cannot be read says nothing.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Keeps how an image of the store was built, in place of what was known.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn keep_provenance(&self, image: &Digest, predicate: &Value) -> Result<(), Error> {
        let text = predicate.to_string();
        self.database().write(Sync::Normal, |transaction| -> Result<(), Error> {
            let sql = "INSERT OR REPLACE INTO provenance SELECT id, ?2 FROM images WHERE digest = ?1";
            transaction.execute(sql, params![image.to_string(), text])?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_package_urls() {
        for (reference, expected) in [
            ("debian:12", "pkg:docker/debian@12?platform=linux%2Famd64"),
            ("base", "pkg:docker/base@latest?platform=linux%2Famd64"),
            ("example.org:5000/a/b", "pkg:docker/example.org%3A5000/a/b@latest?platform=linux%2Famd64"),
        ] {
            assert_eq!(package_url(reference, "linux/amd64"), expected);
        }
    }
}
