//! One mount of a layer for all containers, held by those who look after them, and never seen by those inside.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use hull_testkit::{finish, loops};

use crate::home::{Home, KINDS};

fn layered(h: &Home) {
    let (base, upper) = (h.rootfs(), h.path("upper"));
    fs::create_dir(&upper).expect("create directory");
    fs::write(upper.join("second"), "2").expect("write");
    h.image("base", &[&base, &upper]);
}

/// The device numbers of the lent mounts.
fn devices(h: &Home) -> BTreeSet<String> {
    h.holders().iter().filter_map(|line| line.split(' ').nth(3).map(str::to_owned)).collect()
}

fn erofs_mounts() -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mount table");
    table.lines().filter(|line| line.contains(" - erofs ")).count()
}

#[test]
fn root_containers_share_the_mounts_of_layers() {
    let Some(h) = Home::new("erofs") else { return };
    layered(&h);
    let before = erofs_mounts();
    let start = |name: &str| {
        let name = format!("--name={name}");
        let mut command = h.hull(&["run", "-d", "--network=none", &name, "base", "/probe", "sleep", "60"]);
        command.stdout(Stdio::null()).spawn().expect("start hull")
    };
    // At the same time: only one of them mounts.
    for mut child in ["aa", "bb", "cc"].map(start) {
        assert!(child.wait().expect("wait").success());
    }
    assert_eq!((h.holders().len(), devices(&h).len()), (6, 2), "{:?}", h.holders());
    assert_eq!(erofs_mounts(), before, "no mount of a layer is in the table of mounts");
    let devices_before = devices(&h);
    let _ = h.ok(&["rm", "-f", "aa"]);
    let _ = h.ok(&["rm", "-f", "bb"]);
    assert_eq!(h.holders().len(), 2);
    // Taken over from the last one.
    assert!(start("dd").wait().expect("wait").success());
    assert_eq!(devices(&h), devices_before);
    assert_eq!(h.ok(&["exec", "dd", "/probe", "cat", "/second"]).text(), "2");
    let _ = h.ok(&["rm", "-f", "cc", "dd"]);
    h.assert_clean();
}

#[test]
fn root_what_a_holder_says_is_checked() {
    let Some(h) = Home::new("erofs") else { return };
    layered(&h);
    let mounts = h.path("run/mounts");
    fs::create_dir_all(&mounts).expect("create directory");
    let own = std::process::id();
    let stat = fs::read_to_string("/proc/self/stat").expect("stat");
    let start = stat.rsplit(')').next().expect("fields").split_whitespace().nth(19).expect("start time").to_owned();
    let layers = fs::read_dir(h.path("data/layers")).expect("layers").flatten().map(|entry| entry.file_name());
    // This process lives and started then, but its descriptors are no mounts of layers.
    let mut files = Vec::new();
    for layer in layers {
        let lines = format!("{own} {start} 0 1\n{own} {start} 1 2\n{own} {start} 9999 3\n1 1 3 4\nnonsense\n");
        fs::write(mounts.join(&layer), &lines).expect("write");
        files.push(mounts.join(layer));
    }
    assert_eq!(h.run(&["base", "/probe", "cat", "/second"]).ok().text(), "2");
    for file in files {
        let text = fs::read_to_string(&file).expect("read");
        assert_eq!(text.lines().count(), 3, "the living holder's lines stay: {text}");
        fs::remove_file(file).expect("remove");
    }
    h.assert_clean();
}

#[test]
fn root_no_descriptor_of_a_layer_reaches_the_container() {
    for kind in KINDS {
        let Some(h) = Home::new(kind) else { continue };
        layered(&h);
        let fds = h.run(&["base", "/probe", "fds"]).ok();
        for line in fds.lines() {
            let number = line.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty());
            let number: u32 = number.and_then(|word| word.parse().ok()).unwrap_or(0);
            assert!(number <= 3 && !line.contains("erofs") && !line.contains("layers"), "{kind}: {}", fds.stdout);
        }
        let _ = h.ok(&["run", "-d", "--network=none", "--name=box", "base", "/probe", "sleep", "60"]);
        let fds = h.ok(&["exec", "box", "/probe", "fds"]);
        assert!(!fds.stdout.contains("layers") && !fds.stdout.contains("hull.db"), "{kind}: {}", fds.stdout);
        let _ = h.ok(&["rm", "-f", "box"]);
        h.assert_clean();
    }
}

/// A sequence that is the same in every run, spread evenly.
fn delay(turn: u32) -> Duration {
    Duration::from_micros(u64::from(turn.wrapping_mul(2_654_435_761) >> 8) % 60_000)
}

/// Removes containers until nobody starts or runs one. A detached monitor outlives the command that was killed.
#[track_caller]
fn drain(h: &Home) {
    for _ in 0..500 {
        for id in h.ok(&["ps", "-aq"]).lines() {
            let _ = finish(&mut h.hull(&["rm", "-f", id]));
        }
        let idle = |name: &str| fs::read_dir(h.path(name)).map_or(true, |mut entries| entries.next().is_none());
        if idle("run/live") && idle("data/containers") && hull_testkit::leak::processes(&h.name).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    h.assert_clean();
}

#[test]
fn root_killed_at_any_time_nothing_is_left() {
    for kind in KINDS {
        let Some(h) = Home::new(kind) else { continue };
        layered(&h);
        for turn in 0..loops(25) {
            for flags in [&["run", "--rm"][..], &["run", "-d", "--rm"]] {
                let mut words = flags.to_vec();
                words.extend(["--network=none", "base", "/probe", "sleep", "30"]);
                let mut command = h.hull(&words);
                let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start hull");
                std::thread::sleep(delay(turn));
                child.kill().expect("kill");
                child.wait().expect("wait");
                drain(&h);
            }
        }
        h.assert_clean();
        assert_eq!(h.run(&["base", "/probe", "cat", "/second"]).ok().text(), "2", "{kind}");
        let check = h.ok(&["system", "check"]);
        assert!(!check.stdout.contains("damaged"), "{}", check.stdout);
    }
}

#[test]
fn root_mounts_of_a_killed_monitor_are_not_lent_on() {
    let Some(h) = Home::new("erofs") else { return };
    layered(&h);
    let _ = h.ok(&["run", "-d", "--network=none", "--name=box", "base", "/probe", "sleep", "60"]);
    let monitor: i32 = h.holders()[0].split(' ').next().and_then(|pid| pid.parse().ok()).expect("a holder");
    let pid = rustix::process::Pid::from_raw(monitor).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill the monitor");
    while fs::read_to_string(format!("/proc/{monitor}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::yield_now();
    }
    assert_eq!(h.run(&["base", "/probe", "cat", "/second"]).ok().text(), "2");
    let _ = h.ok(&["rm", "-f", "box"]);
    h.assert_clean();
}
