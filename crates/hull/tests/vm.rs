//! The `vm` tier: the same binary in a kernel with pure cgroup v2, where Hull may do what most machines do: start
//! processes right in their cgroup, filter devices with BPF, and ask systemd for scopes.

use std::path::Path;

use hull_testkit::vm::{Console, Vm};
use hull_testkit::{Value, default_spec, json, probe, tier};

/// A machine with the binary under test at `/run/vm/hull` and the probe; or the skip.
fn machine() -> Option<Vm> {
    let vm = Vm::new();
    if vm.is_none() {
        tier::skip("vm", "needs user-mode-linux and a static busybox");
    }
    Some(vm?.program("hull", Path::new(env!("CARGO_BIN_EXE_hull"))).program("probe", &probe()))
}

/// The beginning of every script: `hull oci` with a state root, and the root file system that all bundles share.
const BEGIN: &str = r#"
oci() { /run/vm/hull oci --root /tmp/state $global "$@"; }
start() { oci run --detach --bundle /run/vm/$1 $1 >/tmp/$1.out 2>/tmp/$1.err </dev/null || { echo; cat /tmp/$1.err; }; }
finish() { oci delete --force $1; }
rootfs /tmp/rootfs
cp /run/vm/probe /tmp/rootfs/probe
"#;

/// A bundle's configuration: busybox runs a shell command in the cgroup `/NAME`, with these resources.
fn config(name: &str, command: &str, resources: &Value) -> Value {
    let mut spec = default_spec(&format!("/{name}"));
    spec["root"]["path"] = json!("/tmp/rootfs");
    spec["process"]["args"] = json!(["/bin/sh", "-c", command]);
    spec["process"]["env"] = json!(["PATH=/bin"]);
    for (key, value) in resources.as_object().into_iter().flatten() {
        spec["linux"]["resources"][key] = value.clone();
    }
    spec
}

trait Bundles: Sized {
    fn bundle(self, name: &str, spec: &Value) -> Self;
    fn script(self, script: &str) -> Console;
}

impl Bundles for Vm {
    fn bundle(self, name: &str, spec: &Value) -> Self {
        self.file(&format!("{name}/config.json"), spec.to_string().as_bytes())
    }

    fn script(self, script: &str) -> Console {
        self.run(&format!("{BEGIN}{script}"))
    }
}

#[test]
fn vm_memory_limit_kills_inside_one_group_only() {
    let Some(vm) = machine() else { return };
    // `tail` of an endless line keeps all of it in memory.
    let eater = config("eater", "tail /dev/zero", &json!({"memory": {"limit": 33_554_432, "swap": 67_108_864}}));
    let victim = config("victim", "sleep 1000", &json!({"memory": {"limit": 67_108_864}}));
    let console = vm.bundle("eater", &eater).bundle("victim", &victim).script(
        r#"
start victim
oci run --bundle /run/vm/eater --keep eater; code=$?
same exit-code 137 $code
same memory.max 67108864 "$(cat $cg/victim/memory.max)"
same no-kill-beside 'oom_kill 0' "$(grep '^oom_kill ' $cg/victim/memory.events)"
check victim-runs 'oci state victim | grep -q "\"status\": *\"running\""'
finish victim
check cgroup-gone '[ ! -d $cg/victim ]'
"#,
    );
    console.assert_ok(&["exit-code", "memory.max", "no-kill-beside", "victim-runs", "cgroup-gone"]);
}

#[test]
fn vm_memory_values_are_those_of_v2() {
    let Some(vm) = machine() else { return };
    let limits = json!({"memory": {"limit": 536_870_912, "swap": 805_306_368, "reservation": 268_435_456},
        "unified": {"memory.high": "400000000"}});
    let console = vm.bundle("limits", &config("limits", "sleep 1000", &limits)).script(
        r#"
start limits
same memory.max 536870912 "$(cat $cg/limits/memory.max)"
same memory.low 268435456 "$(cat $cg/limits/memory.low)"
[ -e $cg/limits/memory.swap.max ] && swap=$(cat $cg/limits/memory.swap.max) || swap=268435456
same memory.swap.max 268435456 $swap
same memory.high 399998976 "$(cat $cg/limits/memory.high)"
oci update --memory 268435456 --memory-swap 268435456 limits
same update 268435456 "$(cat $cg/limits/memory.max)"
finish limits
"#,
    );
    console.assert_ok(&["memory.max", "memory.low", "memory.swap.max", "memory.high", "update"]);
}

#[test]
fn vm_cpu_quota_throttles() {
    let Some(vm) = machine() else { return };
    let limits = json!({"cpu": {"quota": 20_000, "period": 100_000, "shares": 1024}});
    let console = vm.bundle("spin", &config("spin", "while :; do :; done", &limits)).script(
        r#"
start spin
same cpu.max '20000 100000' "$(cat $cg/spin/cpu.max)"
check cpu.weight '[ $(cat $cg/spin/cpu.weight) -ge 39 ] && [ $(cat $cg/spin/cpu.weight) -le 100 ]'
sleep 2
check throttled '[ $(sed -n "s/^nr_throttled //p" $cg/spin/cpu.stat) -ge 5 ] || { cat $cg/spin/cpu.stat; false; }'
check used-little '[ $(sed -n "s/^usage_usec //p" $cg/spin/cpu.stat) -le 1000000 ] || { cat $cg/spin/cpu.stat; false; }'
finish spin
"#,
    );
    console.assert_ok(&["cpu.max", "cpu.weight", "throttled", "used-little"]);
}

#[test]
fn vm_pids_limit_stops_forks() {
    let Some(vm) = machine() else { return };
    let command = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; wait";
    let console = vm.bundle("forks", &config("forks", command, &json!({"pids": {"limit": 6}}))).script(
        r#"
start forks
same pids.max 6 "$(cat $cg/forks/pids.max)"
check fork-refused 'await "grep -q \"^max [1-9]\" $cg/forks/pids.events"'
check at-most-six '[ $(cat $cg/forks/pids.current) -le 6 ]'
finish forks
"#,
    );
    console.assert_ok(&["pids.max", "fork-refused", "at-most-six"]);
}

#[test]
fn vm_io_limit_slows_reads() {
    let Some(vm) = machine() else { return };
    let resources = json!({"blockIO": {"throttleReadBpsDevice": [{"major": 98, "minor": 0, "rate": 1_048_576}]},
        "devices": [{"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": 98, "minor": 0, "access": "r"}]});
    let command = "dd if=/dev/disk of=/dev/null bs=1M count=3 2>/dev/null";
    let mut reader = config("reader", command, &resources);
    reader["linux"]["devices"] = json!([{"type": "b", "path": "/dev/disk", "major": 98, "minor": 0, "fileMode": 384}]);
    let mut keeper = reader.clone();
    keeper["process"]["args"] = json!(["/bin/sleep", "1000"]);
    keeper["linux"]["cgroupsPath"] = json!("/keeper");
    let console = vm.disk(16 << 20).bundle("reader", &reader).bundle("keeper", &keeper).script(
        r#"
start keeper
same io.max '98:0 rbps=1048576 wbps=max riops=max wiops=max' "$(cat $cg/keeper/io.max)"
finish keeper
begin=$(cut -d. -f1 /proc/uptime)
check reads 'oci run --bundle /run/vm/reader reader'
took=$(( $(cut -d. -f1 /proc/uptime) - begin ))
check slowed '[ $took -ge 2 ] || { echo "$took seconds"; false; }'
"#,
    );
    console.assert_ok(&["io.max", "reads", "slowed"]);
}

#[test]
fn vm_device_filter_denies_what_is_not_allowed() {
    let Some(vm) = machine() else { return };
    // Writing 1:11 (kmsg) is not among the default devices; making its node may be refused, or opening it.
    let command = "cat /dev/null && echo null-ok; head -c 1 /dev/zero | wc -c; \
        mknod /dev/kmsg c 1 11 2>/dev/null; (echo x >/dev/kmsg) 2>&1; mknod /dev/ram b 1 0 && (head -c 1 /dev/ram) 2>&1; \
        echo end";
    let mut denied = config("denied", command, &json!({}));
    for set in ["bounding", "effective", "permitted"] {
        denied["process"]["capabilities"][set] = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
    }
    let console = vm.bundle("denied", &denied).script(
        r#"
oci run --bundle /run/vm/denied denied >/tmp/out 2>&1
check runs 'grep -q "^end" /tmp/out || { cat /tmp/out; false; }'
check default-devices-work 'grep -q null-ok /tmp/out && grep -qx 1 /tmp/out'
check kmsg-denied 'grep -q "kmsg: Operation not permitted" /tmp/out || { cat /tmp/out; false; }'
check block-denied 'grep -q "ram: Operation not permitted" /tmp/out || { cat /tmp/out; false; }'
"#,
    );
    console.assert_ok(&["runs", "default-devices-work", "kmsg-denied", "block-denied"]);
}

#[test]
fn vm_freezer_stops_and_resumes() {
    let Some(vm) = machine() else { return };
    // Renamed into place, so that the file is never empty, also when the freezer stops the shell between two calls.
    let command = "i=0; while :; do i=$((i+1)); echo $i >/tmp/new; mv /tmp/new /tmp/count; done";
    let mut counter = config("counter", command, &json!({}));
    let mounts = counter["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({"destination": "/tmp", "type": "bind", "source": "/tmp/shared", "options": ["rbind", "rw"]}));
    let console = vm.bundle("counter", &counter).script(
        r#"
mkdir /tmp/shared
start counter
check counts 'await "[ -s /tmp/shared/count ]"'
oci pause counter
same cgroup.freeze 1 "$(cat $cg/counter/cgroup.freeze)"
same frozen 'frozen 1' "$(grep frozen $cg/counter/cgroup.events)"
check paused 'oci state counter | grep -q "\"status\": *\"paused\""'
before=$(cat /tmp/shared/count); sleep 0.5
same stands-still "$before" "$(cat /tmp/shared/count)"
oci resume counter
same thawed 'frozen 0' "$(grep frozen $cg/counter/cgroup.events)"
check counts-on 'await "[ \"\$(cat /tmp/shared/count)\" != \"$before\" ]"'
oci pause counter
finish counter
check frozen-delete '[ ! -d $cg/counter ]'
"#,
    );
    console.assert_ok(&[
        "counts",
        "cgroup.freeze",
        "frozen",
        "paused",
        "stands-still",
        "thawed",
        "counts-on",
        "frozen-delete",
    ]);
}

#[test]
fn vm_children_start_inside_their_cgroup() {
    let Some(vm) = machine() else { return };
    if tier::tool("strace").is_none() {
        return;
    }
    let spec = config("inside", "cat /proc/self/cgroup; sleep 1000", &json!({"memory": {"limit": 67_108_864}}));
    let console = vm.bundle("inside", &spec).script(
        r#"
strace -f -e trace=clone3,clone,write,openat,openat2 -o /tmp/trace /run/vm/hull oci --root /tmp/state run --detach --bundle /run/vm/inside inside >/tmp/out 2>&1 </dev/null &
check started 'await "grep -q 0:: /tmp/out" || { cat /tmp/out; tail -20 /tmp/trace; false; }'
check clone-into-cgroup 'grep -q "clone3.*CLONE_INTO_CGROUP" /tmp/trace || { grep clone /tmp/trace; false; }'
check no-attach '! grep "cgroup.procs" /tmp/trace'
same member "$(oci ps --format json inside | tr -d '[] \n')" "$(head -n 1 $cg/inside/cgroup.procs)"
finish inside
wait
"#,
    );
    console.assert_ok(&["started", "clone-into-cgroup", "no-attach", "member"]);
}

#[test]
fn vm_kill_and_delete_leave_nothing() {
    let Some(vm) = machine() else { return };
    let command = "for i in 1 2 3 4 5; do (trap '' TERM; sleep 1000) & done; sleep 1000";
    let mut spec = config("many", command, &json!({}));
    // Without a PID namespace nobody but the cgroup knows the processes.
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let console = vm.bundle("many", &spec).script(
        r#"
start many
check six 'await "[ \$(wc -l <$cg/many/cgroup.procs) -ge 6 ]" || { cat $cg/many/cgroup.procs; false; }'
finish many
check no-group '[ ! -d $cg/many ]'
check no-process '! pgrep -f "sleep 1000"'
check no-state '[ -z "$(ls /tmp/state)" ] || { ls /tmp/state; false; }'
check no-mount '! grep -E "rootfs|state" /proc/mounts'
"#,
    );
    console.assert_ok(&["six", "no-group", "no-process", "no-state", "no-mount"]);
}

#[test]
fn vm_events_report_v2_figures() {
    let Some(vm) = machine() else { return };
    let resources = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 20}});
    let console = vm.bundle("figures", &config("figures", "sleep 1000", &resources)).script(
        r#"
start figures
oci events --stats figures >/tmp/stats
check json 'grep -q "\"type\": *\"stats\"" /tmp/stats || { cat /tmp/stats; false; }'
check memory-limit 'grep -q "\"limit\": *67108864" /tmp/stats || { cat /tmp/stats; false; }'
check pids 'grep -q "\"pids\": *{[^}]*\"limit\": *20" /tmp/stats || { cat /tmp/stats; false; }'
finish figures
"#,
    );
    console.assert_ok(&["json", "memory-limit", "pids"]);
}

#[test]
fn vm_systemd_makes_the_scope() {
    let Some(vm) = machine() else { return };
    let Some(vm) = vm.systemd() else {
        tier::skip("systemd", "needs systemd, to run inside the virtual machine");
        return;
    };
    let resources = json!({"memory": {"limit": 67_108_864}, "cpu": {"quota": 150_000, "period": 100_000},
        "pids": {"limit": 50}});
    let mut spec = config("scoped", "sleep 1000", &resources);
    spec["linux"]["cgroupsPath"] = json!("system.slice:hull:scoped");
    let console = vm.bundle("scoped", &spec).script(
        r#"
global=--systemd-cgroup
scope=$cg/system.slice/hull-scoped.scope
show() { systemctl show --value -p $1 hull-scoped.scope; }
start scoped
same active active "$(show ActiveState)"
same memory.max 67108864 "$(cat $scope/memory.max)"
same cpu.max '150000 100000' "$(cat $scope/cpu.max)"
same pids.max 50 "$(cat $scope/pids.max)"
same unit-memory 67108864 "$(show MemoryMax)"
same unit-tasks 50 "$(show TasksMax)"
same unit-cpu 1.500000s "$(show CPUQuotaPerSecUSec)"
same member "$(oci ps --format json scoped | tr -d '[] \n')" "$(head -n 1 $scope/cgroup.procs)"
systemctl daemon-reload
same reload-keeps-limit 67108864 "$(cat $scope/memory.max)"
oci update --memory 134217728 scoped
same updated 134217728 "$(cat $scope/memory.max)"
systemctl daemon-reload
same reload-keeps-update 134217728 "$(cat $scope/memory.max)"
finish scoped
check gone 'await "[ ! -d $scope ]"'
same inactive inactive "$(show ActiveState)"
"#,
    );
    console.assert_ok(&[
        "active",
        "memory.max",
        "cpu.max",
        "pids.max",
        "unit-memory",
        "unit-tasks",
        "unit-cpu",
        "member",
        "reload-keeps-limit",
        "updated",
        "reload-keeps-update",
        "gone",
        "inactive",
    ]);
}

#[test]
fn vm_machine_reports_what_fails() {
    let Some(vm) = machine() else { return };
    let console = vm.run(
        "same equal 1 1; same differ 1 2; check true true; check false 'echo why; false'; cat $cg/cgroup.controllers",
    );
    assert!(console.text.contains("FAILED differ: wanted '1', got '2'"), "{}", console.text);
    assert!(console.text.contains("FAILED false: echo why; false: why"), "{}", console.text);
    assert!(console.text.contains("ok equal\nFAILED differ") && console.text.contains("ok true"), "{}", console.text);
    assert!(console.text.contains("cpu io memory pids"), "{}", console.text);
}

#[test]
fn vm_default_parent_stays_for_the_next_group() {
    let Some(vm) = machine() else { return };
    let mut spec = config("unused", "sleep 1000", &json!({"pids": {"limit": 7}}));
    spec["linux"].as_object_mut().expect("linux").remove("cgroupsPath");
    let console = vm.bundle("one", &spec).bundle("two", &spec).script(
        r#"
start one; start two
same limit 7 "$(cat $cg/hull/two/pids.max)"
finish one
check other-stays '[ -d $cg/hull/two ]'
finish two
same empty '' "$(ls -d $cg/hull/*/ 2>/dev/null)"
check parent-stays '[ -d $cg/hull ]'
start one
same limit-again 7 "$(cat $cg/hull/one/pids.max)"
finish one
check group-goes '[ ! -e $cg/hull/one ]'
"#,
    );
    console.assert_ok(&["limit", "other-stays", "empty", "parent-stays", "limit-again", "group-goes"]);
}

#[test]
fn vm_systemd_starts_and_stops_containers_with_the_machine() {
    let Some(vm) = machine() else { return };
    let Some(vm) = vm.systemd() else {
        tier::skip("systemd", "needs systemd, to run inside the virtual machine");
        return;
    };
    let console = vm.run(
        r#"
# SIGRTMIN+21: no progress on the console, which would stand between the reports.
kill -55 1
# Not in /tmp, which systemd empties.
mkdir /run/own
rootfs /run/own/rootfs
h() { /run/vm/hull --root /run/own/data --state /run/own/live "$@"; }
status() { h inspect -f '{{.State.Status}}' web; }
h boot --install --unit-dir /run/systemd/system
systemctl daemon-reload
h run -d --name web --restart unless-stopped --network none --rootfs /run/own/rootfs sh -c 'trap "echo bye; exit 0" TERM; echo hi; while :; do sleep 0.1; done'
check started 'systemctl start hull.service'
same runs running "$(status)"
check stopped 'systemctl stop hull.service'
same down exited "$(status)"
same gracefully 'hi bye ' "$(h logs web | tr '\n' ' ')"
# What a reboot does to /run.
rm -rf /run/own/live
check boots 'systemctl start hull.service'
same again running "$(status)"
# A unit that fails or is started anew takes no container with it.
check reset 'systemctl kill --kill-whom=main hull.service; systemctl reset-failed; true'
same stays running "$(status)"
h stop -t 1 web
check restarted 'systemctl restart hull.service'
same by-hand exited "$(status)"
h rm -f web
h run --name told --log-driver journald --log-opt tag=here --network none --rootfs /run/own/rootfs echo to the journal
journal() { journalctl -q -o cat CONTAINER_NAME=told CONTAINER_TAG=here; }
await '[ -n "$(journal)" ]'
same journal 'to the journal' "$(journal)"
h rm told
"#,
    );
    console.assert_ok(&[
        "started",
        "runs",
        "stopped",
        "down",
        "gracefully",
        "boots",
        "again",
        "reset",
        "stays",
        "restarted",
        "by-hand",
        "journal",
    ]);
}
