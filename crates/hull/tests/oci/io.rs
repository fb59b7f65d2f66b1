//! Descriptors and terminals across the OCI runtime: console socket, preserved descriptors, pidfd socket.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use hull_testkit::{Bundle, bundle, finish, json};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Accepts one connection and returns the descriptor sent over it.
fn receive(listener: &UnixListener) -> OwnedFd {
    listener.set_nonblocking(false).expect("blocking");
    let (stream, _) = listener.accept().expect("accept");
    receive_from(&stream)
}

fn receive_from(stream: &UnixStream) -> OwnedFd {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).expect("recvmsg");
    assert!(received.bytes > 0, "the message names the terminal");
    let mut fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None })
        .flatten()
        .collect();
    assert_eq!(fds.len(), 1, "exactly one descriptor");
    fds.remove(0)
}

fn on_terminal(args: &[&str]) -> Option<(Bundle, UnixListener, String)> {
    let b = bundle!()?.probe(args).set("/process/terminal", json!(true));
    let path = b.dir().join("console.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let path = path.to_str().expect("UTF-8").to_owned();
    Some((b, listener, path))
}

/// Reads a terminal's master until the other side is closed.
fn drain(master: OwnedFd) -> String {
    let mut text = String::new();
    let mut file = std::fs::File::from(master);
    let mut bytes = [0; 4096];
    // EIO is how a terminal says that nobody holds its other side.
    while let Ok(count @ 1..) = file.read(&mut bytes) {
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    text
}

#[test]
fn root_console_socket_gets_the_master() {
    let Some((b, listener, path)) = on_terminal(&["isatty", "+", "winsize", "+", "stat", "/dev/console"]) else {
        return;
    };
    let b = b.set("/process/consoleSize", json!({"height": 33, "width": 77}));
    let _ = finish(&mut b.bundle_command("create", &["--console-socket", &path])).ok();
    let master = receive(&listener);
    let _ = b.act("start").ok();
    let text = drain(master);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["true", "33x77"]);
    assert!(lines[2].starts_with("char "), "{text}");
}

#[test]
fn root_exec_with_a_terminal() {
    let Some((b, listener, path)) = on_terminal(&["sleep", "60"]) else { return };
    let b = b.set("/process/terminal", json!(false));
    b.run_detached();
    let words = ["exec", "--tty", "--detach", "--console-socket", &path, b.id(), "/probe", "isatty", "+", "readlink"];
    let mut words = words.to_vec();
    words.push("/proc/self/fd/0");
    let _ = b.oci(&words).ok();
    let text = drain(receive(&listener));
    assert!(text.starts_with("true\r\n/dev/pts/"), "{text:?}");
}

#[test]
fn root_terminal_without_console_socket_is_refused_for_create() {
    let Some((b, _listener, _)) = on_terminal(&["exit", "0"]) else { return };
    b.create().fails("console");
    b.assert_clean();
}

#[test]
fn root_console_socket_without_terminal_is_refused() {
    let Some((b, _listener, path)) = on_terminal(&["exit", "0"]) else { return };
    let b = b.set("/process/terminal", json!(false));
    finish(&mut b.bundle_command("create", &["--console-socket", &path])).fails("console");
    b.assert_clean();
}

/// Runs `hull oci` from a shell that opens descriptors 3 and 4 first.
fn with_extra_fds(b: &Bundle, words: &str) -> hull_testkit::Finished {
    b.write();
    std::fs::write(b.dir().join("three"), "three\n").expect("write");
    let script = format!(
        "cd '{0}' && exec '{1}' oci --root '{2}' {words} 3<three 4<three 7<three",
        b.dir().display(),
        b.binary().display(),
        b.state_root().display()
    );
    finish(Command::new("sh").arg("-c").arg(script).stdin(std::process::Stdio::null()))
}

#[test]
fn root_no_descriptor_leaks_into_the_container() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["fds"]);
    let out = with_extra_fds(&b, &format!("run {}", b.id())).ok();
    let numbers: Vec<&str> = out.lines().iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{}", out.stdout);
}

#[test]
fn root_preserved_descriptors_arrive_and_are_announced() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["readfd", "3", "+", "env", "+", "fds"]);
    let out = with_extra_fds(&b, &format!("run --preserve-fds 1 {}", b.id())).ok();
    assert_eq!(out.lines()[0], "three");
    let opened: Vec<&str> =
        out.lines().into_iter().filter(|line| line.contains("three") && line.contains(' ')).collect();
    assert_eq!(opened.len(), 1, "only descriptor 3: {}", out.stdout);
}

#[test]
fn root_listen_fds_are_passed_as_systemd_does() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["readfd", "3", "+", "env"]);
    b.write();
    std::fs::write(b.dir().join("three"), "three\n").expect("write");
    let script = format!(
        "cd '{0}' && LISTEN_FDS=1 LISTEN_PID=$$ exec '{1}' oci --root '{2}' run {3} 3<three",
        b.dir().display(),
        b.binary().display(),
        b.state_root().display(),
        b.id()
    );
    let out = finish(Command::new("sh").arg("-c").arg(script).stdin(std::process::Stdio::null())).ok();
    assert_eq!(out.lines()[0], "three");
    assert!(out.lines().contains(&"LISTEN_FDS=1") && out.lines().contains(&"LISTEN_PID=1"), "{}", out.stdout);
}

#[test]
fn root_preserving_more_than_is_open_is_refused() {
    let Some(b) = bundle!() else { return };
    let out = with_extra_fds(&b, &format!("run --preserve-fds 4 {}", b.id()));
    assert_ne!(out.code, 0, "descriptors 5 and 6 do not exist");
    b.assert_clean();
}

#[test]
fn root_pidfd_socket_gets_a_pidfd() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]);
    let path = b.dir().join("pidfd.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let _ = finish(&mut b.bundle_command("create", &["--pidfd-socket", path.to_str().expect("UTF-8")])).ok();
    let pidfd = receive(&listener);
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).expect("kill by pidfd");
    b.wait_status("stopped");
}

#[test]
fn root_stdin_reaches_the_program() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["stdin"]);
    let mut command = b.bundle_command("run", &[]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("start hull");
    child.stdin.take().expect("stdin").write_all(b"over the pipe").expect("write");
    let output = child.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), "over the pipe");
}

#[test]
fn root_pidfd_socket_of_exec_gets_the_new_process() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["sleep", "60"]);
    b.run_detached();
    let path = b.dir().join("pidfd.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let words = ["exec", "--detach", "--pidfd-socket", path.to_str().expect("UTF-8"), b.id(), "/probe", "sleep", "60"];
    let _ = b.oci(&words).ok();
    let pidfd = receive(&listener);
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).expect("kill by pidfd");
    // The container's own process is another one, and lives.
    assert_eq!(b.state()["status"], "running");
}

#[test]
fn root_service_manager_is_notified_through_the_container() {
    let Some(b) = bundle!() else { return };
    let b = b.probe(&["notify", "READY=1"]);
    let path = b.dir().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("bind");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("timeout");
    assert_eq!(finish(b.bundle_command("run", &[]).env("NOTIFY_SOCKET", &path)).ok().text(), "ok");
    let mut bytes = [0; 64];
    let count = socket.recv(&mut bytes).expect("a message from inside");
    assert_eq!(&bytes[..count], b"READY=1");
}

#[test]
fn root_terminal_belongs_to_the_programs_user() {
    let Some((b, listener, path)) = on_terminal(&["stat", "/dev/console", "+", "writable", "/dev/pts"]) else { return };
    let b = b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let _ = finish(&mut b.bundle_command("create", &["--console-socket", &path])).ok();
    let master = receive(&listener);
    let _ = b.act("start").ok();
    let text = drain(master);
    // The terminal's group is the devpts mount's.
    assert!(text.starts_with("char 0620 1000 5 136:0"), "{text}");
}
