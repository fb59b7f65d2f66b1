//! Containers that take all they can get: processes, memory, log, disk. Whoever is beside them goes on, the engine's commands
//! work, and what they took is there again when they are removed.

use std::process::{Command, Stdio};

use hull_testkit::{finish_within, home, tier};

/// Everything of the engine's lies on a small disk of its own; `hull` is the command with its directories.
const SCRIPT: &str = r#"set -eu
cd "$PLACE"
mkdir -p disk run
mount -t tmpfs -o size=48m tmpfs disk
hull() { "$HULL" --root "$PLACE/disk" --state "$PLACE/run" "$@"; }
start() { hull run -d --network=none --cgroup-parent "$NAME" "$@" >/dev/null; }
hull import rootfs.tar probe >/dev/null
trap 'hull rm -f quiet bomb hog flood disk late >/dev/null 2>&1 || true' EXIT
say() { what=$1; shift; code=0; out=$("$@" 2>&1) || code=$?; echo "$what: $code $(echo $out)"; }
start --name quiet probe /probe sleep 600
start --name bomb --pids-limit 30 --cpus 0.2 probe /probe bomb
start --name flood --cpus 0.2 --log-opt max-size=64k --log-opt max-file=2 probe /probe flood
start --name hog --memory 32m --memory-swap 32m probe /probe alloc 4096
start --name disk probe /probe fill /big 4096
say hog hull wait hog
say oom hull inspect --format '{{.State.OOMKilled}}' hog
say disk hull wait disk
say full sh -c 'head -c 1048576 /dev/zero >disk/more 2>/dev/null; echo $?; rm disk/more'
say neighbour hull exec quiet /probe echo here
say running hull ps --format '{{.Names}}' --filter status=running
say bomb hull inspect --format '{{.State.Running}}' bomb
log=$(hull inspect --format '{{.LogPath}}' flood)
say new hull run --rm --name late --network=none --cgroup-parent "$NAME" probe /probe echo late
say freed hull rm -f disk
say again hull run --rm --name late --network=none --cgroup-parent "$NAME" probe /probe echo late
echo "log: $(($(cat "$log"* | wc -c) < 200000))"
say removed hull rm -f bomb hog flood
say still hull exec quiet /probe echo here
say last hull rm -f quiet
say nobody hull ps -aq
"#;

#[test]
fn root_who_takes_everything_harms_nobody_else() {
    let Some(h) = home!() else { return };
    if tier::tool("unshare").is_none() {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT]).stdin(Stdio::null());
    command.env("HULL", env!("CARGO_BIN_EXE_hull")).env("PLACE", h.path()).env("NAME", h.name());
    let _ = h.pack();
    let out = finish_within(&mut command, std::time::Duration::from_secs(120)).ok();
    let lines = out.lines();
    let line = |what: &str| {
        let found = lines.iter().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no {what}: {}", out.stdout))
    };
    // The kernel's killer stayed within one group, and a full disk is an error of who filled it.
    assert_eq!((line("hog"), line("oom")), ("0 137", "0 true"));
    assert_eq!((line("disk"), line("full")), ("0 0", "0 1"), "the code of who filled it is known");
    let mut running: Vec<&str> = line("running").split(' ').collect();
    running.sort_unstable();
    assert_eq!(running, ["0", "bomb", "flood", "quiet"]);
    assert_eq!((line("neighbour"), line("still")), ("0 here", "0 here"));
    assert_eq!(line("log"), "1", "logs are rotated");
    // Without room nothing new is half made; with room it runs.
    let refused = line("new");
    assert!(refused == "0 late" || refused.starts_with("125 hull: ") && refused.contains("No space left"), "{refused}");
    assert_eq!((line("freed"), line("again")), ("0 disk", "0 late"));
    assert_eq!((line("removed"), line("last"), line("nobody")), ("0 bomb hog flood", "0 quiet", "0 "));
    assert_eq!(h.left(), Vec::<String>::new());
}
