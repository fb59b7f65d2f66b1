//! Attacks on container runtimes that were once found in one, tried against the binary that these tests were built with.
//!
//! Each is looped, and each has a canary on the host that must be as it was. Races are in `cve_races.rs`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use hull_testkit::{Bundle, bundle, finish, json, rounds};

/// A file on the host that no container may touch.
struct Canary {
    path: PathBuf,
    mode: u32,
}

impl Canary {
    fn new(b: &Bundle, name: &str) -> Self {
        let dir = b.dir().join("outside");
        std::fs::create_dir_all(&dir).expect("mkdir");
        let path = dir.join(name);
        std::fs::write(&path, "canary").expect("write");
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
        Self { path, mode }
    }

    fn dir(&self) -> &Path {
        self.path.parent().expect("a directory")
    }

    /// The canary is unchanged and alone in its directory.
    #[track_caller]
    fn assert_alive(&self) {
        assert_eq!(std::fs::read_to_string(&self.path).expect("the canary is gone"), "canary");
        assert_eq!(std::fs::metadata(&self.path).expect("metadata").permissions().mode(), self.mode);
        let names: Vec<_> = std::fs::read_dir(self.dir()).expect("read").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names.len(), 1, "made on the host: {names:?}");
    }
}

fn hash(path: &Path) -> (u64, Vec<u8>) {
    let bytes = std::fs::read(path).expect("read the binary");
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for byte in &bytes {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (sum, bytes[..4].to_vec())
}

/// CVE-2016-3697: a numeric user is never looked up as a name.
#[test]
fn root_numeric_user_is_not_a_name() {
    let Some(b) = bundle!() else { return };
    std::fs::write(b.rootfs().join("etc/passwd"), "1000:x:0:0::/root:/probe\nroot:x:0:0::/root:/probe\n")
        .expect("passwd");
    std::fs::write(b.rootfs().join("etc/group"), "1000:x:0:\n").expect("group");
    let b = b.probe(&["sleep", "60"]);
    b.run_detached();
    for _ in 0..rounds(5) {
        let out = b.exec(&["--user", "1000:1000"], &["id"]).ok();
        assert!(out.text().starts_with("uid=1000 gid=1000"), "{}", out.stdout);
    }
}

/// CVE-2026-30892: a user that cannot be parsed is an error, never root.
#[test]
fn root_user_that_cannot_be_parsed_is_an_error() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]);
    b.run_detached();
    for user in
        ["1:", ":1", "1x", "x1", "4294967296", "4294967295", "-1", "1:-1", "1:2:3", " 1", "1 ", "+1", "0x1", "1:1x"]
    {
        let out = b.oci(&["exec", "--user", user, b.id(), "/probe", "id"]);
        assert!(out.code != 0, "{user:?} ran as {}", out.stdout);
        assert!(!out.stdout.contains("uid="), "{user:?} ran as {}", out.stdout);
    }
}

/// CVE-2016-9962: what is inside cannot read the descriptors of an exec that is on its way in.
#[test]
fn root_exec_descriptors_cannot_be_stolen() {
    let Some(b) = bundle!() else { return };
    let b = b.caps(&["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"]).probe(&["steal-fds", "4"]);
    let mut run = b.bundle_command("run", &[]);
    let thief = std::thread::spawn(move || finish(&mut run));
    b.wait_running();
    for _ in 0..rounds(60) {
        let out = b.exec(&[], &["exit", "0"]);
        if out.code != 0 {
            break; // The thief has had its time.
        }
    }
    let out = thief.join().expect("thief");
    assert!(!out.stdout.contains("STOLEN"), "{}", out.stdout);
}

/// CVE-2019-5736: the runtime's binary cannot be written through /proc/PID/exe, at start or at exec.
#[test]
fn root_binary_cannot_be_overwritten() {
    let Some(b) = bundle!() else { return };
    let caps = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER"];
    let before = hash(b.binary());
    // The container's own program is the runtime's binary, as an interpreter and directly.
    std::fs::write(b.rootfs().join("evil"), "#!/proc/self/exe\n").expect("write");
    std::fs::set_permissions(b.rootfs().join("evil"), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut b = b.caps(&caps);
    for program in ["/evil", "/proc/self/exe"] {
        for _ in 0..rounds(5) {
            b = b.set("/process/args", json!([program, "oci", "list"]));
            let _ = b.run();
            b.delete();
        }
    }
    let b = b.probe(&["overwrite-exe", "4"]);
    let mut run = b.bundle_command("run", &[]);
    let attacker = std::thread::spawn(move || finish(&mut run));
    b.wait_running();
    for index in 0..rounds(40) {
        let program = if index % 2 == 0 { "/proc/self/exe" } else { "/evil" };
        if b.oci(&["exec", b.id(), program, "exit", "0"]).stderr.contains("not running") {
            break;
        }
    }
    let out = attacker.join().expect("attacker");
    assert!(!out.stdout.contains("OVERWRITTEN"), "{}", out.stdout);
    assert_eq!(hash(b.binary()), before, "the binary changed");
}

/// CVE-2019-16884: a mount over /proc or inside it is refused, except the files that lxcfs replaces.
#[test]
fn root_mounts_over_proc_are_refused() {
    for destination in ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys/kernel", "/proc/../proc/1", "proc//self/"]
    {
        let Some(b) = bundle!() else { return };
        let source = b.dir().join("outside");
        std::fs::create_dir(&source).expect("mkdir");
        for mount in [
            json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}),
            json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind"]}),
        ] {
            let Some(b) = bundle!() else { return };
            b.mount(mount).create().fails("proc");
        }
    }
    let Some(b) = bundle!() else { return };
    let file = b.dir().join("meminfo");
    std::fs::write(&file, "MemTotal: 1 kB\n").expect("write");
    let b = b
        .mount(json!({"destination": "/proc/meminfo", "type": "bind", "source": file, "options": ["bind", "ro"]}))
        .probe(&["cat", "/proc/meminfo"]);
    assert_eq!(b.run().ok().text(), "MemTotal: 1 kB");
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867: /proc or /sys as a link is refused.
#[test]
fn root_proc_and_sys_as_links_are_refused() {
    for name in ["proc", "sys"] {
        for target in ["/tmp", "tmp", "../outside", "/../../../../tmp", "/proc", "self"] {
            let Some(b) = bundle!() else { return };
            let canary = Canary::new(&b, "file");
            std::fs::remove_dir(b.rootfs().join(name)).expect("rmdir");
            symlink(target, b.rootfs().join(name)).expect("symlink");
            let out = b.create();
            assert_ne!(out.code, 0, "{name} -> {target} was accepted");
            out.fails(name);
            canary.assert_alive();
            b.assert_clean();
        }
    }
}

/// CVE-2026-41579 (runc), CVE-2026-47766 (crun): /dev as a link out of the root file system makes nothing on the host.
#[test]
fn root_dev_as_a_link_makes_nothing_outside() {
    for relative in [false, true] {
        for with_tmpfs in [true, false] {
            let Some(b) = bundle!() else { return };
            let decoy = Canary::new(&b, "ptmx");
            std::fs::remove_dir(b.rootfs().join("dev")).expect("rmdir");
            let target = if relative { PathBuf::from("../outside") } else { decoy.dir().to_owned() };
            symlink(target, b.rootfs().join("dev")).expect("symlink");
            let b = b.edit(|spec| {
                if !with_tmpfs {
                    let mounts = spec["mounts"].as_array_mut().expect("mounts");
                    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
                }
                spec["linux"]["devices"] = json!([{"path": "/dev/evil", "type": "c", "major": 1, "minor": 3}]);
            });
            for _ in 0..rounds(3) {
                if b.create().code == 0 {
                    let _ = b.act("start");
                }
                b.delete();
                decoy.assert_alive();
            }
        }
    }
}

/// CVE-2019-18837: links in the root file system are not followed to the host when mount targets are made.
#[test]
fn root_mount_targets_are_made_inside() {
    let Some(b) = bundle!() else { return };
    let canary = Canary::new(&b, "file");
    symlink(canary.dir(), b.rootfs().join("absolute")).expect("symlink");
    symlink("../outside", b.rootfs().join("relative")).expect("symlink");
    symlink(&canary.path, b.rootfs().join("tmp/link")).expect("symlink");
    let host = b.dir().join("hosts");
    std::fs::write(&host, "from the host").expect("write");
    let b = b
        .mount(json!({"destination": "/absolute/new", "type": "tmpfs", "source": "t"}))
        .mount(json!({"destination": "/relative/new", "type": "tmpfs", "source": "t"}))
        .mount(json!({"destination": "/tmp/link", "type": "bind", "source": host, "options": ["bind"]}))
        .set("/process/cwd", json!("/absolute/cwd"))
        .set("/linux/devices", json!([{"path": "/relative/null", "type": "c", "major": 1, "minor": 3}]));
    for _ in 0..rounds(5) {
        let _ = b.run();
        b.delete();
        canary.assert_alive();
    }
}

/// CVE-2024-21626: a working directory through a leaked descriptor is refused, and no directory leaks.
#[test]
fn root_working_directory_through_descriptors() {
    let Some(b) = bundle!() else { return };
    let mut b = b.probe(&["cwd", "+", "ls", "."]);
    for number in 0..24 {
        for path in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../..")] {
            b = b.set("/process/cwd", json!(path));
            let out = b.run();
            assert_ne!(out.code, 0, "{path}: {}", out.stdout);
            assert!(!out.stdout.contains("work") && out.stdout.is_empty(), "{path}: {}", out.stdout);
            b.delete();
        }
    }
    let b = b.set("/process/cwd", json!("/")).probe(&["sleep", "60"]);
    b.run_detached();
    for number in 0..24 {
        let out = b.exec(&["--cwd", &format!("/proc/self/fd/{number}")], &["cwd"]);
        assert_ne!(out.code, 0, "{number}: {}", out.stdout);
    }
    symlink("/proc/self/fd/7/", b.rootfs().join("link")).expect("symlink");
    assert_ne!(b.exec(&["--cwd", "/link"], &["cwd"]).code, 0);
}

/// CVE-2022-29162, CVE-2022-24769, CVE-2022-27650: exec with more capabilities leaves the inheritable set empty.
#[test]
fn root_exec_capabilities_are_not_inheritable() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]);
    b.run_detached();
    for flags in [&["--cap", "CAP_NET_ADMIN"][..], &["--cap", "NET_ADMIN", "--user", "1000"], &[]] {
        let out = b.exec(flags, &["status", "CapInh", "+", "status", "CapAmb"]).ok();
        assert_eq!(out.lines()[0], "0000000000000000", "{flags:?}");
    }
    let out = b.exec(&["--cap", "CAP_NET_ADMIN"], &["status", "CapEff"]).ok();
    let mask = u64::from_str_radix(out.text(), 16).expect("hexadecimal");
    assert_eq!(mask >> 12 & 1, 1, "{mask:x}");
}

/// CVE-2022-0811, CVE-2024-3154: a value cannot smuggle in a second sysctl or a unit property.
#[test]
fn root_sysctl_values_carry_nothing_else() {
    let pattern = std::fs::read("/proc/sys/kernel/core_pattern").expect("core_pattern");
    for (key, value) in [
        ("net.ipv4.ip_default_ttl", "64+kernel.core_pattern=|/evil"),
        ("net.ipv4.ip_default_ttl", "64\nkernel.core_pattern=|/evil"),
        ("net.ipv4.ip_default_ttl+kernel.core_pattern", "|/evil"),
        ("net/ipv4/../../kernel/core_pattern", "|/evil"),
        ("kernel.core_pattern", "|/evil"),
        ("kernel.shm_rmid_forced/../core_pattern", "|/evil"),
        ("/kernel/core_pattern", "|/evil"),
    ] {
        let Some(b) = bundle!() else { return };
        let b = b.set("/linux/sysctl", json!({key: value}));
        // The kernel takes a number that something follows; a key that is not one sysctl is never taken.
        let taken = b.create().code == 0;
        assert!(!taken || key == "net.ipv4.ip_default_ttl", "{key} = {value:?}");
        b.delete();
        assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").expect("core_pattern"), pattern);
    }
}

/// CVE-2025-24965: files that the runtime makes in the root file system follow no link.
#[test]
fn root_files_are_not_made_through_links() {
    let Some(b) = bundle!() else { return };
    let canary = Canary::new(&b, "file");
    for name in ["etc/hosts", "etc/resolv.conf", "etc/hostname", "run", ".krun_config.json"] {
        let _ = symlink(&canary.path, b.rootfs().join(name));
    }
    symlink(&canary.path, b.rootfs().join("etc/passwd")).expect("symlink");
    for _ in 0..rounds(3) {
        let _ = b.run();
        b.delete();
        canary.assert_alive();
    }
}

/// Exec and delegation with `..` in the cgroup path (fixed in crun 1.29).
#[test]
fn root_exec_cgroup_stays_below_the_container() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]);
    b.run_detached();
    for path in ["../..", "/..", "a/../../..", "pids:../..", "../", "pids:/../x"] {
        let out = b.exec(&["--cgroup", path], &["exit", "0"]);
        assert_ne!(out.code, 0, "{path} was accepted");
        assert!(out.stderr.contains("cgroup"), "{path}: {}", out.stderr);
    }
}

/// CVE-2021-43784: lists too long for a 16-bit length are framed correctly or refused.
#[test]
fn root_huge_lists_are_framed_correctly() {
    let Some(b) = bundle!() else { return };
    let mappings: Vec<_> = (0..4000).map(|i| json!({"containerID": i, "hostID": 100_000 + i, "size": 1})).collect();
    let b = b.edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
        spec["linux"]["uidMappings"] = json!(mappings);
        spec["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    });
    let out = b.probe(&["id"]).run();
    assert_ne!(out.code, 0, "the kernel takes 340 lines at most: {}", out.stdout);
    let Some(b) = bundle!() else { return };
    let paths: Vec<String> = (0..3000).map(|i| format!("/proc/absent-{i}-{}", "x".repeat(100))).collect();
    let b = b.set("/linux/maskedPaths", json!(paths)).probe(&["status", "NoNewPrivs"]);
    assert_eq!(b.run().ok().text(), "1", "what follows the long list still holds");
    let Some(b) = bundle!() else { return };
    let b = b.mount(json!({"destination": format!("/{}", "a/".repeat(3000)), "type": "tmpfs", "source": "t"}));
    assert_ne!(b.create().code, 0, "a path longer than PATH_MAX");
}
