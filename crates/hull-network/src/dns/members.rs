//! Who is connected: adding a container's names to a network's table and taking them out again.
//!
//! The network's directory is locked with `flock(2)` while its table is rewritten. Readers take no lock: they see the old
//! table or the new one.

use std::net::IpAddr;
use std::path::Path;

use hull_fs::lock::Lock;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::Error;
use super::table::{MAX_LINE, order};

/// The table's name in the network's directory.
pub const TABLE: &str = "names";

/// One container on one network, as names see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The container's ID.
    pub container: String,
    /// The network's name.
    pub network: String,
    /// Container name, aliases, short ID, host name. The first is what its addresses are called.
    pub names: Vec<String>,
    /// Its addresses on this network.
    pub addresses: Vec<IpAddr>,
    /// Named ports: service, protocol, port; `_http._tcp.web` then says where.
    pub services: Vec<(String, String, u16)>,
}

impl Member {
    /// Its lines, each with its end. Names that no query can ask for are left out.
    fn lines(&self) -> Vec<Vec<u8>> {
        let owner = &self.container;
        let mut lines = Vec::new();
        let mut line = |key: &str, kind: &str, value: &str| {
            let line = format!("{key} {kind} {value} {owner}\n");
            if valid_name(key) && line.len() <= MAX_LINE {
                lines.push(line.into_bytes());
            }
        };
        for name in self.names.iter().map(|name| name.to_ascii_lowercase()) {
            for address in &self.addresses {
                match address {
                    IpAddr::V4(address) => line(&name, "A", &address.to_string()),
                    IpAddr::V6(address) => line(&name, "AAAA", &address.to_string()),
                }
            }
            for (service, protocol, port) in &self.services {
                let key = format!("_{service}._{protocol}.{name}").to_ascii_lowercase();
                line(&key, "SRV", &format!("{port}:{name}"));
            }
        }
        if let Some(name) = self.names.first() {
            let full = format!("{name}.{}", self.network);
            if valid_name(&full) {
                for address in &self.addresses {
                    line(&reverse(*address), "PTR", &full);
                }
            }
        }
        lines.sort();
        lines.dedup();
        lines
    }
}

/// Whether a name can be in a table and in a query.
#[must_use]
pub fn valid_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The name that a query for an address's name asks for.
#[must_use]
pub fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let mut name = String::with_capacity(72);
            for byte in address.octets().iter().rev() {
                for digit in [byte & 15, byte >> 4] {
                    name.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                    name.push('.');
                }
            }
            name + "ip6.arpa"
        }
    }
}

/// Adds a container's names to the table in a network's directory, in place of those that it had there.
///
/// # Errors
/// When the directory cannot be locked or the table not be read or replaced; the table is as it was then.
pub fn join(directory: &Path, member: &Member) -> Result<(), Error> {
    rewrite(directory, &[&member.container], member.lines())
}

/// Takes a container's names out of the table in a network's directory. That it has none there is no error, nor that
/// there is no such directory.
///
/// # Errors
/// As [`join`].
pub fn leave(directory: &Path, container: &str) -> Result<(), Error> {
    leave_all(directory, &[container])
}

/// [`leave`] for several containers at once, as after a crash.
///
/// # Errors
/// As [`join`].
pub fn leave_all(directory: &Path, containers: &[&str]) -> Result<(), Error> {
    match rewrite(directory, containers, Vec::new()) {
        Err(Error::System { errno: Errno::NOENT, .. }) => Ok(()),
        result => result,
    }
}

/// The containers that have names in a network's table.
///
/// # Errors
/// When the table cannot be read.
pub fn members(directory: &Path) -> Result<Vec<String>, Error> {
    let path = directory.join(TABLE);
    let mut owners: Vec<String> = read(&path)?
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(owner(line)).ok().map(str::to_owned))
        .collect();
    owners.sort();
    owners.dedup();
    Ok(owners)
}

fn owner(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.rsplit(|byte| *byte == b' ').next().unwrap_or_default()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    match std::fs::read(path) {
        Ok(content) => Ok(content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Err(Error::system("read", path)(errno))
        }
    }
}

fn rewrite(directory: &Path, without: &[&str], mut new: Vec<Vec<u8>>) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(directory, flags, Mode::empty()).map_err(Error::system("open", directory))?;
    let copy = rustix::io::fcntl_dupfd_cloexec(&handle, 3).map_err(Error::system("open", directory))?;
    let _lock = Lock::exclusive_on(copy, directory)?;
    let old = read(&directory.join(TABLE))?;
    let mut kept: Vec<&[u8]> = old
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n") && !without.iter().any(|id| id.as_bytes() == owner(line)))
        .collect();
    let length: usize = kept.iter().map(|line| line.len()).sum();
    if new.is_empty() && length == old.len() {
        return Ok(());
    }
    new.sort_by(|a, b| order(a, b));
    kept.extend(new.iter().map(Vec::as_slice));
    // Two sorted runs: a stable sort merges them in one pass.
    kept.sort_by(|a, b| order(a, b));
    hull_fs::atomic::write(&handle, Path::new(TABLE), &kept.concat(), 0o644)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn member(container: &str, name: &str, last: u8) -> Member {
        Member {
            container: container.to_owned(),
            network: "Backend".to_owned(),
            names: vec![name.to_owned(), "Shared".to_owned()],
            addresses: vec![
                Ipv4Addr::new(10, 0, 0, last).into(),
                Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(last)).into(),
            ],
            services: vec![("http".to_owned(), "tcp".to_owned(), 80)],
        }
    }

    fn table(directory: &Path) -> String {
        String::from_utf8(read(&directory.join(TABLE)).unwrap()).unwrap()
    }

    #[test]
    fn a_member_has_its_lines_and_takes_them_along() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        join(directory, &member("one", "web", 2)).unwrap();
        let expected = "\
2.0.0.10.in-addr.arpa PTR web.Backend one
2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR web.Backend one
_http._tcp.shared SRV 80:shared one
_http._tcp.web SRV 80:web one
shared A 10.0.0.2 one
shared AAAA fd00::2 one
web A 10.0.0.2 one
web AAAA fd00::2 one
";
        let mut sorted: Vec<&str> = expected.lines().collect();
        sorted.sort_by(|a, b| order(a.as_bytes(), b.as_bytes()));
        assert_eq!(table(directory).lines().collect::<Vec<_>>(), sorted);
        join(directory, &member("two", "db", 3)).unwrap();
        assert_eq!(members(directory).unwrap(), ["one", "two"]);
        // Joining again replaces: another address, no second line.
        join(directory, &member("two", "db", 4)).unwrap();
        assert!(!table(directory).contains("10.0.0.3"));
        leave(directory, "two").unwrap();
        leave(directory, "two").unwrap();
        assert_eq!(table(directory).lines().collect::<Vec<_>>(), sorted);
        leave(directory, "one").unwrap();
        assert_eq!(table(directory), "");
        leave(&directory.join("none"), "one").unwrap();
    }

    #[test]
    fn names_that_would_break_the_table_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut bad = member("one", "a b", 2);
        bad.names.extend(["x\ny A 6.6.6.6 one", "", ".", "a..b", "é", "good"].map(str::to_owned));
        bad.services.push(("a b".to_owned(), "tcp".to_owned(), 1));
        join(directory.path(), &bad).unwrap();
        let table = table(directory.path());
        assert!(table.contains("good A 10.0.0.2 one\n"));
        assert!(table.lines().all(|line| line.split(' ').count() == 4 && !line.contains("6.6.6.6")), "{table}");
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::thread::scope(|scope| {
            for thread in 0..8_u8 {
                scope.spawn(move || {
                    for n in 0..10_u8 {
                        let id = format!("c{thread}-{n}");
                        join(path, &member(&id, &id, thread * 10 + n)).unwrap();
                        if n % 2 == 1 {
                            leave(path, &id).unwrap();
                        }
                    }
                });
            }
        });
        assert_eq!(members(path).unwrap().len(), 40);
        let table = table(path);
        let mut lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 40 * 8);
        lines.sort_by(|a, b| order(a.as_bytes(), b.as_bytes()));
        assert_eq!(lines, table.lines().collect::<Vec<_>>());
    }

    #[test]
    fn addresses_are_reversed() {
        assert_eq!(reverse("10.1.2.3".parse().unwrap()), "3.2.1.10.in-addr.arpa");
        let expected = "b.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reverse("fd00:1::ab".parse().unwrap()), expected);
    }
}
