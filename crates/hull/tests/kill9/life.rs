//! kill -9 of any process of Hull's while containers are made, started, entered, stopped and removed: afterwards nothing
//! is left behind, no container is lost, and none runs that is said to have ended.

use std::process::Stdio;
use std::time::Duration;

use hull_testkit::{Home, home, leak, loops};
use rustix::process::{Pid, Signal, kill_process};

/// A sequence that is the same in every run.
struct Random(u32);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % limit
    }
}

/// Every process of Hull's in this home: clients and monitors.
fn ours(h: &Home) -> Vec<i32> {
    let is_hull = |command: &String| command.contains("hull-monitor") || command.contains("--state");
    leak::processes(h.name()).into_iter().filter(|(_, command)| is_hull(command)).map(|(pid, _)| pid).collect()
}

#[test]
fn root_any_process_killed_at_any_time() {
    let Some(h) = home!() else { return };
    let mut random = Random(2_654_435_761);
    for turn in 0..loops(25) {
        let name = format!("c{turn:04}");
        let removed = turn % 5 == 4;
        let made = hull_testkit::finish(&mut h.container("create", &["--name", &name], &["sleep", "60"]));
        made.ok();
        let words: &[&[&str]] = match random.below(5) {
            0 => &[&["start", &name]],
            1 => &[&["start", &name], &["exec", &name, "/probe", "echo", "x"]],
            2 => &[&["start", &name], &["stop", "-t", "0", &name]],
            3 => &[&["start", &name], &["restart", "-t", "0", &name]],
            _ => &[&["start", &name], &["kill", &name]],
        };
        for words in &words[..words.len() - 1] {
            h.run(words).ok();
        }
        let last = if removed { &["rm", "-f", &name][..] } else { words[words.len() - 1] };
        let mut child = h.hull(last).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start hull");
        std::thread::sleep(Duration::from_micros(u64::from(random.below(30_000))));
        let victims = ours(&h);
        if !victims.is_empty() {
            let victim = victims[random.below(u32::try_from(victims.len()).expect("few")) as usize];
            if let Some(pid) = Pid::from_raw(victim) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        child.wait().expect("wait");
        let when = format!("turn {turn}, {last:?}");
        // A monitor that has taken over may still be starting it.
        h.until(&format!("{when}: settled"), || {
            let listed = h.run(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"]).ok();
            let Some(line) = listed.lines().into_iter().find(|line| line.contains(&name)) else {
                assert!(removed, "{when}: container lost");
                return true;
            };
            let words: Vec<&str> = line.split(' ').collect();
            let inside: Vec<_> =
                leak::processes(words[0]).into_iter().filter(|(_, one)| one.starts_with("/probe")).collect();
            match words[2] {
                "running" => !inside.is_empty(),
                _ => inside.is_empty(),
            }
        });
        let gone = h.run(&["rm", "-f", &name]);
        assert!(gone.code == 0 || gone.stderr.contains("being started"), "{when}: {}", gone.stderr);
        h.until(&format!("{when}: removed"), || {
            let _ = h.run(&["rm", "-f", &name]);
            h.run(&["ps", "-aq"]).ok().lines().is_empty()
        });
        let mut left = h.left();
        if !left.is_empty() {
            h.until(&format!("{when}: clean, not {left:?}"), || {
                left = h.left();
                left.is_empty()
            });
        }
    }
}
