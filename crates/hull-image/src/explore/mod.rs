//! What is in an image's layers, where it came from, and what of it is for nothing.
//!
//! Layers are read as trees, never unpacked: the index of an EROFS layer, or the names of a layer's archive. They are laid
//! over each other as overlayfs does; a file that a later layer hides is dead weight of the layer that has it, charged
//! with its whole length. A file that a later layer brings again with the same content, as `chmod` and `chown` make
//! them, is charged to the later one. Of what can be seen at the end, files are charged by what they are ([`classify`])
//! and, from 4 KiB on, for having the same content as another. A byte is charged once.
//!
//! Content is read only where two files of one length are compared, and only what the archive has of it: holes of a
//! hostile layer cost nothing.

mod classify;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use hull_layer::tree::{Extent, Kind, NodeId, Tree};
use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};
use serde::Serialize;

use crate::image::Kind as Snapshotter;
use crate::{Error, Image, Layer, Store, squash};

/// Files smaller than this are not compared with others.
const COMPARED: u64 = 4096;

/// Why bytes are for nothing, or may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A later layer deletes the file.
    Deleted,
    /// A later layer has another file of the name.
    Rewritten,
    /// An earlier layer has the same file with other owners or modes.
    Copied,
    /// Another file has the same content.
    Duplicate,
    /// Package managers' caches, logs, temporary files, histories of version control.
    Cache,
    /// Compiled Python, which Python makes again.
    Bytecode,
    /// Manuals, documents, translations.
    Documentation,
    /// Compilers, headers, static libraries.
    BuildTools,
}

impl Reason {
    /// As in the JSON document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Rewritten => "rewritten",
            Self::Copied => "copied",
            Self::Duplicate => "duplicate",
            Self::Cache => "cache",
            Self::Bytecode => "bytecode",
            Self::Documentation => "documentation",
            Self::BuildTools => "build-tools",
        }
    }

    /// Nobody can miss these bytes; of the others, somebody must say so.
    #[must_use]
    pub fn is_certain(self) -> bool {
        matches!(self, Self::Deleted | Self::Rewritten | Self::Copied | Self::Cache)
    }

    /// What to change in the Dockerfile.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Deleted => "delete it in the instruction that makes it, or build in an earlier stage",
            Self::Rewritten => "make it once: merge the two instructions, or change their order",
            Self::Copied => "set owner and mode where it is made: COPY --chown --chmod, or in the same RUN",
            Self::Duplicate => "keep one and link to it",
            Self::Cache => "RUN --mount=type=cache, or delete it in the same RUN",
            Self::Bytecode => "ENV PYTHONDONTWRITEBYTECODE=1, or pip install --no-compile",
            Self::Documentation => "leave it out: dpkg's path-exclude, apk's and dnf's --nodocs",
            Self::BuildTools => "build in an earlier stage, and COPY --from it what is made",
        }
    }
}

/// Bytes of one layer for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Waste {
    /// Why.
    pub reason: Reason,
    /// A file, or the directory of several.
    pub path: String,
    /// How many files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// The other layer, counted from 1: the one that hides them, or that has them first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<usize>,
}

/// A layer and what it has for nothing.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LayerReport {
    /// Counted from 1 at the lowest.
    pub number: usize,
    /// Its archive's digest.
    pub diff_id: Digest,
    /// The instruction that made it; empty where the image does not say.
    pub created_by: String,
    /// Bytes of its files.
    pub size: u64,
    /// Names of files of any type that it brings.
    pub files: u64,
    /// Bytes that nobody can miss.
    pub wasted: u64,
    /// Bytes that perhaps nobody misses.
    pub optional: u64,
    /// What they are, largest first.
    pub wastes: Vec<Waste>,
}

/// What an image is made of.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// The image's ID.
    pub id: Digest,
    /// Bytes of all files of all layers.
    pub size: u64,
    /// Bytes that can be seen at the end.
    pub visible: u64,
    /// Bytes that nobody can miss.
    pub wasted: u64,
    /// Bytes that perhaps nobody misses.
    pub optional: u64,
    /// Lowest first.
    pub layers: Vec<LayerReport>,
}

/// A file of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FileEntry {
    /// Its path, without a slash at the beginning.
    pub path: String,
    /// `directory`, `file`, `link`, `device`, `fifo` or `removed`.
    pub kind: &'static str,
    /// Length of a regular file.
    pub size: u64,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A layer's names, and where their content is.
struct Opened {
    tree: Tree,
    tar: File,
    index: Vec<u8>,
    /// Content that lies in the index.
    copied: BTreeMap<NodeId, Vec<Extent>>,
}

impl Opened {
    fn new(store: &Store, layer: &Layer) -> Result<Self, Error> {
        let tar = squash::tar_file(store, layer)?;
        if layer.kind == Snapshotter::Erofs {
            let path = store.layer_path(&layer.diff_id).join("index");
            let index = std::fs::read(&path).map_err(Error::io("read", &path))?;
            let contents = hull_layer::erofs::read(&index)?;
            return Ok(Self { tree: contents.tree, tar, index, copied: contents.copied });
        }
        let tree = squash::tree(&tar)?;
        Ok(Self { tree, tar, index: Vec::new(), copied: BTreeMap::new() })
    }

    /// The digest of a file's pieces and their places.
    fn hash(&self, id: NodeId) -> Result<Digest, Error> {
        let Kind::File { size, extents } = &self.tree.node(id).kind else {
            return Err(Error::damaged("layer", "a file is no file"));
        };
        // The index cuts content into pieces of its own: what is compared is the text of them all.
        let mut pieces: Vec<(Extent, bool)> = extents.iter().map(|one| (*one, false)).collect();
        pieces.extend(self.copied.get(&id).into_iter().flatten().map(|one| (*one, true)));
        pieces.sort_by_key(|(extent, _)| extent.offset);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&size.to_be_bytes());
        let (mut end, mut buffer) = (0, vec![0; 128 << 10]);
        for (extent, in_index) in pieces {
            if extent.offset != end {
                hasher.update(&extent.offset.to_be_bytes());
            }
            end = extent.offset + extent.length;
            let mut done = 0;
            while done < extent.length {
                let want = usize::try_from(extent.length - done).unwrap_or(usize::MAX).min(buffer.len());
                let at = extent.tar + done;
                if in_index {
                    let at = usize::try_from(at).unwrap_or(usize::MAX);
                    let piece = at.checked_add(want).and_then(|end| self.index.get(at..end));
                    hasher.update(piece.ok_or_else(|| Error::damaged("layer", "its index is too short"))?);
                } else {
                    self.tar.read_exact_at(&mut buffer[..want], at).map_err(Error::io("read", "layer"))?;
                    hasher.update(&buffer[..want]);
                }
                done += want as u64;
            }
        }
        Ok(hasher.finish())
    }
}

/// A file that can be seen, as far as the layers are laid.
#[derive(Clone, Copy)]
struct Seen {
    layer: usize,
    node: NodeId,
    /// Its length; 0 for another name of a file that was counted.
    size: u64,
    /// It is a regular file.
    regular: bool,
}

/// Reason, group, and the other layer.
type Place = (Reason, Vec<u8>, Option<usize>);

struct Walk {
    layers: Vec<Opened>,
    seen: BTreeMap<Vec<u8>, Seen>,
    /// Files that are charged already: they are not charged for what they are.
    charged: HashMap<(usize, NodeId), ()>,
    hashes: HashMap<(usize, NodeId), Digest>,
    /// By layer, reason, group and the other layer: files and bytes.
    wastes: Vec<BTreeMap<Place, (u64, u64)>>,
}

impl Walk {
    fn charge(&mut self, file: Seen, reason: Reason, group: &[u8], other: Option<usize>) {
        if file.size == 0 {
            return;
        }
        let sum = self.wastes[file.layer].entry((reason, group.to_vec(), other)).or_default();
        *sum = (sum.0 + 1, sum.1 + file.size);
    }

    fn hash(&mut self, file: Seen) -> Result<Digest, Error> {
        let key = (file.layer, file.node);
        if let Some(hash) = self.hashes.get(&key) {
            return Ok(hash.clone());
        }
        let hash = self.layers[file.layer].hash(file.node)?;
        self.hashes.insert(key, hash.clone());
        Ok(hash)
    }

    /// Everything below a directory goes.
    fn hide_below(&mut self, path: &[u8], by: usize) {
        let mut first = path.to_vec();
        if !path.is_empty() {
            first.push(b'/');
        }
        let below = |name: &&Vec<u8>| name.starts_with(&first);
        let names: Vec<Vec<u8>> =
            self.seen.range(first.clone()..).map(|(name, _)| name).take_while(below).cloned().collect();
        for name in names {
            // What the layer itself brings is not what it hides.
            if self.seen.get(&name).is_some_and(|file| file.layer != by)
                && let Some(file) = self.seen.remove(&name)
            {
                self.charge(file, Reason::Deleted, &name, Some(by));
            }
        }
    }

    fn lay(&mut self, layer: usize) -> Result<u64, Error> {
        let mut names: Vec<(Vec<u8>, NodeId)> = Vec::new();
        self.layers[layer].tree.visit(|path, id| {
            names.push((path.to_vec(), id));
            Ok::<_, Error>(())
        })?;
        let mut counted: HashMap<NodeId, ()> = HashMap::new();
        let mut files = 0;
        for (path, id) in names {
            let (size, regular) = match &self.layers[layer].tree.node(id).kind {
                Kind::Directory { opaque, .. } => {
                    if *opaque {
                        self.hide_below(&path, layer);
                    }
                    if let Some(old) = self.seen.remove(&path) {
                        self.charge(old, Reason::Rewritten, &path, Some(layer));
                    }
                    continue;
                }
                Kind::Whiteout => {
                    self.hide_below(&path, layer);
                    if let Some(old) = self.seen.remove(&path) {
                        self.charge(old, Reason::Deleted, &path, Some(layer));
                    }
                    continue;
                }
                Kind::File { size, .. } => (if counted.insert(id, ()).is_none() { *size } else { 0 }, true),
                _ => (0, false),
            };
            files += 1;
            self.hide_below(&path, layer);
            let new = Seen { layer, node: id, size, regular };
            if let Some(old) = self.seen.insert(path.clone(), new).filter(|old| old.layer != layer) {
                let same =
                    old.regular && regular && size > 0 && old.size == size && self.hash(old)? == self.hash(new)?;
                if same {
                    self.charge(new, Reason::Copied, &path, Some(old.layer));
                    self.charged.insert((layer, id), ());
                } else {
                    self.charge(old, Reason::Rewritten, &path, Some(layer));
                }
            }
        }
        Ok(files)
    }

    /// What can be seen is charged for what it is, and for being there twice.
    fn judge(&mut self) -> Result<(), Error> {
        let seen: Vec<(Vec<u8>, Seen)> = self.seen.iter().map(|(path, file)| (path.clone(), *file)).collect();
        let mut lengths: BTreeMap<u64, Vec<(Vec<u8>, Seen)>> = BTreeMap::new();
        for (path, file) in seen {
            if self.charged.contains_key(&(file.layer, file.node)) {
                continue;
            }
            match classify::file(&path) {
                Some((reason, group)) => self.charge(file, reason, group, None),
                None if file.regular && file.size >= COMPARED => {
                    lengths.entry(file.size).or_default().push((path, file));
                }
                None => {}
            }
        }
        for files in lengths.into_values().filter(|files| files.len() > 1) {
            let mut first: HashMap<Digest, usize> = HashMap::new();
            for (path, file) in files {
                let hash = self.hash(file)?;
                match first.get(&hash) {
                    Some(layer) => self.charge(file, Reason::Duplicate, &path, Some(*layer)),
                    None => drop(first.insert(hash, file.layer)),
                }
            }
        }
        Ok(())
    }
}

/// The instructions of an image's layers, lowest first.
fn instructions(image: &Image) -> Vec<String> {
    let mut rows = image.history();
    rows.reverse();
    rows.into_iter().filter(|row| row.layer.is_some()).map(|row| row.created_by).collect()
}

/// Looks at all layers of an image.
///
/// # Errors
/// When a layer cannot be read.
pub fn explore(store: &Store, image: &Image) -> Result<Report, Error> {
    let layers = image.layers.iter().map(|layer| Opened::new(store, layer)).collect::<Result<Vec<_>, _>>()?;
    let count = layers.len();
    let mut walk = Walk {
        layers,
        seen: BTreeMap::new(),
        charged: HashMap::new(),
        hashes: HashMap::new(),
        wastes: vec![BTreeMap::new(); count],
    };
    let files = (0..count).map(|layer| walk.lay(layer)).collect::<Result<Vec<_>, _>>()?;
    walk.judge()?;
    let visible = walk.seen.values().map(|file| file.size).sum();
    let mut reports = Vec::new();
    let parts = image.layers.iter().zip(instructions(image)).zip(files).zip(walk.wastes);
    for (index, (((layer, created_by), files), wastes)) in parts.enumerate() {
        let mut wastes: Vec<Waste> = wastes
            .into_iter()
            .map(|((reason, path, other), (files, bytes))| Waste {
                reason,
                path: String::from_utf8_lossy(&path).into_owned(),
                files,
                bytes,
                other: other.map(|layer| layer + 1),
            })
            .collect();
        wastes.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        let sum = |certain: bool| {
            wastes.iter().filter(|waste| waste.reason.is_certain() == certain).map(|waste| waste.bytes).sum::<u64>()
        };
        reports.push(LayerReport {
            number: index + 1,
            diff_id: layer.diff_id.clone(),
            created_by,
            size: layer.size,
            files,
            wasted: sum(true),
            optional: sum(false),
            wastes,
        });
    }
    Ok(Report {
        id: image.id.clone(),
        size: image.size,
        visible,
        wasted: reports.iter().map(|layer| layer.wasted).sum(),
        optional: reports.iter().map(|layer| layer.optional).sum(),
        layers: reports,
    })
}

/// The names of one layer, in order.
///
/// # Errors
/// When the layer cannot be read.
pub fn files(store: &Store, layer: &Layer) -> Result<Vec<FileEntry>, Error> {
    let opened = Opened::new(store, layer)?;
    let mut list = Vec::new();
    opened.tree.visit(|path, id| {
        let node = opened.tree.node(id);
        let (kind, size) = match &node.kind {
            Kind::Directory { .. } => ("directory", 0),
            Kind::File { size, .. } => ("file", *size),
            Kind::Symlink(_) => ("link", 0),
            Kind::Character(..) | Kind::Block(..) => ("device", 0),
            Kind::Fifo => ("fifo", 0),
            Kind::Whiteout => ("removed", 0),
        };
        if !path.is_empty() {
            let path = String::from_utf8_lossy(path).into_owned();
            list.push(FileEntry { path, kind, size, mode: node.mode, uid: node.uid, gid: node.gid });
        }
        Ok::<_, Error>(())
    })?;
    Ok(list)
}
