//! `ps`, `top`, `stats`, `port`, `update`.

use hull_testkit::finish;

use hull_testkit::home;

#[test]
fn root_ps_shows_states_and_filters_by_them() {
    let Some(h) = home!() else { return };
    let _ = h.detached(&["--name", "up", "--label", "a=1"], &["sleep", "60"]);
    let _ = h.detached(&["--name", "held", "-v", "/usr:/u:ro"], &["sleep", "60"]);
    finish(&mut h.container("create", &["--name", "new"], &["sleep", "60"])).ok();
    assert_eq!(finish(&mut h.container("run", &["--name", "gone"], &["exit", "3"])).code, 3);
    assert_eq!(h.run(&["pause", "held"]).ok().text(), "held");
    let names = |filters: &[&str]| {
        let mut words = vec!["ps", "-a", "--format", "{{.Names}}"];
        filters.iter().for_each(|filter| words.extend(["--filter", *filter]));
        h.run(&words).ok().text().replace('\n', " ")
    };
    assert_eq!(names(&["status=paused"]), "held");
    assert_eq!(names(&["status=running"]), "up");
    assert_eq!(names(&["status=created", "status=exited"]), "gone new");
    assert_eq!(names(&["exited=3"]), "gone");
    assert_eq!(names(&["volume=/u"]), "held");
    assert_eq!(names(&["volume=/usr"]), "held");
    assert_eq!(names(&["network=none", "label=a"]), "up");
    assert_eq!(names(&["is-task=true"]), "");
    assert_eq!(names(&["publish=80", "is-task=false"]), "");
    assert_eq!(names(&["expose=80-90/udp"]), "");
    assert_eq!(names(&["isolation=default", "before=held"]), "up");
    for bad in ["is-task=x", "publish=x", "status=foo", "health=foo", "nope=1"] {
        h.run(&["ps", "--filter", bad]).fails("invalid filter");
    }
    let shown = h.run(&["ps", "--filter", "name=held", "--format", "{{.State}}|{{.Status}}"]).ok();
    assert!(shown.text().starts_with("paused|Up ") && shown.text().ends_with(" (Paused)"), "{}", shown.stdout);
    assert_eq!(h.field("held", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"), "paused true true");
    assert_eq!(
        h.run(&["info", "--format", "{{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}"]).text(),
        "1 1 2"
    );
    assert_eq!(h.run(&["ps", "-n", "1", "--format", "{{.Names}}"]).text(), "gone");
    assert_eq!(h.run(&["ps", "-l", "-q", "--no-trunc"]).text().len(), 64);
    h.run(&["unpause", "held"]).ok();
    h.run(&["unpause", "held"]).fails("not paused");
    h.run(&["rm", "-f", "up", "held", "new", "gone"]).ok();
    h.assert_clean();
}

#[test]
fn root_top_lists_the_container_s_processes() {
    let Some(h) = home!() else { return };
    let _ = h.detached(&["--name", "web"], &["background", "sleep", "61", "+", "sleep", "60"]);
    h.until("both run", || h.run(&["top", "web"]).stdout.lines().count() == 3);
    let out = h.run(&["top", "web"]).ok();
    let lines = out.lines();
    assert!(lines[0].starts_with("UID                 PID                 PPID"), "{}", out.stdout);
    assert!(lines[1..].iter().all(|line| line.contains("sleep")), "{}", out.stdout);
    assert!(!out.stdout.contains("systemd") && !out.stdout.contains("cargo"), "{}", out.stdout);
    if hull_testkit::tier::tool("ps").is_some() {
        let pid = h.field("web", "{{.State.Pid}}");
        let out = h.run(&["top", "web", "-o", "pid,comm"]).ok();
        assert!(out.lines()[1..].iter().any(|line| line.starts_with(&pid)), "{}", out.stdout);
        h.run(&["top", "web", "-o", "comm"]).fails("couldn't find PID field in ps output");
        h.run(&["top", "web", "--bogus"]).fails("ps options: ");
    }
    h.run(&["top", "nope"]).fails("no such container: nope");
    h.run(&["stop", "-t", "0", "web"]).ok();
    h.run(&["top", "web"]).fails("is not running");
    h.run(&["rm", "web"]).ok();
    h.assert_clean();
}

#[test]
fn root_stats_are_counted_as_docker_counts() {
    let Some(h) = home!() else { return };
    let _ = h.detached(&["--name", "busy", "--memory", "64m", "--pids-limit", "9"], &["spin", "60"]);
    let _ = h.detached(&["--name", "idle"], &["sleep", "60"]);
    finish(&mut h.container("create", &["--name", "off"], &["sleep", "60"])).ok();
    let template = "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.NetIO}} {{.PIDs}}";
    let out = h.run(&["stats", "--no-stream", "--format", template, "busy", "idle", "off"]).ok();
    let lines: Vec<Vec<&str>> = out.lines().iter().map(|line| line.split(' ').collect()).collect();
    let percent = |line: &[&str]| line[1].trim_end_matches('%').parse::<f64>().expect("a percentage");
    assert!(percent(&lines[0]) > 1.0 && percent(&lines[1]) < percent(&lines[0]), "{}", out.stdout);
    assert_eq!((lines[0][4], lines[0][8]), ("64MiB", "1"), "{}", out.stdout);
    assert_eq!(lines[2].join(" "), "off 0.00% 0B / 0B 0B / 0B 0");
    let all = h.run(&["stats", "--no-stream", "--format", "{{.Container}}"]).ok();
    assert_eq!(all.lines().len(), 2, "only what runs");
    let all = h.run(&["stats", "--no-stream", "-a"]).ok();
    assert!(all.lines()[0].starts_with("CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT"), "{}", all.stdout);
    assert_eq!(all.lines().len(), 4);
    h.run(&["stats", "--no-stream", "nope"]).fails("no such container: nope");
    h.run(&["stats", "--no-stream", "--format", "{{.Nope}}", "idle"]).fails("template");
    h.run(&["rm", "-f", "busy", "idle", "off"]).ok();
    h.assert_clean();
}

#[test]
fn root_update_changes_record_and_groups() {
    let Some(h) = home!() else { return };
    let _ = h.detached(&["--name", "web", "--memory", "64m", "--cpus", "0.5"], &["sleep", "60"]);
    assert_eq!(
        h.run(&["update", "--memory", "32m", "--pids-limit", "77", "--restart", "on-failure:3", "web"]).ok().text(),
        "web"
    );
    let shown = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(h.field("web", shown), "33554432 134217728 77 on-failure");
    // The kernel has it too.
    let facts = h.run(&["explain", "--format", "json", "web"]).ok();
    assert!(
        facts.stdout.contains("33554432 (32 MiB)") && facts.stdout.contains("\"Value\":\"77\""),
        "{}",
        facts.stdout
    );
    h.run(&["update", "--memory", "256m", "web"]).fails("already set memoryswap limit");
    h.run(&["update", "--cpu-quota", "50000", "web"]).fails("NanoCPUs has already been set");
    h.run(&["update", "web"]).fails("you must provide one or more flags");
    h.run(&["update", "--memory", "x", "web"]).fails("--memory");
    assert_eq!(h.run(&["update", "--restart", "bogus", "web"]).code, 1);
    h.run(&["update", "--memory", "256m", "nope"]).fails("no such container: nope");
    assert_eq!(h.field("web", shown), "33554432 134217728 77 on-failure", "what was refused changed nothing");
    h.run(&["update", "--memory", "256m", "--memory-swap", "-1", "web"]).ok();
    assert_eq!(h.field("web", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"), "268435456 -1");
    let _ = h.detached(&["--name", "once", "--rm"], &["sleep", "60"]);
    h.run(&["update", "--restart", "always", "once"]).fails("AutoRemove is enabled");
    h.run(&["rm", "-f", "web", "once"]).ok();
    h.assert_clean();
}

#[test]
fn root_a_policy_that_was_updated_counts() {
    let Some(h) = home!() else { return };
    let _ = h.detached(&["--name", "web"], &["sleep", "60"]);
    h.run(&["update", "--restart", "on-failure:1", "web"]).ok();
    // A signal from inside ends it; from `kill` it would count as stopped by hand.
    let pid: i32 = h.field("web", "{{.State.Pid}}").parse().expect("a PID");
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a PID"), rustix::process::Signal::KILL)
        .expect("kill");
    h.until("it runs again", || h.field("web", "{{.State.Status}} {{.RestartCount}}") == "running 1");
    h.run(&["rm", "-f", "web"]).ok();
    h.assert_clean();
}

#[test]
fn root_port_of_what_publishes_nothing() {
    let Some(h) = home!() else { return };
    let _ = h.detached(&["--name", "web"], &["sleep", "60"]);
    assert_eq!(h.run(&["port", "web"]).ok().stdout, "");
    h.run(&["port", "web", "80"]).fails("no public port '80' published for web");
    h.run(&["port", "web", "x/tcp"]).fails("invalid port (x)");
    h.run(&["port", "nope"]).fails("no such container: nope");
    h.run(&["rm", "-f", "web"]).ok();
    h.assert_clean();
}

#[test]
fn root_a_damaged_container_does_not_hide_the_others() {
    let Some(h) = home!() else { return };
    let _ = h.detached(&["--name", "good"], &["sleep", "60"]);
    let id = finish(&mut h.container("create", &["--name", "bad"], &["sleep", "60"])).ok().text().to_owned();
    let record = h.path().join("data/containers").join(id).join("state.json");
    let whole = std::fs::read(&record).expect("read");
    for damage in [&b""[..], b"{", b"[1]"] {
        std::fs::write(&record, damage).expect("write");
        assert_eq!(h.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().text(), "good");
        assert_eq!(h.run(&["stats", "--no-stream", "-a", "--format", "{{.Name}}"]).ok().text(), "good");
    }
    std::fs::write(&record, whole).expect("write");
    h.run(&["rm", "-f", "good", "bad"]).ok();
    h.assert_clean();
}
