//! kill -9 of the starting process, anywhere: the next command leaves no mount, cgroup, process or directory.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::{Bundle, bundle, finish, loops, tier};

fn sleeping() -> Option<Bundle> {
    Some(bundle!()?.probe(&["sleep", "60"]))
}

/// After the next command the container is either whole or gone, and a whole one can be deleted.
#[track_caller]
fn assert_whole_or_gone(b: &Bundle, when: &str) {
    let _ = b.oci(&["list", "-q"]).ok();
    let state = b.act("state");
    if state.code == 0 {
        assert!(!state.stdout.contains("\"creating\""), "{when}: half made: {}", state.stdout);
        b.delete();
    }
    let left = b.settled();
    assert!(left.is_empty(), "{when}: left behind:\n{}", left.join("\n"));
}

/// A sequence that is the same in every run, spread evenly.
fn delay(turn: u32) -> Duration {
    Duration::from_micros(u64::from(turn.wrapping_mul(2_654_435_761) >> 8) % 40_000)
}

#[test]
fn root_killed_at_any_time() {
    let Some(b) = sleeping() else { return };
    for turn in 0..loops(60) {
        for verb in ["create", "run"] {
            let flags: &[&str] = if verb == "run" { &["--detach"] } else { &[] };
            let mut command = b.bundle_command(verb, flags);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start hull");
            std::thread::sleep(delay(turn));
            child.kill().expect("kill");
            child.wait().expect("wait");
            assert_whole_or_gone(&b, &format!("{verb} after {:?}", delay(turn)));
        }
    }
}

/// The system calls that `command` makes itself, and how often.
fn calls(b: &Bundle, strace: &std::path::Path, verb: &[&str]) -> BTreeMap<String, u32> {
    let log = b.dir().join("strace.log");
    let (program, arguments) = traced(b, verb);
    let _ = finish(Command::new(strace).arg("-o").arg(&log).arg(program).args(arguments).stdin(Stdio::null())).ok();
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(&log).expect("strace log").lines() {
        if let Some((name, _)) = line.split_once('(')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

fn traced(b: &Bundle, verb: &[&str]) -> (std::ffi::OsString, Vec<std::ffi::OsString>) {
    let command = b.bundle_command(verb[0], &verb[1..]);
    (command.get_program().to_owned(), command.get_args().map(std::ffi::OsStr::to_owned).collect())
}

/// Kills the runtime as it enters its N-th call of each kind that changes something.
fn killed_at_each_call(part: usize, parts: usize) {
    let Some(strace) = tier::tool("strace") else { return };
    let Some(b) = sleeping() else { return };
    let counts = calls(&b, &strace, &["run", "--detach"]);
    b.delete();
    assert!(counts.contains_key("clone3"), "the start is by clone3: {counts:?}");
    // Between two calls that only look, nothing changes.
    let looks = [
        "read",
        "pread64",
        "lseek",
        "fstat",
        "newfstatat",
        "statx",
        "mmap",
        "munmap",
        "brk",
        "mprotect",
        "getrandom",
        "poll",
        "fcntl",
        "rt_sigaction",
        "sigaltstack",
        "getdents64",
        "fstatfs",
        "statfs",
        "getpid",
        "gettid",
        "geteuid",
        "getcwd",
        "readlink",
        "readlinkat",
        "prctl",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "uname",
        "execve",
        "exit_group",
        "sched_getaffinity",
        "rt_sigprocmask",
        "madvise",
        "access",
        "futex",
        "getuid",
        "ioctl",
    ];
    let mut points: Vec<(String, u32)> = Vec::new();
    for (name, count) in counts.into_iter().filter(|(name, _)| !looks.contains(&name.as_str())) {
        // Of a call that is made very often, an even sample.
        let step = (count / 12).max(1);
        points.extend((1..=count).step_by(usize::try_from(step).unwrap_or(1)).map(|when| (name.clone(), when)));
    }
    let mut killed = 0;
    for (name, when) in points.into_iter().skip(part).step_by(parts) {
        let (program, arguments) = traced(&b, &["run", "--detach"]);
        let inject = format!("inject={name}:signal=SIGKILL:when={when}");
        let mut command = Command::new(&strace);
        command.args(["-o", "/dev/null", "-e", &inject]).arg(program).args(arguments).stdin(Stdio::null());
        let out = finish(&mut command);
        killed += u32::from(out.code != 0);
        assert_whole_or_gone(&b, &format!("killed at {name} #{when}"));
    }
    assert!(killed > 5, "the kills did not happen: {killed}");
}

#[test]
fn root_killed_at_each_call_first_half() {
    killed_at_each_call(0, 2);
}

#[test]
fn root_killed_at_each_call_second_half() {
    killed_at_each_call(1, 2);
}

#[test]
fn root_delete_killed_at_any_time_can_be_repeated() {
    let Some(b) = sleeping() else { return };
    for turn in 0..loops(30) {
        b.run_detached();
        let mut command = b.command(&["delete", "--force", b.id()]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start hull");
        std::thread::sleep(delay(turn) / 2);
        child.kill().expect("kill");
        child.wait().expect("wait");
        b.delete();
        b.assert_clean();
    }
}
