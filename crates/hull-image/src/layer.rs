//! One layer from a stream into a directory, in the form of a snapshotter.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};
use rustix::fs::Mode;

use crate::image::Kind;
use crate::transfer::LayerSource;
use crate::{Error, unpack};

/// What was written.
pub(crate) struct Written {
    /// The bytes as they came, when they are not the layer's tar; `blob` holds them when they are to be kept.
    pub(crate) blob: Option<(Digest, u64)>,
    pub(crate) diff_id: Digest,
    pub(crate) tar: u64,
    pub(crate) content: u64,
}

/// A compressed archive as the archive itself.
pub(crate) fn decompressed(reader: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>, Error> {
    let mut reader = BufReader::with_capacity(256 << 10, reader);
    let start = reader.fill_buf().map_err(Error::io("read", "layer"))?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [] => return Err(Error::Archive("the input is empty".to_owned())),
        _ => Box::new(reader),
    })
}

/// Hashes, counts and keeps what passes through.
struct Tee<R> {
    reader: R,
    hasher: Hasher,
    count: u64,
    copy: Option<File>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}

/// Writes a layer into an empty directory; everything is on disk when it returns.
pub(crate) fn write(
    reader: impl Read + Send,
    directory: &Path,
    kind: Kind,
    source: &LayerSource,
) -> Result<Written, Error> {
    let path = directory.join("blob");
    let algorithm = source.blob.as_ref().map_or(Algorithm::Sha256, |blob| blob.digest.algorithm());
    let copy = File::create_new(&path).map_err(Error::io("create", &path))?;
    let mut outer = Tee { reader, hasher: Hasher::new(algorithm), count: 0, copy: Some(copy) };
    let mut buffered = BufReader::with_capacity(256 << 10, &mut outer);
    let start = buffered.fill_buf().map_err(Error::io("read", "layer"))?;
    let gzip = start.starts_with(&[0x1f, 0x8b]);
    if start.is_empty() {
        return Err(Error::Archive("the input is empty".to_owned()));
    }
    let tree = directory.join("tree");
    fs::create_dir(&tree).map_err(Error::io("create directory", &tree))?;
    rustix::fs::chmod(&tree, Mode::from_raw_mode(0o755)).map_err(Error::io("change mode of", &tree))?;
    let opened = OwnedFd::from(File::open(&tree).map_err(Error::io("open", &tree))?);
    let algorithm = source.diff_id.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let input: Box<dyn Read + '_> =
        if gzip { Box::new(flate2::bufread::MultiGzDecoder::new(&mut buffered)) } else { Box::new(&mut buffered) };
    let mut inner = Tee { reader: input, hasher: Hasher::new(algorithm), count: 0, copy: None };
    let content = unpack::unpack(BufReader::with_capacity(256 << 10, &mut inner), &opened, unpack::Limits::default())?;
    std::io::copy(&mut inner, &mut std::io::sink()).map_err(Error::io("read", "layer"))?;
    let (diff_id, tar) = (inner.hasher.clone().finish(), inner.count);
    drop(inner);
    std::io::copy(&mut buffered, &mut std::io::sink()).map_err(Error::io("read", "layer"))?;
    drop(buffered);
    let blob = (outer.hasher.clone().finish(), outer.count);
    check(source.blob.as_ref().map(|blob| &blob.digest), &blob.0, "blob")?;
    check(source.diff_id.as_ref(), &diff_id, "layer")?;
    rustix::fs::syncfs(&opened).map_err(Error::io("sync", &tree))?;
    let keep = kind == Kind::Directory || (source.keep_blob && gzip);
    if !keep {
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(Written { blob: (gzip || keep).then_some(blob), diff_id, tar, content })
}

fn check(expected: Option<&Digest>, found: &Digest, what: &'static str) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != found => {
            Err(hull_layer::Error::Digest { what, expected: expected.clone(), found: found.clone() }.into())
        }
        _ => Ok(()),
    }
}
