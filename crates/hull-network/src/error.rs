//! Why something with a network cannot be done. Texts follow Docker's where scripts read them, and name the other party.

use std::net::IpAddr;

use crate::subnet::Subnet;

/// Why something with a network cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such network.
    #[error("network {0} not found")]
    NotFound(String),
    /// Several networks' IDs begin so.
    #[error("network {0} is ambiguous ({1} matches found based on ID prefix)")]
    Ambiguous(String, usize),
    /// The name is taken.
    #[error("network with name {0} already exists")]
    Exists(String),
    /// The name cannot be a network's.
    #[error("invalid network name {0:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed")]
    InvalidName(String),
    /// `bridge`, `host` and `none` are always there.
    #[error("{0} is a pre-defined network and cannot be removed")]
    Predefined(String),
    /// Names of what is always there cannot be given to others.
    #[error("operation is not permitted on predefined {0} network")]
    PredefinedName(String),
    /// Containers are on it.
    #[error("error while removing network: network {name} has active endpoints ({})", .containers.join(", "))]
    InUse {
        /// The network.
        name: String,
        /// Each as `name:"NAME" id:"ID"`.
        containers: Vec<String>,
    },
    /// An option or value that cannot be.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// Which option, in the user's words.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// No such driver.
    #[error("plugin {0:?} not found; use bridge, macvlan or ipvlan")]
    UnknownDriver(String),
    /// The addresses are used by another network.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space; use other addresses than {subnet}, which meets {other}"
    )]
    Overlap {
        /// What was asked for.
        subnet: Subnet,
        /// Network or route in the way.
        other: String,
    },
    /// Every default network is taken.
    #[error(
        "all predefined address pools have been fully subnetted: give --subnet, or remove networks (hull network prune)"
    )]
    PoolsExhausted,
    /// All addresses are taken.
    #[error("no available {family} addresses on network {network}: all of {subnet} are taken")]
    AddressesExhausted {
        /// The network.
        network: String,
        /// Its addresses.
        subnet: Subnet,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// The address is another container's.
    #[error("Address already in use: {address} on network {network} is {owner}")]
    AddressTaken {
        /// Which.
        address: IpAddr,
        /// The network.
        network: String,
        /// Whose.
        owner: String,
    },
    /// The address is of no subnet of the network.
    #[error("invalid endpoint settings: no configured subnet contains IP address {address} (network {network})")]
    AddressOutside {
        /// Which.
        address: IpAddr,
        /// The network.
        network: String,
    },
    /// Addresses can be asked for only where the user chose the subnet.
    #[error(
        "invalid endpoint settings: user specified IP address is supported only when connecting to networks with user configured subnets"
    )]
    AddressUnsupported,
    /// The container is there already.
    #[error("endpoint with name {container} already exists in network {network}")]
    Connected {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// The container is not there.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// The network's kind has no such thing.
    #[error("{0}")]
    Unsupported(String),
    /// The host port is taken.
    #[error("Bind for {address}:{port}/{protocol} failed: port is already allocated{owner}")]
    PortTaken {
        /// Address of the machine.
        address: IpAddr,
        /// The port.
        port: u16,
        /// `tcp`, `udp`, `sctp`.
        protocol: &'static str,
        /// Who has it, with a leading space; may be empty.
        owner: String,
    },
    /// The host port cannot be had for another reason.
    #[error("failed to bind host port {address}:{port}/{protocol}: {errno}")]
    PortRefused {
        /// Address of the machine.
        address: IpAddr,
        /// The port.
        port: u16,
        /// `tcp`, `udp`, `sctp`.
        protocol: &'static str,
        /// The kernel's answer.
        errno: rustix::io::Errno,
    },
    /// The device of that name is somebody else's.
    #[error(
        "network device {name} exists and is not of network {network}: rename or remove it, or give another name with --opt com.docker.network.bridge.name=NAME"
    )]
    ForeignDevice {
        /// Its name.
        name: String,
        /// Who wants it.
        network: String,
    },
    /// The bridge takes no more ports.
    #[error(
        "bridge {bridge} of network {network} is full: the kernel takes 1023 ports; connect containers to another network"
    )]
    BridgeFull {
        /// The bridge.
        bridge: String,
        /// The network.
        network: String,
    },
    /// Several errors of a clean-up.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
    /// A file operation failed.
    #[error("{operation} {path}: {source}")]
    Io {
        /// Verb phrase.
        operation: &'static str,
        /// The file.
        path: String,
        /// The answer.
        source: std::io::Error,
    },
    /// A record that this version did not write.
    #[error("record of network {0} is damaged: {1}")]
    Damaged(String, String),
    /// The database.
    #[error(transparent)]
    Database(#[from] hull_db::Error),
    /// Locks and atomic files.
    #[error(transparent)]
    Fs(#[from] hull_fs::Error),
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] hull_netlink::Error),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn io(operation: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { operation, path, source }
    }

    /// One error of several, if there is any.
    pub(crate) fn collect(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// Whether the kernel said so.
    pub(crate) fn is(&self, wanted: rustix::io::Errno) -> bool {
        matches!(self, Self::Netlink(hull_netlink::Error::Refused { errno, .. }) if *errno == wanted)
    }
}
