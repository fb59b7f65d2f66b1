//! Archives made in memory, and stores to load them into.
#![allow(dead_code, reason = "each test file uses a part")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;

use hull_image::Store;
use hull_layer::tar::{Entry, EntryKind, Writer};
use hull_oci::Digest;
use hull_oci::image::{Descriptor, Platform, media_type};
use serde_json::{Value, json};

/// A store in the target directory, whose file system can carry every snapshotter that the machine offers.
pub(crate) struct Place {
    pub(crate) store: Store,
    pub(crate) directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { store: Store::open(directory.path()).unwrap(), directory }
    }

    /// What must hold after anything that failed: no image, nothing half done, nothing wrong.
    pub(crate) fn assert_empty(&self, what: &str) {
        assert!(self.store.list().unwrap().is_empty(), "{what}: an image is there");
        for below in ["ingest", "layers", "blobs/sha256", "blobs/sha512"] {
            let left: Vec<_> = std::fs::read_dir(self.directory.path().join(below))
                .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
                .unwrap_or_default();
            assert!(left.is_empty(), "{what}: left in {below}: {left:?}");
        }
    }
}

/// A file of a layer.
pub(crate) fn file(path: &str, content: &str) -> (Entry, Vec<u8>) {
    let kind = EntryKind::File { size: content.len() as u64, extents: Vec::new() };
    (Entry { mtime: 1_600_000_000, ..Entry::new(path, kind, 0o644) }, content.as_bytes().to_vec())
}

/// An entry without content.
pub(crate) fn node(path: &str, kind: EntryKind, mode: u16) -> (Entry, Vec<u8>) {
    (Entry { mtime: 1_600_000_000, ..Entry::new(path, kind, mode) }, Vec::new())
}

pub(crate) fn directory(path: &str) -> (Entry, Vec<u8>) {
    node(path, EntryKind::Directory, 0o755)
}

pub(crate) fn whiteout(path: &str) -> (Entry, Vec<u8>) {
    let (parent, name) = path.rsplit_once('/').map_or((String::new(), path), |(p, n)| (format!("{p}/"), n));
    file(&format!("{parent}.wh.{name}"), "")
}

pub(crate) fn opaque(path: &str) -> (Entry, Vec<u8>) {
    file(&format!("{path}/.wh..wh..opq"), "")
}

pub(crate) fn symlink(path: &str, target: &str) -> (Entry, Vec<u8>) {
    node(path, EntryKind::Symlink(target.into()), 0o777)
}

pub(crate) fn hard_link(path: &str, target: &str) -> (Entry, Vec<u8>) {
    node(path, EntryKind::HardLink(target.into()), 0o644)
}

/// A tar archive of entries in this order.
pub(crate) fn tar(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// How layers are in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

impl Packed {
    pub(crate) fn pack(self, tar: &[u8]) -> (Vec<u8>, &'static str) {
        match self {
            Self::Plain => (tar.to_vec(), media_type::LAYER),
            Self::Gzip => (gzip(tar), media_type::LAYER_GZIP),
            Self::Zstd => (zstd::encode_all(tar, 3).unwrap(), media_type::LAYER_ZSTD),
        }
    }
}

/// An image before it is in any format.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
}

impl Source {
    pub(crate) fn new(layers: Vec<Vec<u8>>) -> Self {
        Self::on(&Platform::native(), layers)
    }

    pub(crate) fn on(platform: &Platform, layers: Vec<Vec<u8>>) -> Self {
        let ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let history: Vec<Value> = (1..=layers.len())
            .flat_map(|number| [json!({"created_by": format!("step {number}")}), json!({"empty_layer": true})])
            .collect();
        let config = json!({
            "architecture": platform.architecture, "os": platform.os, "created": "2024-05-01T12:00:00Z",
            "config": {"Cmd": ["/bin/sh"], "Unknown": {"kept": true}}, "unknown": [1, 2],
            "rootfs": {"type": "layers", "diff_ids": ids}, "history": history,
        });
        Self { layers, config: config.to_string().into_bytes() }
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::of(&self.config)
    }
}

/// Members of an archive, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members(pub(crate) Vec<(Entry, Vec<u8>)>);

impl Members {
    pub(crate) fn put(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> &mut Self {
        let kind = EntryKind::File { size: bytes.as_ref().len() as u64, extents: Vec::new() };
        self.0.push((Entry::new(name, kind, 0o644), bytes.as_ref().to_vec()));
        self
    }

    pub(crate) fn add(&mut self, entry: (Entry, Vec<u8>)) -> &mut Self {
        self.0.push(entry);
        self
    }

    pub(crate) fn blob(&mut self, media_type: &str, bytes: impl AsRef<[u8]>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, bytes.as_ref());
        let name = format!("blobs/sha256/{}", descriptor.digest.hex());
        if !self.0.iter().any(|(entry, _)| entry.path == name.as_bytes()) {
            self.put(&name, bytes);
        }
        descriptor
    }

    pub(crate) fn manifest(&mut self, source: &Source, packed: Packed) -> Descriptor {
        let config = self.blob(media_type::CONFIG, &source.config);
        let layers: Vec<Descriptor> = source
            .layers
            .iter()
            .map(|layer| {
                let (bytes, media_type) = packed.pack(layer);
                self.blob(media_type, bytes)
            })
            .collect();
        let text = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers,
            "annotations": {"kept": "yes"}});
        self.blob(media_type::MANIFEST, text.to_string())
    }

    pub(crate) fn index(&mut self, manifests: &[Descriptor]) -> Descriptor {
        self.blob(media_type::INDEX, index(manifests))
    }

    pub(crate) fn top(&mut self, manifests: &[Descriptor]) -> &mut Self {
        self.put("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#).put("index.json", index(manifests))
    }

    /// Docker's archive before version 25, where a layer that was there already is a link.
    pub(crate) fn legacy(source: &Source, name: &str, packed: Packed) -> Self {
        let mut members = Self::default();
        let mut layers = Vec::<String>::new();
        for (number, layer) in source.layers.iter().enumerate() {
            let path = format!("{number:064x}/layer.tar");
            members.add(directory(&format!("{number:064x}")));
            match source.layers.iter().position(|other| other == layer) {
                Some(first) if first < number => {
                    members.add(symlink(&path, &format!("../{first:064x}/layer.tar")));
                }
                _ => {
                    members.put(&path, packed.pack(layer).0);
                }
            }
            members.put(&format!("{number:064x}/VERSION"), "1.0");
            members.put(&format!("{number:064x}/json"), "{}");
            layers.push(path);
        }
        let config = format!("{}.json", source.id().hex());
        members.put(&config, &source.config);
        let manifest = json!([{"Config": config, "RepoTags": [name], "Layers": layers}]);
        members.put("manifest.json", manifest.to_string()).put("repositories", "{}");
        members
    }

    pub(crate) fn layout(source: &Source, name: &str, packed: Packed) -> Self {
        let mut members = Self::default();
        let manifest = members.manifest(source, packed);
        members.top(&[named(manifest, name)]);
        members
    }

    pub(crate) fn tar(&self) -> Vec<u8> {
        tar(&self.0)
    }

    pub(crate) fn reversed(mut self) -> Self {
        self.0.reverse();
        self
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> &mut Vec<u8> {
        let found = self.0.iter_mut().find(|(entry, _)| entry.path == name.as_bytes());
        &mut found.unwrap_or_else(|| panic!("no {name}")).1
    }

    /// Writes them as a directory.
    pub(crate) fn directory(&self, into: &std::path::Path) {
        for (entry, bytes) in &self.0 {
            let path = into.join(std::str::from_utf8(&entry.path).unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match &entry.kind {
                EntryKind::File { .. } => std::fs::write(path, bytes).unwrap(),
                EntryKind::Symlink(target) => {
                    std::os::unix::fs::symlink(std::str::from_utf8(target).unwrap(), path).unwrap();
                }
                _ => std::fs::create_dir_all(path).unwrap(),
            }
        }
    }
}

fn index(manifests: &[Descriptor]) -> String {
    json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests}).to_string()
}

pub(crate) fn named(mut descriptor: Descriptor, name: &str) -> Descriptor {
    descriptor.annotations.insert("io.containerd.image.name".to_owned(), name.to_owned());
    descriptor
}

/// A stack of layers in which everything happens that layers can do to each other.
pub(crate) fn stack() -> Vec<Vec<u8>> {
    vec![
        tar(&[
            (Entry { uid: 5, mtime: 7, ..Entry::new("", EntryKind::Directory, 0o751) }, Vec::new()),
            directory("etc"),
            file("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
            file("etc/hidden", "gone later"),
            directory("var"),
            directory("var/lib"),
            file("var/lib/a", "a"),
            file("var/lib/b", "b"),
            directory("replaced"),
            file("replaced/inner", "below"),
            file("one", "two names"),
            hard_link("other", "one"),
            symlink("link", "etc/passwd"),
            node("pipe", EntryKind::Fifo, 0o600),
            (
                Entry { xattrs: vec![(b"user.k"[..].into(), b"v"[..].into())], ..file("x", "attributes").0 },
                b"attributes".to_vec(),
            ),
        ]),
        tar(&[
            whiteout("etc/hidden"),
            opaque("var/lib"),
            file("var/lib/c", "c"),
            file("replaced", "a file now"),
            whiteout("other"),
            file("new/implied/parents", "p"),
        ]),
        tar(&[
            (Entry { mode: 0o700, ..directory("var").0 }, Vec::new()),
            whiteout("replaced"),
            file("etc/hidden", "back"),
            whiteout("x"),
            file("empty", ""),
        ]),
        tar(&[
            directory("replaced"),
            file("replaced/above", "only this"),
            whiteout("never-was"),
            directory("new"),
            file("big", &"0123456789".repeat(5000)),
            hard_link("twin", "big"),
        ]),
    ]
}
