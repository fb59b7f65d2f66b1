//! A user with a home of their own, and images to serve.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hull_oci::Digest;
use hull_oci::image::{Descriptor, Platform, media_type};
use hull_testkit::registry::Faulty;
use hull_testkit::{Finished, finish, json};

pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        Self { dir, variables: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// With a variable in its environment.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.variables.push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    /// With a file below its `/etc`.
    pub(crate) fn etc(self, name: &str, text: &str) -> Self {
        self.file(&format!("etc/{name}"), text)
    }

    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("create");
        std::fs::write(path, text).expect("write");
        self
    }

    /// With user `u` and password `p` for a registry.
    pub(crate) fn logged_in(self, host: &str) -> Self {
        self.file("docker/config.json", &format!(r#"{{"auths":{{"{host}":{{"auth":"dTpw"}}}}}}"#))
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        command.arg("--root").arg(self.path("data")).arg("--state").arg(self.path("run"));
        command.args(words).stdin(Stdio::null()).current_dir("/").env("HOME", self.dir.path());
        command.env("DOCKER_CONFIG", self.path("docker")).env("HULL_DISK_BUDGET", "unlimited");
        command.env("HULL_ETC", self.path("etc"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
            command.env_remove(name);
        }
        for name in ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "CONTAINERS_REGISTRIES_CONF"] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn hull(&self, words: &[&str]) -> Finished {
        finish(&mut self.command(words))
    }

    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        self.hull(words).ok().stdout
    }

    /// Blobs on their way that a failed pull has left, with their lengths.
    pub(crate) fn partials(&self) -> Vec<u64> {
        let Ok(entries) = std::fs::read_dir(self.path("data/partial")) else { return Vec::new() };
        entries.flatten().map(|entry| entry.metadata().expect("metadata").len()).collect()
    }

    /// Makes an image of one file.
    pub(crate) fn import(&self, name: &str, file: &str, content: &[u8]) -> String {
        let path = self.path("rootfs.tar");
        std::fs::write(&path, tar(file, content)).expect("write");
        self.ok(&["import", &path.to_string_lossy(), name]).trim().to_owned()
    }
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
