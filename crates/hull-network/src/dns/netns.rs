//! Sockets in the container's network namespace and in the machine's.
//!
//! A socket belongs for ever to the namespace in which it was made. The monitor stays in the machine's namespace and
//! enters the container's for the time of one `socket(2)`, as only single-threaded processes may.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::Error;

/// Where containers find their resolver.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The namespace that a query goes out from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The container's: its addresses, routes and firewall rules apply.
    Container,
    /// The one that this process is in.
    Machine,
}

/// The two namespaces.
#[derive(Debug)]
pub(super) struct Namespaces {
    container: OwnedFd,
    own: OwnedFd,
}

impl Namespaces {
    pub(super) fn new(container: OwnedFd) -> Result<Self, Error> {
        let path = "/proc/thread-self/ns/net";
        let own = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::system("open", path))?;
        Ok(Self { container, own })
    }

    /// The container's.
    pub(super) fn container(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }

    /// Does something in the container's namespace. This process is back in its own afterwards, or the answer is an
    /// error: the caller then has nothing that came of it.
    pub(super) fn inside<T, E: From<Errno>>(&self, action: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.container.as_fd(), network)?;
        let result = action();
        // Memory for a moment is all that this can lack.
        for _ in 0..1000 {
            match move_into_link_name_space(self.own.as_fd(), network) {
                Ok(()) => return result,
                Err(Errno::NOMEM | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Errno::NOMEM.into())
    }

    /// A socket for one query, not connected yet.
    pub(super) fn socket(&self, place: Place, address: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let make = || rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
        match place {
            Place::Container => self.inside(make),
            Place::Machine => make(),
        }
    }

    /// The sockets that the container's queries come to: UDP and TCP on one port of [`ADDRESS`] that the kernel chose.
    pub(super) fn listeners(&self) -> Result<(OwnedFd, OwnedFd, u16), Error> {
        let listen = || -> Result<_, Errno> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // The port that UDP gets may be taken for TCP, if unlikely.
            let mut tries = 0;
            loop {
                let udp = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
                rustix::net::bind(&udp, &SocketAddrV4::new(ADDRESS, 0))?;
                let bound = SocketAddr::try_from(rustix::net::getsockname(&udp)?).map_err(|_| Errno::AFNOSUPPORT)?;
                let tcp = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
                match rustix::net::bind(&tcp, &SocketAddrV4::new(ADDRESS, bound.port())) {
                    Err(Errno::ADDRINUSE) if tries < 16 => tries += 1,
                    Err(errno) => return Err(errno),
                    Ok(()) => {
                        rustix::net::listen(&tcp, 64)?;
                        return Ok((udp, tcp, bound.port()));
                    }
                }
            }
        };
        self.inside(listen).map_err(Error::system("open sockets of the container's resolver on", ADDRESS.to_string()))
    }
}
