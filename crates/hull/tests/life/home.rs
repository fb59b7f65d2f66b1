//! Directories of one test's own, and a root file system of the probe, which is its shell too.

use std::process::{Child, Stdio};

use hull_testkit::{Finished, Home, home};

/// A home in which the probe is `/bin/sh`.
pub(crate) fn home() -> Option<Home> {
    let home = home!()?;
    std::fs::create_dir(home.at("rootfs/bin")).expect("create directory");
    std::fs::hard_link(home.at("rootfs/probe"), home.at("rootfs/bin/sh")).expect("link the probe");
    Some(home)
}

/// `hull run FLAGS --rootfs DIR /probe ARGS`.
#[track_caller]
pub(crate) fn run(h: &Home, flags: &[&str], args: &[&str]) -> Finished {
    hull_testkit::finish(&mut h.container("run", flags, args))
}

/// A command whose output is read while it runs.
pub(crate) fn spawn(h: &Home, words: &[&str]) -> Child {
    h.hull(words).stdout(Stdio::piped()).spawn().expect("start hull")
}

/// Makes an empty file in the root file system.
pub(crate) fn touch(h: &Home, path: &str) {
    h.write(&format!("rootfs/{path}"), "");
}

/// The process that looks after a container.
pub(crate) fn monitor(h: &Home, name: &str) -> i32 {
    let path = h.at("data/containers").join(h.field(name, "{{.Id}}")).join("state.json");
    let state: hull_testkit::Value = serde_json::from_slice(&std::fs::read(path).expect("state")).expect("JSON");
    i32::try_from(state["monitor"].as_i64().expect("monitor")).expect("process ID")
}
