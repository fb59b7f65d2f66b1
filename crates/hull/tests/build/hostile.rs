//! Builds that are attacked, and machines without room: the history of BuildKit's and buildah's defects among them. Static
//! links as sources and targets of mounts are in `steps`.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_testkit::race::Race;
use hull_testkit::{finish, finish_within, leak, tier};

use super::machine::Machine;

/// CVE-2024-23651: what a mount shows is exchanged for a link to the machine's files while the mount is made.
#[test]
fn root_build_cache_directory_exchanged_while_it_is_mounted() {
    let Some(machine) = Machine::new() else { return };
    let secret = machine.path("outside");
    std::fs::create_dir(&secret).expect("create directory");
    std::fs::write(secret.join("secret"), "of the machine").expect("write");
    let make = "FROM scratch AS base\nCOPY probe /probe\nRUN --mount=type=cache,id=c,target=/c [\"/probe\", \"mkdir\", \
                \"/c/sub\", \"+\", \"write\", \"/c/sub/own\", \"x\"]\n";
    machine.build(make, &[]).ok();
    let mounts = machine.path("data/build/mounts");
    let one = std::fs::read_dir(&mounts).expect("read directory").next().expect("a directory").expect("entry").path();
    symlink(&secret, one.join("data/link")).expect("link");
    let race = Race::exchange(one.join("data/sub"), one.join("data/link"));
    for round in 0..hull_testkit::rounds(10) {
        let text = format!(
            "FROM scratch\nCOPY probe /probe\nRUN --mount=type=cache,id=c,source=sub,target=/m [\"/probe\", \"ls\", \
             \"/m\", \"+\", \"cat\", \"/m/secret\", \"+\", \"write\", \"/m/{round}\", \"x\"]\n"
        );
        // It fails, or sees the directory; never what the link leads to.
        let finished = machine.build(&text, &["--no-cache"]);
        assert!(!finished.stderr.contains("of the machine"), "{}", finished.stderr);
    }
    drop(race);
    let names: Vec<_> =
        std::fs::read_dir(&secret).expect("read directory").flatten().map(|one| one.file_name()).collect();
    assert_eq!(names, ["secret"], "nothing is written outside");
    machine.home.assert_clean();
}

/// CVE-2024-23653: what is not allowed is not allowed by any way of saying it.
#[test]
fn root_build_privileges_are_not_taken() {
    let Some(machine) = Machine::new() else { return };
    let base = "FROM scratch\nCOPY probe /probe\n";
    for (step, reason) in [
        ("RUN --security=insecure [\"/probe\", \"id\"]", "security.insecure is not allowed"),
        ("RUN --network=host [\"/probe\", \"id\"]", "network.host is not allowed"),
        ("ARG S=insecure\nRUN --security=$S [\"/probe\", \"id\"]", "security"),
        ("RUN --security=INSECURE [\"/probe\", \"id\"]", "security"),
    ] {
        let finished = machine.build(&format!("{base}{step}\n"), &[]);
        assert!(finished.code == 1 && finished.stderr.contains(reason), "{step}: {}", finished.stderr);
        assert!(!finished.stderr.contains("uid="), "{step}: {}", finished.stderr);
    }
    // A result that was made with privileges is none for a step without them.
    let insecure = format!("{base}RUN --security=insecure [\"/probe\", \"write\", \"/f\", \"x\"]\n");
    machine.build(&insecure, &["--allow=security.insecure"]).ok();
    let finished = machine.build(&insecure.replace("--security=insecure ", ""), &[]).ok();
    assert!(finished.stderr.contains("[2/2] RUN") || finished.stderr.contains("DONE"), "{}", finished.stderr);
    let levels = ["compat", "standard"].map(|level| {
        let word = format!("--security={level}");
        machine.build(&format!("{base}RUN [\"/probe\", \"write\", \"/g\", \"x\"]\n"), &[&word]).ok().stderr
    });
    for said in levels {
        assert!(said.contains("\n#") && said.contains(" ok\n"), "each level does the step itself: {said}");
    }
    machine.home.assert_clean();
}

/// CVE-2026-93320: files that are none, where a build reads files. Nothing waits for them, nothing opens them.
#[test]
fn root_build_special_files_are_not_waited_for() {
    let Some(machine) = Machine::new() else { return };
    let fifo = |path: PathBuf| {
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("make a fifo");
    };
    let begin = Instant::now();
    fifo(machine.path("context/pipe"));
    let finished =
        machine.build("FROM scratch\nCOPY pipe /\nCOPY probe /probe\nRUN [\"/probe\", \"stat\", \"/pipe\"]\n", &[]);
    // A pipe is copied as a pipe, or refused: it is not read.
    assert!(finished.code <= 1, "{finished:?}");
    // As a stage's file: the source of a mount, of a COPY, users' names, a working directory.
    let evil = "FROM scratch AS evil\nCOPY probe /probe\nRUN [\"/probe\", \"mkdir\", \"/etc\", \"+\", \"mknod\", \"/etc/passwd\", \
                \"p\", \"+\", \"mknod\", \"/pipe\", \"p\"]\n";
    for step in [
        "RUN --mount=from=evil,source=/pipe,target=/m [\"/probe\", \"stat\", \"/m\"]",
        "COPY --from=evil /pipe /",
        "COPY --chown=somebody probe /x",
        "USER somebody\nRUN [\"/probe\", \"id\"]",
        "WORKDIR /pipe/x",
        "ADD pipe /x/",
    ] {
        let finished = machine.build(&format!("{evil}FROM evil\n{step}\n"), &[]);
        assert!(finished.code <= 1, "{step}: {finished:?}");
    }
    // Where the build's own files are expected.
    for name in [".dockerignore", "Dockerfile"] {
        fifo(machine.path("context").join(name));
        let mut command = machine.home.hull(&["build", "--progress=plain"]);
        let finished = finish(command.arg(machine.path("context")).env("HOME", machine.home.path()));
        assert_eq!(finished.code, 1, "{name}: {finished:?}");
        std::fs::remove_file(machine.path("context").join(name)).expect("remove");
    }
    assert!(begin.elapsed() < Duration::from_secs(110), "something waited");
    machine.home.assert_clean();
}

/// A disk that is full in the middle of a build, and what comes after.
const FULL: &str = r#"
set -eu
mkdir -p "$DISK"; mount -t tmpfs -o size=48m tmpfs "$DISK"
hull() { command "$HULL" --root "$DISK/data" --state "$PLACE/run" "$@"; }
build() { code=0; hull build --network=none --progress=plain --cgroup-parent "$NAME" "$@" "$PLACE/context" >"$PLACE/out" 2>&1 || code=$?; }
said() { grep -c "has no room left\|No space left" "$PLACE/out" || true; }
left() { ls -A "$DISK/data/ingest" "$DISK/data/trash" "$DISK/data/build/locks" 2>/dev/null | grep -vc ':$\|^$' || true; }
build -t base -f "$PLACE/base"
echo "base: code=$code"
for file in copy fill; do
    build -t full -f "$PLACE/$file"
    echo "$file: code=$code said=$(said) left=$(left) check=$(hull system check 2>/dev/null | tr '\n' ' ')"
done
build -t base -f "$PLACE/base"
echo "again: code=$code cached=$(grep -c CACHED "$PLACE/out" || true)"
build -t small -f "$PLACE/small"
echo "small: code=$code"
"#;

#[test]
fn root_build_on_a_full_disk() {
    if !tier::root() || tier::tool("unshare").is_none() {
        return;
    }
    let name = format!("hull-fullbuild-{}x", std::process::id());
    let place = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().expect("temporary directory");
    let path = |name: &str| place.path().join(name);
    std::fs::create_dir(path("context")).expect("create directory");
    std::fs::copy(hull_testkit::probe(), path("context/probe")).expect("copy the probe");
    // Debug information of the probe would fill the disk alone.
    let _ = Command::new("strip").arg(path("context/probe")).stderr(Stdio::null()).status();
    std::fs::write(path("context/big"), vec![b'x'; 60 << 20]).expect("write");
    let base = "FROM scratch\nCOPY probe /probe\nRUN [\"/probe\", \"write\", \"/first\", \"x\"]\n";
    let files = [
        ("base", base.to_owned()),
        ("copy", format!("{base}COPY big /big\n")),
        ("fill", format!("{base}RUN [\"/probe\", \"fill\", \"/big\", \"60\", \"+\", \"need\", \"/big\"]\n")),
        ("small", format!("{base}RUN [\"/probe\", \"write\", \"/second\", \"x\"]\n")),
    ];
    for (name, text) in files {
        std::fs::write(path(name), text).expect("write");
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", FULL]).stdin(Stdio::null());
    command.env("HULL", env!("CARGO_BIN_EXE_hull")).env("PLACE", place.path()).env("NAME", &name);
    command.env("DISK", path("disk")).env("HOME", place.path()).env_remove("SOURCE_DATE_EPOCH");
    let out = finish_within(&mut command, Duration::from_secs(110)).ok();
    let last = std::fs::read_to_string(path("out")).unwrap_or_default();
    let lines = out.lines();
    assert_eq!(lines.len(), 5, "{}\n{last}", out.stdout);
    assert_eq!(lines[0], "base: code=0", "{last}");
    assert!(lines[1].starts_with("copy: code=1 ") && !lines[1].contains("said=0"), "{}", lines[1]);
    for line in &lines[1..3] {
        assert!(line.contains(" left=0 ") && line.contains("check=No problems found"), "{line}");
    }
    // What was finished is there, and the room is given back.
    assert_eq!(lines[3], "again: code=0 cached=2", "{last}");
    assert_eq!(lines[4], "small: code=0", "{last}");
    leak::clear(&name);
}

/// A server that wants a password, and keeps what it was asked.
fn refusing() -> (u16, std::sync::Arc<std::sync::Mutex<String>>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let kept = std::sync::Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = vec![0; 8192];
            let count = stream.read(&mut head).unwrap_or(0);
            kept.lock().expect("lock").push_str(&String::from_utf8_lossy(&head[..count]));
            let _ = stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
    });
    (port, seen)
}

#[test]
fn root_build_tokens_go_to_their_server_alone() {
    let Some(machine) = Machine::new() else { return };
    let (port, seen) = refusing();
    let text = format!("FROM scratch\nADD http://127.0.0.1:{port}/x.git /\n");
    let header = "authorization: basic eC1hY2Nlc3MtdG9rZW46czNjcmV0";
    let asked = |id: &str| {
        seen.lock().expect("lock").clear();
        let secret = format!("id={id},env=TOKEN_OF_A_TEST");
        let finished = finish(machine.command(&text, &["--secret", &secret]).env("TOKEN_OF_A_TEST", "s3cret"));
        assert_eq!(finished.code, 1, "{finished:?}");
        assert!(!finished.stderr.contains("s3cret") && !finished.stderr.contains("czNjcmV0"), "{}", finished.stderr);
        seen.lock().expect("lock").to_ascii_lowercase()
    };
    let said = asked(&format!("GIT_AUTH_TOKEN.127.0.0.1:{port}"));
    assert!(said.contains(&header.to_ascii_lowercase()), "{said}");
    // One for all hosts is not told to whom anybody listens to; one for another host to nobody.
    for id in ["GIT_AUTH_TOKEN", "GIT_AUTH_TOKEN.example.com"] {
        let said = asked(id);
        assert!(said.contains("get /x.git/info/refs") && !said.contains("authorization"), "{said}");
    }
    machine.home.assert_clean();
}
