//! Connection tracking: flows that the kernel is to forget.
//!
//! The address translation of a flow is decided by its first packet. UDP flows have no end, so that one which began
//! before a port was published, or is older than the container behind it, would go where it went for as long as the
//! peer keeps sending.

use rustix::io::Errno;

use crate::Error;
use crate::codec::{NLM_F_ACK, Request};
use crate::transport::Connection;

/// `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK`.
const DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// Which parts of a tuple count: the protocol and the port that the first packet went to.
const PROTO_NUM_AND_DST_PORT: u32 = 1 << 3 | 1 << 5;
const IPPROTO_UDP: u8 = 17;

/// Forgets all UDP flows of the calling thread's network namespace whose first packet went to one of these ports, over
/// IPv4 (`true`) or IPv6. The kernel looks them up (Linux 5.8). One that does not track connections, or cannot choose
/// among them, has or keeps its flows, which is no error.
///
/// # Errors
/// [`Error::Refused`] without CAP_NET_ADMIN, [`Error::Socket`].
pub fn forget_udp(ports: impl IntoIterator<Item = (bool, u16)>) -> Result<(), Error> {
    let mut connection = None;
    for (ipv4, port) in ports {
        let connection = match &mut connection {
            Some(connection) => connection,
            empty => empty.insert(Connection::open(Some(rustix::net::netlink::NETFILTER), 0)?),
        };
        let family = if ipv4 { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
        let [family, _] = family.as_raw().to_le_bytes();
        let request = Request::new(DELETE, NLM_F_ACK, connection.next_sequence(), &[family, 0, 0, 0])
            .nested(CTA_TUPLE_ORIG, |tuple| {
                tuple.nested(CTA_TUPLE_PROTO, |proto| {
                    proto.attribute(CTA_PROTO_NUM, &[IPPROTO_UDP]).attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes())
                })
            })
            .nested(CTA_FILTER, |filter| {
                filter
                    .attribute_u32(CTA_FILTER_ORIG_FLAGS, PROTO_NUM_AND_DST_PORT)
                    .attribute_u32(CTA_FILTER_REPLY_FLAGS, 0)
            });
        match connection.acknowledged("forget flows to port", &port.to_string(), request) {
            Ok(()) | Err(Error::Refused { errno: Errno::NOENT, .. }) => {}
            Err(Error::Refused { errno: Errno::OPNOTSUPP | Errno::INVAL | Errno::PROTONOSUPPORT, .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
