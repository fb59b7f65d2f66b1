//! Images on their way through other tools, and commands that are killed on the way.
//!
//! skopeo, podman and docker are the machine's, or those of the root directory `HULL_PEERS_ROOT`; docker also needs a
//! daemon that listens at `HULL_PEERS_DOCKER`, an address as it is seen there.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::store::assert_sound;
use crate::support::{Members, Packed, Source, stack, tar};
use hull_testkit::{Finished, Home, finish, finish_within, home, loops, tier};
use serde_json::Value;
use tempfile::TempDir;

fn store() -> Home {
    home!(plain).without(&["SOURCE_DATE_EPOCH"])
}

fn image_id(h: &Home, name: &str) -> String {
    h.run(&["image", "inspect", "--format", "{{.Id}}", name]).ok().text().to_owned()
}

fn diff_ids(h: &Home, name: &str) -> Value {
    let text = h.ok(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", name]);
    serde_json::from_str(&text).unwrap()
}

/// The root directory with the other tools, and a directory that is the same for them and for this test.
struct Peers {
    root: PathBuf,
    shared: TempDir,
}

impl Peers {
    fn new(tools: &[&str]) -> Option<Self> {
        let root = std::env::var_os("HULL_PEERS_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        if !tier::root() {
            return None;
        }
        if let Some(missing) = tools.iter().find(|tool| !root.join("usr/bin").join(tool).exists()) {
            tier::skip("other tools", &format!("{missing} is not installed"));
            return None;
        }
        let shared = tempfile::Builder::new().prefix("hull-roundtrip-").tempdir_in(root.join("var/tmp")).unwrap();
        Some(Self { root, shared })
    }

    /// A file of the shared directory as this test sees it.
    fn path(&self, name: &str) -> PathBuf {
        self.shared.path().join(name)
    }

    /// Runs a line of shell in the root directory; `@` in it is the shared directory.
    #[track_caller]
    fn run(&self, line: &str) -> Finished {
        let inner = Path::new("/").join(self.shared.path().strip_prefix(&self.root).unwrap());
        let line = line.replace('@', inner.to_str().unwrap());
        let script = r#"
            set -e
            mount --bind "$1" "$1" && cd "$1"
            mount -t proc proc proc && mount --rbind /sys sys && mount --rbind /dev dev && mount -t tmpfs tmpfs run
            exec chroot . sh -c "$2""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&self.root).arg(line);
        finish_within(command.stdin(Stdio::null()), Duration::from_secs(100)).ok()
    }
}

/// A store with an image of several compressed layers.
fn loaded() -> (Home, Source) {
    let home = store();
    let source = Source::new(stack());
    let archive = home.path().join("source.tar");
    std::fs::write(&archive, Members::layout(&source, "docker.io/library/a:1", Packed::Gzip).tar()).unwrap();
    let out = home.run(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(out.text(), "Loaded image: a:1");
    (home, source)
}

#[test]
fn root_images_survive_skopeo() {
    let Some(peers) = Peers::new(&["skopeo"]) else { return };
    let (home, source) = loaded();
    home.run(&["save", "-o", peers.path("a.tar").to_str().unwrap(), "a:1"]).ok();
    home.run(&["save", "--format", "oci", "-o", peers.path("oci.tar").to_str().unwrap(), "a:1"]).ok();
    home.run(&["save", "-o", &format!("{}/", peers.path("layout").display()), "a:1"]).ok();
    for (number, (from, to, file, same)) in [
        ("docker-archive:@/a.tar", "docker-archive:@/b0:a:1", "b0", true),
        ("oci-archive:@/oci.tar", "oci-archive:@/b1:a:1", "b1", true),
        ("oci-archive:@/a.tar", "oci:@/b2:a:1", "b2", true),
        ("oci:@/layout", "oci-archive:@/b3:a:1", "b3", true),
        // It writes the configuration anew.
        ("docker-archive:@/a.tar", "oci:@/b4:a:1", "b4", false),
        ("oci:@/layout", "docker-archive:@/b5:a:1", "b5", false),
    ]
    .into_iter()
    .enumerate()
    {
        peers.run(&format!("skopeo --insecure-policy copy {from} {to}"));
        let other = store();
        let loaded = other.run(&["load", "-i", peers.path(file).to_str().unwrap()]).ok();
        assert_eq!(loaded.text(), "Loaded image: a:1", "{number}: {from} {to}");
        assert_eq!(diff_ids(&other, "a:1"), diff_ids(&home, "a:1"), "{from} {to}");
        if same {
            assert_eq!(image_id(&other, "a:1"), source.id().to_string(), "{from} {to}");
        }
        assert_sound(&other, to);
    }
}

#[test]
fn root_images_survive_podman() {
    let Some(peers) = Peers::new(&["podman"]) else { return };
    let (home, source) = loaded();
    home.run(&["save", "-o", peers.path("a.tar").to_str().unwrap(), "a:1"]).ok();
    home.run(&["save", "--format", "oci", "-o", peers.path("oci.tar").to_str().unwrap(), "a:1"]).ok();
    let podman = "podman --cgroup-manager=cgroupfs --storage-driver=vfs --root @/store --runroot /run/store";
    for (file, format) in [("a.tar", "docker-archive"), ("oci.tar", "oci-archive"), ("a.tar", "oci-archive")] {
        let id = format!("$({podman} images -q --no-trunc | head -1 | cut -d: -f2)");
        let listed = peers.run(&format!(
            "{podman} load -q -i @/{file} >&2; {podman} images -q --no-trunc;
             {podman} tag {id} x.example/a:1; {podman} save -q --format {format} -o @/{format} x.example/a:1; {podman} rmi -f -a >&2"
        ));
        assert_eq!(listed.text(), source.id().to_string(), "{file}");
        let other = store();
        let out = other.run(&["load", "-i", peers.path(format).to_str().unwrap()]).ok();
        assert_eq!(out.text(), "Loaded image: x.example/a:1", "{file} {format}");
        assert_eq!(diff_ids(&other, "x.example/a:1"), diff_ids(&home, "a:1"), "{file} {format}");
        std::fs::remove_file(peers.path(format)).unwrap();
    }
}

#[test]
fn root_images_survive_docker() {
    let Some(peers) = Peers::new(&["docker"]) else { return };
    let Ok(daemon) = std::env::var("HULL_PEERS_DOCKER") else {
        tier::skip("a docker daemon", "HULL_PEERS_DOCKER is not set");
        return;
    };
    let (home, source) = loaded();
    let name = format!("hull-roundtrip-{}:1", std::process::id());
    home.run(&["tag", "a:1", &name]).ok();
    for (number, layers) in ["original", "plain", "zstd"].into_iter().enumerate() {
        home.run(&["save", "--layers", layers, "-o", peers.path("a.tar").to_str().unwrap(), &name]).ok();
        let docker = format!("docker -H {daemon}");
        let out = peers.run(&format!(
            "{docker} load -i @/a.tar; {docker} image inspect -f '{{{{.Id}}}}' {name}; {docker} save -o @/b.tar {name}; {docker} rmi {name} >&2"
        ));
        assert_eq!(out.lines(), [format!("Loaded image: {name}"), source.id().to_string()], "{layers}");
        let other = store();
        let loaded = other.run(&["load", "-i", peers.path("b.tar").to_str().unwrap()]).ok();
        assert_eq!(loaded.text(), format!("Loaded image: {name}"), "{number}");
        assert_eq!(
            (image_id(&other, &name), diff_ids(&other, &name)),
            (source.id().to_string(), diff_ids(&home, "a:1")),
            "{layers}"
        );
        assert_sound(&other, layers);
    }
}

#[test]
fn archives_are_the_same_from_every_store() {
    let (one, _) = loaded();
    let (two, _) = loaded();
    for layers in ["original", "plain", "gzip", "zstd"] {
        let saved = |home: &Home| {
            let file = home.path().join("saved.tar");
            home.run(&["save", "--layers", layers, "-o", file.to_str().unwrap(), "a:1"]).ok();
            std::fs::read(file).unwrap()
        };
        assert!(saved(&one) == saved(&two), "{layers}");
    }
}

#[test]
fn imports_are_the_same_from_every_store() {
    let (one, two) = (store(), store());
    let archive = one.path().join("rootfs.tar");
    std::fs::write(&archive, tar(&[crate::support::directory("etc"), crate::support::file("etc/x", "1")])).unwrap();
    let import = |home: &Home, epoch: &str| {
        let words = ["import", "-c", "CMD [\"/x\"]", "-m", "made", archive.to_str().unwrap(), "a:1"];
        finish(home.hull(&words).env("SOURCE_DATE_EPOCH", epoch)).ok().text().to_owned()
    };
    let id = import(&one, "1700000000");
    assert_eq!(id, image_id(&one, "a:1"));
    assert_eq!(id, import(&two, "1700000000"));
    assert_ne!(id, import(&two, "1700000001"));
    let created = one.run(&["image", "inspect", "--format", "{{.Created}}", "a:1"]).ok();
    assert_eq!(created.text(), "2023-11-14T22:13:20Z");
    let refused = finish(one.hull(&["import", archive.to_str().unwrap()]).env("SOURCE_DATE_EPOCH", "soon"));
    assert!(refused.code != 0 && refused.stderr.contains("SOURCE_DATE_EPOCH"), "{}", refused.stderr);
}

#[test]
fn squashing_by_the_command_line() {
    let (home, _) = loaded();
    home.run(&["squash", "--layers", "2-4", "a:1", "a:small"]).ok();
    assert_eq!(diff_ids(&home, "a:small").as_array().unwrap().len(), 2);
    assert_eq!(diff_ids(&home, "a:small")[0], diff_ids(&home, "a:1")[0]);
    home.run(&["squash", "a:1", "a:one"]).ok();
    assert_eq!(diff_ids(&home, "a:one").as_array().unwrap().len(), 1);
    assert_sound(&home, "after squashing");
}

/// An archive whose loading takes long enough to be hit in every phase.
fn large() -> Vec<u8> {
    let layer = |number: u32| {
        let text = |file: u32| format!("{number} {file} {}\n", file.wrapping_mul(2_654_435_761)).repeat(400);
        let files: Vec<_> =
            (0..100).map(|file| crate::support::file(&format!("layer-{number}-{file}"), &text(file))).collect();
        tar(&files)
    };
    Members::layout(&Source::new((0..4).map(layer).collect()), "docker.io/library/a:1", Packed::Gzip).tar()
}

/// Kills `hull load` at times that are spread over its run.
fn killed(stream: bool) {
    let home = store();
    let archive = home.path().join("large.tar");
    std::fs::write(&archive, large()).unwrap();
    let path = archive.to_str().unwrap();
    let begin = std::time::Instant::now();
    home.run(&["load", "-i", path]).ok();
    let mut limit = begin.elapsed();
    home.run(&["rmi", "a:1"]).ok();
    let (mut killed, mut turn) = (0, 0_u32);
    while killed < loops(50) {
        turn += 1;
        assert!(turn < 5 * loops(50), "only {killed} of {turn} were killed before their end");
        let mut command = if stream { home.hull(&["load"]) } else { home.hull(&["load", "-i", path]) };
        let mut cat = stream.then(|| {
            // A pipe, not the file, so that it is read as a stream.
            let mut cat = Command::new("cat").arg(path).stdout(Stdio::piped()).spawn().unwrap();
            command.stdin(cat.stdout.take().unwrap());
            cat
        });
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        drop(command);
        let at = limit.mul_f64(f64::from(turn.wrapping_mul(2_654_435_761) >> 16) / 65_536.0);
        std::thread::sleep(at);
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(cat) = &mut cat {
            cat.wait().unwrap();
        }
        // The machine is not always as fast as it was: kills are to fall within the run.
        limit = limit.mul_f64(if ended { 0.9 } else { 1.02 });
        killed += u32::from(!ended);
        let listed = home.run(&["images", "-q"]).ok();
        if turn % 5 == 0 || ended {
            assert_sound(&home, &format!("killed after {at:?}"));
        }
        if !listed.text().is_empty() {
            home.run(&["rmi", "a:1"]).ok();
        }
    }
    assert_sound(&home, "after all kills");
    assert_eq!(home.run(&["load", "-i", path]).ok().text(), "Loaded image: a:1");
    assert_sound(&home, "after all");
}

#[test]
fn load_of_a_file_killed_at_any_time_leaves_nothing() {
    killed(false);
}

#[test]
fn load_of_a_stream_killed_at_any_time_leaves_nothing() {
    killed(true);
}

#[test]
fn hostile_archives_end_with_one_line() {
    let home = store();
    let archive = home.path().join("bad.tar");
    let source = Source::new(stack());
    let whole = Members::layout(&source, "docker.io/library/a:1", Packed::Gzip).tar();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("text", b"no archive".repeat(200)),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("no image", tar(&[crate::support::file("etc/passwd", "")])),
    ] {
        std::fs::write(&archive, bytes).unwrap();
        for words in [&["load", "-i", archive.to_str().unwrap()][..], &["load"]] {
            let mut command = home.hull(words);
            if words.len() == 1 {
                command.stdin(std::fs::File::open(&archive).unwrap());
            }
            let out = finish(&mut command);
            assert_ne!(out.code, 0, "{what}");
            assert_eq!(out.stderr.trim_end().lines().count(), 1, "{what}: {}", out.stderr);
            assert!(out.stdout.is_empty(), "{what}: {}", out.stdout);
        }
    }
    assert_eq!(home.run(&["images", "-q"]).ok().text(), "");
    assert_sound(&home, "after refusals");
}
