//! Images made by tests.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part; a test may panic")]

use std::io::{Read, Write as _};
use std::path::Path;

use hull_image::{Image, LayerSource, Store, Transfer};
use hull_oci::image::{Descriptor, ImageConfig, Manifest, RootFs, media_type};
use hull_oci::{Digest, Reference};

/// A directory on the file system that the build is on: `/tmp` may be one that EROFS cannot be mounted from.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A stream that must not be read.
pub(crate) struct Refuse;

impl Read for Refuse {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        panic!("a layer that is there was read")
    }
}

/// A stream without end.
pub(crate) struct Endless;

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(7);
        Ok(buffer.len())
    }
}

pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn config(diff_ids: &[Digest]) -> Vec<u8> {
    let config = ImageConfig {
        created: Some("2024-02-29T12:34:56Z".into()),
        rootfs: RootFs { diff_ids: diff_ids.to_vec(), ..RootFs::default() },
        ..ImageConfig::default()
    };
    serde_json::to_vec(&config).unwrap()
}

/// An image of one file per layer.
pub(crate) struct Layered {
    pub(crate) blobs: Vec<(Descriptor, Digest, Vec<u8>)>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) id: Digest,
}

impl Layered {
    pub(crate) fn new(contents: &[&[u8]]) -> Self {
        let blobs: Vec<_> = contents
            .iter()
            .map(|content| {
                let archive = archive(&[("file", content)]);
                let blob = gzip(&archive);
                (Descriptor::of(media_type::LAYER_GZIP, &blob), Digest::of(&archive), blob)
            })
            .collect();
        let diff_ids: Vec<_> = blobs.iter().map(|(_, diff_id, _)| diff_id.clone()).collect();
        let config = config(&diff_ids);
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::MANIFEST.into(),
            artifact_type: None,
            config: Descriptor::of(media_type::CONFIG, &config),
            layers: blobs.iter().map(|(descriptor, _, _)| descriptor.clone()).collect(),
            annotations: Default::default(),
            subject: None,
        };
        let manifest = serde_json::to_vec(&manifest).unwrap();
        Self { id: Digest::of(&config), blobs, config, manifest }
    }

    pub(crate) fn layers_into(&self, transfer: &Transfer) {
        for (descriptor, diff_id, bytes) in &self.blobs {
            let source =
                LayerSource { blob: Some(descriptor.clone()), diff_id: Some(diff_id.clone()), keep_blob: true };
            transfer.layer(bytes.as_slice(), source).unwrap();
        }
    }

    pub(crate) fn try_add(&self, store: &Store, names: &[&str]) -> Result<Image, hull_image::Error> {
        let transfer = store.begin()?;
        for (descriptor, diff_id, bytes) in &self.blobs {
            let source =
                LayerSource { blob: Some(descriptor.clone()), diff_id: Some(diff_id.clone()), keep_blob: true };
            transfer.layer(bytes.as_slice(), source)?;
        }
        let names: Vec<Reference> = names.iter().map(|name| name.parse::<Reference>().unwrap().or_latest()).collect();
        transfer.image(&self.config, Some((&self.manifest, media_type::MANIFEST)), &names)
    }

    pub(crate) fn add(self, store: &Store, names: &[&str]) -> Self {
        let image = self.try_add(store, names).unwrap();
        assert_eq!(image.id, self.id);
        self
    }
}

pub(crate) fn names_below(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Nothing is wrong, and no command left anything.
pub(crate) fn assert_whole(store: &Store) {
    let problems = store.check(false).unwrap();
    assert!(problems.is_empty(), "{problems:#?}");
    for left in ["ingest", "trash"] {
        assert_eq!(names_below(&store.root().join(left)), Vec::<String>::new(), "{left}");
    }
}
