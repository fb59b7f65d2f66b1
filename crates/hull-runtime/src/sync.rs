//! The sync socket between the runtime and the process it is making.
//!
//! A `SOCK_SEQPACKET` pair carrying 16-byte records in the machine's byte order, used with `read(2)` and `write(2)`
//! only, so that a strict system call filter does not get in the way of the last ones:
//!
//! ```text
//!  0        2        4        6        8                12               16
//!  | kind   | step   | index  | 0      | errno or value | second value   |
//! ```
//!
//! End of file means to the parent that the program started (the child's end is close-on-exec), and to the child that
//! the runtime died: it ends too.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::failure::{Failure, Step};

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    /// Child: a step failed; the rest of the record says which.
    Failed = 1,
    /// Child of a joining start: the container's process has this ID.
    Pid = 2,
    /// Child: mounts are made, run the runtime's hooks.
    Hooks = 3,
    /// Child: everything is set up but the last steps before `execve`.
    Ready = 4,
    /// Child: this descriptor number is the seccomp listener.
    Listener = 5,
    /// Parent: user namespace maps are written.
    Mapped = 6,
    /// Parent: the process is in its cgroups and its devices are moved.
    Attached = 7,
    /// Parent: go on.
    Continue = 8,
    /// Child: it no longer dies with the runtime.
    Detached = 9,
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) step: u16,
    pub(crate) index: u16,
    pub(crate) value: i32,
}

const SIZE: usize = 16;

impl Record {
    pub(crate) fn of(kind: Kind) -> Self {
        Self { kind, step: 0, index: 0, value: 0 }
    }

    pub(crate) fn with(kind: Kind, value: i32) -> Self {
        Self { kind, step: 0, index: 0, value }
    }

    pub(crate) fn failed(failure: Failure) -> Self {
        Self {
            kind: Kind::Failed,
            step: failure.step as u16,
            index: failure.index,
            value: failure.errno.raw_os_error(),
        }
    }

    /// The failure that a `Failed` record carries.
    pub(crate) fn failure(self) -> Failure {
        Failure {
            step: Step::from_number(self.step),
            index: self.index,
            errno: Errno::from_raw_os_error(self.value.clamp(1, 4095)),
        }
    }

    fn encode(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[0..2].copy_from_slice(&(self.kind as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.step.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.index.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SIZE]) -> Option<Self> {
        let short = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let kind = match short(0) {
            1 => Kind::Failed,
            2 => Kind::Pid,
            3 => Kind::Hooks,
            4 => Kind::Ready,
            5 => Kind::Listener,
            6 => Kind::Mapped,
            7 => Kind::Attached,
            8 => Kind::Continue,
            9 => Kind::Detached,
            _ => return None,
        };
        let value = i32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        Some(Self { kind, step: short(2), index: short(4), value })
    }
}

/// A connected pair: the parent's end, the child's end.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one record.
pub(crate) fn send(socket: impl AsFd, record: Record) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::io::write(&socket, &record.encode())).map(drop)
}

/// Receives one record; `None` at the end of the stream.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<Record>, Errno> {
    let mut bytes = [0_u8; SIZE];
    let mut read = || rustix::io::retry_on_intr(|| rustix::io::read(&socket, &mut bytes));
    // Unix sockets report once, and before anything else, that the peer ended without having read everything; the
    // records that it sent until then are still there.
    let first = read();
    let answer = if first == Err(Errno::CONNRESET) { read() } else { first };
    match answer {
        Ok(0) | Err(Errno::CONNRESET) => Ok(None),
        Ok(SIZE) => Record::decode(&bytes).map(Some).ok_or(Errno::PROTO),
        Ok(_) => Err(Errno::PROTO),
        Err(errno) => Err(errno),
    }
}

/// In the child: waits for one kind of record. The runtime's death is an error like any other.
pub(crate) fn expect(socket: impl AsFd, kind: Kind) -> Result<(), Failure> {
    match receive(socket) {
        Ok(Some(record)) if record.kind == kind => Ok(()),
        Ok(_) => Err(Failure::new(Step::Sync, Errno::PIPE)),
        Err(errno) => Err(Failure::new(Step::Sync, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_of_a_peer_that_stopped_listening_are_heard() {
        let (parent, child) = pair().unwrap();
        send(&parent, Record::of(Kind::Attached)).unwrap();
        let failure = Failure::at(Step::Mount, 1, Errno::INVAL);
        send(&child, Record::failed(failure)).unwrap();
        drop(child);
        assert_eq!(receive(&parent).unwrap().map(Record::failure), Some(failure));
        assert!(receive(&parent).unwrap().is_none());
    }

    #[test]
    fn records_survive_the_socket() {
        let (parent, child) = pair().unwrap();
        let failure = Failure::at(Step::Mount, 7, Errno::NOENT);
        send(&child, Record::failed(failure)).unwrap();
        assert_eq!(receive(&parent).unwrap().unwrap().failure(), failure);
        drop(child);
        assert!(receive(&parent).unwrap().is_none());
    }
}
