//! The client's terminal, and descriptors that pass between processes.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// A terminal in raw mode, restored when this is dropped.
pub(crate) struct Raw<'fd> {
    terminal: BorrowedFd<'fd>,
    before: Termios,
}

impl<'fd> Raw<'fd> {
    /// Makes the terminal pass everything through unchanged.
    pub(crate) fn enter(terminal: BorrowedFd<'fd>) -> Result<Self, Errno> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Two connected sockets: ours, and the one that the terminal's master side is sent over.
pub(crate) fn console_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Takes the descriptor that was sent.
pub(crate) fn receive(socket: &OwnedFd) -> Result<OwnedFd, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 4096];
    rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message
            && let Some(file) = files.into_iter().next()
        {
            return Ok(file);
        }
    }
    Err(Errno::NODATA)
}

/// Gives the container's terminal the size of the client's, if that is one.
pub(crate) fn copy_size(from: impl AsFd, to: impl AsFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(from) {
        let _ = rustix::termios::tcsetwinsize(to, size);
    }
}
