//! Images as their parts, made here.

use std::io::Write as _;

use hull_oci::Digest;
use hull_testkit::json;

use crate::client::{OCI, Server};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// An image as its parts.
pub(crate) struct Parts {
    pub(crate) config: Vec<u8>,
    pub(crate) tar: Vec<u8>,
    pub(crate) layer: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl Parts {
    pub(crate) fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub(crate) fn push_blobs(&self, server: &Server, name: &str) {
        server.blob(name, &self.config);
        server.blob(name, &self.layer);
    }

    #[track_caller]
    pub(crate) fn push(&self, server: &Server, name: &str, reference: &str) {
        self.push_blobs(server, name);
        let target = format!("/v2/{name}/manifests/{reference}");
        server.send("PUT", &target, &[("content-type", OCI)], &self.manifest).is(201);
    }

    /// Pushes it, as far as the server answers. Whether all was acknowledged.
    pub(crate) fn try_push(&self, server: &Server, name: &str, tag: &str) -> std::io::Result<bool> {
        for blob in [&self.config, &self.layer] {
            let target = format!("/v2/{name}/blobs/uploads/?digest={}", Digest::of(blob));
            if server.try_send("POST", &target, &[], blob)?.status != 201 {
                return Ok(false);
            }
        }
        let target = format!("/v2/{name}/manifests/{tag}");
        Ok(server.try_send("PUT", &target, &[("content-type", OCI)], &self.manifest)?.status == 201)
    }

    /// Asserts that a server has it, bit by bit.
    #[track_caller]
    pub(crate) fn is_served(&self, server: &Server, name: &str, reference: &str) {
        assert!(server.get(&format!("/v2/{name}/manifests/{reference}")).is(200).body == self.manifest);
        for blob in [&self.config, &self.layer] {
            assert!(server.get(&format!("/v2/{name}/blobs/{}", Digest::of(blob))).is(200).body == *blob);
        }
    }
}

/// An image with one file. Its manifest is one that no program would write just so.
pub(crate) fn parts(text: &str, architecture: &str) -> Parts {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "file", text.as_bytes()).expect("tar");
    let tar = builder.into_inner().expect("tar");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("gzip");
    let layer = gzip.finish().expect("gzip");
    let label = &text[..text.len().min(20)];
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Labels": {"text": label}},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar).to_string()]}});
    let config = format!("{config} ").into_bytes();
    let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let manifest = json!({"mediaType": OCI, "schemaVersion": 2, "config": descriptor(CONFIG, &config),
        "layers": [descriptor(GZIP, &layer)], "annotations": {"x": label}});
    Parts { config, tar, layer, manifest: format!("\n{manifest}\n").into_bytes() }
}

/// The architecture of this machine, as images have it.
pub(crate) fn native() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
