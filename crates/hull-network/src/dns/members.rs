//! Who is connected: adding a container's names to a network's table and taking them out again.
//!
//! The network's directory is locked with `flock(2)` while its table is changed. Readers take no lock: they see the table
//! before the change or after it, and what is appended up to its last whole line.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use hull_fs::lock::Lock;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::Error;
use super::table::{self, MAX_LINE, MAX_TAIL, order};

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
    change(directory, &[&member.container], member.lines())
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
    match change(directory, containers, Vec::new()) {
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
    let content = read(&path)?;
    let lines = table::lines(&content).into_iter();
    let mut owners: Vec<String> =
        lines.filter_map(|line| std::str::from_utf8(table::owner(line)).ok().map(str::to_owned)).collect();
    owners.sort();
    owners.dedup();
    Ok(owners)
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

fn change(directory: &Path, without: &[&str], new: Vec<Vec<u8>>) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(directory, flags, Mode::empty()).map_err(Error::system("open", directory))?;
    let copy = rustix::io::fcntl_dupfd_cloexec(&handle, 3).map_err(Error::system("open", directory))?;
    let _lock = Lock::exclusive_on(copy, directory)?;
    let blocks: Vec<u8> = without.iter().flat_map(|container| table::block(container)).chain(new.concat()).collect();
    match append(handle.as_fd(), &blocks) {
        Ok(true) => Ok(()),
        // Nobody has names here.
        Err(Errno::NOENT) if new.is_empty() => Ok(()),
        // What cannot be appended to is made anew.
        Ok(false) | Err(_) => rewrite(directory, handle.as_fd(), without, new),
    }
}

/// Appends blocks to the table; whether that was possible.
fn append(directory: BorrowedFd<'_>, blocks: &[u8]) -> Result<bool, Errno> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, TABLE, flags, Mode::empty())?;
    let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
    let (mut first, mut last) = ([0; table::HEADER], [0; 1]);
    rustix::io::pread(&file, &mut first, 0)?;
    rustix::io::pread(&file, &mut last, size.saturating_sub(1))?;
    let Some(sorted) = table::sorted_end(&first, size) else { return Ok(false) };
    // One who was killed may not have finished its last line.
    if size - sorted + blocks.len() as u64 > MAX_TAIL as u64 || last != *b"\n" {
        return Ok(false);
    }
    Ok(rustix::io::write(&file, blocks)? == blocks.len())
}

/// Makes the table anew, all of it sorted.
fn rewrite(directory: &Path, handle: BorrowedFd<'_>, without: &[&str], mut new: Vec<Vec<u8>>) -> Result<(), Error> {
    let old = read(&directory.join(TABLE))?;
    let mut kept = table::lines(&old);
    kept.retain(|line| !without.iter().any(|id| id.as_bytes() == table::owner(line)));
    new.sort_by(|a, b| order(a, b));
    kept.extend(new.iter().map(Vec::as_slice));
    // Sorted runs: a stable sort merges them.
    kept.sort_by(|a, b| order(a, b));
    let lines = kept.concat();
    hull_fs::atomic::write(handle, Path::new(TABLE), &[table::header(lines.len()), lines].concat(), 0o644)?;
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

    /// The lines that count, sorted.
    fn table(directory: &Path) -> String {
        let content = read(&directory.join(TABLE)).unwrap();
        let mut lines = super::table::lines(&content);
        lines.sort_by(|a, b| order(a, b));
        String::from_utf8(lines.concat()).unwrap()
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
    fn those_who_come_do_not_write_what_others_have() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let size = || std::fs::metadata(path.join(TABLE)).unwrap().len();
        let (mut appended, mut rewritten) = (0, 0);
        for n in 0..1000_u32 {
            let before = size_or_none(path);
            let address = Ipv4Addr::from(0x0a00_0000 + n).into();
            let names = vec![format!("c{n}")];
            let member = Member { container: format!("{n:064}"), names, addresses: vec![address], ..member("", "", 0) };
            join(path, &member).unwrap();
            match before {
                Some((inode, length)) if size_or_none(path).unwrap().0 == inode => {
                    assert!(size() - length < 600, "{n}");
                    appended += 1;
                }
                _ => rewritten += 1,
            }
            if n % 3 == 0 {
                leave(path, &member.container).unwrap();
            }
        }
        assert!(appended > 900 && rewritten < 100, "{appended} {rewritten}");
        assert_eq!(members(path).unwrap().len(), 666);
        // What was not finished is nobody's, and is not gone on with.
        let content = read(&path.join(TABLE)).unwrap();
        std::fs::write(path.join(TABLE), [&content[..], b"= x\nc1 A 10.9.9.8 x\nc2 A 10.9.9.9"].concat()).unwrap();
        join(path, &member("y", "last", 9)).unwrap();
        let table = table(path);
        assert!(table.contains("last A 10.0.0.9 y\n") && !table.contains("10.9.9.9"), "{table}");
        assert!(table.contains("c1 A 10.9.9.8 x\n"), "{table}");
    }

    fn size_or_none(path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(path.join(TABLE)).ok().map(|found| (found.ino(), found.len()))
    }

    #[test]
    fn addresses_are_reversed() {
        assert_eq!(reverse("10.1.2.3".parse().unwrap()), "3.2.1.10.in-addr.arpa");
        let expected = "b.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reverse("fd00:1::ab".parse().unwrap()), expected);
    }
}
