//! Applying plans for real, each in a process of its own: the test program runs itself again for one test, and there the
//! plan is applied and the program executed.

use std::process::{Command, Output};

use hull_oci::spec::{Capabilities, IoPriority, IoPriorityClass, Process, Rlimit, Scheduler, User};

use super::{ProcessContext, ProcessPlan};

const INSIDE: &str = "HULL_TEST_INSIDE";

/// Runs a test of this module again as the body, behind `wrapper`; `None` when this is that run already.
fn again(wrapper: &[&str], test: &str) -> Option<Output> {
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let program = std::env::current_exe().unwrap();
    let name = format!("process::tests::{test}");
    let mut words: Vec<std::ffi::OsString> = wrapper.iter().map(Into::into).collect();
    words.push(program.into());
    words.extend(["--exact", &name, "--nocapture", "--test-threads=1"].map(Into::into));
    Some(Command::new(&words[0]).args(&words[1..]).env(INSIDE, "1").output().unwrap())
}

/// Applies the plan to this process and executes its program.
fn become_program(process: &Process, context: ProcessContext) -> ! {
    // The harness has begun a line.
    println!();
    let mut plan = ProcessPlan::new(process, &context).unwrap();
    plan.apply_early().unwrap_or_else(|failure| panic!("{:?}: {failure:?}", plan.describe(&failure)));
    plan.apply_identity(None).unwrap_or_else(|failure| panic!("{:?}: {failure:?}", plan.describe(&failure)));
    plan.lookup().unwrap();
    plan.apply_late(None).unwrap();
    panic!("{:?}", plan.exec());
}

fn shell(script: &str) -> Process {
    Process {
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/usr/bin:/bin".into(), "A=1".into(), "A=2".into()],
        cwd: "/".into(),
        ..Process::default()
    }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn expect(output: &Output, lines: &[&str]) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "no line {line:?} in\n{text}\n{errors}");
    }
}

#[test]
fn root_everything_is_applied() {
    let Some(output) = again(&[], "root_everything_is_applied") else {
        let mut process = shell(
            "cat /proc/self/status; echo umask $(umask); pwd; echo files $(ulimit -n); echo oom $(cat /proc/self/oom_score_adj); \
             echo home $HOME; echo a $A; cut -d' ' -f19 /proc/self/stat | sed 's/^/nice /'",
        );
        process.user = User { uid: 12345, gid: 54321, umask: Some(0o027), additional_gids: vec![7, 8] };
        process.cwd = "/usr".into();
        process.no_new_privileges = true;
        process.oom_score_adj = Some(555);
        process.rlimits = vec![Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 64, soft: 60 }];
        process.scheduler = Some(Scheduler { policy: "SCHED_BATCH".into(), nice: 7, ..Scheduler::default() });
        process.io_priority = Some(IoPriority { class: IoPriorityClass::Idle, priority: 0 });
        process.capabilities = Some(Capabilities {
            bounding: names(&["CAP_KILL", "CAP_CHOWN"]),
            permitted: names(&["CAP_KILL", "CAP_CHOWN"]),
            effective: names(&["CAP_KILL"]),
            inheritable: names(&["CAP_KILL"]),
            ambient: names(&["CAP_KILL"]),
        });
        become_program(&process, ProcessContext::default());
    };
    expect(
        &output,
        &[
            "Uid:\t12345\t12345\t12345\t12345",
            "Gid:\t54321\t54321\t54321\t54321",
            "Groups:\t7 8 ",
            "CapInh:\t0000000000000020",
            "CapPrm:\t0000000000000020",
            "CapEff:\t0000000000000020",
            "CapBnd:\t0000000000000021",
            "CapAmb:\t0000000000000020",
            "NoNewPrivs:\t1",
            "umask 0027",
            "/usr",
            "files 60",
            "oom 555",
            "home /",
            "a 2",
            "nice 7",
        ],
    );
}

#[test]
fn root_without_capabilities_none_are_left() {
    let Some(output) = again(&[], "root_without_capabilities_none_are_left") else {
        become_program(
            &shell("grep ^Cap /proc/self/status; echo home $HOME; echo umask $(umask)"),
            ProcessContext::default(),
        );
    };
    let none = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| format!("{name}:\t0000000000000000"));
    let mut lines: Vec<&str> = none.iter().map(String::as_str).collect();
    lines.extend(["home /root", "umask 0022"]);
    expect(&output, &lines);
}

#[test]
fn root_a_leaked_directory_is_no_working_directory() {
    let Some(output) = again(&[], "root_a_leaked_directory_is_no_working_directory") else {
        // Without close-on-exec, as a careless runtime would leak it.
        let leaked = rustix::fs::open("/usr", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&leaked);
        for path in
            [format!("/proc/self/fd/{number}"), format!("/proc/thread-self/fd/{number}/bin"), "/proc/self/cwd".into()]
        {
            let mut process = shell("true");
            process.cwd = path.clone();
            let mut plan = ProcessPlan::new(&process, &ProcessContext::default()).unwrap();
            let failure = plan.apply_identity(None).unwrap_err();
            assert_eq!(failure.step, crate::failure::Step::WorkingDirectory, "{path}");
            assert!(plan.describe(&failure).unwrap().contains(&path));
        }
        println!("\nrefused");
        return;
    };
    expect(&output, &["refused"]);
}

#[test]
fn userns_identity_inside_a_user_namespace() {
    let test = "userns_identity_inside_a_user_namespace";
    let wrapper = ["unshare", "--user", "--map-root-user"];
    let Some(output) = again(&wrapper, test) else {
        let mut process = shell("grep -E '^(Uid|Cap)' /proc/self/status");
        process.capabilities = Some(Capabilities {
            bounding: names(&["CAP_KILL"]),
            permitted: names(&["CAP_KILL"]),
            effective: names(&["CAP_KILL"]),
            ..Capabilities::default()
        });
        become_program(&process, ProcessContext { user_namespace: true, ..ProcessContext::default() });
    };
    if !Command::new("unshare")
        .args(["--user", "--map-root-user", "true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("skipped: user namespaces cannot be made here");
        return;
    }
    expect(&output, &["Uid:\t0\t0\t0\t0", "CapEff:\t0000000000000020", "CapBnd:\t0000000000000020"]);
}
