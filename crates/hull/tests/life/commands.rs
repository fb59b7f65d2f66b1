//! A container's life by `hull`'s commands: create, start, attach, stop, restart, pause, rename, wait, remove.

use std::io::Write as _;
use std::process::Stdio;

use hull_testkit::{finish, home};

#[test]
fn root_created_started_stopped_started_again() {
    let Some(h) = home!() else { return };
    let id = finish(&mut h.container("create", &["--name", "web"], &["sleep", "60"])).ok().text().to_owned();
    assert_eq!(h.field("web", "{{.State.Status}} {{.State.Pid}}"), "created 0");
    for _ in 0..2 {
        assert_eq!(h.run(&["start", "web"]).ok().text(), "web");
        assert_eq!(h.field(&id, "{{.State.Status}}"), "running");
        // Docker's answer for a container that runs already.
        h.run(&["start", "web"]).ok();
        h.run(&["rm", "web"]).fails("running");
        h.run(&["stop", "-t", "0", "web"]).ok();
        assert_eq!(h.field("web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
        h.run(&["attach", "web"]).fails("start it first");
    }
    h.run(&["rename", "web", "other"]).ok();
    h.run(&["start", "web"]).fails("web");
    assert_eq!(h.run(&["rm", "other"]).ok().text(), "other");
    h.assert_clean();
}

#[test]
fn root_the_client_may_be_killed() {
    let Some(h) = home!() else { return };
    let mut child = h
        .container("run", &["--name", "job", "-i"], &["stdin", "+", "sleep", "60"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start hull");
    h.until("it runs", || h.run(&["inspect", "--format", "{{.State.Status}}", "job"]).text() == "running");
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert_eq!(h.field("job", "{{.State.Status}}"), "running");
    let waiting = h.hull(&["wait", "job"]).stdout(Stdio::piped()).spawn().expect("start hull");
    h.run(&["kill", "job"]).ok();
    let output = waiting.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "137");
    h.run(&["rm", "job"]).ok();
    h.assert_clean();
}

#[test]
fn root_input_comes_from_who_attaches() {
    let Some(h) = home!() else { return };
    finish(&mut h.container("create", &["--name", "reader", "-i"], &["stdin"])).ok();
    let mut child =
        h.hull(&["start", "-ai", "reader"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start hull");
    child.stdin.take().expect("stdin").write_all(b"typed later").expect("write");
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), "typed later");
    // The log has it too.
    assert_eq!(h.run(&["logs", "reader"]).ok().text(), "typed later");
    h.run(&["rm", "reader"]).ok();
    h.assert_clean();
}

#[test]
fn root_policies_restart() {
    let Some(h) = home!() else { return };
    let id = h.detached(&["--name", "limited", "--restart", "on-failure:2"], &["exit", "3"]);
    h.until("it gave up", || h.field(&id, "{{.State.Status}}") == "exited");
    assert_eq!(h.field(&id, "{{.State.ExitCode}} {{.RestartCount}}"), "3 2");
    let id = h.detached(&["--name", "always", "--restart", "always"], &["exit", "0"]);
    h.until("it was restarted", || h.field(&id, "{{.RestartCount}}").parse::<u32>().is_ok_and(|count| count >= 2));
    h.run(&["stop", "always"]).ok();
    assert_eq!(h.field(&id, "{{.State.Status}}"), "exited");
    finish(&mut h.container("run", &["--rm", "--restart", "always"], &["exit", "0"])).fails("--rm");
    h.run(&["rm", "limited", "always"]).ok();
    h.assert_clean();
}

#[test]
fn root_paused_containers_stop() {
    let Some(h) = home!() else { return };
    let id = h.detached(&["--name", "still"], &["sleep", "60"]);
    h.run(&["unpause", "still"]).fails("not paused");
    h.run(&["pause", "still"]).ok();
    h.run(&["pause", "still"]).fails("paused");
    h.run(&["stop", "-t", "1", "still"]).ok();
    assert_eq!(h.field(&id, "{{.State.Status}}"), "exited");
    h.run(&["rm", "still"]).ok();
    h.assert_clean();
}

#[test]
fn root_restart_keeps_what_is_removed_at_its_end() {
    let Some(h) = home!() else { return };
    let id = h.detached(&["--rm", "--name", "brief"], &["sleep", "60"]);
    let before = h.field(&id, "{{.State.Pid}}");
    h.run(&["restart", "-t", "0", "brief"]).ok();
    assert_eq!(h.field(&id, "{{.State.Status}}"), "running");
    assert_ne!(h.field(&id, "{{.State.Pid}}"), before);
    h.run(&["stop", "-t", "0", "brief"]).ok();
    h.run(&["inspect", "brief"]).fails("brief");
    h.assert_clean();
}

#[test]
fn root_a_start_that_fails_loses_nothing() {
    let Some(h) = home!() else { return };
    let id = finish(&mut h.container("create", &["--name", "kept"], &["sleep", "60"])).ok().text().to_owned();
    // No socket for its clients can be made.
    let sockets = h.path().join("run/attach");
    std::fs::create_dir_all(h.path().join("run")).expect("state directory");
    std::fs::write(&sockets, "").expect("write");
    h.run(&["start", "kept"]).fails("attach");
    assert_eq!(h.field(&id, "{{.State.Status}}"), "created");
    std::fs::remove_file(&sockets).expect("remove");
    h.run(&["start", "kept"]).ok();
    h.run(&["rm", "-f", "kept"]).ok();
    h.assert_clean();
}

#[test]
fn root_sockets_are_passed_on() {
    let Some(h) = home!() else { return };
    let file = h.path().join("passed");
    std::fs::write(&file, "passed on").expect("write");
    let hull = h.container("run", &["--rm"], &["readfd", "3", "+", "env"]);
    let mut command = std::process::Command::new("sh");
    let line = format!("exec 3<{}; export LISTEN_FDS=1 LISTEN_FDNAMES=one LISTEN_PID=$$; exec \"$@\"", file.display());
    command.args(["-c", &line, "sh"]).arg(hull.get_program()).args(hull.get_args());
    let out = finish(&mut command).ok();
    assert!(out.stdout.contains("passed on"), "{}", out.stdout);
    for variable in ["LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_FDNAMES=one"] {
        assert!(out.stdout.contains(variable), "{variable}: {}", out.stdout);
    }
    // Meant for another process, they are nobody's.
    let line = format!("exec 3<{}; export LISTEN_FDS=1 LISTEN_PID=1; exec \"$@\"", file.display());
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line, "sh"]).arg(hull.get_program()).args(hull.get_args());
    assert!(!finish(&mut command).stdout.contains("passed on"));
    h.assert_clean();
}

/// Whatever the order, each command's answer is one that it could have got alone, and nothing is left half-done.
#[test]
fn root_fifty_commands_at_once() {
    let Some(h) = home!() else { return };
    finish(&mut h.container("create", &["--name", "busy"], &["sleep", "60"])).ok();
    let words = [
        &["start", "busy"][..],
        &["stop", "-t", "0", "busy"],
        &["restart", "-t", "0", "busy"],
        &["kill", "busy"],
        &["inspect", "busy"],
        &["pause", "busy"],
        &["unpause", "busy"],
        &["ps", "-a"],
        &["rename", "busy", "busy2"],
        &["rename", "busy2", "busy"],
    ];
    let children: Vec<_> = (0..50)
        .map(|turn| {
            let mut command = h.hull(words[turn % words.len()]);
            (turn, command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start hull"))
        })
        .collect();
    for (turn, child) in children {
        let output = child.wait_with_output().expect("wait");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|code| code < 2), "{:?}: {stderr}", words[turn % words.len()]);
        assert!(!stderr.contains("panicked") && stderr.lines().count() <= 1, "{stderr}");
    }
    let listed = h.run(&["ps", "-aq"]).ok();
    assert_eq!(listed.lines().len(), 1);
    let id = listed.lines()[0].to_owned();
    h.run(&["start", &id]).ok();
    assert_eq!(h.field(&id, "{{.State.Running}}"), "true");
    h.run(&["rm", "-f", &id]).ok();
    h.assert_clean();
}

#[test]
fn root_programs_that_run_beside_are_listed() {
    let Some(h) = home!() else { return };
    let _ = h.detached(&["--name", "web"], &["sleep", "60"]);
    assert_eq!(h.field("web", "{{json .ExecIDs}}"), "null");
    h.run(&["exec", "-d", "web", "/probe", "wait-file", "/end"]).ok();
    let mut attached = h.hull(&["exec", "web", "/probe", "wait-file", "/end"]).spawn().expect("start hull");
    h.until("both are listed", || h.field("web", "{{len .ExecIDs}}") == "2");
    let id = h.field("web", "{{index .ExecIDs 0}}");
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    h.write("rootfs/end", "");
    attached.wait().expect("wait");
    h.until("none is left", || h.field("web", "{{json .ExecIDs}}") == "null");
    h.run(&["rm", "-f", "web"]).ok();
    h.assert_clean();
}

#[test]
fn root_a_program_runs_in_the_background_of_a_stopped_container() {
    let Some(h) = home!() else { return };
    finish(&mut h.container("create", &["--name", "still"], &["true"])).ok();
    h.run(&["exec", "-d", "still", "/probe", "write", "/made", "1", "+", "wait-file", "/end"]).ok();
    h.until("it has begun", || h.at("rootfs/made").exists());
    assert_eq!(h.field("still", "{{.State.Status}}"), "created");
    h.write("rootfs/end", "");
    let none = h.run(&["exec", "-d", "still", "/no-such-program"]);
    assert_eq!((none.code, none.stderr.lines().count()), (127, 1), "{}", none.stderr);
    h.run(&["start", "still"]).ok();
    h.run(&["rm", "-f", "still"]).ok();
    h.assert_clean();
}

#[test]
fn root_who_shares_ipc_shares_its_memory() {
    let Some(h) = home!() else { return };
    let _ =
        h.detached(&["--name", "one", "--ipc", "shareable"], &["write", "/dev/shm/x", "shared", "+", "sleep", "60"]);
    let _ = h.detached(&["--name", "apart"], &["sleep", "60"]);
    h.until("it has written", || h.run(&["exec", "one", "/probe", "cat", "/dev/shm/x"]).text() == "shared");
    let run = |flags: &[&str], args: &[&str]| {
        finish(&mut h.container("run", &[&["--rm"], flags].concat(), args)).ok().text().to_owned()
    };
    let joined = ["--ipc", "container:one"];
    assert_eq!(run(&joined, &["cat", "/dev/shm/x", "+", "write", "/dev/shm/back", "2"]), "shared\nok");
    assert_eq!(h.run(&["exec", "one", "/probe", "cat", "/dev/shm/back"]).ok().text(), "2");
    assert_eq!(run(&[], &["cat", "/dev/shm/x"]), "errno:2");
    finish(&mut h.container("run", &["--ipc", "container:apart"], &["true"])).fails("non-shareable");
    h.run(&["rm", "-f", "one", "apart"]).ok();
    h.assert_clean();
}

#[test]
fn root_servers_of_names_are_those_asked_for_without_a_network_too() {
    let Some(h) = home!() else { return };
    h.write("rootfs/etc/resolv.conf", "");
    let flags = ["--rm", "--dns", "192.0.2.1", "--dns-search", "x.example"];
    let text = finish(&mut h.container("run", &flags, &["cat", "/etc/resolv.conf"])).ok().stdout;
    assert!(text.contains("nameserver 192.0.2.1\n") && text.contains("search x.example\n"), "{text}");
    let text = finish(&mut h.container("run", &["--rm"], &["cat", "/etc/resolv.conf"])).ok().stdout;
    assert_eq!(text.trim(), "");
    h.assert_clean();
}
