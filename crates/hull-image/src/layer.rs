//! One layer from a stream into a directory, in the form of a snapshotter; and the way back to its stream.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::AsFd as _;
use std::path::Path;

use hull_layer::compression::{Compression, Decoder, peek};
use hull_layer::ingest::{self, Ingested};
use hull_layer::tree::{self, Tree};
use hull_layer::{Limits, tar};
use hull_oci::Digest;

use crate::Error;
use crate::image::Kind;
use crate::snapshot::directory;
use crate::transfer::LayerSource;

/// What was written.
pub(crate) struct Written {
    pub(crate) diff_id: Digest,
    /// Length of the uncompressed archive.
    pub(crate) tar: u64,
    /// Bytes of all files.
    pub(crate) content: u64,
    /// The bytes as they came.
    pub(crate) blob: (Digest, u64),
    /// They are kept, in [`ingest::BLOB`].
    pub(crate) kept: bool,
    /// They are not the archive itself.
    pub(crate) compressed: bool,
}

/// Writes a layer into an empty directory; everything is on disk when it returns.
pub(crate) fn write(
    input: impl Read,
    directory: &Path,
    kind: Kind,
    source: &LayerSource,
    limits: &Limits,
) -> Result<Written, Error> {
    let opened = File::open(directory).map_err(Error::io("open", directory))?;
    let blob = source.blob.as_ref();
    let mut options = ingest::Options {
        keep_blob: source.keep_blob || kind == Kind::Directory,
        blob: blob.map(|blob| blob.digest.clone()),
        size: blob.map(|blob| blob.size),
        diff_id: source.diff_id.clone(),
        sync: true,
    };
    let (layer, content) = match kind {
        Kind::Erofs => {
            // An archive that comes uncompressed is the layer's own tar.
            let (prefix, input) = peek(input)?;
            options.keep_blob &= Compression::detect(&prefix) != Some(Compression::None);
            let indexed = ingest::ingest(input, opened.as_fd(), &options, limits)?;
            (indexed.layer, indexed.content)
        }
        Kind::Directory => {
            let verified = options.blob.is_some() || options.diff_id.is_some();
            let (layer, tree) = ingest::ingest_into(input, opened.as_fd(), &options, limits, |stream| {
                let mut reader = tar::Reader::new(stream, *limits);
                if verified {
                    reader = reader.end_optional();
                }
                directory::unpack(&mut reader, opened.as_fd(), directory, *limits).map(|unpacked| unpacked.tree)
            })?;
            directory::sync(opened.as_fd(), directory)?;
            (layer, content(&tree))
        }
    };
    crate::disk::sync(directory)?;
    let Ingested { blob, size, compression, diff_id, tar_size } = layer;
    Ok(Written {
        diff_id,
        tar: tar_size,
        content,
        blob: (blob, size),
        kept: options.keep_blob,
        compressed: compression != Compression::None,
    })
}

/// Bytes of all files of a tree.
fn content(tree: &Tree) -> u64 {
    let lengths = tree.nodes.iter().map(|node| if let tree::Kind::File { size, .. } = node.kind { size } else { 0 });
    lengths.fold(0, u64::saturating_add)
}

/// A stream in any compression as the archive that it is.
pub(crate) fn decompressed(input: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>, Error> {
    let (prefix, input) = peek(input)?;
    let unknown = || Error::Archive("it is neither a tar nor compressed in a known way".to_owned());
    let compression = Compression::detect(&prefix).ok_or_else(unknown)?;
    let input = BufReader::with_capacity(256 << 10, input);
    Ok(Box::new(Decoder::new(compression, input, &Limits::default())?))
}
