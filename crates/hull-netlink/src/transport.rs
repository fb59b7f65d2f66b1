//! A netlink socket of any protocol: requests out, answers matched to them by sequence number.
//!
//! The kernel handles a request while it is sent, so every acknowledgement is there when `send(2)` returns. Messages of
//! one datagram are handled in order, each with its own answer.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Error;
use crate::codec::{self, Message, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, Request};

/// The kernel fills a dump's datagrams up to this size.
const DATAGRAM: usize = 32 << 10;
/// A dump that keeps racing with changes is given up after this many repetitions.
pub(crate) const DUMP_ATTEMPTS: usize = 8;

/// An open socket. It acts on the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

pub(crate) fn socket(protocol: Option<Protocol>) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
}

impl Connection {
    /// Opens a socket in the calling thread's network namespace; no protocol means route netlink. `groups` is a mask of
    /// multicast groups.
    pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> Result<Self, Error> {
        let socket_error = |operation| move |errno| Error::Socket { operation, errno };
        let fd = socket(protocol).map_err(socket_error("open socket"))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(socket_error("bind socket"))?;
        // Without it errors have no text; old kernels lack it, which only costs the text.
        hull_sys::attributes::netlink_extended_acknowledgements(fd.as_fd());
        Ok(Self { fd, sequence: 0, buffer: Vec::new() })
    }

    /// Gives the memory back that answers were received in; the next one takes some again.
    pub(crate) fn rest(&mut self) {
        self.buffer = Vec::new();
    }

    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Takes `count` sequence numbers; gives the first.
    pub(crate) fn take_sequences(&mut self, count: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    pub(crate) fn send(&self, operation: &'static str, bytes: &[u8]) -> Result<(), Error> {
        rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty()))
            .map_err(|errno| Error::Socket { operation, errno })
            .map(drop)
    }

    /// Receives one datagram and gives its messages to `each`, until that says `false`. `None` means that no datagram is
    /// there and `flags` say not to wait.
    pub(crate) fn receive(
        &mut self,
        operation: &'static str,
        flags: RecvFlags,
        mut each: impl FnMut(&Message<'_>) -> Result<bool, Error>,
    ) -> Result<Option<bool>, Error> {
        self.buffer.resize(DATAGRAM, 0);
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC | flags));
        let (filled, whole) = match received {
            Ok(lengths) => lengths,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(Error::Socket { operation, errno }),
        };
        if whole > filled {
            return Err(Error::Malformed { operation, what: "datagram longer than 32 KiB" });
        }
        for message in codec::messages(&self.buffer[..filled]) {
            let message = message.map_err(|what| Error::Malformed { operation, what })?;
            if !each(&message)? {
                return Ok(Some(false));
            }
        }
        Ok(Some(true))
    }

    /// Sends a request and gives each answer that is not the final acknowledgement to `each`. Says whether a dump raced
    /// with a change.
    pub(crate) fn transact(
        &mut self,
        operation: &'static str,
        object: &str,
        request: &[u8],
        mut each: impl FnMut(&Message<'_>) -> Result<(), &'static str>,
    ) -> Result<bool, Error> {
        let malformed = |what| Error::Malformed { operation, what };
        self.send(operation, request)?;
        let sequence = self.sequence;
        let mut interrupted = false;
        loop {
            let more = self.receive(operation, RecvFlags::empty(), |message| {
                if message.sequence != sequence {
                    return Ok(true);
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE => Ok(false),
                    NLMSG_ERROR => refusal(message, operation, object).map_or(Ok(false), Err),
                    _ => each(message).map_err(malformed).map(|()| true),
                }
            })?;
            if more == Some(false) {
                return Ok(interrupted);
            }
        }
    }

    /// Sends requests, each with `NLM_F_ACK`, in one datagram. All are carried out, whatever the ones before gave; the
    /// first refusal is the error. Sequence numbers are put in here.
    pub(crate) fn pipeline(&mut self, requests: Vec<(&'static str, &str, Request)>) -> Result<(), Error> {
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        let first = self.take_sequences(count);
        let mut bytes = Vec::with_capacity(512);
        let mut names = Vec::with_capacity(requests.len());
        let mut sequence = first;
        for (operation, object, request) in requests {
            bytes.extend_from_slice(&request.sequence(sequence).finish());
            sequence = sequence.wrapping_add(1);
            names.push((operation, object));
        }
        let Some((operation, _)) = names.first().copied() else { return Ok(()) };
        self.send(operation, &bytes)?;
        let (mut answered, mut failed) = (0, None);
        while answered < count {
            self.receive(operation, RecvFlags::empty(), |message| {
                let position = message.sequence.wrapping_sub(first);
                if let Some((operation, object)) = names.get(position as usize)
                    && message.kind == NLMSG_ERROR
                {
                    answered += 1;
                    failed = failed.take().or_else(|| refusal(message, operation, object));
                }
                Ok(true)
            })?;
        }
        failed.map_or(Ok(()), Err)
    }

    pub(crate) fn acknowledged(
        &mut self,
        operation: &'static str,
        object: &str,
        request: Request,
    ) -> Result<(), Error> {
        self.transact(operation, object, &request.finish(), |_| Ok(())).map(drop)
    }
}

/// The error of an `NLMSG_ERROR` message; none for an acknowledgement.
pub(crate) fn refusal(message: &Message<'_>, operation: &'static str, object: &str) -> Option<Error> {
    match codec::error_of(message) {
        Ok((0, _)) => None,
        Ok((code, message)) => {
            let errno = Errno::from_raw_os_error(code);
            Some(Error::Refused { operation, object: object.to_owned(), errno, message })
        }
        Err(what) => Some(Error::Malformed { operation, what }),
    }
}
