//! What was normalised in layers: kept with the layer, so that a build which finds it in the cache knows too.

use hull_engine::normalise::Normalised;
use hull_oci::Digest;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::Cache;
use crate::Error;

impl Cache {
    /// Notes what was done to a layer of the store.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn note(&self, layer: &Digest, notes: &[Normalised]) -> Result<(), Error> {
        if notes.is_empty() {
            return Ok(());
        }
        let text = serde_json::to_string(notes).unwrap_or_default();
        let body = |transaction: &Transaction<'_>| -> Result<(), hull_image::Error> {
            let sql = "INSERT OR REPLACE INTO layer_notes SELECT id, ?2 FROM layers WHERE diff_id = ?1";
            transaction.execute(sql, params![layer.to_string(), text])?;
            Ok(())
        };
        Ok(self.store.database().write(hull_db::Sync::Normal, body)?)
    }

    /// What was done to each of these layers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn notes(&self, layers: &[Digest]) -> Result<Vec<Vec<Normalised>>, Error> {
        let body = |connection: &Connection| -> Result<Vec<Option<String>>, hull_image::Error> {
            let sql = "SELECT notes FROM layer_notes JOIN layers ON id = layer WHERE diff_id = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let one = |layer: &Digest| Ok(statement.query_row([layer.to_string()], |row| row.get(0)).optional()?);
            layers.iter().map(one).collect()
        };
        let texts = self.store.database().read(body)?;
        let parse = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(texts.into_iter().map(parse).collect())
    }
}
