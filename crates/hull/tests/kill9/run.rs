//! kill -9 of `hull run`, anywhere: the next `hull` command leaves no mount, cgroup, process or directory of it.

use std::process::Stdio;
use std::time::Duration;

use hull_testkit::{Home, home, loops};

/// After the next command every container is whole or gone, and the whole ones can be removed.
#[track_caller]
fn assert_whole_or_gone(h: &Home, when: &str) {
    // A monitor that has taken over goes on with the start: its container shows up, and can be removed, when that is
    // done.
    h.until(&format!("{when}: nothing is left"), || {
        for id in h.run(&["ps", "--all", "--quiet"]).ok().lines() {
            let removed = h.run(&["rm", "--force", id]);
            let waits = removed.stderr.contains("being started") || removed.stderr.contains("No such container");
            assert!(removed.code == 0 || waits, "{when}: {}", removed.stderr);
        }
        h.left().is_empty()
    });
}

/// A sequence that is the same in every run, spread evenly over the time that a start takes.
fn delay(turn: u32) -> Duration {
    Duration::from_micros(u64::from(turn.wrapping_mul(2_654_435_761) >> 8) % 40_000)
}

#[test]
fn root_run_killed_at_any_time() {
    let Some(h) = home!() else { return };
    for turn in 0..loops(30) {
        for flags in [&["--rm"][..], &["--detach"], &["--detach", "--rm", "--memory", "64m"]] {
            let mut child = h
                .container("run", flags, &["sleep", "60"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start hull");
            std::thread::sleep(delay(turn));
            child.kill().expect("kill");
            child.wait().expect("wait");
            assert_whole_or_gone(&h, &format!("run {} killed after {:?}", flags.join(" "), delay(turn)));
        }
    }
}
