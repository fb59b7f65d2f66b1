//! Health checks, and what restart policies do about killed monitors and reboots.

use crate::home::{Home, until};
use rustix::process::{Pid, Signal, kill_process};

fn status(h: &Home, name: &str) -> String {
    h.inspect(name, "{{.State.Health.Status}}")
}

fn phase(h: &Home, name: &str) -> String {
    h.inspect(name, "{{.State.Status}}")
}

fn kill(pid: i32) {
    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
}

const QUICK: [&str; 4] = ["--health-interval", "200ms", "--health-retries", "2"];

#[test]
fn root_health_follows_the_check() {
    let Some(h) = Home::new() else { return };
    let mut flags = vec!["-d", "--name", "web", "--health-cmd", "need /ok"];
    flags.extend(QUICK);
    let _ = h.run(&flags, &["wait-file", "/end", "+", "sleep", "60"]).ok();
    until("unhealthy", || status(&h, "web") == "unhealthy");
    assert_eq!(h.hull(&["ps", "--filter", "health=unhealthy", "--format", "{{.Names}}"]).ok().text(), "web");
    h.touch("ok");
    until("healthy", || status(&h, "web") == "healthy");
    let shown = h.hull(&["ps", "--format", "{{.Status}}"]).ok();
    assert!(shown.text().ends_with("(healthy)"), "{}", shown.stdout);
    assert_eq!(h.inspect("web", "{{.State.Health.FailingStreak}} {{(index .State.Health.Log 0).ExitCode}}").len(), 3);
    assert_eq!(h.hull(&["healthcheck", "run", "web"]).code, 0);
    let told =
        ["events", "--since", "1h", "--until", "0s", "--filter", "event=health_status", "--format", "{{.Action}}"];
    assert_eq!(h.hull(&told).ok().lines(), ["health_status: unhealthy", "health_status: healthy"]);
    std::fs::remove_file(h.rootfs().join("ok")).expect("remove");
    assert_eq!(h.hull(&["healthcheck", "run", "web"]).code, 1);
}

#[test]
fn root_health_checks_end_in_time_and_are_cut() {
    let Some(h) = Home::new() else { return };
    let mut flags = vec!["-d", "--name", "slow", "--health-cmd", "sleep 50", "--health-timeout", "100ms"];
    flags.extend(QUICK);
    let _ = h.run(&flags, &["sleep", "60"]).ok();
    let mut flags = vec!["-d", "--name", "loud", "--health-cmd", "lines 3000"];
    flags.extend(QUICK);
    let _ = h.run(&flags, &["sleep", "60"]).ok();
    until("unhealthy", || status(&h, "slow") == "unhealthy");
    let log = h.inspect("slow", "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}|{{end}}");
    assert!(log.starts_with("-1 Health check exceeded timeout (100ms)|"), "{log}");
    until("healthy", || status(&h, "loud") == "healthy");
    let output = h.inspect("loud", "{{(index .State.Health.Log 0).Output}}");
    assert!(output.len() == 4096 + 3 && output.ends_with("..."), "{} bytes", output.len());
    // Nothing of a check stays behind.
    until("the checks' ends", || {
        h.hull(&["top", "slow"]).stdout.lines().filter(|line| line.contains("sleep")).count() <= 2
    });
}

#[test]
fn root_an_unhealthy_container_is_stopped_killed_or_restarted() {
    let Some(h) = Home::new() else { return };
    let run = |name: &str, more: &[&str]| {
        let mut flags = vec!["-d", "--name", name, "--health-cmd", "exit 3", "--stop-timeout", "0"];
        flags.extend(QUICK);
        flags.extend(more);
        let _ = h.run(&flags, &["echo", "begun", "+", "sleep", "60"]).ok();
    };
    run("stopped", &["--health-on-failure", "stop"]);
    run("killed", &["--health-on-failure", "kill"]);
    run("again", &["--health-on-failure", "restart"]);
    run("told", &[]);
    until("stopped", || phase(&h, "stopped") == "exited");
    until("killed", || phase(&h, "killed") == "exited");
    assert_eq!(h.inspect("killed", "{{.State.ExitCode}}"), "137");
    until("restarted", || h.hull(&["logs", "again"]).ok().lines().len() >= 2);
    until("unhealthy", || status(&h, "told") == "unhealthy");
    assert_eq!(phase(&h, "told"), "running");
}

#[test]
fn root_health_flags_are_checked_and_images_obeyed() {
    let Some(h) = Home::new() else { return };
    for (flags, text) in [
        (&["--health-cmd", "x", "--no-healthcheck"][..], "--no-healthcheck conflicts with --health-* options"),
        (&["--health-interval", "soon"], "soon"),
        (&["--health-interval", "1us"], "cannot be less than 1ms"),
        (&["--health-timeout", "-1s"], "cannot be negative"),
        (&["--health-retries", "-1"], "cannot be negative"),
        (&["--health-on-failure", "panic"], "panic"),
    ] {
        assert_eq!(h.run(flags, &["echo", "x"]).fails(text).code, 125);
    }
    let archive = h.dir.path().join("image.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive).expect("archive"));
    tar.append_path_with_name(h.rootfs().join("probe"), "probe").expect("append");
    tar.finish().expect("archive");
    drop(tar);
    let check = "HEALTHCHECK --interval=200ms --retries=2 CMD [\"/probe\", \"need\", \"/ok\"]";
    let _ = h.hull(&["import", "--change", check, archive.to_str().expect("UTF-8"), "checked"]).ok();
    let run = |name: &str, more: &[&str]| {
        let mut words = vec!["run", "-d", "--network=none", "--name", name];
        words.extend(more);
        words.extend(["checked", "/probe", "sleep", "60"]);
        let _ = h.hull(&words).ok();
    };
    run("image", &[]);
    run("flags", &["--health-cmd", "exit 0"]);
    run("none", &["--no-healthcheck"]);
    until("unhealthy", || status(&h, "image") == "unhealthy");
    assert_eq!(h.inspect("image", "{{json .Config.Healthcheck.Test}}"), r#"["CMD","/probe","need","/ok"]"#);
    // Without a shell the check cannot even run.
    until("unhealthy", || status(&h, "flags") == "unhealthy");
    assert!(!h.inspect("none", "{{json .State}}").contains("Health"));
}

#[test]
fn root_a_killed_monitor_is_noticed_and_its_policy_obeyed() {
    let Some(h) = Home::new() else { return };
    for (name, policy) in [("always", "always"), ("never", "no"), ("stopping", "unless-stopped")] {
        let _ = h.run(&["-d", "--name", name, "--restart", policy], &["sleep", "60"]).ok();
    }
    let before = h.inspect("always", "{{.State.Pid}}");
    for name in ["always", "never", "stopping"] {
        kill(h.monitor(name));
    }
    // The next command, whichever it is.
    let shown = h.hull(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok();
    let mut lines = shown.lines();
    lines.sort_unstable();
    assert_eq!(lines, ["always running", "never exited", "stopping running"]);
    assert_ne!(h.inspect("always", "{{.State.Pid}}"), before);
    assert_eq!(h.inspect("never", "{{.State.ExitCode}} {{.State.Error}}"), "137 its monitor was killed");
    // A command that ends it finds it, and it stays ended.
    kill(h.monitor("stopping"));
    let _ = h.hull(&["stop", "-t", "0", "stopping"]).ok();
    assert_eq!(phase(&h, "stopping"), "exited");
}

#[test]
fn root_boot_starts_what_policies_want() {
    let Some(h) = Home::new() else { return };
    for (name, policy) in [
        ("always", "always"),
        ("hand", "always"),
        ("unless", "unless-stopped"),
        ("by-hand", "unless-stopped"),
        ("no", "no"),
    ] {
        let _ = h.run(&["-d", "--name", name, "--restart", policy], &["sleep", "60"]).ok();
    }
    let _ = h.hull(&["stop", "-t", "0", "hand", "by-hand"]).ok();
    let down = h.hull(&["boot", "--stop", "-t", "0"]).ok();
    assert_eq!(down.lines().len(), 3, "{}", down.stdout);
    assert_eq!(h.hull(&["ps", "-q"]).ok().stdout, "");
    let up = h.hull(&["boot"]).ok();
    let mut started = up.lines();
    started.sort_unstable();
    assert_eq!(started, ["always", "hand", "unless"]);
    assert_eq!(h.hull(&["boot"]).ok().stdout, "", "they run already");

    // The power goes: no monitor, no program, an empty /run.
    let processes = ["always", "hand", "unless"].map(|name| {
        let program = h.inspect(name, "{{.State.Pid}}").parse().expect("process ID");
        [h.monitor(name), program]
    });
    processes.iter().flatten().for_each(|pid| kill(*pid));
    for pid in processes.iter().flatten() {
        until("the end", || !std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty()));
    }
    std::fs::remove_dir_all(h.dir.path().join("run")).expect("remove");
    assert_eq!(phase(&h, "unless"), "exited");
    let up = h.hull(&["boot"]).ok();
    let mut started = up.lines();
    started.sort_unstable();
    assert_eq!(started, ["always", "hand", "unless"]);
    assert_eq!(phase(&h, "unless"), "running");
}

#[test]
fn root_boot_writes_a_unit_and_removes_it() {
    let Some(h) = Home::new() else { return };
    let units = h.dir.path().join("units");
    let directory = units.to_str().expect("UTF-8");
    let out = h.hull(&["boot", "--install", "--unit-dir", directory]).ok();
    let path = units.join("hull.service");
    assert_eq!(out.text(), path.to_str().expect("UTF-8"));
    let text = std::fs::read_to_string(&path).expect("unit");
    for line in ["ExecStart=\"", "ExecStop=\"", "KillMode=process", "WantedBy=multi-user.target"] {
        assert!(text.contains(line), "no {line}: {text}");
    }
    let link = units.join("multi-user.target.wants/hull.service");
    assert_eq!(std::fs::read_to_string(&link).expect("link"), text);
    // Twice is as once.
    let _ = h.hull(&["boot", "--install", "--unit-dir", directory]).ok();
    let _ = h.hull(&["boot", "--uninstall", "--unit-dir", directory]).ok();
    assert!(!path.exists() && std::fs::symlink_metadata(&link).is_err());
    let _ = h.hull(&["boot", "--uninstall", "--unit-dir", directory]).ok();
}
