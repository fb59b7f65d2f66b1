//! Disks that are full in the middle of a command: one line that says which, the store sound, the space given back.
//!
//! Each disk is mounted in a mount namespace of the script that uses it, and gone with it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::{finish_within, leak, tier};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(300);

/// `try NAME COMMAND...` prints `NAME: code=C lines=N room=(yes|no) check=... left=... grown=KIB`.
const SCRIPT: &str = r#"
set -eu
hull() { command "$HULL" --root "$DISK/data" --state "$PLACE/run" "$@"; }
used() { sync -f "$DISK"; df --output=used -k "$DISK" | tail -n 1; }
try() {
    name=$1; shift; before=$(used); code=0
    hull "$@" >"$PLACE/out" 2>"$PLACE/err" </dev/null || code=$?
    room=no; grep -q "has no room left" "$PLACE/err" && room=yes
    after=$(used)
    check=$(hull system check 2>/dev/null | tr '\n' ' ') || true
    left=$(ls -A "$DISK/data/ingest" "$DISK/data/trash" | grep -vc ':$\|^$' || true)
    echo "$name: code=$code lines=$(wc -l <"$PLACE/err") room=$room check=$check left=$left grown=$((after - before)) $(head -c 300 "$PLACE/err")"
}
mkdir -p "$DISK"
case $KIND in
tmpfs) mount -t tmpfs -o size=64m tmpfs "$DISK" ;;
ext4) truncate -s 64M "$PLACE/img"; mkfs.ext4 -q -m0 "$PLACE/img"; mount -o loop "$PLACE/img" "$DISK" ;;
esac
hull import "$PLACE/base.tar" base >"$PLACE/out"
hull run --name one --network=none --cgroup-parent "$NAME" base /probe pid >"$PLACE/out"
id=$(hull inspect --format '{{.Id}}' one)
# What the first transfer makes is there to stay.
hull commit one before >"$PLACE/out"
try import import "$PLACE/big.tar" big
try import-gzip import "$PLACE/big.tar.gz" big
try import-bomb import "$PLACE/bomb.tar.gz" big
try load load -i "$PLACE/image.tar"
room=$(df --output=avail -k "$DISK" | tail -n 1)
head -c "$((room * 6 / 10))K" /dev/urandom >"$DISK/data/containers/$id/upper/file"
try commit commit one after
hull rm one >"$PLACE/out"
try fits import "$PLACE/base.tar" again
"#;

fn work(kind: &str) {
    if !tier::root() {
        return;
    }
    for tool in ["unshare", "mkfs.ext4"] {
        if tier::tool(tool).is_none() {
            return;
        }
    }
    if kind == "ext4" && !PathBuf::from("/dev/loop-control").exists() {
        tier::skip("loop", "no loop devices");
        return;
    }
    let name = format!("hull-full-{kind}-{}x", std::process::id());
    let place = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().expect("temporary directory");
    prepare(&place);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT]).stdin(Stdio::null());
    command.env("HULL", env!("CARGO_BIN_EXE_hull")).env("PLACE", place.path()).env("NAME", &name);
    command.env("DISK", place.path().join("disk")).env("KIND", kind);
    let out = finish_within(&mut command, LIMIT).ok();
    let lines = out.lines();
    assert_eq!(lines.len(), 6, "{}", out.stdout);
    for line in lines {
        let fits = line.starts_with("fits: ");
        let code = if fits { "code=0 lines=0 room=no" } else { "code=1 lines=1 room=yes" };
        assert!(line.contains(code) && line.contains(" check=No problems found "), "{line}");
        assert!(line.contains(" left=0 "), "{line}");
        let grown = line.split("grown=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a number");
        // Directories and the database's log.
        assert!(fits || grown.parse::<i64>().expect("a number") < 600, "space is given back: {line}");
    }
    leak::clear(&name);
}

/// A small image, a large one that does not compress, and 4 GB of zeros.
fn prepare(place: &TempDir) {
    let path = |name: &str| place.path().join(name);
    let rootfs = path("rootfs");
    for sub in ["", "proc", "dev", "sys", "tmp", "etc"] {
        std::fs::create_dir(rootfs.join(sub)).expect("create root file system");
    }
    std::fs::copy(hull_testkit::probe(), rootfs.join("probe")).expect("copy the probe");
    let run = |program: &str, words: &[&str]| {
        let _ = finish_within(Command::new(program).args(words).current_dir(place.path()), LIMIT).ok();
    };
    let hull = |words: &[&str]| {
        let mut all = vec!["--root", "data", "--state", "run"];
        all.extend(words);
        run(env!("CARGO_BIN_EXE_hull"), &all);
    };
    let strip = Command::new("strip").arg(rootfs.join("probe")).stderr(Stdio::null()).status();
    drop(strip);
    run("tar", &["-cf", "base.tar", "-C", "rootfs", "."]);
    run("sh", &["-c", "head -c 80M /dev/urandom > big; tar -cf big.tar big; gzip -1 -k big.tar; rm big"]);
    hull(&["import", "big.tar", "big:1"]);
    hull(&["save", "-o", "image.tar", "big:1"]);
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").expect("a name");
    header.set_size(4 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    let file = std::fs::File::create(path("bomb.tar.gz")).expect("create");
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    encoder.write_all(header.as_bytes()).expect("write");
    let zeros = vec![0; 1 << 20];
    // As far as anybody reads.
    for _ in 0..128 {
        encoder.write_all(&zeros).expect("write");
    }
    encoder.finish().expect("write");
}

#[test]
fn root_full_disk_of_directories() {
    work("tmpfs");
}

#[test]
fn root_full_disk_of_mounted_layers() {
    work("ext4");
}
