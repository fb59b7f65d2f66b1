//! Route netlink over one blocking socket.
