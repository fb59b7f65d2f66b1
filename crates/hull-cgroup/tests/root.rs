//! Groups on the machine's own hierarchies. Each test makes groups under a name of its own and removes them.

#![expect(clippy::unwrap_used, reason = "a failure of the fixture is a failure of the test")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use hull_cgroup::{Cgroup, Driver, Error, Hierarchies};
use hull_oci::spec::Resources;

struct Fixture {
    cgroup: Cgroup,
    children: Vec<Child>,
}

impl Fixture {
    /// `None`, with the reason on stderr, where the machine cannot run the test.
    fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let hierarchies = Hierarchies::probe().unwrap();
        for controller in ["memory", "cpu", "pids"] {
            if hierarchies.of(controller).is_none() {
                eprintln!("skipped: this machine has no {controller} controller");
                return None;
            }
        }
        let path = format!("/hull-test-{}-{name}", std::process::id());
        let cgroup = Cgroup::plan(&hierarchies, Driver::Cgroupfs, &path, name, false).unwrap();
        Some(Self { cgroup, children: Vec::new() })
    }

    fn create(&self, json: &str) -> Result<(), Error> {
        self.cgroup.create(&serde_json::from_str(json).unwrap())
    }

    fn spawn(&mut self) -> i32 {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.children.push(child);
        pid
    }

    fn directory(&self, controller: &str) -> PathBuf {
        let paths = self.cgroup.paths();
        paths.get(controller).or_else(|| paths.get("")).unwrap().clone()
    }

    fn read(&self, controller: &str, v1: &str, v2: &str) -> String {
        let directory = self.directory(controller);
        let file = if directory.join(v1).exists() { v1 } else { v2 };
        std::fs::read_to_string(directory.join(file)).unwrap().trim().to_owned()
    }

    /// Reaps; the processes must have been signalled.
    fn wait(&mut self) {
        for mut child in self.children.drain(..) {
            child.wait().unwrap();
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.cgroup.thaw();
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.cgroup.delete();
    }
}

#[test]
fn root_limits_are_written() {
    let Some(fixture) = Fixture::new("limits") else { return };
    let json =
        r#"{"memory":{"limit":536870912},"cpu":{"quota":150000,"period":100000,"shares":512},"pids":{"limit":7}}"#;
    fixture.create(json).unwrap();
    assert_eq!(fixture.read("memory", "memory.limit_in_bytes", "memory.max"), "536870912");
    assert!(["150000", "150000 100000"].contains(&fixture.read("cpu", "cpu.cfs_quota_us", "cpu.max").as_str()));
    assert_eq!(fixture.read("pids", "pids.max", "pids.max"), "7");
    assert_eq!(fixture.cgroup.stats().unwrap().memory.usage.limit, 536_870_912);
    assert_eq!(fixture.cgroup.oom_kills(), 0);
    fixture.cgroup.delete().unwrap();
    assert!(fixture.cgroup.is_gone());
}

#[test]
fn root_update_raises_and_lowers() {
    let Some(fixture) = Fixture::new("update") else { return };
    let parse = |json: &str| serde_json::from_str::<Resources>(json).unwrap();
    let swap = fixture.directory_has_swap();
    let (low, high) = if swap {
        (r#"{"memory":{"limit":67108864,"swap":67108864}}"#, r#"{"memory":{"limit":268435456,"swap":268435456}}"#)
    } else {
        (r#"{"memory":{"limit":67108864}}"#, r#"{"memory":{"limit":268435456}}"#)
    };
    fixture.create(low).unwrap();
    fixture.cgroup.update(&parse(high), &parse(low)).unwrap();
    assert_eq!(fixture.read("memory", "memory.limit_in_bytes", "memory.max"), "268435456");
    fixture.cgroup.update(&parse(low), &parse(high)).unwrap();
    assert_eq!(fixture.read("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
}

impl Fixture {
    fn directory_has_swap(&self) -> bool {
        let directory = self.directory("memory");
        let root = directory.parent().unwrap();
        root.join("memory.memsw.limit_in_bytes").exists() || self.cgroup.paths().contains_key("")
    }
}

#[test]
fn root_attach_freeze_kill_delete_nested() {
    let Some(mut fixture) = Fixture::new("life") else { return };
    fixture.create("{}").unwrap();
    let (one, other) = (fixture.spawn(), fixture.spawn());
    fixture.cgroup.attach(one).unwrap();
    fixture.cgroup.attach(other).unwrap();
    // A nested group in every hierarchy, with one of the processes in it where that is allowed.
    let directories: std::collections::BTreeSet<PathBuf> = fixture.cgroup.paths().into_values().collect();
    for directory in &directories {
        std::fs::create_dir_all(directory.join("a/b")).unwrap();
        if !directory.join("cpuset.cpus").exists() {
            std::fs::write(directory.join("a/cgroup.procs"), other.to_string()).unwrap();
        }
    }
    let mut expected = vec![one, other];
    expected.sort_unstable();
    assert_eq!(fixture.cgroup.pids().unwrap(), expected);

    fixture.cgroup.freeze().unwrap();
    assert!(fixture.cgroup.is_frozen().unwrap());
    fixture.cgroup.thaw().unwrap();
    assert!(!fixture.cgroup.is_frozen().unwrap());

    assert!(fixture.cgroup.delete().is_err(), "processes remain");
    // A frozen group is killed, too.
    fixture.cgroup.freeze().unwrap();
    fixture.cgroup.kill_all(9).unwrap();
    fixture.wait();
    assert!(fixture.cgroup.pids().unwrap().is_empty());
    fixture.cgroup.delete().unwrap();
    assert!(directories.iter().all(|directory| !directory.exists()));
    fixture.cgroup.delete().unwrap();
}

#[test]
fn root_group_in_use_is_refused() {
    let Some(mut fixture) = Fixture::new("busy") else { return };
    fixture.create("{}").unwrap();
    fixture.create("{}").expect("an empty group may be used again");
    let pid = fixture.spawn();
    fixture.cgroup.attach(pid).unwrap();
    let error = fixture.create("{}").unwrap_err();
    assert!(matches!(error, Error::InUse { .. }) && error.to_string().contains(&pid.to_string()), "{error}");
    assert!(fixture.cgroup.pids().unwrap().contains(&pid), "nothing was undone");
}

#[test]
fn root_failed_create_leaves_nothing() {
    let Some(fixture) = Fixture::new("undo") else { return };
    let error = fixture.create(r#"{"cpu":{"cpus":"4000"}}"#).unwrap_err();
    assert!(error.to_string().contains("cpu.cpus"), "{error}");
    assert!(fixture.cgroup.is_gone());
    let error = fixture.create(r#"{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#).unwrap_err();
    assert!(error.to_string().contains("hugepageLimits[0]") && error.to_string().contains("hugetlb"), "{error}");
    assert!(fixture.cgroup.is_gone());
}

#[test]
fn root_exec_paths_stay_inside() {
    let Some(mut fixture) = Fixture::new("exec") else { return };
    fixture.create("{}").unwrap();
    let pid = fixture.spawn();
    for bad in ["../..", "memory:../x", "nothing:/a"] {
        assert!(matches!(fixture.cgroup.attach_exec(pid, &[bad.to_owned()]), Err(Error::Path { .. })), "{bad}");
    }
    assert!(fixture.cgroup.attach_exec(pid, &["missing".to_owned()]).is_err());
    fixture.cgroup.attach_exec(pid, &[]).unwrap();
    assert_eq!(fixture.cgroup.pids().unwrap(), [pid]);
}

#[test]
fn root_devices_default_to_the_white_list() {
    let Some(fixture) = Fixture::new("devices") else { return };
    fixture.create(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#).unwrap();
    if let Some(directory) = fixture.cgroup.paths().get("devices") {
        let list = std::fs::read_to_string(directory.join("devices.list")).unwrap();
        assert!(list.contains("c 1:3 rwm") && !list.contains("a *:*"), "{list}");
    }
}

/// The program is loaded by the kernel's verifier and attached to a unified group, also on a hybrid machine.
#[test]
fn root_device_program_on_unified() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let hierarchies = Hierarchies::probe().unwrap();
    let Some(unified) = hierarchies.unified() else {
        eprintln!("skipped: no unified hierarchy");
        return;
    };
    let alone = Hierarchies::from_list(vec![unified.clone()]);
    let path = format!("/hull-test-{}-bpf", std::process::id());
    let cgroup = Cgroup::plan(&alone, Driver::Cgroupfs, &path, "bpf", false).unwrap();
    let fixture = Fixture { cgroup, children: Vec::new() };
    let none = r#"{"devices":[{"allow":false,"access":"rwm"}]}"#;
    fixture.create(none).unwrap();
    assert!(fixture.cgroup.clone_fd().is_some());
    let in_group = |device: &str| {
        let script = format!("echo $$ > {}/cgroup.procs && : < {device}", fixture.directory("").display());
        Command::new("sh").args(["-c", &script]).output().unwrap().status.success()
    };
    assert!(in_group("/dev/null"));
    let denied = Path::new("/dev/kmsg");
    let kmsg = denied.exists() && std::fs::File::open(denied).is_ok();
    if kmsg {
        assert!(!in_group("/dev/kmsg"));
    }
    let all = r#"{"devices":[{"allow":true,"access":"rwm"}]}"#;
    let parse = |json: &str| serde_json::from_str::<Resources>(json).unwrap();
    fixture.cgroup.update(&parse(all), &parse(none)).unwrap();
    if kmsg {
        assert!(in_group("/dev/kmsg"));
    }
    fixture.cgroup.update(&parse(none), &parse(all)).unwrap();
    if kmsg {
        assert!(!in_group("/dev/kmsg"));
    }
}

#[test]
fn root_what_another_runtime_made_elsewhere_is_removed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let hierarchies = Hierarchies::probe().unwrap();
    let top = format!("hull-test-{}-elsewhere", std::process::id());
    let cgroup = Cgroup::plan(&hierarchies, Driver::Cgroupfs, &format!("/{top}/hull/one"), "one", false).unwrap();
    let own = cgroup.paths();
    let other = |mount: &PathBuf| !own.values().any(|path| path.starts_with(mount));
    let others: Vec<PathBuf> = hierarchies.list().iter().map(|one| one.mount.clone()).filter(other).collect();
    for mount in &others {
        std::fs::create_dir_all(mount.join(&top).join("hull/one")).unwrap();
    }
    cgroup.delete_elsewhere(&hierarchies);
    let left: Vec<_> = others.iter().filter(|mount| mount.join(&top).join("hull").exists()).collect();
    for mount in &others {
        std::fs::remove_dir(mount.join(&top)).unwrap();
    }
    assert!(left.is_empty(), "{left:?}");
}
