//! System call filters, tried from inside the container.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;

use hull_testkit::{Value, bundle, finish, json};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg};

fn profile(syscalls: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": syscalls})
}

#[test]
fn root_errno_of_the_rule_or_eperm() {
    let Some(b) = bundle!() else { return };
    let b = b
        .set(
            "/linux/seccomp",
            profile(json!([
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77},
                {"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO"}
            ])),
        )
        .probe(&[
            "mkdir", "/tmp/x", "+", "symlink", "a", "/tmp/y", "+", "write", "/tmp/z", "1", "+", "status", "Seccomp",
        ]);
    assert_eq!(b.run().ok().lines(), ["errno:77", "errno:1", "ok", "2"]);
}

#[test]
fn root_filter_holds_with_and_without_no_new_privileges() {
    for value in [true, false] {
        let Some(b) = bundle!() else { return };
        let b = b
            .set("/process/noNewPrivileges", json!(value))
            .set(
                "/linux/seccomp",
                profile(json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}])),
            )
            .probe(&["mkdir", "/tmp/x", "+", "status", "Seccomp_filters"]);
        assert_eq!(b.run().ok().lines(), ["errno:38", "1"], "no_new_privs {value}");
    }
}

#[test]
fn root_argument_comparisons() {
    let Some(b) = bundle!() else { return };
    // umask(0) is refused, by its argument; the probe's other calls are not.
    let b = b
        .set(
            "/linux/seccomp",
            profile(json!([
                {"names": ["fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
                 "args": [{"index": 2, "value": 0o4000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
                 "args": [{"index": 1, "value": 0o4000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ"}]}
            ])),
        )
        .probe(&["write", "/tmp/f", "", "+", "chmod", "/tmp/f", "4755", "+", "chmod", "/tmp/f", "0755"]);
    assert_eq!(b.run().ok().lines(), ["ok", "errno:95", "ok"]);
}

#[test]
fn root_kill_actions_end_the_program() {
    for action in ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD"] {
        let Some(b) = bundle!() else { return };
        let b = b
            .set("/linux/seccomp", profile(json!([{"names": ["mkdir", "mkdirat"], "action": action}])))
            .probe(&["echo", "before", "+", "mkdir", "/tmp/x", "+", "echo", "after"]);
        let out = b.run();
        assert_eq!((out.code, out.text()), (128 + 31, "before"), "{action}");
        b.assert_clean();
    }
}

#[test]
fn root_deny_by_default_with_unknown_names_ignored() {
    let Some(b) = bundle!() else { return };
    let b = b
        .set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": [
                {"names": ["mkdir", "mkdirat", "call_from_the_future"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]}),
        )
        .probe(&["mkdir", "/tmp/x", "+", "echo", "on"]);
    assert_eq!(b.run().ok().lines(), ["errno:5", "on"]);
}

#[test]
fn root_exec_is_filtered_too() {
    let Some(b) = bundle!() else { return };
    let b = b
        .set(
            "/linux/seccomp",
            profile(json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}])),
        )
        .probe(&["sleep", "60"]);
    b.run_detached();
    assert_eq!(b.exec(&[], &["mkdir", "/tmp/x", "+", "status", "Seccomp"]).ok().lines(), ["errno:77", "2"]);
}

#[test]
fn root_notify_sends_the_descriptor_and_the_state() {
    let Some(b) = bundle!() else { return };
    let path = b.dir().join("agent.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let mut seccomp = profile(json!([{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}]));
    seccomp["listenerPath"] = json!(path);
    seccomp["listenerMetadata"] = json!("for the agent");
    let b = b.set("/linux/seccomp", seccomp).probe(&["sleep", "60"]);
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut bytes = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let first = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .expect("recvmsg");
        let fds = control.drain().count();
        bytes.truncate(first.bytes);
        stream.read_to_end(&mut bytes).expect("read");
        (fds, String::from_utf8(bytes).expect("UTF-8"))
    });
    let _ = finish(&mut b.bundle_command("create", &[])).ok();
    let _ = b.act("start").ok();
    let (fds, text) = agent.join().expect("agent");
    assert_eq!(fds, 1, "one message with descriptors");
    let state: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "for the agent");
    assert_eq!(state["state"]["id"], b.id());
    assert_eq!(state["pid"], b.pid());
}

#[test]
fn root_notify_without_a_listener_is_refused() {
    let Some(b) = bundle!() else { return };
    let rule = json!([{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}]);
    b.set("/linux/seccomp", profile(rule.clone())).create().fails("listenerPath");
    let Some(b) = bundle!() else { return };
    let mut seccomp = profile(rule);
    seccomp["listenerPath"] = json!("/no/such/agent.sock");
    let b = b.set("/linux/seccomp", seccomp);
    b.create().fails("/no/such/agent.sock");
    b.assert_clean();
}
