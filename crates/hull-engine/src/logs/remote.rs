//! Drivers that send output elsewhere: the journal's native protocol, and syslog.
//!
//! ```text
//! journal  one datagram for each line: fields `NAME=VALUE\n`, or `NAME\n`, length (8 bytes, little endian), value, `\n`
//! syslog   `<PRIORITY>...` by format, ended by a line feed
//! ```
//!
//! Sockets never block: what the other side does not take is kept up to a limit and then lost. A connection that breaks
//! is made again, once a second at most.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with};
use serde::{Deserialize, Serialize};

use super::Line;
use super::options::{Driver, Plan};
use crate::time;

/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_secs(1);

/// The other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Address {
    Datagram(PathBuf),
    Stream(PathBuf),
    Udp(SocketAddr),
    Tcp(SocketAddr),
}

/// How a line of syslog begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Format {
    /// For a local daemon: no host name.
    #[default]
    Local,
    /// With a host name and RFC 3339 times.
    Default,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

#[derive(Debug)]
pub(crate) struct Remote {
    address: Address,
    socket: Option<OwnedFd>,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    limit: usize,
    tried: Option<Instant>,
}

impl Remote {
    pub(super) fn new(address: Address, limit: usize) -> Self {
        Self { address, socket: None, waiting: VecDeque::new(), bytes: 0, limit, tried: None }
    }

    /// Sends a record, or keeps it, or loses it.
    pub(super) fn give(&mut self, record: Vec<u8>) {
        if self.bytes + record.len() > self.limit {
            self.flush();
            if self.bytes + record.len() > self.limit {
                return;
            }
        }
        self.bytes += record.len();
        self.waiting.push_back(record);
        self.flush();
    }

    /// The socket, while records wait for it.
    pub(super) fn behind(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().filter(|_| !self.waiting.is_empty()).map(|socket| socket.as_fd())
    }

    /// Sends what the other side takes.
    pub(super) fn flush(&mut self) {
        while let Some(record) = self.waiting.front_mut() {
            if self.socket.is_none() {
                if self.tried.is_some_and(|tried| tried.elapsed() < AGAIN) {
                    return;
                }
                self.tried = Some(Instant::now());
                self.socket = reach(&self.address).ok();
            }
            let Some(socket) = &self.socket else { return };
            match send(socket, record, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) if length < record.len() => {
                    record.drain(..length);
                    self.bytes -= length;
                }
                // Nobody takes a record that is too large.
                Ok(_) | Err(Errno::MSGSIZE) => {
                    self.bytes -= record.len();
                    self.waiting.pop_front();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::INPROGRESS | Errno::ALREADY | Errno::NOBUFS) => return,
                Err(_) => self.socket = None,
            }
        }
        self.waiting = VecDeque::new();
    }
}

fn reach(address: &Address) -> Result<OwnedFd, Errno> {
    let family = match address {
        Address::Datagram(_) | Address::Stream(_) => AddressFamily::UNIX,
        Address::Udp(address) | Address::Tcp(address) if address.is_ipv4() => AddressFamily::INET,
        Address::Udp(_) | Address::Tcp(_) => AddressFamily::INET6,
    };
    let kind = match address {
        Address::Datagram(_) | Address::Udp(_) => SocketType::DGRAM,
        Address::Stream(_) | Address::Tcp(_) => SocketType::STREAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    let connected = match address {
        Address::Datagram(path) | Address::Stream(path) => connect(&socket, &SocketAddrUnix::new(path)?),
        Address::Udp(address) | Address::Tcp(address) => connect(&socket, address),
    };
    match connected {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// A line for the driver.
pub(super) fn record(plan: &Plan, line: &Line<'_>) -> Vec<u8> {
    match plan.driver {
        Driver::Journald => journal(plan, line),
        _ => syslog(plan, line),
    }
}

fn journal(plan: &Plan, line: &Line<'_>) -> Vec<u8> {
    let mut record = Vec::with_capacity(line.text.len() + 512);
    let mut field = |name: &str, value: &[u8]| {
        record.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            record.push(b'\n');
            record.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            record.push(b'=');
        }
        record.extend_from_slice(value);
        record.push(b'\n');
    };
    // Names that the journal takes: capitals, digits and underscores, not beginning with one.
    let named: BTreeMap<String, &String> = plan
        .attributes
        .iter()
        .map(|(name, value)| {
            let name: String = name
                .chars()
                .map(|one| if one.is_ascii_alphanumeric() { one.to_ascii_uppercase() } else { '_' })
                .collect();
            (name.trim_start_matches('_').to_owned(), value)
        })
        .filter(|(name, _)| !name.is_empty())
        .collect();
    for (name, value) in named {
        field(&name, value.as_bytes());
    }
    let time = u128::from(line.time);
    field("PRIORITY", if line.error { b"3" } else { b"6" });
    field("CONTAINER_ID", plan.id.get(..12).unwrap_or_default().as_bytes());
    field("CONTAINER_ID_FULL", plan.id.as_bytes());
    field("CONTAINER_NAME", plan.name.as_bytes());
    field("CONTAINER_TAG", plan.tag.as_bytes());
    field("IMAGE_NAME", plan.image.as_bytes());
    field("SYSLOG_IDENTIFIER", plan.tag.as_bytes());
    field("SYSLOG_TIMESTAMP", time::fixed(u64::try_from(time).unwrap_or(0)).as_bytes());
    if !line.whole {
        field("CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    field("MESSAGE", line.text);
    record
}

/// `Nov 21 19:05:00`.
fn stamp(moment: u64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = time::fixed(moment);
    let month: usize = text[5..7].parse().unwrap_or(1);
    format!("{} {:>2} {}", MONTHS[(month - 1) % 12], text[8..10].trim_start_matches('0'), &text[11..19])
}

fn syslog(plan: &Plan, line: &Line<'_>) -> Vec<u8> {
    let priority = u32::from(plan.facility) * 8 + if line.error { 3 } else { 6 };
    let (tag, pid) = (&plan.tag, std::process::id());
    let fixed = time::fixed(line.time);
    let seconds = format!("{}Z", &fixed[..19]);
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let head = match plan.format {
        Format::Local => format!("<{priority}>{} {tag}[{pid}]: ", stamp(line.time)),
        Format::Default => format!("<{priority}> {seconds} {} {tag}[{pid}]: ", host()),
        Format::Rfc3164 => format!("<{priority}>{} {} {tag}[{pid}]: ", stamp(line.time), host()),
        Format::Rfc5424 => format!("<{priority}>1 {seconds} {} {tag} {pid} {tag} - ", host()),
        Format::Rfc5424Micro => format!("<{priority}>1 {}Z {} {tag} {pid} {tag} - ", &fixed[..26], host()),
    };
    let mut record = head.into_bytes();
    record.extend_from_slice(line.text);
    if record.last() != Some(&b'\n') {
        record.push(b'\n');
    }
    record
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    fn plan(driver: Driver) -> Plan {
        Plan {
            driver,
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            tag: "tag".to_owned(),
            facility: 3,
            attributes: [("app.name".to_owned(), "a".to_owned())].into(),
            ..Plan::default()
        }
    }

    fn line(text: &[u8]) -> Line<'_> {
        Line { error: true, time: 1_709_210_096_123_456_789, text, whole: true, first: true }
    }

    #[test]
    fn the_journal_gets_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let mut remote = Remote::new(Address::Datagram(path), 1 << 20);
        remote.give(record(&plan(Driver::Journald), &line(b"one\ntwo \xff")));
        let mut buffer = [0; 4096];
        let length = journal.recv(&mut buffer).unwrap();
        let text = &buffer[..length];
        let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
        assert!(has(b"APP_NAME=a\n") && has(b"PRIORITY=3\n") && has(b"CONTAINER_ID=0123456789ab\n"));
        assert!(has(b"MESSAGE\n\x09\0\0\0\0\0\0\0one\ntwo \xff\n"));
    }

    #[test]
    fn syslog_s_formats() {
        let text = |format| {
            let plan = Plan { format, ..plan(Driver::Syslog) };
            String::from_utf8(syslog(&plan, &line(b"hello"))).unwrap()
        };
        let pid = std::process::id();
        assert_eq!(text(Format::Local), format!("<27>Feb 29 12:34:56 tag[{pid}]: hello\n"));
        let five = text(Format::Rfc5424Micro);
        assert!(five.starts_with("<27>1 2024-02-29T12:34:56.123456Z ") && five.ends_with(" - hello\n"), "{five}");
    }

    #[test]
    fn who_does_not_read_loses_lines_and_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut remote = Remote::new(Address::Stream(path), 10_000);
        for _ in 0..10_000 {
            remote.give(vec![b'x'; 100]);
        }
        assert!(remote.bytes <= 10_000 && remote.behind().is_some());
        let (mut reader, _) = listener.accept().unwrap();
        reader.set_nonblocking(true).unwrap();
        let mut total = 0;
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            total += count;
            remote.flush();
        }
        assert!(total > 10_000 && remote.behind().is_none());
        // A connection that is gone is made again later.
        drop(reader);
        remote.give(b"lost".to_vec());
        assert!(remote.bytes <= 10_000);
    }
}
