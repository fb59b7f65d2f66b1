//! The probe itself. This test also makes Cargo build the probe whenever the workspace's tests are built.

use std::process::Command;

fn probe(args: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_hull-probe")).args(args).output().expect("run the probe");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

#[test]
fn actions_follow_one_another_and_failures_print_errno() {
    assert_eq!(
        probe(&["echo", "a", "b", "+", "cat", "/no-such-file", "+", "exit", "7"]),
        ("a b\nerrno:2\n".to_owned(), Some(7))
    );
}

#[test]
fn unknown_action_is_an_error() {
    assert_eq!(probe(&["frobnicate"]).1, Some(99));
}

#[test]
fn is_the_one_that_bundles_use() {
    let built = std::fs::canonicalize(env!("CARGO_BIN_EXE_hull-probe")).expect("canonical path");
    assert_eq!(std::fs::canonicalize(hull_testkit::probe()).expect("canonical path"), built);
}
