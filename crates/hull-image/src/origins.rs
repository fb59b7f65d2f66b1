//! Where images were pulled from, with the signatures that they had there.
//!
//! A row lives as long as the `HOST/PATH@DIGEST` that it is about. Its signatures were fetched when there was a reason
//! to: a policy that asks for them, or a key. They are kept as they came and verified whenever they are read.
//!
//! ```text
//! [{"payload": BASE64, "signature": "..."}, {"bundle": BASE64}, ...]
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_oci::{Digest, Reference};
use hull_trust::Evidence;
use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize};

use crate::{Error, Store};
use hull_db::Sync;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Row {
    Payload { payload: String, signature: String },
    Bundle { bundle: String },
}

/// One place that an image came from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// `HOST/PATH`.
    pub(crate) repository: String,
    /// Of the manifest or index there.
    pub(crate) digest: Digest,
    /// The signatures; nobody has verified them.
    pub(crate) evidence: Vec<Evidence>,
}

fn encode(evidence: &[Evidence]) -> Result<String, Error> {
    let row = |one: &Evidence| match one {
        Evidence::Payload { payload, signature } => {
            Row::Payload { payload: STANDARD.encode(payload), signature: signature.clone() }
        }
        Evidence::Bundle(bundle) => Row::Bundle { bundle: STANDARD.encode(bundle) },
    };
    let rows: Vec<Row> = evidence.iter().map(row).collect();
    serde_json::to_string(&rows).map_err(|error| Error::damaged("signatures of an image", error))
}

fn decode(text: &str) -> Option<Vec<Evidence>> {
    let rows: Vec<Row> = serde_json::from_str(text).ok()?;
    let one = |row| match row {
        Row::Payload { payload, signature } => {
            Some(Evidence::Payload { payload: STANDARD.decode(payload).ok()?, signature })
        }
        Row::Bundle { bundle } => STANDARD.decode(bundle).ok().map(Evidence::Bundle),
    };
    rows.into_iter().map(one).collect()
}

/// Records where an image came from. What was known is kept when nobody asked for signatures this time.
pub(crate) fn record(
    transaction: &Transaction<'_>,
    name: &Reference,
    digest: &Digest,
    evidence: &[Evidence],
) -> Result<(), Error> {
    let sql = if evidence.is_empty() {
        "INSERT OR IGNORE INTO origins VALUES (?1, ?2, ?3)"
    } else {
        "INSERT OR REPLACE INTO origins VALUES (?1, ?2, ?3)"
    };
    transaction.execute(sql, params![name.repository(), digest.to_string(), encode(evidence)?])?;
    Ok(())
}

impl Store {
    /// Where an image was pulled from; nowhere if it was made here.
    pub(crate) fn origins(&self, image: &Digest) -> Result<Vec<Origin>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT origins.repository, origins.digest, evidence FROM origins JOIN repo_digests
                 ON repo_digests.repository = origins.repository AND repo_digests.digest = origins.digest
                 JOIN images ON images.id = repo_digests.image WHERE images.digest = ?1
                 UNION
                 -- The index that it was chosen from is known with the image that the name means without platform.
                 SELECT origins.repository, origins.digest, evidence FROM images
                 JOIN variants ON variants.image = images.id JOIN names ON names.name = variants.name
                 JOIN repo_digests ON repo_digests.image = names.image
                 AND substr(names.name, 1, length(repo_digests.repository) + 1) = repo_digests.repository || ':'
                 JOIN origins ON repo_digests.repository = origins.repository AND repo_digests.digest = origins.digest
                 WHERE images.digest = ?1
                 AND NOT EXISTS (SELECT 1 FROM manifests WHERE manifests.digest = origins.digest)
                 ORDER BY 1, 2",
            )?;
            let rows = statement.query_map([image.to_string()], |row| {
                let text: String = row.get(2)?;
                // What cannot be read is no signature.
                let evidence = decode(&text).unwrap_or_default();
                Ok(Origin { repository: row.get(0)?, digest: crate::rows::digest(row, 1)?, evidence })
            })?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })
    }

    /// Keeps signatures that were found later, of an image that was pulled from there.
    pub(crate) fn keep_evidence(
        &self,
        repository: &str,
        digests: &[&Digest],
        evidence: &[Evidence],
    ) -> Result<(), Error> {
        let text = encode(evidence)?;
        self.write(Sync::Full, |transaction| {
            for digest in digests {
                transaction.execute(
                    "UPDATE origins SET evidence = ?3 WHERE repository = ?1 AND digest = ?2",
                    params![repository, digest.to_string(), text],
                )?;
            }
            Ok(())
        })
    }
}
