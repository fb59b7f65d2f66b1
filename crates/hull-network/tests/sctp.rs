//! Bytes of SCTP through a published port. The kernel that translates them need not speak SCTP itself, and most here do
//! not, so both ends are raw sockets that do the first two steps of an association (RFC 9260, section 5.1).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod lab;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use hull_netlink::in_namespace;
use hull_network::{Protocol, Publish};
use lab::{MACHINE, MACHINE6, REMOTE, REMOTE6, in_lab, ip};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recvfrom, sendto, socket};

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// What tells one packet from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packet {
    from: u16,
    to: u16,
    /// Nothing in the first packet; then what that one asked for.
    tag: u32,
    kind: u8,
    wanted_tag: u32,
}

/// CRC-32C, which is the checksum of SCTP (RFC 9260, appendix A).
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    })
}

impl Packet {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = [self.from.to_be_bytes(), self.to.to_be_bytes()].concat();
        bytes.extend_from_slice(&self.tag.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[self.kind, 0, 0, 20]);
        bytes.extend_from_slice(&self.wanted_tag.to_be_bytes());
        bytes.extend_from_slice(&65_536_u32.to_be_bytes());
        bytes.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 1]);
        let sum = checksum(&bytes);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), 32, "{bytes:?}");
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let port = |at: usize| u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
        let packet = Self { from: port(0), to: port(2), tag: word(4), kind: bytes[12], wanted_tag: word(16) };
        assert_eq!(packet.bytes(), bytes, "the checksum went with the ports");
        packet
    }
}

/// Somebody who sends and hears SCTP.
struct End(OwnedFd, bool);

impl End {
    fn new(namespace: BorrowedFd<'_>, ipv4: bool) -> Self {
        let family = if ipv4 { AddressFamily::INET } else { AddressFamily::INET6 };
        let made = in_namespace(namespace, || socket(family, SocketType::RAW, Some(rustix::net::ipproto::SCTP)));
        let made = made.unwrap().unwrap();
        rustix::net::sockopt::set_socket_timeout(
            &made,
            rustix::net::sockopt::Timeout::Recv,
            Some(Duration::from_secs(2)),
        )
        .unwrap();
        Self(made, ipv4)
    }

    fn send(&self, to: IpAddr, packet: Packet) {
        sendto(&self.0, &packet.bytes(), SendFlags::empty(), &SocketAddr::new(to, 0)).unwrap();
    }

    /// The next packet to a port, and who it is from; nothing if none comes.
    fn hear(&self, port: u16) -> Option<(IpAddr, Packet)> {
        let mut buffer = [0_u8; 256];
        loop {
            let (_, length, from) = recvfrom(&self.0, &mut buffer, RecvFlags::empty()).ok()?;
            // Only those of IPv4 come with their header.
            let header = if self.1 { usize::from(buffer[0] & 15) * 4 } else { 0 };
            let packet = Packet::read(&buffer[header..length]);
            if packet.to == port {
                return Some((SocketAddr::try_from(from.unwrap()).unwrap().ip(), packet));
            }
        }
    }
}

#[test]
fn root_sctp_goes_through_a_published_port_and_back() {
    in_lab(|lab| {
        lab.create("n", |wish| wish.ipv6 = Some(true));
        let published = |port| Publish { protocol: Protocol::Sctp, host: None, host_ports: Some(3868..=3868), port };
        let container = lab.start("one", &["n"], &[published(5000)]);
        for (machine, remote) in [(ip(MACHINE), ip(REMOTE)), (ip(MACHINE6), ip(REMOTE6))] {
            let outside = End::new(lab.remote.as_fd(), remote.is_ipv4());
            let inside = End::new(container.as_fd(), remote.is_ipv4());
            let first = Packet { from: 40_000, to: 3868, tag: 0, kind: INIT, wanted_tag: 7 };
            outside.send(machine, first);
            let heard = inside.hear(5000).expect("a packet through the published port");
            assert_eq!(heard, (remote, Packet { to: 5000, ..first }), "its sender is seen");
            let answer = Packet { from: 5000, to: 40_000, tag: 7, kind: INIT_ACK, wanted_tag: 9 };
            inside.send(remote, answer);
            let heard = outside.hear(40_000).expect("an answer");
            assert_eq!(heard, (machine, Packet { from: 3868, ..answer }), "from where it was asked");

            outside.send(machine, Packet { from: 40_001, to: 3869, ..first });
            assert_eq!(inside.hear(5000), None, "no other port is open");
        }
    });
}
