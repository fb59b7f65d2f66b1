//! A container's small first process, for `--init`: it starts the program, passes signals on to it, reaps what others
//! leave to the first process of a PID namespace, and ends with the program's exit code.
//!
//! It is this binary again, bound read-only into the container where Docker puts its own ([`PATH`]) and called by that
//! name. The container can read it and nothing more: the mount is read-only, so neither the path nor `/proc/1/exe` can
//! be opened for writing. It must never read anything of the container but its own arguments, and allocates nothing
//! once the program runs.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use hull_oci::spec::{Mount, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open};

/// Where it is in a container.
pub const PATH: &str = "/sbin/docker-init";

/// Its name.
pub const NAME: &str = "docker-init";

/// Signals that concern the first process itself: children, terminal access.
const OWN: [i32; 3] = [17, 21, 22];

const SIGCONT: i32 = 18;

/// Makes it the first process of a specification. `directory` is the container's: a restart that finds no trace of the
/// command line looks there.
pub(crate) fn wrap(spec: &mut Spec, directory: &Path) {
    if let Some(process) = &mut spec.process {
        process.args.splice(0..0, [PATH.to_owned(), "--".to_owned()]);
    }
    spec.mounts.push(Mount {
        destination: PATH.to_owned(),
        kind: "bind".to_owned(),
        source: binary(&directory.join("init")).to_string_lossy().into_owned(),
        options: ["bind", "ro", "nosuid", "nodev"].map(String::from).to_vec(),
        ..Mount::default()
    });
}

/// The file that this process runs from. Its link in `/proc` leads to a mount that is attached nowhere, so the file is
/// looked for where such files are, and known by its inode.
fn binary(kept: &Path) -> PathBuf {
    const EXE: &str = "/proc/self/exe";
    let identity = |path: &Path| std::fs::metadata(path).map(|one| (one.dev(), one.ino()));
    let Ok(own) = identity(Path::new(EXE)) else { return PathBuf::from(EXE) };
    let name = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = std::fs::read_link(EXE).into_iter().collect();
    if let Ok(directory) = std::env::current_dir()
        && name.components().count() > 1
    {
        candidates.push(directory.join(&name));
    }
    for directory in std::env::split_paths(&path).chain(["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from)) {
        candidates.extend(name.file_name().map(|name| directory.join(name)));
        candidates.push(directory.join("hull"));
    }
    candidates.extend(std::fs::read_link(kept));
    let found = candidates.into_iter().find(|path| {
        // A process of the server's is called by its link in /proc, which is the mount that cannot be bound.
        path.is_absolute() && !path.starts_with("/proc") && identity(path).is_ok_and(|one| one == own)
    });
    if let Some(found) = &found {
        // Only a hint: it may be there already.
        let _ = std::os::unix::fs::symlink(found, kept);
    }
    found.unwrap_or_else(|| PathBuf::from(EXE))
}

/// The whole life of the first process. `words` are its arguments without its name.
#[must_use]
pub fn run(words: &[OsString]) -> u8 {
    let words = match words {
        [first, rest @ ..] if first == "--" => rest,
        all => all,
    };
    if words.is_empty() {
        eprintln!("{NAME}: no program is given");
        return 1;
    }
    if rustix::process::getpid() != Pid::INIT {
        // In a PID namespace of others: what the program leaves still comes here.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }
    // A group of its own, in front of the terminal where there is one: signals of the keyboard are the program's.
    let mut command = std::process::Command::new(&words[0]);
    command.args(&words[1..]).process_group(0);
    // They were blocked when this program was executed, so that none is lost before it can be passed on.
    let Ok(signals) = hull_sys::signal::redirect() else { return 255 };
    hull_sys::signal::unblock_in(&mut command);
    let started = command.spawn();
    let pid = match &started {
        Ok(child) => i32::try_from(child.id()).ok().and_then(Pid::from_raw),
        Err(error) => {
            eprintln!("{NAME}: exec {:?}: {error}", words[0]);
            return if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        }
    };
    let Some((pid, program)) = pid.and_then(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?))) else {
        return 255;
    };
    let stdin = rustix::stdio::stdin();
    if rustix::termios::isatty(stdin) && rustix::termios::tcsetpgrp(stdin, pid).is_ok() {
        // Had it read before, it was stopped for reading from behind.
        let _ = hull_sys::signal::pidfd_send_signal(program.as_fd(), SIGCONT);
    }
    attend(pid, &program, &signals)
}

fn attend(pid: Pid, program: &OwnedFd, signals: &OwnedFd) -> u8 {
    loop {
        while let Ok(Some((child, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if child == pid {
                let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255);
            }
        }
        match poll(&mut [PollFd::new(signals, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return 255,
        }
        while let Ok(Some(received)) = hull_sys::signal::next(signals.as_fd()) {
            if !OWN.contains(&received.signal) {
                // It may have ended just now.
                let _ = hull_sys::signal::pidfd_send_signal(program.as_fd(), received.signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_by_its_inode() {
        let own = std::fs::metadata("/proc/self/exe").unwrap();
        let found = std::fs::metadata(binary(Path::new("/nonexistent/init"))).unwrap();
        assert_eq!((own.dev(), own.ino()), (found.dev(), found.ino()));
    }
}
