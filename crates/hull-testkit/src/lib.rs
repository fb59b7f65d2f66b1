//! What tests share: bundles, root file systems, tiers, the probe that runs inside containers.
//!
//! - [`Bundle`]: a throw-away OCI bundle with its own state root and cgroup; dropping it removes the container and fails
//!   the test if anything is left on the machine.
//! - [`Home`]: a data directory of its own, for tests of `hull`'s own commands.
//! - [`probe`]: the static program that containers run; its actions are in `src/bin/hull-probe.rs`.
//! - [`tier`]: skips with a reason.
//! - [`race`]: threads that exchange files while a command runs.
//! - [`terminal`]: a program on a pseudo-terminal.
//! - [`vm`]: a virtual machine with pure cgroup v2.
//! - [`registry`]: registries, one of them faulty.
//! - [`leak`]: what is on the machine that a container may have left.
//!
//! It must never touch a mount, cgroup or process that a test did not make.

pub mod actions;
mod bundle;
mod command;
mod home;
pub mod leak;
pub mod race;
pub mod registry;
mod spec;
pub mod terminal;
pub mod tier;
pub mod vm;

use std::path::PathBuf;
use std::process::Command;

pub use bundle::Bundle;
pub use command::{Finished, finish, finish_within};
pub use home::Home;
pub use serde_json::{Value, json};
pub use spec::default_spec;

/// A [`Bundle`] for the `hull` binary under test, or `None` with a printed skip when not root.
///
/// `HULL_UNDER_TEST` names another OCI runtime to run the same tests against: a program that takes the word `oci` and
/// then runc's arguments.
#[macro_export]
macro_rules! bundle {
    () => {
        if $crate::tier::root() {
            let binary = std::env::var_os("HULL_UNDER_TEST").unwrap_or_else(|| env!("CARGO_BIN_EXE_hull").into());
            Some($crate::Bundle::new(binary))
        } else {
            None
        }
    };
}

/// A [`Home`] for the `hull` binary under test, or `None` with a printed skip when not root; `home!(plain)` is
/// [`Home::plain`].
#[macro_export]
macro_rules! home {
    () => {
        $crate::Home::new(env!("CARGO_BIN_EXE_hull"))
    };
    (plain) => {
        $crate::Home::plain(env!("CARGO_BIN_EXE_hull"), env!("CARGO_TARGET_TMPDIR"))
    };
}

/// How often a looped attack is tried: `HULL_TEST_LOOPS`, or the test's own number.
#[must_use]
pub fn loops(default: u32) -> u32 {
    std::env::var("HULL_TEST_LOOPS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How often an attack of the security history is tried: `HULL_CVE_ROUNDS`, else as [`loops`].
#[must_use]
pub fn rounds(default: u32) -> u32 {
    let asked = std::env::var("HULL_CVE_ROUNDS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or_else(|| loops(default))
}

/// The probe's path. A whole-workspace test run has built it; a run of one package builds it here.
///
/// # Panics
/// If it can neither be found nor built.
#[must_use]
pub fn probe() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target directory of the test");
    let path = profile.join("hull-probe");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/hull-probe.rs");
    let modified = |path: &std::path::Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if modified(&path).is_none() || modified(&path) < modified(source.as_ref()) {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--bin", "hull-probe", "--manifest-path", manifest]);
        if let Some(target) = target_dir(profile) {
            cargo.arg("--target-dir").arg(target);
        }
        let status = cargo.status().expect("run cargo");
        assert!(status.success(), "building hull-probe: {status}");
    }
    assert!(path.exists(), "no hull-probe at {}", path.display());
    path
}

/// `target/<triple>/<profile>` or `target/<profile>`: the directory that holds Cargo's marker file.
fn target_dir(profile: &std::path::Path) -> Option<&std::path::Path> {
    profile.ancestors().skip(1).take(2).find(|dir| dir.join("CACHEDIR.TAG").exists() && !dir.join("deps").exists())
}
