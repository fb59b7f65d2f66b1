//! `cargo xtask test`: every test of the workspace through nextest, and an honest count of what did not run.
//!
//! A test that cannot run here prints why and appends the line `NAME: REASON` to the file that `HULL_SKIP_LOG` names.
//! With `CI=true` a skip that `xtask/expected-skips` does not list fails the run, and property tests draw the same cases
//! each time, so that a run speaks of the change alone; elsewhere they draw new ones (`PROPTEST_CASES` says how many).

use std::collections::BTreeSet;
use std::process::Stdio;

use crate::{Result, cargo, target_directory, workspace};

/// Runs the tests; `arguments` go to nextest, as in `cargo xtask test vm_`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let directory = target_directory();
    std::fs::create_dir_all(&directory)?;
    let log = directory.join("skipped-tests");
    std::fs::write(&log, "")?;
    if !has_nextest() {
        return Err("cargo-nextest is missing: ./test installs it, or cargo install --locked cargo-nextest".into());
    }
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    let mut tests = cargo(&["nextest", "run"]);
    tests.args(["--workspace", "--locked"]).args(arguments).env("HULL_SKIP_LOG", &log);
    if strict && std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        tests.env("PROPTEST_RNG_SEED", "1");
    }
    let status = tests.status()?;
    let skips = read_skips(&std::fs::read_to_string(&log)?);
    for skip in &skips {
        println!("skipped: {skip}");
    }
    if !status.success() {
        return Err(format!("tests: {status}").into());
    }
    let listed = std::fs::read_to_string(workspace().join("xtask/expected-skips"))?;
    let unexpected = unexpected(&skips, &listed);
    match unexpected.as_slice() {
        [first, ..] if strict => Err(format!("{} tests skipped that must run here: {first}", unexpected.len()).into()),
        _ => Ok(()),
    }
}

/// Whether cargo knows `nextest`. Tests enter namespaces and change directories: each must be a process of its own.
fn has_nextest() -> bool {
    let mut probe = cargo(&["nextest", "--version"]);
    probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The distinct lines of the skip log.
fn read_skips(log: &str) -> Vec<String> {
    let lines: BTreeSet<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.into_iter().map(str::to_owned).collect()
}

/// The skips whose test the list does not name. A line of the list is `NAME  why`; `#` begins a comment.
fn unexpected(skips: &[String], listed: &str) -> Vec<String> {
    let names: BTreeSet<&str> = listed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let name = |skip: &str| skip.split(": ").next().map(str::to_owned).unwrap_or_default();
    skips.iter().filter(|skip| !names.contains(name(skip).as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_counts_once() {
        assert_eq!(read_skips("b: no x\na: no y\nb: no x\n\n"), ["a: no y", "b: no x"]);
    }

    #[test]
    fn only_listed_names_are_expected() {
        let skips = ["root_a: needs AppArmor".to_owned(), "root_b: needs x".to_owned()];
        assert_eq!(unexpected(&skips, "# why\nroot_a  no AppArmor here\n#root_b\n"), ["root_b: needs x"]);
    }
}
