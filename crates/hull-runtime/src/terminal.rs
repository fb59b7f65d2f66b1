//! The container's terminal: a pseudo-terminal of its own devpts, whose master side goes to whoever asked for it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::Winsize;

const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Sends one descriptor with a short text over a connected Unix socket, as the console socket protocol wants it.
///
/// # Errors
/// As `sendmsg(2)`.
pub fn send_fd(socket: impl AsFd, text: &[u8], file: impl AsFd) -> Result<(), Errno> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    rustix::io::retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)).map(drop)
}

/// Opens a pseudo-terminal through an already opened `ptmx`: unlocks it and opens the other side by descriptor, so that
/// no path of the container is followed (CVE-2025-52565). Returns master and slave.
///
/// # Errors
/// `ENODEV` when the file is not on a devpts, else as the ioctls.
pub fn open_pair(master: OwnedFd) -> Result<(OwnedFd, OwnedFd), Errno> {
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let statfs = rustix::fs::fstatfs(&slave)?;
    if statfs.f_type as u64 != DEVPTS_MAGIC {
        return Err(Errno::NODEV);
    }
    Ok((master, slave))
}

/// For a process that joins a running container: opens a terminal of the container's devpts.
///
/// # Errors
/// As `open(2)` and [`open_pair`].
pub fn open_joined() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::open(c"/dev/pts/ptmx", flags, Mode::empty())?;
    open_pair(master)
}

/// Sets a terminal's size in characters.
///
/// # Errors
/// As the `TIOCSWINSZ` ioctl.
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> Result<(), Errno> {
    rustix::termios::tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
}

/// In the child: makes the terminal its controlling terminal and its standard streams.
pub(crate) fn adopt(slave: &OwnedFd) -> Result<(), Errno> {
    rustix::process::ioctl_tiocsctty(slave)?;
    rustix::stdio::dup2_stdin(slave)?;
    rustix::stdio::dup2_stdout(slave)?;
    rustix::stdio::dup2_stderr(slave)
}
