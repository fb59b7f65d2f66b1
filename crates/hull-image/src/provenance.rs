//! How images were built: predicates of SLSA provenance, kept with the images that were built here, and statements about
//! them as in-toto has these.

use hull_db::Sync;
use hull_oci::Digest;
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
    let mut of = serde_json::Map::new();
    of.insert(digest.algorithm().as_str().to_owned(), json!(digest.hex()));
    json!({
        "_type": STATEMENT,
        "predicateType": PREDICATE,
        "subject": [{"name": name, "digest": of}],
        "predicate": predicate,
    })
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
