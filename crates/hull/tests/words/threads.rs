//! The start path is one thread, and leaves no process behind but the container.

use std::process::{Command, Stdio};

use hull_testkit::{bundle, finish, leak, tier};

/// Runs a start under strace and returns its lines of process creation, up to the program of the container.
fn creations(verb: &str, flags: &[&str]) -> Option<Vec<String>> {
    let strace = tier::tool("strace")?;
    let b = bundle!()?.probe(&["exit", "0"]);
    let log = b.dir().join("strace.log");
    let start = b.bundle_command(verb, flags);
    let mut command = Command::new(strace);
    command.args(["-f", "-e", "trace=clone,clone3,fork,vfork,execve,execveat", "-o"]).arg(&log);
    command.arg(start.get_program()).args(start.get_args()).stdin(Stdio::null());
    let _ = finish(&mut command).ok();
    let text = std::fs::read_to_string(&log).expect("strace log");
    let own = text.lines().take_while(|line| !line.contains("execve(\"/probe\""));
    Some(own.map(str::to_owned).collect())
}

#[test]
fn root_start_makes_no_thread() {
    for (verb, flags) in [("run", &[][..]), ("run", &["--detach"])] {
        let Some(lines) = creations(verb, flags) else { return };
        assert!(lines.iter().any(|line| line.contains("clone3(") || line.contains("clone(")), "{lines:?}");
        for line in &lines {
            for flag in ["CLONE_THREAD", "CLONE_VM|", "CLONE_SIGHAND"] {
                // A vfork that executes a hook's program shares memory for a moment; a thread would share signals.
                assert!(!line.contains(flag), "{verb}: {line}");
            }
        }
    }
}

#[test]
fn root_start_is_one_clone() {
    let Some(lines) = creations("run", &[]) else { return };
    let call = |line: &str| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let clones = lines.iter().filter(|line| call(line).starts_with("clone") || call(line).contains("fork(")).count();
    assert_eq!(clones, 1, "one clone3 with all namespaces: {lines:#?}");
    // At most one execution more than the test's own: of the read-only view of the binary.
    let executions: Vec<_> = lines.iter().filter(|line| line.contains("execve")).collect();
    assert!(executions.len() <= 2 && executions.iter().skip(1).all(|line| line.contains("execveat")), "{lines:#?}");
}

#[test]
fn root_created_and_detached_containers_are_one_process() {
    for detached in [false, true] {
        let Some(b) = bundle!() else { return };
        let b = b.probe(&["sleep", "60"]);
        if detached {
            b.run_detached();
        } else {
            let _ = b.create().ok();
        }
        let found = leak::processes(b.id());
        assert_eq!(found.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [b.pid()], "{found:?}");
        let threads = std::fs::read_dir(format!("/proc/{}/task", b.pid())).expect("tasks").count();
        assert_eq!(threads, 1);
    }
}
