//! The container's own end: its namespace, the devices in it, their addresses and routes.
//!
//! A device is born with the switches that it needs. Changing its own `disable_ipv6` afterwards costs the kernel's lock of
//! all links, which the system call does not wait for but tries again and again, spinning, for as long as anybody else
//! holds it (milliseconds, when containers come and go); the defaults of a namespace are changed without it.

use std::fs::{File, OpenOptions};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use hull_netlink::{Address, Ready, Socket, in_namespace};
use rustix::io::Errno;

use crate::Error;
use crate::host;
use crate::record::{Driver, Endpoint, Network};

/// The loopback device of every namespace.
const LOOPBACK: u32 = 1;

/// A container's network namespace, to put devices into.
#[derive(Debug)]
pub(crate) struct Inside {
    socket: Socket,
    /// Whether devices have IPv6 at all.
    ipv6: Option<Switch>,
    /// Whether they listen to routers.
    routers: Option<Switch>,
}

/// What devices of a namespace are born with. It is as it was again when this is dropped.
#[derive(Debug)]
struct Switch {
    path: PathBuf,
    /// Open in its namespace, and good from any.
    file: File,
    /// Why it cannot be written. It may be as it should all the same.
    refused: Option<std::io::Error>,
    before: u8,
    now: u8,
}

impl Switch {
    /// Opens one of the calling thread's namespace. A kernel that has none of the name needs none.
    fn open(name: &str) -> Result<Option<Self>, Error> {
        let path = Path::new("/proc/sys/net/ipv6/conf/default").join(name);
        let (file, refused) = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => (file, None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => (File::open(&path).map_err(Error::io("open", &path))?, Some(error)),
        };
        let mut value = [0];
        file.read_exact_at(&mut value, 0).map_err(Error::io("read", &path))?;
        Ok(Some(Self { path, file, refused, before: value[0], now: value[0] }))
    }

    fn set(&mut self, value: u8) -> Result<(), Error> {
        if self.now != value {
            if let Some(error) = self.refused.take() {
                return Err(Error::io("write", &self.path)(error));
            }
            self.file.write_all_at(&[value], 0).map_err(Error::io("write", &self.path))?;
            self.now = value;
        }
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // It was changed a moment ago.
        let _ = self.set(self.before);
    }
}

fn has_ipv6(network: &Network) -> bool {
    network.pool(false).is_some()
}

impl Inside {
    /// Enters a namespace that devices of these networks will come to.
    pub(crate) fn open(namespace: BorrowedFd<'_>, networks: &[Network]) -> Result<Self, Error> {
        in_namespace(namespace, || {
            Ok::<_, Error>(Self {
                socket: Socket::open()?,
                ipv6: Switch::open("disable_ipv6")?,
                routers: if networks.iter().any(has_ipv6) { Switch::open("accept_ra")? } else { None },
            })
        })?
    }

    /// The next device that is made in the namespace will be one of this network's.
    pub(crate) fn expect(&mut self, network: &Network) -> Result<(), Error> {
        let ipv6 = has_ipv6(network);
        if let Some(disabled) = &mut self.ipv6 {
            // Nobody else makes addresses for it either (CVE-2024-32473).
            disabled.set(if ipv6 { b'0' } else { b'1' })?;
        }
        if ipv6 && let Some(routers) = &mut self.routers {
            // Routers are told by us, not by other containers.
            routers.set(b'0')?;
        }
        Ok(())
    }

    /// Brings devices up, with their addresses; gives the index of each. The loopback device too: the container's process
    /// may not have come to that yet.
    pub(crate) fn dress(&mut self, networks: &[Network], endpoints: &[&Endpoint]) -> Result<Vec<u32>, Error> {
        let mut indexes = Vec::with_capacity(endpoints.len());
        let mut addresses: Vec<Vec<Address>> = Vec::with_capacity(endpoints.len());
        for (network, endpoint) in networks.iter().zip(endpoints) {
            indexes.push(self.socket.link(&endpoint.interface)?.index);
            let local = has_ipv6(network).then(|| (host::link_local(endpoint.mac.0), 64));
            let all = local.into_iter().chain(endpoint.addresses.iter().copied());
            addresses.push(all.map(|(address, prefix)| Address::global(address, prefix)).collect());
        }
        let mut devices = vec![Ready { index: LOOPBACK, no_link_local: false, addresses: &[] }];
        for ((network, index), addresses) in networks.iter().zip(&indexes).zip(&addresses) {
            devices.push(Ready { index: *index, no_link_local: has_ipv6(network), addresses });
        }
        self.socket.set_up_with(&devices)?;
        Ok(indexes)
    }

    /// Gives the container the default routes of a network by one of its devices.
    pub(crate) fn set_gateway(&mut self, network: &Network, endpoint: &Endpoint, index: u32) -> Result<(), Error> {
        set_gateway(&mut self.socket, network, endpoint, index)
    }
}

/// [`Inside::set_gateway`], by a socket of the namespace.
pub(crate) fn set_gateway(
    inside: &mut Socket,
    network: &Network,
    endpoint: &Endpoint,
    index: u32,
) -> Result<(), Error> {
    let l3 = network.driver == Driver::Ipvlan && network.settings()?.ipvlan != hull_netlink::IpvlanMode::L2;
    for gateway in &endpoint.gateways {
        let any = if gateway.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let through = (!l3).then_some(*gateway);
        match inside.add_route(index, any, 0, through) {
            Err(hull_netlink::Error::Refused { errno: Errno::EXIST, .. }) => {}
            other => other?,
        }
    }
    Ok(())
}

/// The network namespace of a running process.
///
/// # Errors
/// `ENOENT` when it has ended.
pub fn namespace_of(pid: i32) -> Result<OwnedFd, Error> {
    namespace_at(Path::new(&format!("/proc/{pid}/ns/net")))
}

/// A network namespace by path.
///
/// # Errors
/// As `open(2)`, or when it is not one.
pub fn namespace_at(path: &Path) -> Result<OwnedFd, Error> {
    use rustix::fs::{Mode, OFlags};
    /// `NSFS_MAGIC`.
    const NSFS: i64 = 0x6e73_6673;
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .map_err(|errno| Error::io("open network namespace", path)(errno.into()))?;
    let kind = rustix::fs::fstatfs(fd.as_fd()).map_err(|errno| Error::io("examine", path)(errno.into()))?;
    if kind.f_type != NSFS {
        return Err(Error::invalid(format!("network namespace {}", path.display()), "it is none"));
    }
    Ok(fd)
}
