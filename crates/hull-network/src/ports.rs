//! Ports of the machine: what users ask for, and the sockets that keep others from having them.
//!
//! A published port is a socket first: it is bound, so that a conflict is an error at the start and not a surprise later.
//! The container's monitor keeps it. TCP sockets listen when the container has started, because what the firewall does not lead to the container comes
//! here and is passed on ([`crate::Proxy`]): the machine's `::1`, IPv6 to a container without it, and everything where a
//! network says `publish_mode=proxy`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{ipv6_v6only, set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::Error;
use crate::record::Protocol;

/// Connections that wait to be passed on.
const BACKLOG: i32 = 1024;

/// A wish to publish a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Which.
    pub protocol: Protocol,
    /// Address of the machine; absent is every one of IPv4 and IPv6.
    pub host: Option<IpAddr>,
    /// Ports of the machine, of which the first free one is taken; absent is any.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// Port of the container.
    pub port: u16,
}

/// A port of the machine that is ours.
#[derive(Debug)]
pub struct Reservation {
    socket: OwnedFd,
    /// Which.
    pub protocol: Protocol,
    /// Address of the machine; `::` is IPv4's too if `both`.
    pub host: IpAddr,
    /// Both versions of IP.
    pub both: bool,
    /// Port of the machine.
    pub host_port: u16,
    /// The container's address and port.
    pub target: SocketAddr,
}

impl AsFd for Reservation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Reservation {
    /// The same in another image of the process that keeps it (`execve(2)`).
    #[must_use]
    pub fn resume(
        socket: OwnedFd,
        protocol: Protocol,
        host: IpAddr,
        both: bool,
        host_port: u16,
        target: SocketAddr,
    ) -> Self {
        Self { socket, protocol, host, both, host_port, target }
    }

    /// The socket, for whoever keeps it.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }
}

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A socket of the protocol; `both` makes one of IPv6 that is IPv4's too.
fn socket(protocol: Protocol, ipv4: bool) -> Result<OwnedFd, Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(rustix::net::ipproto::SCTP)),
    };
    let family = if ipv4 { AddressFamily::INET } else { AddressFamily::INET6 };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, number)
}

/// What is known of the machine's sockets while ports are taken one after the other.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// Sockets of IPv6 are IPv6's alone unless they say otherwise (`net.ipv6.bindv6only`).
    v6only: Option<bool>,
}

/// Whether the kernel has no such sockets: nobody can take the port then.
fn unknown(errno: Errno) -> bool {
    matches!(errno, Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT)
}

/// Whether the kernel has no sockets of a protocol.
pub(crate) fn unknown_to_kernel(protocol: Protocol) -> bool {
    socket(protocol, true).is_err_and(unknown)
}

/// What was found for a wish: the port and the sockets that keep it, which may be none where the kernel knows none.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) port: u16,
    /// Nothing was asked for: the container's own port is what is reached.
    pub(crate) routed: bool,
    pub(crate) sockets: Vec<(OwnedFd, IpAddr, bool)>,
}

impl Machine {
    /// Binds one address and port; `both` makes an IPv6 socket that is IPv4's too. Two calls for most ports: a socket that
    /// is bound is nobody else's, also before it listens ([`listen`]), unless both say that they share it.
    fn bind(&mut self, protocol: Protocol, host: IpAddr, both: bool, port: u16) -> Result<(OwnedFd, u16), Errno> {
        let socket = socket(protocol, host.is_ipv4())?;
        if host.is_ipv6() {
            let v6only = match self.v6only {
                Some(known) => known,
                None => *self.v6only.insert(ipv6_v6only(&socket)?),
            };
            if v6only == both {
                set_ipv6_v6only(&socket, !both)?;
            }
        }
        let address = SocketAddr::new(host, port);
        match rustix::net::bind(&socket, &address) {
            // The last connections to the port may still be waiting; a socket that others share may be listened at only.
            Err(Errno::ADDRINUSE) if protocol != Protocol::Udp => {
                set_socket_reuseaddr(&socket, true)?;
                rustix::net::bind(&socket, &address)?;
                rustix::net::listen(&socket, BACKLOG)?;
            }
            bound => bound?,
        }
        if port != 0 {
            return Ok((socket, port));
        }
        let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?).map_err(|_| Errno::AFNOSUPPORT)?;
        Ok((socket, bound.port()))
    }

    /// Takes a port of the machine at an address, or without one at all addresses of IPv4 (and of IPv6 with `ipv6`).
    pub(crate) fn reserve(
        &mut self,
        wish: &Publish,
        host: Option<IpAddr>,
        ipv4: bool,
        ipv6: bool,
    ) -> Result<Reserved, Error> {
        let ports = wish.host_ports.clone().unwrap_or(0..=0);
        let single = ports.start() == ports.end();
        let mut taken = None;
        for port in ports.clone() {
            let (address, both) = match host {
                Some(address) => (address, false),
                None if ipv6 => (ANY6, ipv4),
                None => (ANY4, false),
            };
            match self.bind(wish.protocol, address, both, port) {
                Ok((socket, port)) => {
                    return Ok(Reserved { port, routed: false, sockets: vec![(socket, address, both)] });
                }
                // A machine without IPv6.
                Err(errno) if unknown(errno) || (errno == Errno::ADDRNOTAVAIL && host.is_none()) => {
                    if host.is_some() || address.is_ipv4() || !ipv4 {
                        // Its port is chosen among Hull's own.
                        return if port == 0 && wish.protocol != Protocol::Sctp {
                            Err(refused(wish, address, port, errno))
                        } else {
                            Ok(Reserved { port, routed: false, sockets: Vec::new() })
                        };
                    }
                    match self.bind(wish.protocol, ANY4, false, port) {
                        Ok((socket, port)) => {
                            return Ok(Reserved { port, routed: false, sockets: vec![(socket, ANY4, false)] });
                        }
                        Err(errno) if unknown(errno) && (port != 0 || wish.protocol == Protocol::Sctp) => {
                            return Ok(Reserved { port, routed: false, sockets: Vec::new() });
                        }
                        Err(Errno::ADDRINUSE) if !single => taken = Some(port),
                        Err(errno) => return Err(refused(wish, ANY4, port, errno)),
                    }
                }
                Err(Errno::ADDRINUSE) if !single => taken = Some(port),
                Err(errno) => return Err(refused(wish, host.unwrap_or(if ipv4 { ANY4 } else { ANY6 }), port, errno)),
            }
        }
        let port = taken.unwrap_or(*ports.end());
        Err(refused(wish, host.unwrap_or(ANY4), port, Errno::ADDRINUSE))
    }
}

fn refused(wish: &Publish, address: IpAddr, port: u16, errno: Errno) -> Error {
    let protocol = wish.protocol.as_str();
    if errno == Errno::ADDRINUSE {
        return Error::PortTaken { address, port, protocol, owner: String::new() };
    }
    Error::PortRefused { address, port, protocol, errno }
}

/// Makes a socket of TCP listen. What it leaves behind does not keep the next one from the port.
pub(crate) fn listen(reservation: &Reservation) -> Result<(), Errno> {
    set_socket_reuseaddr(reservation, true)?;
    rustix::net::listen(reservation, BACKLOG)
}

pub(crate) fn reservation(
    wish: &Publish,
    (socket, host, both): (OwnedFd, IpAddr, bool),
    host_port: u16,
    target: SocketAddr,
) -> Reservation {
    Reservation { socket, protocol: wish.protocol, host, both, host_port, target }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(protocol: Protocol, host_ports: Option<RangeInclusive<u16>>) -> Publish {
        Publish { protocol, host: None, host_ports, port: 80 }
    }

    #[test]
    fn a_port_is_taken_once() {
        let local = Some(IpAddr::from([127, 0, 0, 1]));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let first = Machine::default().reserve(&wish(protocol, None), local, true, true).unwrap();
            let port = first.port;
            assert!(port >= 1024);
            let again = Machine::default().reserve(&wish(protocol, Some(port..=port)), local, true, true).unwrap_err();
            assert!(matches!(again, Error::PortTaken { .. }), "{again}");
            // The wildcard address is in conflict too.
            let all = Machine::default().reserve(&wish(protocol, Some(port..=port)), None, true, true).unwrap_err();
            assert!(matches!(all, Error::PortTaken { .. }), "{all}");
            drop(first);
            assert_eq!(
                Machine::default().reserve(&wish(protocol, Some(port..=port)), local, true, true).unwrap().port,
                port
            );
        }
    }

    #[test]
    fn an_address_of_nobody_is_refused() {
        let error = Machine::default()
            .reserve(&wish(Protocol::Tcp, None), Some("192.0.2.77".parse().unwrap()), true, true)
            .unwrap_err();
        assert!(matches!(error, Error::PortRefused { errno: Errno::ADDRNOTAVAIL, .. }), "{error}");
    }
}
