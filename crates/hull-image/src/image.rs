//! An image as the store knows it.

use std::fmt;
use std::str::FromStr;

use hull_oci::image::ImageConfig;
use hull_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

/// The form of a layer on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Its tar and an EROFS index.
    Erofs,
    /// Its files; the archive as it came is held as a blob.
    Directory,
}

impl Kind {
    /// `erofs` or `directory`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Directory => "directory",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "erofs" => Ok(Self::Erofs),
            "directory" => Ok(Self::Directory),
            other => Err(format!("{other:?} is no snapshotter: expected erofs or directory")),
        }
    }
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the configuration.
    pub id: Digest,
    /// Names with tags, sorted; none when the names went to other images.
    pub names: Vec<Reference>,
    /// Names that mean it where its platform is asked for; without that they mean another image.
    pub variant_of: Vec<Reference>,
    /// Repositories that the image came from or went to, as `HOST/PATH`, with the digest that it has there.
    pub repo_digests: Vec<(String, Digest)>,
    /// The manifest that it came with last; [`crate::Store::manifest_bytes`] has its bytes.
    pub manifest: Option<Digest>,
    /// When it was made, by its configuration, in seconds since 1970; 0 when it does not say so.
    pub created: i64,
    /// When this store got it, in seconds since 1970.
    pub added: i64,
    /// What it needs, its defaults, its history.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// Bytes of all files in all layers.
    pub size: u64,
}

impl Image {
    /// The diff IDs of its layers, lowest first.
    pub fn diff_ids(&self) -> impl DoubleEndedIterator<Item = &Digest> {
        self.layers.iter().map(|layer| &layer.diff_id)
    }

    /// Whether nothing names it.
    #[must_use]
    pub fn is_dangling(&self) -> bool {
        self.names.is_empty() && self.variant_of.is_empty() && self.repo_digests.is_empty()
    }
}

/// A layer of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// How it is kept.
    pub kind: Kind,
    /// Bytes of its files.
    pub size: u64,
    /// Length of the uncompressed archive.
    pub tar_size: u64,
    /// The compressed archive and its length, when the store holds it. Uncompressed ones are the layer itself; see
    /// [`crate::Store::layer_tar`].
    pub blob: Option<(Digest, u64)>,
}

/// One row of [`crate::Store::history`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// Seconds since 1970; absent when the image does not say.
    pub created: Option<i64>,
    /// The instruction.
    pub created_by: String,
    /// Free text.
    pub comment: String,
    /// Bytes of the layer's files; 0 for an instruction without layer.
    pub size: u64,
    /// The layer, unless the instruction made none.
    pub layer: Option<Digest>,
}

impl Image {
    /// What made the image, newest first, with the sizes of the layers. Layers that the history does not tell of come
    /// as rows without instruction, so that the sizes add up to the image's.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryRow> {
        let mut layers = self.layers.iter();
        let mut rows = Vec::new();
        for entry in &self.config.history {
            let layer = if entry.empty_layer { None } else { layers.next() };
            rows.push(HistoryRow {
                created: entry.created.as_deref().and_then(hull_oci::time::parse_rfc3339),
                created_by: entry.created_by.clone().unwrap_or_default(),
                comment: entry.comment.clone().unwrap_or_default(),
                size: layer.map_or(0, |layer| layer.size),
                layer: layer.map(|layer| layer.diff_id.clone()),
            });
        }
        for layer in layers {
            rows.push(HistoryRow {
                created: None,
                created_by: String::new(),
                comment: String::new(),
                size: layer.size,
                layer: Some(layer.diff_id.clone()),
            });
        }
        rows.reverse();
        rows
    }
}
