//! kill -9 and full disks: a volume is whole or not there, and nothing else is left.

use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::tier::skip;
use hull_testkit::{finish, loops};

use super::{create, home, names, volume, volumes};

#[test]
fn root_killed_volume_commands_leave_nothing_half_made() {
    let Some(h) = home() else { return };
    let _ = h.run(&["volume", "create", "source"]).ok();
    for number in 0..200 {
        std::fs::write(volume(&h, "source").join(format!("file{number}")), vec![b'x'; 20_000]).expect("write");
    }
    let _ = h.run(&["volume", "export", "-o", "source.tar", "source"]).ok();
    let commands: [&[&str]; 4] = [
        &["volume", "clone", "source", "copy"],
        &["volume", "import", "copy", "source.tar"],
        &["volume", "rm", "--now", "copy"],
        &["volume", "rm", "copy"],
    ];
    for turn in 0..loops(24) {
        let mut child =
            h.hull(commands[turn as usize % 4]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start");
        // Anywhere from the program's first instruction to its end.
        std::thread::sleep(Duration::from_micros(u64::from(turn * 7919 % 60) * 500));
        let _ = child.kill();
        let _ = child.wait();
        let volumes = volumes(&h);
        for name in &volumes {
            assert_eq!(
                names(&volume(&h, name)).len(),
                200,
                "{name} is half-made after {:?}",
                commands[turn as usize % 4]
            );
        }
        assert!(volumes.iter().any(|name| name == "source"));
        assert_eq!(names(&h.at("data/volumes/.staging")), [""; 0], "after {:?}", commands[turn as usize % 4]);
    }
    for trashed in names(&h.at("data/volumes/.trash")) {
        let data = h.at("data/volumes/.trash").join(trashed).join("_data");
        assert_eq!(names(&data).len(), 200, "the trash has whole volumes");
    }
}

#[test]
fn root_killed_copies_leave_no_mounts_and_the_container_starts() {
    let Some(h) = home() else { return };
    create(&h, "cc", &["-v", "data:/data"]);
    std::fs::create_dir(h.at("big")).expect("create");
    for number in 0..50 {
        std::fs::write(h.at("big").join(format!("file{number}")), vec![b'x'; 50_000]).expect("write");
    }
    for turn in 0..loops(12) {
        let mut child = h.hull(&["cp", "big", "cc:/data"]).stderr(Stdio::null()).spawn().expect("start");
        std::thread::sleep(Duration::from_micros(u64::from(turn * 7919 % 40) * 500));
        let _ = child.kill();
        let _ = child.wait();
        for name in names(&volume(&h, "data").join("big")) {
            let length = volume(&h, "data").join("big").join(&name).metadata().expect("there").len();
            assert_eq!(length, 50_000, "{name} is half-written");
        }
    }
    assert_eq!(hull_testkit::leak::mounts(h.name()), [""; 0]);
    let _ = h.run(&["start", "cc"]).ok();
    let _ = h.run(&["rm", "-f", "-v", "cc"]).ok();
    h.assert_clean();
}

#[test]
fn root_killed_runs_leave_no_anonymous_volumes() {
    let Some(h) = home() else { return };
    let words =
        ["run", "--rm", "--network=none", "--cgroup-parent", h.name(), "-v", "/data", "mine", "/probe", "sleep", "30"];
    for turn in 0..loops(12) {
        let mut child = h.hull(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start");
        std::thread::sleep(Duration::from_micros(u64::from(turn * 7919 % 60) * 1000));
        let _ = child.kill();
        let _ = child.wait();
        // Its monitor goes on by itself; what it made is removed with it.
        let ids = h.run(&["ps", "-aq"]).ok();
        for id in ids.lines() {
            let _ = h.run(&["rm", "-f", id]);
        }
    }
    for _ in 0..100 {
        if volumes(&h).is_empty() && h.run(&["ps", "-aq"]).ok().stdout.is_empty() {
            break;
        }
        for id in h.run(&["ps", "-aq"]).ok().lines() {
            let _ = h.run(&["rm", "-f", id]);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(volumes(&h), [""; 0]);
    h.assert_clean();
}

#[test]
fn root_a_full_disk_is_an_error_and_nothing_more() {
    let Some(h) = home() else { return };
    let root = h.text("small");
    std::fs::create_dir(&root).expect("create");
    let hull = format!("{} --root {root}/data --state {root}-run", env!("CARGO_BIN_EXE_hull"));
    let script = format!(
        "mount -t tmpfs -o size=100m tmpfs {root} || exit 77
         {hull} import {tar} mine >/dev/null || exit 1
         {hull} volume create one >/dev/null || exit 2
         head -c 6000000 /dev/zero > {root}/data/volumes/one/_data/big || exit 3
         {hull} volume clone one two >/dev/null || exit 4
         head -c $(($(df --output=avail -B1 {root} | tail -1) - 3000000)) /dev/zero > {root}/ballast
         {hull} volume clone one three && exit 5
         {hull} volume export one | {hull} volume import four && exit 6
         {hull} volume ls -q; ls {root}/data/volumes/.staging
         {hull} volume rm --now two || exit 7
         {hull} volume clone one three",
        tar = h.text("rootfs.tar"),
    );
    let out = finish(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    if out.code == 77 {
        return skip("mount", "no tmpfs can be mounted");
    }
    let expected = ["one", "two", "two", "three"];
    assert_eq!(out.ok().lines(), expected);
}
