//! Containers of an ordinary user: the built binary without any privilege, in user namespaces that it makes or joins.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_testkit::{Bundle, bundle, finish, json, tier};

/// Nobody: no files of its own, in no group.
const USER: u32 = 65_534;

/// A bundle that an ordinary user owns and runs.
fn rootless() -> Option<Bundle> {
    if !tier::user_namespaces() {
        return None;
    }
    Some(bundle!()?.rootless(USER))
}

#[test]
fn userns_single_id_is_root_inside() {
    let Some(b) = rootless() else { return };
    let b = b.probe(&["id", "+", "cat", "/proc/self/uid_map", "+", "write", "/made", "x", "+", "status", "CapEff"]);
    let out = b.run().ok();
    assert_eq!(out.lines()[0], "uid=0 gid=0 groups=");
    assert_eq!(out.lines()[1].split_whitespace().collect::<Vec<_>>(), ["0", &USER.to_string(), "1"]);
    assert_eq!(out.lines()[2], "ok");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(b.rootfs().join("made")).expect("made inside"));
    assert_eq!(owner, USER, "a file of root inside is the user's outside");
    b.assert_clean();
}

#[test]
fn userns_whole_life_of_a_container() {
    let Some(b) = rootless() else { return };
    let b = b.probe(&["sleep", "60"]);
    let _ = b.create().ok();
    assert_eq!(b.state()["status"], "created");
    let _ = b.act("start").ok();
    assert_eq!(b.exec(&[], &["id"]).ok().text(), "uid=0 gid=0 groups=");
    assert_eq!(b.exec(&[], &["exit", "42"]).code, 42);
    let _ = b.oci(&["kill", b.id(), "KILL"]).ok();
    b.wait_status("stopped");
    let _ = b.act("delete").ok();
    b.assert_clean();
}

#[test]
fn userns_what_is_not_mapped_is_refused() {
    let Some(b) = rootless() else { return };
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let b = b.set("/linux/uidMappings", map);
    let out = b.run();
    assert_ne!(out.code, 0, "an ordinary user mapped the machine's root");
    assert_eq!(out.stderr.trim_end().lines().count(), 1, "{}", out.stderr);
    b.assert_clean();
}

#[test]
fn userns_limits_that_cannot_be_set_are_refused() {
    let Some(b) = rootless() else { return };
    let b = b.set("/linux/resources", json!({"memory": {"limit": 64 << 20}}));
    b.run().fails("cgroup");
    b.assert_clean();
}

/// Runs the bundle where `/etc/subuid` and `/etc/subgid` give the user a range of IDs.
fn with_ranges(b: &Bundle, text: &str) -> Command {
    std::fs::write(b.dir().join("sub"), text).expect("write");
    let original = b.bundle_command("run", &[]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    let file = b.dir().join("sub");
    // The files may be missing: then the directory's own copy is laid over.
    command.arg(format!(
        "for f in subuid subgid; do [ -e /etc/$f ] || {{ echo no /etc/$f >&2; exit 99; }}; \
         mount --bind '{}' /etc/$f; done; exec setpriv --reuid {USER} --regid {USER} --clear-groups \"$@\"",
        file.display()
    ));
    command.arg("sh").arg(original.get_program()).args(original.get_args()).stdin(Stdio::null());
    command
}

#[test]
fn userns_ranges_are_mapped_by_newuidmap() {
    if tier::tool("newuidmap").is_none() || tier::tool("newgidmap").is_none() {
        return;
    }
    let Some(b) = rootless() else { return };
    let map = json!([
        {"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 200_000, "size": 1000}
    ]);
    let b = b.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    // Group 5 is mapped now; files of other users can be made, and their owners are in the range.
    let b = b
        .caps(&["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"])
        .set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [7]}))
        .probe(&["id", "+", "write", "/theirs", "x", "+", "chown", "/theirs", "33", "44"]);
    let out = finish(&mut with_ranges(&b, &format!("{USER}:200000:1000\n")));
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert_eq!(out.lines(), ["uid=0 gid=0 groups=7", "ok", "ok"]);
    let meta = std::fs::metadata(b.rootfs().join("theirs")).expect("made inside");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), 200_032);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&meta), 200_043);
    b.assert_clean();
}

#[test]
fn userns_ranges_beyond_the_users_own_are_refused() {
    if tier::tool("newuidmap").is_none() || tier::tool("newgidmap").is_none() {
        return;
    }
    let Some(b) = rootless() else { return };
    let map = json!([
        {"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 200_000, "size": 1001}
    ]);
    let b = b.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    finish(&mut with_ranges(&b, &format!("{USER}:200000:1000\n"))).fails("newuidmap");
    b.assert_clean();
}

/// Writable cgroup files that the container sees, by trying to open every one for writing.
fn writable_cgroups(b: Bundle) -> String {
    let b = b.probe(&["writable", "/sys/fs/cgroup"]);
    let out = b.run().ok();
    b.assert_clean();
    out.stdout
}

/// A cgroup that the user owns, as systemd delegates one; removed when dropped.
struct Delegated(std::path::PathBuf);

impl Delegated {
    fn new(b: &Bundle) -> Option<Self> {
        if !tier::cgroup_v1("pids") {
            return None;
        }
        let path = Path::new("/sys/fs/cgroup/pids").join(b.id().replace("test", "delegated"));
        std::fs::create_dir(&path).expect("make a cgroup");
        let give = |path: &Path| std::os::unix::fs::chown(path, Some(USER), Some(USER)).expect("chown");
        give(&path);
        std::fs::read_dir(&path).expect("list").flatten().for_each(|entry| give(&entry.path()));
        Some(Self(path))
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// CVE-2023-25809: `/sys` bound recursively and read-only left the cgroup file systems below it writable.
#[test]
fn userns_host_cgroups_below_a_bound_sys_are_read_only() {
    let Some(b) = rootless() else { return };
    let Some(delegated) = Delegated::new(&b) else { return };
    let text = writable_cgroups(b);
    assert!(text.starts_with("writable=0 "), "{text}");
    drop(delegated);
}

/// CVE-2023-25809, the other way: without a cgroup namespace the cgroup mount was the host's own hierarchy.
#[test]
fn userns_cgroup_mount_without_namespace_is_read_only() {
    let Some(b) = rootless() else { return };
    let Some(delegated) = Delegated::new(&b) else { return };
    let b = b.edit(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|one| one["type"] != "cgroup");
        spec["mounts"].as_array_mut().expect("mounts").push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup",
            "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "rw"]}));
    });
    let text = writable_cgroups(b);
    assert!(text.starts_with("writable=0 "), "{text}");
    drop(delegated);
}

/// The same for a caller that is root of a user namespace, as under rootless podman or dockerd.
#[test]
fn userns_root_of_a_user_namespace_is_no_root() {
    let Some(b) = rootless() else { return };
    let Some(delegated) = Delegated::new(&b) else { return };
    let b = b
        .edit(|spec| {
            let linux = spec["linux"].as_object_mut().expect("linux");
            linux.remove("uidMappings");
            linux.remove("gidMappings");
            linux["namespaces"].as_array_mut().expect("namespaces").retain(|one| one["type"] != "user");
        })
        .probe(&["writable", "/sys/fs/cgroup"]);
    let original = b.bundle_command("run", &[]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]).arg(original.get_program()).args(original.get_args());
    command.uid(USER).gid(USER).stdin(Stdio::null()).current_dir("/");
    let out = finish(&mut command).ok();
    assert!(out.stdout.starts_with("writable=0 "), "{}", out.stdout);
    drop(delegated);
}

/// A process in namespaces of its own that lives until it is dropped.
struct Holder(Child);

impl Holder {
    /// Waits until the holder has made `ready`.
    fn new(user: u32, flags: &[&str], script: &str, ready: &Path) -> Self {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", script]).uid(user).gid(user).stdin(Stdio::null()).current_dir("/");
        let holder = Self(command.spawn().expect("start unshare"));
        let begin = Instant::now();
        while !ready.exists() {
            assert!(begin.elapsed() < Duration::from_secs(10), "the holder is not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        holder
    }

    fn namespace(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn userns_user_and_mount_namespace_are_joined_by_path() {
    let Some(b) = rootless() else { return };
    let dir = b.dir().to_path_buf();
    std::fs::create_dir(dir.join("marker")).expect("mkdir");
    let script = format!(
        "mount -t tmpfs tmpfs '{0}/marker' && echo inside >'{0}/marker/where' && echo >'{0}/rootfs/tmp/ready' \
         && exec sleep 60",
        dir.display()
    );
    let flags = ["--user", "--map-root-user", "--mount"];
    let holder = Holder::new(USER, &flags, &script, &dir.join("rootfs/tmp/ready"));
    assert!(!dir.join("marker/where").exists(), "the marker is in the holder's mount namespace alone");
    let (user, mount) = (holder.namespace("user"), holder.namespace("mnt"));
    let b = b
        .edit(|spec| {
            let linux = spec["linux"].as_object_mut().expect("linux");
            linux.remove("uidMappings");
            linux.remove("gidMappings");
            let namespaces = linux["namespaces"].as_array_mut().expect("namespaces");
            for one in namespaces {
                if one["type"] == "user" {
                    one["path"] = json!(user);
                } else if one["type"] == "mount" {
                    one["path"] = json!(mount);
                }
            }
        })
        .mount(json!({"destination": "/seen", "type": "bind", "source": dir.join("marker"), "options": ["rbind"]}))
        .probe(&["cat", "/seen/where", "+", "readlink", "/proc/self/ns/user", "+", "id"]);
    let out = b.run().ok();
    let expected = std::fs::read_link(&user).expect("namespace of the holder");
    assert_eq!(out.lines(), ["inside", &*expected.to_string_lossy(), "uid=0 gid=0 groups="]);
    drop(holder);
    b.assert_clean();
}

#[test]
fn root_user_and_mount_namespace_of_a_user_are_joined_by_path() {
    let Some(b) = bundle!() else { return };
    let dir = b.dir().to_path_buf();
    std::fs::set_permissions(dir.join("rootfs/tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777))
        .expect("chmod");
    let script = format!("echo >'{}/rootfs/tmp/ready' && exec sleep 60", dir.display());
    let flags = ["--user", "--map-root-user", "--mount"];
    let holder = Holder::new(USER, &flags, &script, &dir.join("rootfs/tmp/ready"));
    let (user, mount) = (holder.namespace("user"), holder.namespace("mnt"));
    // Mount points must exist, because the user may not make any in root's directory.
    let b = b
        .edit(|spec| {
            for one in spec["linux"]["namespaces"].as_array_mut().expect("namespaces") {
                if one["type"] == "mount" {
                    one["path"] = json!(mount);
                }
            }
            let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.push(json!({"type": "user", "path": user}));
            for mount in spec["mounts"].as_array_mut().expect("mounts") {
                mount["options"].as_array_mut().into_iter().for_each(|list| list.retain(|one| one != "gid=5"));
            }
        })
        .probe(&["readlink", "/proc/self/ns/user", "+", "id"]);
    let out = b.run().ok();
    assert_eq!(out.lines()[0], std::fs::read_link(&user).expect("namespace").to_string_lossy());
    drop(holder);
    b.assert_clean();
}
