//! Hull's own commands as processes, for what a process should not do itself: because it shall stay small, or because
//! starting containers asks for a sealed binary.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Stdio};

use hull_sys::clone::{CloneFlags, Cloned, ExecArray, cloexec_from, clone3, exit_now, fexecve, reset_signals};
use rustix::fs::{Mode, OFlags};

use crate::error::Error;
use crate::launch::null;
use crate::records::Engine;

fn is_wanted(name: &[u8]) -> bool {
    name == b"HOME" || name == b"PATH" || name.starts_with(b"HULL_")
}

/// The variables that a later start looks at.
pub(crate) fn environment(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<CString> {
    all.filter(|(name, _)| is_wanted(name.as_bytes()))
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect()
}

/// Starts `hull WORDS` on the same directories, in a session of its own. What it prints goes to `output`, or nowhere.
/// Returns a descriptor of the process, which is a child of this one.
pub(crate) fn spawn(engine: &Engine, words: &[&str], output: Option<OwnedFd>) -> Result<OwnedFd, Error> {
    let exe = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open", "/proc/self/exe"))?;
    let null = null()?;
    let text = |text: &[u8]| CString::new(text).map_err(|_| Error::flag("--root", "it has a null byte"));
    let mut args = vec![text(b"hull")?, text(b"--root")?, text(engine.root().as_os_str().as_bytes())?];
    args.extend([text(b"--state")?, text(engine.state_root().as_os_str().as_bytes())?]);
    for word in words {
        args.push(text(word.as_bytes())?);
    }
    let args = ExecArray::new(args);
    let env = ExecArray::new(environment(std::env::vars_os()));
    match clone3(CloneFlags::empty(), None).map_err(Error::io("clone", "process"))? {
        Cloned::Child => {
            let _ = rustix::process::setsid();
            let output = output.as_ref().unwrap_or(&null);
            let _ = rustix::stdio::dup2_stdin(&null)
                .and_then(|()| rustix::stdio::dup2_stdout(output))
                .and_then(|()| rustix::stdio::dup2_stderr(output));
            reset_signals(0);
            let _ = cloexec_from(3);
            let _ = fexecve(exe.as_fd(), &args, &env);
            exit_now(125);
        }
        Cloned::Parent(_, pidfd) => Ok(pidfd),
    }
}

/// Starts a process that repairs, which every command does first; this one does nothing else that anybody sees. Processes
/// with threads may call it.
pub(crate) fn repairing(engine: &Engine) -> Result<Child, Error> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(engine.root()).arg("--state").arg(engine.state_root()).arg("version");
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_wanted(name.as_bytes())));
    // What it cannot repair, it says where this process would have said it.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().map_err(Error::io("execute", "/proc/self/exe"))
}
