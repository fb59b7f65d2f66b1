//! Health checks, and what restart policies do about killed monitors and reboots.

use hull_testkit::Home;

use crate::home::{home, monitor, run, touch};
use rustix::process::{Pid, Signal, kill_process};

fn status(h: &Home, name: &str) -> String {
    h.field(name, "{{.State.Health.Status}}")
}

fn phase(h: &Home, name: &str) -> String {
    h.field(name, "{{.State.Status}}")
}

fn kill(pid: i32) {
    let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
}

const QUICK: [&str; 4] = ["--health-interval", "200ms", "--health-retries", "2"];

#[test]
fn root_health_follows_the_check() {
    let Some(h) = home() else { return };
    let mut flags = vec!["-d", "--name", "web", "--health-cmd", "need /ok"];
    flags.extend(QUICK);
    let _ = run(&h, &flags, &["wait-file", "/end", "+", "sleep", "60"]).ok();
    h.until("unhealthy", || status(&h, "web") == "unhealthy");
    assert_eq!(h.run(&["ps", "--filter", "health=unhealthy", "--format", "{{.Names}}"]).ok().text(), "web");
    touch(&h, "ok");
    h.until("healthy", || status(&h, "web") == "healthy");
    let shown = h.run(&["ps", "--format", "{{.Status}}"]).ok();
    assert!(shown.text().ends_with("(healthy)"), "{}", shown.stdout);
    assert_eq!(h.field("web", "{{.State.Health.FailingStreak}} {{(index .State.Health.Log 0).ExitCode}}").len(), 3);
    assert_eq!(h.run(&["healthcheck", "run", "web"]).code, 0);
    let told =
        ["events", "--since", "1h", "--until", "0s", "--filter", "event=health_status", "--format", "{{.Action}}"];
    assert_eq!(h.run(&told).ok().lines(), ["health_status: unhealthy", "health_status: healthy"]);
    std::fs::remove_file(h.rootfs().join("ok")).expect("remove");
    assert_eq!(h.run(&["healthcheck", "run", "web"]).code, 1);
}

#[test]
fn root_health_checks_end_in_time_and_are_cut() {
    let Some(h) = home() else { return };
    let mut flags = vec!["-d", "--name", "slow", "--health-cmd", "sleep 50", "--health-timeout", "100ms"];
    flags.extend(QUICK);
    let _ = run(&h, &flags, &["sleep", "60"]).ok();
    let mut flags = vec!["-d", "--name", "loud", "--health-cmd", "lines 3000"];
    flags.extend(QUICK);
    let _ = run(&h, &flags, &["sleep", "60"]).ok();
    h.until("unhealthy", || status(&h, "slow") == "unhealthy");
    let log = h.field("slow", "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}|{{end}}");
    assert!(log.starts_with("-1 Health check exceeded timeout (100ms)|"), "{log}");
    h.until("healthy", || status(&h, "loud") == "healthy");
    let output = h.field("loud", "{{(index .State.Health.Log 0).Output}}");
    assert!(output.len() == 4096 + 3 && output.ends_with("..."), "{} bytes", output.len());
    // Nothing of a check stays behind.
    h.until("the checks' ends", || {
        h.run(&["top", "slow"]).stdout.lines().filter(|line| line.contains("sleep")).count() <= 2
    });
}

#[test]
fn root_an_unhealthy_container_is_stopped_killed_or_restarted() {
    let Some(h) = home() else { return };
    let run = |name: &str, more: &[&str]| {
        let mut flags = vec!["-d", "--name", name, "--health-cmd", "exit 3", "--stop-timeout", "0"];
        flags.extend(QUICK);
        flags.extend(more);
        let _ = run(&h, &flags, &["echo", "begun", "+", "sleep", "60"]).ok();
    };
    run("stopped", &["--health-on-failure", "stop"]);
    run("killed", &["--health-on-failure", "kill"]);
    run("again", &["--health-on-failure", "restart"]);
    run("told", &[]);
    h.until("stopped", || phase(&h, "stopped") == "exited");
    h.until("killed", || phase(&h, "killed") == "exited");
    assert_eq!(h.field("killed", "{{.State.ExitCode}}"), "137");
    h.until("restarted", || h.run(&["logs", "again"]).ok().lines().len() >= 2);
    h.until("unhealthy", || status(&h, "told") == "unhealthy");
    assert_eq!(phase(&h, "told"), "running");
}

#[test]
fn root_health_flags_are_checked_and_images_obeyed() {
    let Some(h) = home() else { return };
    for (flags, text) in [
        (&["--health-cmd", "x", "--no-healthcheck"][..], "--no-healthcheck conflicts with --health-* options"),
        (&["--health-interval", "soon"], "soon"),
        (&["--health-interval", "1us"], "cannot be less than 1ms"),
        (&["--health-timeout", "-1s"], "cannot be negative"),
        (&["--health-retries", "-1"], "cannot be negative"),
        (&["--health-on-failure", "panic"], "panic"),
    ] {
        assert_eq!(run(&h, flags, &["echo", "x"]).fails(text).code, 125);
    }
    let archive = h.path().join("image.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive).expect("archive"));
    tar.append_path_with_name(h.rootfs().join("probe"), "probe").expect("append");
    tar.finish().expect("archive");
    drop(tar);
    let check = "HEALTHCHECK --interval=200ms --retries=2 CMD [\"/probe\", \"need\", \"/ok\"]";
    let _ = h.run(&["import", "--change", check, archive.to_str().expect("UTF-8"), "checked"]).ok();
    let run = |name: &str, more: &[&str]| {
        let mut words = vec!["run", "-d", "--network=none", "--name", name];
        words.extend(more);
        words.extend(["checked", "/probe", "sleep", "60"]);
        let _ = h.run(&words).ok();
    };
    run("image", &[]);
    run("flags", &["--health-cmd", "exit 0"]);
    run("none", &["--no-healthcheck"]);
    h.until("unhealthy", || status(&h, "image") == "unhealthy");
    assert_eq!(h.field("image", "{{json .Config.Healthcheck.Test}}"), r#"["CMD","/probe","need","/ok"]"#);
    // Without a shell the check cannot even run.
    h.until("unhealthy", || status(&h, "flags") == "unhealthy");
    assert!(!h.field("none", "{{json .State}}").contains("Health"));
}

#[test]
fn root_a_killed_monitor_is_noticed_and_its_policy_obeyed() {
    let Some(h) = home() else { return };
    for (name, policy) in [("always", "always"), ("never", "no"), ("stopping", "unless-stopped")] {
        let _ = run(&h, &["-d", "--name", name, "--restart", policy], &["sleep", "60"]).ok();
    }
    let before = h.field("always", "{{.State.Pid}}");
    for name in ["always", "never", "stopping"] {
        kill(monitor(&h, name));
    }
    // The next command, whichever it is.
    let shown = h.run(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok();
    let mut lines = shown.lines();
    lines.sort_unstable();
    assert_eq!(lines, ["always running", "never exited", "stopping running"]);
    assert_ne!(h.field("always", "{{.State.Pid}}"), before);
    assert_eq!(h.field("never", "{{.State.ExitCode}} {{.State.Error}}"), "137 its monitor was killed");
    // A command that ends it finds it, and it stays ended.
    kill(monitor(&h, "stopping"));
    let _ = h.run(&["stop", "-t", "0", "stopping"]).ok();
    assert_eq!(phase(&h, "stopping"), "exited");
}

#[test]
fn root_boot_starts_what_policies_want() {
    let Some(h) = home() else { return };
    for (name, policy) in [
        ("always", "always"),
        ("hand", "always"),
        ("unless", "unless-stopped"),
        ("by-hand", "unless-stopped"),
        ("no", "no"),
    ] {
        let _ = run(&h, &["-d", "--name", name, "--restart", policy], &["sleep", "60"]).ok();
    }
    let _ = h.run(&["stop", "-t", "0", "hand", "by-hand"]).ok();
    let down = h.run(&["boot", "--stop", "-t", "0"]).ok();
    assert_eq!(down.lines().len(), 3, "{}", down.stdout);
    assert_eq!(h.run(&["ps", "-q"]).ok().stdout, "");
    let up = h.run(&["boot"]).ok();
    let mut started = up.lines();
    started.sort_unstable();
    assert_eq!(started, ["always", "hand", "unless"]);
    assert_eq!(h.run(&["boot"]).ok().stdout, "", "they run already");

    // The power goes: no monitor, no program, an empty /run.
    let processes = ["always", "hand", "unless"].map(|name| {
        let program = h.field(name, "{{.State.Pid}}").parse().expect("process ID");
        [monitor(&h, name), program]
    });
    processes.iter().flatten().for_each(|pid| kill(*pid));
    for pid in processes.iter().flatten() {
        h.until("the end", || !std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty()));
    }
    std::fs::remove_dir_all(h.path().join("run")).expect("remove");
    assert_eq!(phase(&h, "unless"), "exited");
    let up = h.run(&["boot"]).ok();
    let mut started = up.lines();
    started.sort_unstable();
    assert_eq!(started, ["always", "hand", "unless"]);
    assert_eq!(phase(&h, "unless"), "running");
}

#[test]
fn root_boot_writes_a_unit_and_removes_it() {
    let Some(h) = home() else { return };
    let units = h.path().join("units");
    let directory = units.to_str().expect("UTF-8");
    let out = h.run(&["boot", "--install", "--unit-dir", directory]).ok();
    let path = units.join("hull.service");
    assert_eq!(out.text(), path.to_str().expect("UTF-8"));
    let text = std::fs::read_to_string(&path).expect("unit");
    for line in ["ExecStart=\"", "ExecStop=\"", "KillMode=process", "WantedBy=multi-user.target"] {
        assert!(text.contains(line), "no {line}: {text}");
    }
    let link = units.join("multi-user.target.wants/hull.service");
    assert_eq!(std::fs::read_to_string(&link).expect("link"), text);
    // Twice is as once.
    let _ = h.run(&["boot", "--install", "--unit-dir", directory]).ok();
    let _ = h.run(&["boot", "--uninstall", "--unit-dir", directory]).ok();
    assert!(!path.exists() && std::fs::symlink_metadata(&link).is_err());
    let _ = h.run(&["boot", "--uninstall", "--unit-dir", directory]).ok();
}
