//! What the columns of the store's tables mean, and which row of `images` a text does.

use hull_oci::{Digest, Reference};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::Error;
use crate::image::Kind;

/// A digest from a column; anything else there is damage.
pub(crate) fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| conversion(column, error))
}

/// An optional digest from a column.
pub(crate) fn digest_or_none(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error| conversion(column, error))).transpose()
}

/// A length from a column.
pub(crate) fn length(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|error| conversion(column, error))
}

pub(crate) fn kind(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Kind> {
    let text: String = row.get(column)?;
    text.parse().map_err(|reason: String| conversion(column, std::io::Error::other(reason)))
}

pub(crate) fn reference(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Reference> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| conversion(column, error))
}

fn conversion(column: usize, error: impl std::error::Error + Send + std::marker::Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

/// A number for a column.
pub(crate) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The key in `names`: a reference's tag counts, its digest does not.
pub(crate) fn name_key(name: &Reference) -> String {
    format!("{}:{}", name.repository(), name.tag().unwrap_or("latest"))
}

/// A row of `images`.
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) digest: Digest,
    pub(crate) manifest: Option<Digest>,
    pub(crate) added: i64,
}

impl Row {
    pub(crate) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { id: row.get(0)?, digest: digest(row, 1)?, manifest: digest_or_none(row, 2)?, added: row.get(3)? })
    }

    pub(crate) fn names_other_layers(&self) -> Error {
        Error::damaged(format!("image {}", self.digest), "its record names other layers than its configuration")
    }
}

pub(crate) fn row_of(connection: &Connection, id: &Digest) -> Result<Option<Row>, Error> {
    let sql = "SELECT id, digest, manifest, added FROM images WHERE digest = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([id.to_string()], Row::read).optional()?)
}

/// The image that a text means, without regard to the built-in one.
pub(crate) fn find_row(connection: &Connection, text: &str) -> Result<Option<Row>, Error> {
    if let Some(id) = text.parse::<Digest>().ok().or_else(|| Digest::from_hex(text).ok()) {
        if let Some(row) = row_of(connection, &id)? {
            return Ok(Some(row));
        }
        let sql = "SELECT images.id, images.digest, images.manifest, added FROM manifests
                   JOIN images ON images.id = manifests.image WHERE manifests.digest = ?1";
        return Ok(connection.query_row(sql, [id.to_string()], Row::read).optional()?);
    }
    if let Ok(name) = text.parse::<Reference>() {
        let found = match name.digest() {
            Some(digest) => {
                let sql = "SELECT images.id, images.digest, images.manifest, added FROM repo_digests
                           JOIN images ON images.id = repo_digests.image
                           WHERE repository = ?1 AND repo_digests.digest = ?2";
                let arguments = params![name.repository(), digest.to_string()];
                connection.query_row(sql, arguments, Row::read).optional()?
            }
            None => {
                let sql = "SELECT images.id, images.digest, images.manifest, added FROM names
                           JOIN images ON images.id = names.image WHERE name = ?1";
                connection.prepare_cached(sql)?.query_row([name_key(&name)], Row::read).optional()?
            }
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    let beginning = text.strip_prefix("sha256:").unwrap_or(text);
    if !is_beginning(beginning) {
        return Ok(None);
    }
    // `g` follows all hexadecimal digits.
    let mut statement = connection
        .prepare("SELECT id, digest, manifest, added FROM images WHERE digest >= ?1 AND digest < ?2 LIMIT 2")?;
    let bounds = params![format!("sha256:{beginning}"), format!("sha256:{beginning}g")];
    let mut rows = statement.query_map(bounds, Row::read)?.collect::<Result<Vec<_>, _>>()?;
    Ok(if rows.len() == 1 { rows.pop() } else { None })
}

fn is_beginning(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether a text means an image by its ID rather than by a name.
pub(crate) fn is_id_of(text: &str, id: &Digest) -> bool {
    let beginning = text.strip_prefix("sha256:").unwrap_or(text);
    id.hex().starts_with(beginning) && is_beginning(beginning)
}
