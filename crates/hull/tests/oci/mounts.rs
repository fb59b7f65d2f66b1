//! Mounts, paths and devices of the runtime specification, seen from inside the container.

use std::os::unix::fs::PermissionsExt;

use hull_testkit::{Bundle, bundle, json, leak};

/// The mount table's line for a destination: its options, and those of its superblock.
fn options(table: &str, destination: &str) -> (String, String) {
    let line = table
        .lines()
        .rev()
        .find(|line| line.split(' ').nth(4) == Some(destination))
        .unwrap_or_else(|| panic!("{destination} is not mounted:\n{table}"));
    let (left, right) = line.split_once(" - ").expect("separator");
    (
        left.split(' ').skip(5).collect::<Vec<_>>().join(" "),
        right.split(' ').nth(2).expect("superblock options").to_owned(),
    )
}

fn host_dir(b: &Bundle, name: &str) -> String {
    let path = b.dir().join(name);
    std::fs::create_dir(&path).expect("mkdir");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn root_default_mounts_have_their_options() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["mounts"]);
    let table = b.run().ok().stdout;
    for (destination, words) in [
        ("/dev", &["nosuid"][..]),
        ("/dev/shm", &["nosuid", "nodev", "noexec"]),
        ("/dev/mqueue", &["nosuid", "nodev", "noexec"]),
        ("/dev/pts", &["nosuid", "noexec"]),
        ("/sys", &["ro", "nosuid", "nodev", "noexec"]),
        ("/sys/fs/cgroup", &["ro"]),
        ("/proc/sys", &["ro"]),
    ] {
        let (own, _) = options(&table, destination);
        let own: Vec<&str> = own.split([',', ' ']).collect();
        for word in words {
            assert!(own.contains(word), "{destination} without {word}: {own:?}");
        }
    }
    assert_eq!(table.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count(), 1, "one root:\n{table}");
    assert!(!table.contains("/.old"), "the old root is gone:\n{table}");
}

#[test]
fn root_bind_mounts_of_directories_and_files() {
    let Some(b) = bundle!() else { return };
    let dir = host_dir(&b, "data");
    std::fs::write(format!("{dir}/file"), "from the host").expect("write");
    let b = b
        .mount(json!({"destination": "/new/target", "type": "bind", "source": dir, "options": ["rbind", "ro"]}))
        .mount(json!({"destination": "etc/one", "type": "bind", "source": format!("{dir}/file"), "options": ["bind"]}))
        .mount(json!({"destination": "/by-bundle", "source": "data", "options": ["bind", "nosuid", "nodev", "noexec"]}))
        .probe(&[
            "cat",
            "/new/target/file",
            "+",
            "write",
            "/new/target/x",
            "1",
            "+",
            "cat",
            "/etc/one",
            "+",
            "write",
            "/etc/one",
            "back",
            "+",
            "mounts",
        ]);
    let out = b.run().ok();
    assert_eq!(out.lines()[..4], ["from the host", "errno:30", "from the host", "ok"]);
    assert_eq!(std::fs::read_to_string(format!("{dir}/file")).expect("read"), "back");
    let (flags, _) = options(&out.stdout, "/by-bundle");
    assert!(flags.contains("nosuid") && flags.contains("nodev") && flags.contains("noexec"), "{flags}");
}

#[test]
fn root_rro_reaches_submounts_and_ro_does_not() {
    for (option, expected) in [("rro", "errno:30"), ("ro", "ok")] {
        let Some(b) = bundle!() else { return };
        // A mount below another of the same container stands for a submount of the host's.
        let dir = host_dir(&b, "data");
        std::fs::create_dir(format!("{dir}/sub")).expect("mkdir");
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs t '{dir}' && mkdir '{dir}/sub' && mount -t tmpfs s '{dir}/sub' && exec \"$@\""
        );
        let b = b
            .mount(json!({"destination": "/data", "type": "bind", "source": dir, "options": ["rbind", option]}))
            .probe(&["write", "/data/x", "1", "+", "write", "/data/sub/x", "1"]);
        let run = b.bundle_command("run", &[]);
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &script, "sh"]).arg(run.get_program()).args(run.get_args());
        let out = hull_testkit::finish(command.stdin(std::process::Stdio::null())).ok();
        assert_eq!(out.lines(), ["errno:30", expected], "{option}");
    }
}

#[test]
fn root_tmpfs_size_mode_and_copy_up() {
    let Some(b) = bundle!() else { return };
    std::fs::create_dir(b.rootfs().join("var")).expect("mkdir");
    std::fs::write(b.rootfs().join("var/kept"), "kept").expect("write");
    std::fs::set_permissions(b.rootfs().join("var/kept"), std::fs::Permissions::from_mode(0o751)).expect("chmod");
    let b = b
        .mount(
            json!({"destination": "/var", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "mode=0700"]}),
        )
        .mount(
            json!({"destination": "/small", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=1770"]}),
        )
        .probe(&[
            "cat",
            "/var/kept",
            "+",
            "stat",
            "/var/kept",
            "+",
            "write",
            "/var/x",
            "1",
            "+",
            "statfs",
            "/small",
            "+",
            "stat",
            "/small",
        ]);
    let out = b.run().ok();
    let lines = out.lines();
    assert_eq!(lines[0], "kept");
    assert!(lines[1].starts_with("file 0751 0 0"), "{}", lines[1]);
    assert_eq!(lines[2], "ok");
    assert_eq!(lines[3], "type=1021994 bytes=65536");
    assert!(lines[4].starts_with("dir 1770"), "{}", lines[4]);
    assert!(!b.rootfs().join("var/x").exists(), "the write stayed in the tmpfs");
}

#[test]
fn root_propagation_of_mounts_and_of_the_root() {
    for (option, expected) in [("rprivate", ""), ("rslave", "master:"), ("rshared", "shared:"), ("private", "")] {
        let Some(b) = bundle!() else { return };
        let dir = host_dir(&b, "data");
        let script = format!("mount --bind '{dir}' '{dir}' && mount --make-rshared '{dir}' && exec \"$@\"");
        let b = b
            .mount(json!({"destination": "/data", "type": "bind", "source": dir, "options": ["rbind", option]}))
            .probe(&["mounts"])
            .set("/linux/rootfsPropagation", json!("rslave"));
        let run = b.bundle_command("run", &[]);
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &script, "sh"]).arg(run.get_program()).args(run.get_args());
        let table = hull_testkit::finish(command.stdin(std::process::Stdio::null())).ok().stdout;
        let (own, _) = options(&table, "/data");
        let tags: Vec<&str> = own.split(' ').skip(1).collect();
        assert!(
            tags.iter().any(|tag| tag.starts_with(expected)) || (expected.is_empty() && tags.is_empty()),
            "{option}: {own}"
        );
        assert!(leak::mounts(&dir).is_empty(), "nothing propagated to the host");
    }
}

#[test]
fn root_propagation_words_of_the_root_are_accepted() {
    for word in ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"] {
        let Some(b) = bundle!() else { return };
        let b = b.set("/linux/rootfsPropagation", json!(word)).probe(&["echo", "up"]);
        assert_eq!(b.run().ok().text(), "up", "{word}");
    }
}

#[test]
fn root_masked_and_read_only_paths() {
    let Some(b) = bundle!() else { return };
    std::fs::create_dir(b.rootfs().join("secrets")).expect("mkdir");
    std::fs::write(b.rootfs().join("secrets/key"), "secret").expect("write");
    std::fs::write(b.rootfs().join("token"), "secret").expect("write");
    let b = b
        .set("/linux/maskedPaths", json!(["/secrets", "/token", "/not/there", "/proc/version"]))
        .set("/linux/readonlyPaths", json!(["/etc", "/not/there/either", "/proc/sys"]))
        .probe(&[
            "ls",
            "/secrets",
            "+",
            "write",
            "/secrets/x",
            "1",
            "+",
            "cat",
            "/token",
            "+",
            "stat",
            "/token",
            "+",
            "write",
            "/etc/x",
            "1",
            "+",
            "poke",
            "/proc/sys/kernel/hostname",
            "x",
            "+",
            "stat",
            "/proc/version",
        ]);
    let out = b.run().ok();
    let lines = out.lines();
    assert_eq!(lines[0], "errno:30", "an empty, read-only directory: {}", out.stdout);
    assert!(lines[1].starts_with("char 0666") && lines[1].contains(" 1:3 "), "{}", lines[1]);
    assert_eq!(lines[2..4], ["errno:30", "errno:30"]);
    assert!(lines[4].contains(" 1:3 "), "{}", lines[4]);
    assert!(!out.stdout.contains("secret"), "{}", out.stdout);
}

#[test]
fn root_read_only_root() {
    let Some(b) = bundle!() else { return };
    let b = b.set("/root/readonly", json!(true)).probe(&["write", "/x", "1", "+", "write", "/dev/shm/x", "1"]);
    assert_eq!(b.run().ok().lines(), ["errno:30", "ok"]);
}

#[test]
fn root_default_devices_and_links() {
    let Some(b) = bundle!() else { return };
    let mut args = Vec::new();
    let nodes = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    for node in nodes {
        args.extend(["stat", node, "+"]);
    }
    for link in ["/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/ptmx"] {
        args.extend(["readlink", link, "+"]);
    }
    args.extend(["poke", "/dev/null", "x", "+", "ls", "/dev"]);
    let out = b.probe(&args).run().ok();
    let lines = out.lines();
    for (line, device) in lines.iter().zip(["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"]) {
        assert!(line.starts_with("char 0666 0 0") && line.contains(&format!(" {device} ")), "{device}: {line}");
    }
    assert_eq!(lines[6..10], ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]);
    assert!(["pts/ptmx", "/dev/pts/ptmx"].contains(&lines[10]), "{}", lines[10]);
    assert_eq!(lines[11], "ok");
    assert!(!lines[12..].iter().any(|name| name.starts_with("sd") || *name == "mem"), "{:?}", &lines[12..]);
}

#[test]
fn root_devices_of_the_configuration() {
    let Some(b) = bundle!() else { return };
    let b = b
        .set(
            "/linux/devices",
            json!([
                {"path": "/dev/own/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 7, "gid": 8},
                {"path": "/dev/disk", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600},
                {"path": "/run/pipe", "type": "p", "fileMode": 0o644}
            ]),
        )
        .set(
            "/linux/resources/devices",
            json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]),
        )
        .caps(&["CAP_MKNOD"])
        .probe(&[
            "stat", "/dev/own/null", "+", "stat", "/dev/disk", "+", "stat", "/run/pipe", "+", "open-write",
            "/dev/own/null", "+", "open-write", "/dev/disk", "+", "mknod", "/tmp/mem", "c", "1", "1", "+", "open-write", "/tmp/mem",
        ]);
    let out = b.run().ok();
    let lines = out.lines();
    assert!(lines[0].starts_with("char 0666 7 8 1:3"), "{}", lines[0]);
    assert!(lines[1].starts_with("block 0600 0 0 7:200"), "{}", lines[1]);
    assert!(lines[2].starts_with("fifo 0644"), "{}", lines[2]);
    assert_eq!(lines[3..5], ["ok", "errno:1"], "the device filter decides: {}", out.stdout);
    // Docker's and runc's rules let a node be made and never be opened.
    assert!(lines[6].starts_with("errno:"), "/dev/mem was opened: {}", out.stdout);
}

#[test]
fn root_idmapped_bind_mount() {
    let Some(b) = bundle!() else { return };
    let dir = host_dir(&b, "data");
    std::fs::write(format!("{dir}/file"), "x").expect("write");
    std::os::unix::fs::chown(format!("{dir}/file"), Some(1000), Some(1000)).expect("chown");
    let map = json!([{"containerID": 1000, "hostID": 2000, "size": 1}]);
    let b = b
        .mount(json!({"destination": "/data", "type": "bind", "source": dir, "options": ["rbind", "idmap"],
                      "uidMappings": map, "gidMappings": map}))
        .probe(&["stat", "/data/file"]);
    let out = b.run().ok();
    assert!(out.text().starts_with("file 0644 2000 2000"), "{}", out.stdout);
}

#[test]
fn root_idmapped_by_the_option_itself() {
    let Some(b) = bundle!() else { return };
    let dir = host_dir(&b, "data");
    for (name, owner) in [("one", 1000), ("two", 1001), ("three", 5000)] {
        std::fs::write(format!("{dir}/{name}"), "x").expect("write");
        std::os::unix::fs::chown(format!("{dir}/{name}"), Some(owner), Some(owner)).expect("chown");
    }
    let option = "idmap=uids=1000-2000-1#1001-7-1;gids=1000-3000-2";
    let b = b
        .mount(json!({"destination": "/data", "type": "bind", "source": dir, "options": ["bind", option]}))
        .probe(&["stat", "/data/one", "+", "stat", "/data/two", "+", "stat", "/data/three"]);
    let out = b.run().ok();
    let owners: Vec<String> =
        out.lines().iter().map(|line| line.split(' ').skip(2).take(2).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(owners, ["2000:3000", "7:3001", "65534:65534"], "{}", out.stdout);
}

#[test]
fn root_idmap_option_that_cannot_be_read_is_refused() {
    let Some(b) = bundle!() else { return };
    let dir = host_dir(&b, "data");
    for option in ["idmap=", "idmap=uids=1", "idmap=uids=0-0-0;gids=0-0-1", "idmap=uids=@0-0-1;gids=@0-0-1"] {
        let mount = json!({"destination": "/data", "type": "bind", "source": dir, "options": ["bind", option]});
        let with = Bundle::new(b.binary()).mount(mount).probe(&["exit", "0"]);
        with.run().fails("mounts[7].options");
        with.assert_clean();
    }
}

#[test]
fn root_mount_targets_through_links_stay_inside() {
    let Some(b) = bundle!() else { return };
    let outside = host_dir(&b, "outside");
    for (name, to) in [("absolute", outside.as_str()), ("climbing", "../../../../../../../../tmp")] {
        std::os::unix::fs::symlink(to, b.rootfs().join(name)).expect("symlink");
    }
    let b = b
        .mount(json!({"destination": "/absolute/x", "type": "tmpfs", "source": "t"}))
        .mount(json!({"destination": "/climbing/y", "type": "tmpfs", "source": "t"}))
        .mount(json!({"destination": "/a/../b/../../../../c", "type": "tmpfs", "source": "t"}))
        .probe(&["mounts"]);
    let name = b.id().to_owned();
    let out = b.run();
    assert_eq!(std::fs::read_dir(&outside).expect("read").count(), 0, "a directory was made outside");
    assert!(!std::path::Path::new("/tmp/y").exists() && !std::path::Path::new("/c").exists());
    assert!(leak::mounts(&name).is_empty());
    if out.code == 0 {
        let _ = options(&out.stdout, "/tmp/y");
        let _ = options(&out.stdout, "/c");
    }
}

#[test]
fn root_cgroup_mount_shows_only_the_own_cgroup() {
    let Some(b) = bundle!() else { return };
    if !hull_testkit::tier::cgroup_v1("pids") {
        return;
    }
    let b = b.set("/linux/resources/pids", json!({"limit": 20})).probe(&[
        "cat",
        "/sys/fs/cgroup/pids/pids.max",
        "+",
        "poke",
        "/sys/fs/cgroup/pids/pids.max",
        "max",
        "+",
        "cat",
        "/proc/self/cgroup",
    ]);
    let out = b.run().ok();
    assert_eq!(out.lines()[..2], ["20", "errno:30"]);
    assert!(!out.stdout.contains(b.id()), "the cgroup namespace hides the path: {}", out.stdout);
}
