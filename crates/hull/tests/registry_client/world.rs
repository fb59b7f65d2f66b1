//! A user with a home of their own, and images to serve.

use std::io::Write as _;

use hull_oci::Digest;
use hull_oci::image::{Descriptor, Platform, media_type};
use hull_testkit::registry::Faulty;
use hull_testkit::{Home, home, json};

/// A user without any setting of this machine's.
pub(crate) fn user() -> Home {
    let home = home!(plain);
    let (own, docker, etc) = (home.at(""), home.at("docker"), home.at("etc"));
    home.with("HOME", own)
        .with("DOCKER_CONFIG", docker)
        .with("HULL_ETC", etc)
        .with("HULL_DISK_BUDGET", "unlimited")
        .without(&[
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "no_proxy",
            "NO_PROXY",
            "REGISTRY_AUTH_FILE",
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
            "CONTAINERS_REGISTRIES_CONF",
            "HULL_POLICY",
        ])
}

/// The configuration of user `u` with password `p` for a registry.
pub(crate) fn login(host: &str) -> String {
    format!(r#"{{"auths":{{"{host}":{{"auth":"dTpw"}}}}}}"#)
}

/// Blobs on their way that a failed pull has left, with their lengths.
pub(crate) fn partials(home: &Home) -> Vec<u64> {
    let length = |name: &String| std::fs::metadata(home.at("data/partial").join(name)).expect("metadata").len();
    home.entries("data/partial").iter().map(length).collect()
}

/// Makes an image of one file.
pub(crate) fn import(home: &Home, name: &str, file: &str, content: &[u8]) -> String {
    home.write("rootfs.tar", tar(file, content));
    home.ok(&["import", &home.text("rootfs.tar"), name]).trim().to_owned()
}

pub(crate) fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).expect("append");
    builder.into_inner().expect("finish")
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// An image as a registry has it.
pub(crate) struct Made {
    pub(crate) layer: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

/// An image of one layer with one file.
pub(crate) fn image(content: &[u8]) -> Made {
    let tar = tar("file", content);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).expect("write");
    let layer = encoder.finish().expect("finish");
    let platform = Platform::native();
    let config = json!({"architecture": platform.architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar)]}});
    let config = config.to_string().into_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST,
        "config": Descriptor::of(media_type::CONFIG, &config),
        "layers": [Descriptor::of(media_type::LAYER_GZIP, &layer)]});
    Made { layer, config, manifest: manifest.to_string().into_bytes() }
}

impl Made {
    pub(crate) fn serve(&self, registry: &Faulty, repository: &str, tag: &str) {
        for blob in [&self.layer, &self.config] {
            registry.put(&format!("/v2/{repository}/blobs/{}", Digest::of(blob)), "application/octet-stream", blob);
        }
        for reference in [tag.to_owned(), Digest::of(&self.manifest).to_string()] {
            registry.put(&format!("/v2/{repository}/manifests/{reference}"), media_type::MANIFEST, &self.manifest);
        }
    }

    pub(crate) fn blob(&self) -> String {
        Digest::of(&self.layer).to_string()
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub(crate) fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }
}
