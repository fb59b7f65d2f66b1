//! After kills and other programs: what is half-made is finished or undone, what is missing is made again, and what is
//! wrong is said in words.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use hull_db::Sync;
use hull_netlink::nft;

use crate::endpoints::sweep;
use crate::firewall::{self, foreign};
use crate::hairpin::stranded;
use crate::host::{self, Host};
use crate::networks::Networks;
use crate::record::{Driver, Protocol};
use crate::{Error, bridge, store};

/// How long after a change of the firewall it is looked at: whoever made it is often not done.
const SETTLE: Duration = Duration::from_millis(100);

/// So many endpoints are forgotten at once where nobody waits for it; others may wait for the database.
const MANY: u32 = 64;

/// Something that is wrong, in words, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Containers do not work as they should; otherwise it is good to know.
    pub broken: bool,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Networks {
    /// Takes containers that are not `alive` off their networks, finishes removals that were begun, and frees addresses
    /// whose devices are gone. Costs one look at the records when there is nothing to do.
    ///
    /// # Errors
    /// All that could not be done; the rest was.
    pub fn repair(&self, alive: &dyn Fn(&str) -> bool, said: &mut Vec<String>) -> Result<(), Error> {
        let (containers, removing, leaving) = self.db.read(|connection| {
            Ok::<_, Error>((
                store::containers(connection)?,
                store::removing(connection)?,
                !store::leaving(connection, 1)?.is_empty(),
            ))
        })?;
        let mut errors = Vec::new();
        for container in containers.iter().filter(|container| !alive(container)) {
            errors.extend(self.detach(container).err());
        }
        let mut host = Host::default();
        for network in removing {
            let bridges = self.db.read(|connection| store::last_bridge(connection, &network.id))? + 1;
            errors.extend(self.erase(&mut host, &network, bridges, said).err());
        }
        if leaving || !containers.is_empty() {
            let swept = self.db.write(Sync::Normal, |connection| sweep(&mut host, connection, u32::MAX));
            errors.extend(swept.err());
        }
        Error::collect(errors)
    }

    /// Frees addresses of containers that have ended, as far as the kernel has removed their devices by now. For whoever
    /// nobody waits for: those that start free some too, but only a few.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Netlink`].
    pub fn sweep(&self) -> Result<(), Error> {
        if self.db.read(|connection| store::leaving(connection, 1))?.is_empty() {
            return Ok(());
        }
        self.db.write(Sync::Normal, |connection| sweep(&mut Host::default(), connection, MANY))
    }

    /// Looks at the firewall with all its elements and makes it whole. Gives whether anything was missing.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn mend(&self, said: &mut Vec<String>) -> Result<bool, Error> {
        bridge::mend(&mut Host::default(), &self.db, &self.state, said)
    }

    /// What is wrong, in words. Changes nothing.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub fn doctor(&self) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        let mut find = |broken, what: String, remedy: &str| {
            findings.push(Finding { broken, what, remedy: remedy.to_owned() });
        };
        let mut host = Host::default();
        let contents = bridge::contents(&self.db, &self.state)?;
        let mut up = Vec::new();
        for (network, _) in &contents.networks {
            let link = host.link(&network.device)?;
            let used = !self.endpoints(network)?.is_empty();
            match link {
                None if used => find(
                    true,
                    format!("bridge {} of network {} is gone, and containers are on it", network.device, network.name),
                    "start the containers again",
                ),
                None => {}
                Some(link) => {
                    if !link.is_up() {
                        let what = format!("bridge {} of network {} is down", network.device, network.name);
                        find(true, what, "set it up: ip link set dev BRIDGE up");
                    }
                    up.push(network.clone());
                }
            }
        }
        if up.is_empty() {
            return Ok(findings);
        }
        if !firewall::is_whole(host.firewall()?, &contents, true)? {
            find(
                true,
                "the firewall's table inet hull is not as it should be: somebody has emptied or changed it".to_owned(),
                "hull network doctor --fix",
            );
        }
        let names = foreign::names(up.iter().map(|network| network.device.as_str()));
        for obstacle in foreign::unserved(host.firewall()?, &names)? {
            find(
                true,
                format!("the chain {obstacle} of another program drops what goes through containers' bridges"),
                "hull network doctor --fix",
            );
        }
        let stranded = stranded(&mut host, &self.db)?;
        if !stranded.is_empty() {
            let names: Vec<&str> = stranded.iter().map(|(_, endpoint)| endpoint.container_name.as_str()).collect();
            let what = format!(
                "bridged packets are filtered since {} started: they do not reach their own published ports",
                names.join(", ")
            );
            find(true, what, "hull network doctor --fix");
        }
        let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
        if legacy.lines().any(|line| line == "filter") {
            find(
                false,
                "legacy iptables has a filter table, which cannot be seen from here: if its FORWARD chain drops, containers have \
                 no way out"
                    .to_owned(),
                "iptables-legacy -S FORWARD",
            );
        }
        let sctp = contents.ports.iter().filter(|(_, one)| one.protocol == Protocol::Sctp).count();
        if sctp > 0 && crate::ports::unknown_to_kernel(Protocol::Sctp) {
            find(
                false,
                format!(
                    "{sctp} published ports are SCTP's, of which the kernel has no sockets: they are kept from other \
                     containers by Hull's records, and no program of the machine can have them"
                ),
                "modprobe sctp, where the kernel has it",
            );
        }
        let uplinks = host.uplinks()?;
        if uplinks.is_empty() {
            find(false, "the machine has no default route: containers do not reach the outside".to_owned(), "ip route");
        }
        for network in up.iter().filter(|network| !network.internal) {
            let forwards = |name: &str| host::switch(&format!("ipv4/conf/{name}/forwarding")) == "1";
            let all = host::switch("ipv4/ip_forward") == "1";
            let mut blocked: Vec<&str> = uplinks
                .iter()
                .filter(|(route, _)| route.destination.is_ipv4())
                .map(|(_, link)| link.name.as_str())
                .collect();
            blocked.push(&network.device);
            blocked.retain(|name| !forwards(name));
            blocked.sort_unstable();
            blocked.dedup();
            if network.pool(true).is_some() && !all && !blocked.is_empty() {
                let what = format!(
                    "IPv4 forwarding is off for {}: network {} has no way out",
                    blocked.join(", "),
                    network.name
                );
                find(true, what, "sysctl net.ipv4.conf.DEVICE.forwarding=1");
            }
            if let Some((_, link)) = uplinks.first()
                && let Some(bridge) = host.link(&network.device)?
                && bridge.mtu > link.mtu
            {
                find(
                    false,
                    format!(
                        "network {} has MTU {}, its way out by {} has {}: large packets may be lost",
                        network.name, bridge.mtu, link.name, link.mtu
                    ),
                    "remove the network and create it again, or give --opt com.docker.network.driver.mtu",
                );
            }
        }
        for network in up.iter().filter(|network| network.driver == Driver::Bridge) {
            let count = self.endpoints(network)?.len();
            let limit = host::switch("ipv4/neigh/default/gc_thresh3").parse().unwrap_or(usize::MAX);
            if count >= limit {
                find(
                    false,
                    format!(
                        "network {} has {count} containers, the machine remembers {limit} neighbours",
                        network.name
                    ),
                    "sysctl net.ipv4.neigh.default.gc_thresh3=8192",
                );
            }
        }
        Ok(findings)
    }
}

/// Notices that somebody has removed rules, and makes the firewall whole again: one socket in the poll loop of each
/// container's monitor. It is not woken by containers that come and go.
#[derive(Debug)]
pub struct Watch {
    socket: nft::Watch,
    networks: Networks,
    due: Option<Instant>,
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Watch {
    /// Begins to watch in the network namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open(networks: &Networks) -> Result<Self, Error> {
        Ok(Self { socket: nft::Watch::open()?, networks: networks.clone(), due: None })
    }

    /// When [`Watch::on_deadline`] is to be called, if at all.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// To be called when the socket is readable.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn on_ready(&mut self, now: Instant) -> Result<(), Error> {
        if self.socket.drain()? && self.due.is_none() {
            // Many may watch: the first one mends, the others then find nothing to do.
            let mut random = [0; 1];
            crate::random(&mut random)?;
            self.due = Some(now + SETTLE + Duration::from_millis(u64::from(random[0])));
        }
        Ok(())
    }

    /// To be called when the deadline has passed. Gives lines for the user.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn on_deadline(&mut self) -> Result<Vec<String>, Error> {
        self.due = None;
        let mut said = Vec::new();
        bridge::mend_if_changed(&mut Host::default(), &self.networks.db, &self.networks.state, &mut said)?;
        self.networks.db.close();
        Ok(said)
    }
}
