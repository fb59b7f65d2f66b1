//! What a container of an image needs, read with few queries: it is on the way of every start.

use hull_oci::Digest;
use hull_oci::image::{ImageConfig, Platform};
use rusqlite::Connection;

use crate::rows::{Row, digest, find_row};
use crate::{Error, Image, Store};

/// What a container of an image needs.
#[derive(Clone, Debug)]
pub struct Runnable {
    /// Digest of the configuration.
    pub id: Digest,
    /// The manifest that it came with last.
    pub manifest: Option<Digest>,
    /// What it needs and its defaults.
    pub config: ImageConfig,
    /// The diff IDs of its layers, lowest first.
    pub layers: Vec<Digest>,
}

impl From<Image> for Runnable {
    fn from(image: Image) -> Self {
        let layers = image.layers.into_iter().map(|layer| layer.diff_id).collect();
        Self { id: image.id, manifest: image.manifest, config: image.config, layers }
    }
}

impl Store {
    /// [`Store::find_on`], for who wants to run it.
    ///
    /// # Errors
    /// As [`Store::find_on`].
    pub fn runnable(&self, text: &str, platform: Option<&Platform>) -> Result<Runnable, Error> {
        // A process that keeps images has the whole one.
        if platform.is_none()
            && !self.keeps()
            && let Some(found) = self.settled(|connection| self.found(connection, find_row(connection, text)?))?
        {
            return Ok(found);
        }
        self.find_on(text, platform).map(Runnable::from)
    }

    fn found(&self, connection: &Connection, row: Option<Row>) -> Result<Option<Runnable>, Error> {
        let Some(row) = row else { return Ok(None) };
        let config = self.config_of(&row)?;
        let mut statement = connection.prepare_cached(
            "SELECT diff_id FROM image_layers JOIN layers ON layers.id = layer WHERE image = ?1 ORDER BY position",
        )?;
        let layers = statement.query_map([row.id], |row| digest(row, 0))?.collect::<Result<Vec<_>, _>>()?;
        if layers != config.rootfs.diff_ids {
            return Err(row.names_other_layers());
        }
        Ok(Some(Runnable { id: row.digest, manifest: row.manifest, config, layers }))
    }
}
