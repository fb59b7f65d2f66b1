//! Namespaces, user maps, time, sysctls, cgroup limits on this host's hierarchies.

use hull_testkit::{Bundle, bundle, json, tier};

const ALL: [&str; 8] = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user", "time"];

fn own(name: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{name}")).expect("namespace").to_string_lossy().into_owned()
}

/// The namespaces that the container is in, in the order of [`ALL`].
fn namespaces(b: Bundle) -> Vec<String> {
    let paths: Vec<String> = ALL.iter().map(|name| format!("/proc/self/ns/{name}")).collect();
    let mut args = Vec::new();
    for path in &paths {
        args.extend(["readlink", path.as_str(), "+"]);
    }
    b.probe(&args).run().ok().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn root_listed_namespaces_are_new_and_others_shared() {
    let Some(b) = bundle!() else { return };
    for (name, inside) in ALL.iter().zip(namespaces(b)) {
        let shared = ["user", "time"].contains(name);
        assert_eq!(own(name) == inside, shared, "{name}: {inside}");
    }
    let Some(b) = bundle!() else { return };
    let b = b
        .set("/linux/namespaces", json!([{"type": "mount"}, {"type": "pid"}, {"type": "time"}]))
        .set("/hostname", json!(""));
    for (name, inside) in ALL.iter().zip(namespaces(b)) {
        assert_eq!(own(name) == inside, !["mnt", "pid", "time"].contains(name), "{name}: {inside}");
    }
}

#[test]
fn root_namespaces_joined_by_path() {
    let Some(first) = bundle!() else { return };
    let first = first.probe(&["sleep", "60"]);
    first.run_detached();
    let pid = first.pid();
    let Some(b) = bundle!() else { return };
    let path = |name: &str| format!("/proc/{pid}/ns/{name}");
    let b = b
        .set(
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "cgroup"}, {"type": "pid", "path": path("pid")},
                   {"type": "network", "path": path("net")}, {"type": "ipc", "path": path("ipc")},
                   {"type": "uts", "path": path("uts")}]),
        )
        .set("/hostname", json!(""));
    let inside = namespaces(b);
    for (name, inside) in ALL.iter().zip(inside).take(4) {
        let expected = std::fs::read_link(path(name)).expect("namespace");
        assert_eq!(expected.to_string_lossy(), inside, "{name}");
    }
}

fn with_user_namespace(b: Bundle) -> Bundle {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    // The root file system belongs to the mapped root.
    for name in ["", "probe", "tmp", "dev", "proc", "sys", "etc"] {
        std::os::unix::fs::chown(b.rootfs().join(name), Some(100_000), Some(100_000)).expect("chown");
    }
    b.edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    })
}

#[test]
fn root_user_namespace_maps_root_to_nobody_special() {
    let Some(b) = bundle!() else { return };
    let b = with_user_namespace(b).probe(&[
        "id",
        "+",
        "cat",
        "/proc/self/uid_map",
        "+",
        "write",
        "/tmp/mine",
        "x",
        "+",
        "stat",
        "/dev/null",
        "+",
        "poke",
        "/dev/null",
        "x",
    ]);
    let out = b.run().ok();
    let lines = out.lines();
    assert!(lines[0].starts_with("uid=0 gid=0"), "{}", lines[0]);
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(lines[2], "ok");
    assert!(lines[3].contains(" 1:3 "), "{}", lines[3]);
    assert_eq!(lines[4], "ok");
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(b.rootfs().join("tmp/mine")).expect("metadata");
    assert_eq!((meta.uid(), meta.gid()), (100_000, 100_000));
}

#[test]
fn root_exec_joins_a_user_namespace() {
    let Some(b) = bundle!() else { return };
    let b = with_user_namespace(b).probe(&["sleep", "60"]);
    b.run_detached();
    let out = b.exec(&[], &["id", "+", "readlink", "/proc/self/ns/user"]).ok();
    let user = std::fs::read_link(format!("/proc/{}/ns/user", b.pid())).expect("namespace");
    assert!(out.lines()[0].starts_with("uid=0 gid=0"), "{}", out.stdout);
    assert_eq!(out.lines()[1], user.to_string_lossy());
}

#[test]
fn root_user_namespace_sys_stays_read_only() {
    let Some(b) = bundle!() else { return };
    let b = with_user_namespace(b).probe(&[
        "mkdir",
        "/sys/x",
        "+",
        "poke",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "never",
    ]);
    let out = b.run().ok();
    assert!(out.lines().iter().all(|line| ["errno:30", "errno:1", "errno:13"].contains(line)), "{}", out.stdout);
}

#[test]
fn root_time_namespace_offsets() {
    let Some(b) = bundle!() else { return };
    let b = b
        .edit(|spec| {
            spec["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "time"}));
            spec["linux"]["timeOffsets"] =
                json!({"monotonic": {"secs": 172_800}, "boottime": {"secs": 604_800, "nanosecs": 5}});
        })
        .probe(&["cat", "/proc/self/timens_offsets", "+", "cat", "/proc/uptime"]);
    let out = b.run().ok();
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    assert_eq!(words[..6], ["monotonic", "172800", "0", "boottime", "604800", "5"]);
    let uptime: f64 = words[6].parse().expect("seconds");
    let host: f64 = std::fs::read_to_string("/proc/uptime")
        .expect("uptime")
        .split(' ')
        .next()
        .expect("word")
        .parse()
        .expect("seconds");
    assert!(uptime > 604_800.0 && uptime < 604_800.0 + host + 60.0, "{uptime}");
}

#[test]
fn root_host_and_domain_name() {
    let Some(b) = bundle!() else { return };
    let b = b.set("/domainname", json!("example.test")).probe(&["hostname", "+", "cat", "/proc/sys/kernel/domainname"]);
    assert_eq!(b.run().ok().lines(), ["hull-test", "example.test"]);
}

#[test]
fn root_sysctls_of_its_own_namespaces() {
    let Some(b) = bundle!() else { return };
    let before = std::fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").expect("sysctl");
    let b = b
        .set(
            "/linux/sysctl",
            json!({"kernel.shm_rmid_forced": "1", "net/ipv4/ip_default_ttl": "77", "fs.mqueue.msg_max": "9"}),
        )
        .probe(&[
            "cat",
            "/proc/sys/kernel/shm_rmid_forced",
            "+",
            "cat",
            "/proc/sys/net/ipv4/ip_default_ttl",
            "+",
            "cat",
            "/proc/sys/fs/mqueue/msg_max",
        ]);
    assert_eq!(b.run().ok().lines(), ["1", "77", "9"]);
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").expect("sysctl"), before);
}

#[test]
fn root_loopback_is_up_in_a_new_network() {
    let Some(b) = bundle!() else { return };
    let b =
        b.probe(&["cat", "/proc/net/dev", "+", "cat", "/sys/class/net/lo/operstate", "+", "cat", "/proc/net/fib_trie"]);
    let out = b.run().ok();
    assert!(out.stdout.contains("127.0.0.1"), "lo has its address only when it is up: {}", out.stdout);
    let devices = std::fs::read_to_string("/proc/net/dev").expect("devices");
    let host: Vec<&str> =
        devices.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    for name in host.iter().filter(|name| name.starts_with("eth")) {
        assert!(!out.stdout.contains(name), "{name} of the host is visible");
    }
}

fn value(b: &Bundle, controller: &str, file: &str) -> String {
    std::fs::read_to_string(b.cgroup(controller).join(file)).unwrap_or_else(|e| panic!("{file}: {e}")).trim().to_owned()
}

#[test]
fn root_limits_are_written_as_asked() {
    if !tier::cgroup_v1("memory") {
        return;
    }
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]).edit(|spec| {
        spec["linux"]["resources"] = json!({
            "memory": {"limit": 536_870_912, "reservation": 268_435_456, "swap": 1_073_741_824, "swappiness": 10},
            "cpu": {"quota": 150_000, "period": 100_000, "shares": 512, "cpus": "0", "mems": "0"},
            "pids": {"limit": 42},
            "blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1_048_576}]}
        });
    });
    let _ = b.create().ok();
    assert_eq!(value(&b, "memory", "memory.limit_in_bytes"), "536870912");
    assert_eq!(value(&b, "memory", "memory.soft_limit_in_bytes"), "268435456");
    assert_eq!(value(&b, "memory", "memory.swappiness"), "10");
    if b.cgroup("memory").join("memory.memsw.limit_in_bytes").exists() {
        assert_eq!(value(&b, "memory", "memory.memsw.limit_in_bytes"), "1073741824");
    }
    assert_eq!(value(&b, "cpu", "cpu.cfs_quota_us"), "150000");
    assert_eq!(value(&b, "cpu", "cpu.cfs_period_us"), "100000");
    assert_eq!(value(&b, "cpu", "cpu.shares"), "512");
    assert_eq!(value(&b, "cpuset", "cpuset.cpus"), "0");
    assert_eq!(value(&b, "pids", "pids.max"), "42");
    assert_eq!(value(&b, "blkio", "blkio.throttle.read_bps_device"), "254:0 1048576");
    for controller in ["memory", "cpu", "cpuset", "pids", "blkio", "devices", "freezer"] {
        let procs = value(&b, controller, "cgroup.procs");
        assert_eq!(procs, b.pid().to_string(), "{controller}");
    }
}

#[test]
fn root_memory_limit_kills_the_container_alone() {
    if !tier::cgroup_v1("memory") {
        return;
    }
    let Some(neighbour) = bundle!() else { return };
    let neighbour = neighbour.probe(&["sleep", "60"]);
    neighbour.run_detached();
    let Some(b) = bundle!() else { return };
    let b = b.set("/linux/resources/memory", json!({"limit": 16 << 20})).probe(&["alloc", "256"]);
    let out = b.run();
    assert_eq!(out.code, 137, "{} {}", out.stdout, out.stderr);
    assert_eq!(neighbour.state()["status"], "running");
}

#[test]
fn root_one_mebibyte_is_enough_to_start() {
    if !tier::cgroup_v1("memory") {
        return;
    }
    let Some(b) = bundle!() else { return };
    let b = b.set("/linux/resources/memory", json!({"limit": 1 << 20})).probe(&["exit", "0"]);
    let _ = b.run().ok();
}

#[test]
fn root_pids_limit_stops_a_fork_bomb() {
    if !tier::cgroup_v1("pids") {
        return;
    }
    let Some(b) = bundle!() else { return };
    let b = b.set("/linux/resources/pids", json!({"limit": 8})).probe(&["fork", "50"]);
    assert_eq!(b.run().ok().text(), "started=7");
}

#[test]
fn root_cpu_quota_slows_down() {
    if !tier::cgroup_v1("cpu") {
        return;
    }
    let Some(b) = bundle!() else { return };
    let b = b
        .set("/linux/resources/cpu", json!({"quota": 10_000, "period": 100_000}))
        .probe(&["spin", "1", "+", "sleep", "60"]);
    b.run_detached();
    std::thread::sleep(std::time::Duration::from_millis(1300));
    let stat = value(&b, "cpu", "cpu.stat");
    let throttled = stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).expect("nr_throttled");
    assert!(throttled.parse::<u32>().expect("a number") >= 5, "{stat}");
}

#[test]
fn root_limits_that_this_host_lacks_are_errors() {
    let Some(b) = bundle!() else { return };
    b.set("/linux/resources/unified", json!({"memory.max": "1000000"})).create().fails("unified");
    let Some(b) = bundle!() else { return };
    b.set("/linux/resources/rdma", json!({"mlx5_1": {"hcaHandles": 3}})).create().fails("rdma");
    let Some(b) = bundle!() else { return };
    b.set("/linux/intelRdt", json!({"closID": "x", "l3CacheSchema": "L3:0=f"})).create().fails("intelRdt");
}
