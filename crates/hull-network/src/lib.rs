//! Networks of containers: records, addresses, bridges and other links, one firewall table, published ports, names.
//!
//! Everything is said to the kernel over netlink, by one thread; no program is run. Records are committed before the
//! kernel objects that they describe, so that whoever comes after a killed command can finish or undo its work.

pub mod dns;
pub mod files;
