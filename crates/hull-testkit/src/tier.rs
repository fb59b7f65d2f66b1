//! What a test needs from the machine. A test that cannot run prints `SKIPPED: why` and returns.
//!
//! `HULL_SKIP_LOG` names a file that each skip adds the line `TEST: why` to, for `cargo xtask test` to count.
//! `HULL_REQUIRE` is a comma-separated list of needs that must be met (`root,strace,userns`, or `all`): a skip for want of
//! one of these is a failure.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Prints why a test does not run, or panics if `HULL_REQUIRE` says that it must.
#[track_caller]
pub fn skip(need: &str, why: &str) {
    let required = std::env::var("HULL_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|word| word == need || word == "all"), "HULL_REQUIRE lists {need}, but: {why}");
    println!("SKIPPED: {why}");
    let name = std::env::var("NEXTEST_TEST_NAME").ok();
    let name = name.or_else(|| std::thread::current().name().map(str::to_owned)).unwrap_or_default();
    if let Some(log) = std::env::var_os("HULL_SKIP_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(log)
    {
        let _ = file.write_all(format!("{name}: {why}\n").as_bytes());
    }
}

/// Whether the test runs as root with the capability to mount; otherwise prints the skip.
#[must_use]
pub fn root() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let root = rustix::process::geteuid().is_root() && effective >> CAP_SYS_ADMIN & 1 == 1;
    if !root {
        skip("root", "needs root with CAP_SYS_ADMIN");
    }
    root
}

/// Whether unprivileged user namespaces can be made; otherwise prints the skip.
#[must_use]
pub fn user_namespaces() -> bool {
    let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let allowed = limit.trim().parse::<u64>().unwrap_or(0) > 0;
    if !allowed {
        skip("userns", "user namespaces are disabled");
    }
    allowed
}

/// Whether the v1 controller is mounted at its usual place; otherwise prints the skip.
#[must_use]
pub fn cgroup_v1(controller: &str) -> bool {
    let there = Path::new("/sys/fs/cgroup").join(controller).join("cgroup.procs").exists();
    if !there {
        skip("cgroup_v1", &format!("no cgroup v1 hierarchy with the {controller} controller"));
    }
    there
}

/// The program's path if it is in `PATH`; otherwise prints the skip.
#[must_use]
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(name, &format!("{name} is not installed"));
    }
    found
}
