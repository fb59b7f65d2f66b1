//! One mount of a layer for all containers, held by those who look after them, and never seen by those inside.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use hull_testkit::{Home, loops};

use crate::home::{KINDS, assert_clean, holders, home, image, rootfs, run};

fn layered(h: &Home) {
    let (base, upper) = (rootfs(h), h.at("upper"));
    fs::create_dir(&upper).expect("create directory");
    fs::write(upper.join("second"), "2").expect("write");
    image(h, "base", &[&base, &upper]);
}

/// The device numbers of the lent mounts.
fn devices(h: &Home) -> BTreeSet<String> {
    holders(h).iter().filter_map(|line| line.split(' ').nth(3).map(str::to_owned)).collect()
}

fn erofs_mounts() -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mount table");
    table.lines().filter(|line| line.contains(" - erofs ")).count()
}

#[test]
fn root_containers_share_the_mounts_of_layers() {
    let Some(h) = home("erofs") else { return };
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
    assert_eq!((holders(&h).len(), devices(&h).len()), (6, 2), "{:?}", holders(&h));
    assert_eq!(erofs_mounts(), before, "no mount of a layer is in the table of mounts");
    let devices_before = devices(&h);
    h.run(&["rm", "-f", "aa"]).ok();
    h.run(&["rm", "-f", "bb"]).ok();
    h.until("only the last one holds", || holders(&h).len() == 2);
    // Taken over from the last one.
    assert!(start("dd").wait().expect("wait").success());
    assert_eq!(devices(&h), devices_before);
    assert_eq!(h.run(&["exec", "dd", "/probe", "cat", "/second"]).ok().text(), "2");
    h.run(&["rm", "-f", "cc", "dd"]).ok();
    assert_clean(&h);
}

#[test]
fn root_what_a_holder_says_is_checked() {
    let Some(h) = home("erofs") else { return };
    layered(&h);
    let mounts = h.at("run/mounts");
    fs::create_dir_all(&mounts).expect("create directory");
    let own = std::process::id();
    let stat = fs::read_to_string("/proc/self/stat").expect("stat");
    let start = stat.rsplit(')').next().expect("fields").split_whitespace().nth(19).expect("start time").to_owned();
    let layers = fs::read_dir(h.at("data/layers")).expect("layers").flatten().map(|entry| entry.file_name());
    // This process lives and started then, but its descriptors are no mounts of layers.
    let mut files = Vec::new();
    for layer in layers {
        let lines = format!("{own} {start} 0 1\n{own} {start} 1 2\n{own} {start} 9999 3\n1 1 3 4\nnonsense\n");
        fs::write(mounts.join(&layer), &lines).expect("write");
        files.push(mounts.join(layer));
    }
    assert_eq!(run(&h, &["base", "/probe", "cat", "/second"]).ok().text(), "2");
    for file in files {
        let lines = || fs::read_to_string(&file).expect("read").lines().count();
        // The container's own goes when its command has ended.
        h.until("the living holder's lines stay, alone", || lines() <= 3);
        assert_eq!(lines(), 3);
        fs::remove_file(file).expect("remove");
    }
    assert_clean(&h);
}

#[test]
fn root_no_descriptor_of_a_layer_reaches_the_container() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
        layered(&h);
        let fds = run(&h, &["base", "/probe", "fds"]).ok();
        for line in fds.lines() {
            let number = line.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty());
            let number: u32 = number.and_then(|word| word.parse().ok()).unwrap_or(0);
            assert!(number <= 3 && !line.contains("erofs") && !line.contains("layers"), "{kind}: {}", fds.stdout);
        }
        h.run(&["run", "-d", "--network=none", "--name=box", "base", "/probe", "sleep", "60"]).ok();
        let fds = h.run(&["exec", "box", "/probe", "fds"]).ok();
        assert!(!fds.stdout.contains("layers") && !fds.stdout.contains("hull.db"), "{kind}: {}", fds.stdout);
        h.run(&["rm", "-f", "box"]).ok();
        assert_clean(&h);
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
        for id in h.run(&["ps", "-aq"]).ok().lines() {
            h.run(&["rm", "-f", id]);
        }
        let idle = |name: &str| fs::read_dir(h.at(name)).map_or(true, |mut entries| entries.next().is_none());
        if idle("run/live") && idle("data/containers") && hull_testkit::leak::processes(h.name()).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_clean(h);
}

#[test]
fn root_killed_at_any_time_nothing_is_left() {
    for kind in KINDS {
        let Some(h) = home(kind) else { continue };
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
        assert_clean(&h);
        assert_eq!(run(&h, &["base", "/probe", "cat", "/second"]).ok().text(), "2", "{kind}");
        let check = h.run(&["system", "check"]).ok();
        assert!(!check.stdout.contains("damaged"), "{}", check.stdout);
    }
}

#[test]
fn root_mounts_of_a_killed_monitor_are_not_lent_on() {
    let Some(h) = home("erofs") else { return };
    layered(&h);
    h.run(&["run", "-d", "--network=none", "--name=box", "base", "/probe", "sleep", "60"]).ok();
    let monitor: i32 = holders(&h)[0].split(' ').next().and_then(|pid| pid.parse().ok()).expect("a holder");
    let pid = rustix::process::Pid::from_raw(monitor).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill the monitor");
    while fs::read_to_string(format!("/proc/{monitor}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::yield_now();
    }
    assert_eq!(run(&h, &["base", "/probe", "cat", "/second"]).ok().text(), "2");
    h.run(&["rm", "-f", "box"]).ok();
    assert_clean(&h);
}
