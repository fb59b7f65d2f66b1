//! `cargo xtask bench images`: loading, removing and mounting images, beside umoci and podman.
//!
//! ```text
//! STAGE/layout/      OCI layout of four layers, gzip: what umoci unpacks
//! STAGE/image.tar    the same as an archive: what hull and podman load
//! STAGE/sixty.tar    sixty small layers
//! ```
//!
//! The image stands for a Python application: 328 MB in some ten thousand files of this machine, libraries and programs
//! below, then the interpreter's library, data, and a small uppermost layer. Every contender starts from files in the
//! page cache and ends with an image whose layers are on disk and can be run.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Bench;
use super::report::{Row, Table};
use super::stage::{Place, Stage, has, machine, version};
use crate::Result;

/// Directories of each layer, and how many bytes are taken of them.
const LAYERS: &[(&[&str], u64)] = &[
    (&["usr/lib/x86_64-linux-gnu", "usr/bin"], 130 << 20),
    (&["usr/lib/python3.11", "usr/lib/python3", "usr/lib/python3.13"], 100 << 20),
    (&["usr/share"], 74 << 20),
    (&["usr/include", "usr/lib/git-core"], 8 << 20),
];

/// A larger file would be most of its layer.
const MAX_FILE: u64 = 24 << 20;

/// Runs of the contenders that take seconds.
pub(super) const RUNS: usize = 5;

/// Images, beside others.
pub(super) const BENCH: Bench = Bench {
    word: "images",
    fill: make,
    measure,
    apart: false,
    table: Table { programs: &["hull", "umoci", "podman"], rows: ROWS },
    section: Some("images"),
};

const ROWS: &[Row] = &[
    ("hull-load", "`hull load -i image.tar`", "hull-load", ""),
    ("hull-load-stdin", "`hull load < image.tar`", "hull-load", ""),
    ("umoci-unpack", "`umoci unpack` of the same layout", "hull-load", ""),
    ("podman-load", "`podman load -i image.tar`", "hull-load", ""),
    ("hull-rmi", "`hull rmi`", "hull-rmi", ""),
    ("umoci-rm", "`rm -rf` of umoci's bundle", "hull-rmi", ""),
    ("podman-rmi", "`podman rmi`", "hull-rmi", ""),
    ("hull-mount-60", "`hull image mount` of 60 layers", "hull-mount-60", ""),
    ("hull-unmount-60", "`hull image unmount` of 60 layers", "hull-mount-60", ""),
];

/// Makes the images; what the first one is, in words.
fn make(stage: &Stage) -> Result<String> {
    let about = application(stage)?;
    let stage = &stage.path;
    let mut small = Vec::new();
    for number in 0..60 {
        let directory = stage.join(format!("small/{number}"));
        fs::create_dir_all(directory.join("etc"))?;
        fs::write(directory.join(format!("etc/file-{number}")), format!("{number}\n").repeat(1000))?;
        let tar = stage.join(format!("small-{number}.tar"));
        succeed(Command::new("tar").arg("-C").arg(&directory).arg("-cf").arg(&tar).arg("."))?;
        small.push(tar);
    }
    layout_of(&stage.join("layout-60"), &small, "sixty:1", false)?;
    archive(&stage.join("layout-60"), &stage.join("sixty.tar"))?;
    Ok(about)
}

/// Makes the image that stands for an application, `STAGE/layout` and `STAGE/image.tar`; what it is, in words.
pub(super) fn application(stage: &Stage) -> Result<String> {
    let stage = &stage.path;
    let layout = stage.join("layout");
    let mut layers = Vec::new();
    let (mut files, mut plain, mut packed) = (0, 0, 0);
    for (number, (directories, limit)) in LAYERS.iter().enumerate() {
        let list = stage.join("list");
        let names = pick(directories, *limit)?;
        files += names.len();
        fs::write(&list, names.join("\0"))?;
        let tar = stage.join(format!("layer-{number}.tar"));
        let options = ["-C", "/", "--null", "--no-recursion", "--sort=name", "--numeric-owner"];
        succeed(Command::new("tar").args(options).arg("-cf").arg(&tar).arg("-T").arg(&list))?;
        plain += fs::metadata(&tar)?.len();
        layers.push(tar);
    }
    layout_of(&layout, &layers, "app:1", true)?;
    for entry in fs::read_dir(layout.join("blobs/sha256"))? {
        packed += entry?.metadata()?.len();
    }
    archive(&layout, &stage.join("image.tar"))?;
    let (plain, packed, layers) = (plain / 1_000_000, packed / 1_000_000, LAYERS.len());
    Ok(format!("The image: {plain} MB ({packed} MB gzip), {files} files in {layers} layers, {RUNS} runs each."))
}

/// Regular files and links of some directories, in order of names, until there are enough bytes.
fn pick(directories: &[&str], limit: u64) -> Result<Vec<String>> {
    let mut picked = Vec::new();
    let mut left = limit;
    for directory in directories {
        let mut open = vec![PathBuf::from("/").join(directory)];
        while let Some(directory) = open.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            paths.sort();
            for path in paths {
                let metadata = fs::symlink_metadata(&path)?;
                if metadata.is_dir() {
                    open.push(path);
                } else if metadata.is_symlink() || metadata.is_file() && metadata.len() <= MAX_FILE.min(left) {
                    left -= if metadata.is_file() { metadata.len() } else { 0 };
                    picked.extend(path.strip_prefix("/")?.to_str().map(str::to_owned));
                }
            }
        }
    }
    Ok(picked)
}

/// Writes an OCI layout of uncompressed layers, which are removed.
fn layout_of(layout: &Path, layers: &[PathBuf], name: &str, compress: bool) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let blob = |path: &Path| -> Result<(String, u64)> {
        let (digest, size) = (sha256(path)?, fs::metadata(path)?.len());
        fs::rename(path, blobs.join(&digest))?;
        Ok((digest, size))
    };
    let document = |value: &Value| -> Result<(String, u64)> {
        let path = layout.join("document");
        fs::write(&path, value.to_string())?;
        blob(&path)
    };
    let descriptor = |kind: &str, (digest, size): &(String, u64)| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size});
    let (mut ids, mut descriptors) = (Vec::new(), Vec::new());
    for tar in layers {
        ids.push(format!("sha256:{}", sha256(tar)?));
        if compress {
            succeed(Command::new("gzip").args(["-n", "-6"]).arg(tar))?;
            descriptors.push(descriptor("layer.v1.tar+gzip", &blob(&tar.with_extension("tar.gz"))?));
        } else {
            descriptors.push(descriptor("layer.v1.tar", &blob(tar)?));
        }
    }
    let config = document(&json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/usr/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": ids}}))?;
    let manifest = document(&json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config), "layers": descriptors}))?;
    let mut manifest = descriptor("manifest.v1+json", &manifest);
    // umoci knows images by the part behind the colon.
    let tag = name.split(':').nth(1).unwrap_or(name);
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag,
        "io.containerd.image.name": format!("docker.io/library/{name}")});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

fn archive(layout: &Path, tar: &Path) -> Result<()> {
    succeed(Command::new("tar").arg("-C").arg(layout).arg("-cf").arg(tar).args(["oci-layout", "index.json", "blobs"]))
}

fn sha256(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.get(..64).map(str::to_owned).ok_or_else(|| format!("sha256sum {}: {text}", path.display()).into())
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

fn measure(place: &Place) -> Result<()> {
    place.enter()?;
    let stage = &place.stage;
    std::env::set_current_dir(stage)?;
    let hull = |words: &str| {
        command(&format!("{}/hull --root {}/data --state /run/bench/engine {words}", stage.display(), stage.display()))
    };
    let podman =
        "podman --cgroup-manager=cgroupfs --storage-driver=overlay --root STAGE/podman --runroot /run/bench/podman";
    let podman = |words: &str| command(&format!("{podman} {words}").replace("STAGE", &stage.display().to_string()));
    let (has_umoci, has_podman) = (has("umoci"), has("podman"));
    for round in 0..=RUNS {
        // What the first round does is not counted: it fills the page cache.
        let show = |name: &str, took: Duration| {
            if round > 0 {
                println!("bench {name} us {}", took.as_micros());
            }
        };
        show("hull-load", timed(&mut hull("load -i image.tar"))?);
        show("hull-rmi", timed(&mut hull("rmi app:1"))?);
        show("hull-load-stdin", timed(hull("load").stdin(fs::File::open("image.tar")?))?);
        timed(&mut hull("rmi app:1"))?;
        if has_umoci {
            show("umoci-unpack", timed(&mut command("umoci unpack --image layout:1 bundle"))?);
            show("umoci-rm", timed(&mut command("rm -rf bundle"))?);
        }
        if has_podman {
            show("podman-load", timed(&mut podman("load -q -i image.tar"))?);
            show("podman-rmi", timed(&mut podman("rmi -f -a"))?);
        }
        std::io::stdout().flush()?;
    }
    timed(&mut hull("load -i sixty.tar"))?;
    for _ in 0..20 {
        println!("bench hull-mount-60 us {}", timed(&mut hull("image mount sixty:1"))?.as_micros());
        println!("bench hull-unmount-60 us {}", timed(&mut hull("image unmount sixty:1"))?.as_micros());
    }
    machine()?;
    version("hull", stage.join("hull"))?;
    for (name, has) in [("umoci", has_umoci), ("podman", has_podman)] {
        if has {
            version(name, name)?;
        }
    }
    Ok(())
}

pub(super) fn command(words: &str) -> Command {
    let mut words = words.split(' ').filter(|word| !word.is_empty());
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs a command once, after what others wrote is on disk, and fails if it fails.
pub(super) fn timed(command: &mut Command) -> Result<Duration> {
    rustix::fs::sync();
    let begin = Instant::now();
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    let took = begin.elapsed();
    if output.status.success() {
        return Ok(took);
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}
