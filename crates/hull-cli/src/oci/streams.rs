//! Descriptors and files that the caller names: console and pidfd sockets, the process ID file, inherited descriptors.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use hull_runtime::Streams;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::CommandError;
use super::args::Parsed;

/// More descriptors than this are a mistake of the caller, not a wish.
const MAX_PRESERVED: u32 = 4096;

/// Connects to a Unix socket, also when its path is longer than a socket address holds.
pub(super) fn connect(path: &OsStr) -> Result<OwnedFd, CommandError> {
    let failed = |errno: rustix::io::Errno| CommandError::new(format!("connect to {}: {errno}", path.display()));
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed)?;
    let path = Path::new(path);
    match SocketAddrUnix::new(path) {
        Ok(address) => rustix::net::connect(&socket, &address).map_err(failed)?,
        Err(_) => {
            // Through an open directory the path is short again.
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(parent, flags, Mode::empty()).map_err(failed)?;
            let name = path.file_name().unwrap_or_default();
            let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
            let address = SocketAddrUnix::new(&short).map_err(failed)?;
            rustix::net::connect(&socket, &address).map_err(failed)?;
        }
    }
    Ok(socket)
}

/// What the sockets and descriptors of the command line come to.
pub(super) struct Inherited {
    /// For the runtime.
    pub(super) streams: Streams,
    /// Variables that tell the program of descriptors passed by socket activation.
    pub(super) env: Vec<String>,
}

/// Connects the sockets and counts the descriptors to pass.
pub(super) fn inherited(parsed: &Parsed) -> Result<Inherited, CommandError> {
    let console = parsed.get("console-socket").map(connect).transpose()?;
    let pidfd = parsed.get("pidfd-socket").map(connect).transpose()?;
    let asked = parsed.number::<u32>("preserve-fds")?.unwrap_or(0);
    let activated = activated(
        std::env::var("LISTEN_PID").ok().as_deref(),
        std::env::var("LISTEN_FDS").ok().as_deref(),
        std::process::id(),
    );
    let preserve_fds = asked.saturating_add(activated);
    if preserve_fds > MAX_PRESERVED {
        return Err(CommandError::new(format!(
            "preserve-fds: expected at most {MAX_PRESERVED} descriptors, found {preserve_fds}"
        )));
    }
    // The program would otherwise get a hole, or one of ours that happens to have the number.
    for number in 3..3 + asked.saturating_add(activated) {
        if std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
            return Err(CommandError::new(format!("preserve-fds: descriptor {number} is not open")));
        }
    }
    let env =
        if activated > 0 { vec![format!("LISTEN_FDS={activated}"), "LISTEN_PID=1".to_owned()] } else { Vec::new() };
    Ok(Inherited { streams: Streams { stdio: None, console, pidfd, preserve_fds }, env })
}

/// Descriptors passed by socket activation (`sd_listen_fds(3)`), if they are meant for this process.
fn activated(pid: Option<&str>, count: Option<&str>, own: u32) -> u32 {
    match (pid.map(str::parse::<u32>), count.map(str::parse::<u32>)) {
        (Some(Ok(pid)), Some(Ok(count))) if pid == own => count,
        _ => 0,
    }
}

/// Writes a process ID so that a reader sees all of it or nothing.
pub(super) fn write_pid_file(path: &OsStr, pid: i32) -> Result<(), CommandError> {
    hull_fs::atomic::write_path(Path::new(path), pid.to_string().as_bytes(), 0o644)
        .map_err(|error| CommandError::new(format!("pid file {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn activation_is_for_this_process_only() {
        assert_eq!(activated(Some("7"), Some("2"), 7), 2);
        assert_eq!(activated(Some("8"), Some("2"), 7), 0);
        assert_eq!(activated(None, Some("2"), 7), 0);
        assert_eq!(activated(Some("7"), Some("x"), 7), 0);
    }

    #[test]
    fn sockets_with_long_paths_connect() {
        let directory = tempfile_directory("socket");
        let deep = directory.join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let short = directory.join("s");
        let listener = UnixListener::bind(&short).unwrap();
        std::fs::rename(&short, deep.join("s")).unwrap();
        connect(deep.join("s").as_os_str()).unwrap();
        drop(listener);
        assert!(connect(deep.join("absent").as_os_str()).unwrap_err().message.contains("absent"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn pid_file_is_replaced_whole() {
        let directory = tempfile_directory("pid");
        let path = directory.join("pid");
        write_pid_file(path.as_os_str(), 123_456).unwrap();
        write_pid_file(path.as_os_str(), 7).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "7");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    fn tempfile_directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("hull-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}
