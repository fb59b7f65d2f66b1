//! Host names to addresses without the C library: a static binary has no name service switch.
//!
//! `/etc/hosts` first, then the servers of `/etc/resolv.conf` by DNS (RFC 1035), over UDP, and over TCP for answers that
//! do not fit. An answer counts when it comes from the server that was asked and repeats question and number.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MAX_FILE: u64 = 1 << 20;
const MAX_ANSWER: usize = 64 << 10;
const A: u16 = 1;
const AAAA: u16 = 28;

/// Looks up names as the files below a root directory say.
#[derive(Clone, Debug)]
pub struct Resolver {
    etc: PathBuf,
    port: u16,
}

/// Settings of `resolv.conf`.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    timeout: Duration,
    attempts: u32,
    ndots: usize,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { etc: PathBuf::from("/etc"), port: 53 }
    }
}

impl Resolver {
    /// Files of another directory, and another port of the servers.
    #[cfg(test)]
    fn of(etc: &Path, port: u16) -> Self {
        Self { etc: etc.to_owned(), port }
    }

    /// The addresses of a host, IPv4 first.
    ///
    /// # Errors
    /// When there is none, or no server answers.
    pub fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let host = host.trim_end_matches('.');
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(vec![address]);
        }
        let mut addresses = hosts(&read(&self.etc.join("hosts")), host);
        if addresses.is_empty() && (host == "localhost" || host.ends_with(".localhost")) {
            addresses.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let settings = settings(&read(&self.etc.join("resolv.conf")));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
        for name in names(host, &settings) {
            let mut found = Vec::new();
            for kind in [A, AAAA] {
                match self.ask(&name, kind, &settings) {
                    Ok(addresses) => found.extend(addresses),
                    Err(error) => last = error,
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(last)
    }

    fn ask(&self, name: &str, kind: u16, settings: &Settings) -> io::Result<Vec<IpAddr>> {
        let mut last = io::Error::other("no DNS server is configured");
        for _ in 0..settings.attempts {
            for server in &settings.servers {
                match exchange(SocketAddr::new(*server, self.port), name, kind, settings.timeout) {
                    Ok(addresses) => return Ok(addresses),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                    Err(error) => last = io::Error::new(error.kind(), format!("DNS server {server}: {error}")),
                }
            }
        }
        Err(last)
    }
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let found = lines.filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    let mut found: Vec<IpAddr> = found.collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

fn settings(text: &str) -> Settings {
    let mut settings =
        Settings { servers: Vec::new(), search: Vec::new(), timeout: Duration::from_secs(5), attempts: 2, ndots: 1 };
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => {
                // A zone index of an IPv6 address cannot be used here.
                let word = words.next().and_then(|word| word.split('%').next()).unwrap_or_default();
                if let Some(address) = word.parse().ok().filter(|_: &IpAddr| settings.servers.len() < 3) {
                    settings.servers.push(address);
                }
            }
            Some("search" | "domain") => settings.search = words.take(6).map(str::to_owned).collect(),
            Some("options") => {
                for word in words {
                    let value = |name: &str| word.strip_prefix(name).and_then(|value| value.parse::<u32>().ok());
                    if let Some(seconds) = value("timeout:") {
                        settings.timeout = Duration::from_secs(u64::from(seconds.clamp(1, 30)));
                    } else if let Some(times) = value("attempts:") {
                        settings.attempts = times.clamp(1, 5);
                    } else if let Some(dots) = value("ndots:") {
                        settings.ndots = dots as usize;
                    }
                }
            }
            _ => {}
        }
    }
    if settings.servers.is_empty() {
        settings.servers.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    settings
}

/// The names to ask for, in order.
fn names(host: &str, settings: &Settings) -> Vec<String> {
    let searched = settings.search.iter().map(|domain| format!("{host}.{}", domain.trim_end_matches('.')));
    let mut names: Vec<String> = searched.collect();
    let place = if host.matches('.').count() >= settings.ndots { 0 } else { names.len() };
    names.insert(place, host.to_owned());
    names
}

/// The question's bytes after the header.
fn question(name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length) && label.is_ascii());
        let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "that is no host name"))?;
        bytes.push(length);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    if bytes.len() > 255 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host name is too long"));
    }
    bytes.extend(kind.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    Ok(bytes)
}

fn exchange(server: SocketAddr, name: &str, kind: u16, timeout: Duration) -> io::Result<Vec<IpAddr>> {
    let mut number = [0; 2];
    rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty())?;
    let question = question(name, kind)?;
    // One question, recursion desired.
    let mut query = vec![number[0], number[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(&question);
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(&query)?;
    let mut buffer = vec![0; MAX_ANSWER];
    // What does not belong to the question is passed over, a few times.
    for _ in 0..8 {
        let length = socket.recv(&mut buffer)?;
        let answer = &buffer[..length];
        if !belongs(answer, number, &question) {
            continue;
        }
        let truncated = answer[2] & 2 != 0;
        return if truncated {
            by_tcp(server, &query, number, &question, kind, timeout)
        } else {
            addresses(answer, kind)
        };
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "its answers do not belong to the question"))
}

fn by_tcp(
    server: SocketAddr,
    query: &[u8],
    number: [u8; 2],
    question: &[u8],
    kind: u16,
    timeout: Duration,
) -> io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    if !belongs(&answer, number, question) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer does not belong to the question"));
    }
    addresses(&answer, kind)
}

fn belongs(answer: &[u8], number: [u8; 2], question: &[u8]) -> bool {
    answer.len() >= 12 + question.len()
        && answer[..2] == number
        && answer[2] & 0x80 != 0
        && answer[12..12 + question.len()].eq_ignore_ascii_case(question)
}

/// The addresses of an answer whose header and question were checked. Aliases need not be followed: the server has.
fn addresses(answer: &[u8], kind: u16) -> io::Result<Vec<IpAddr>> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its answer is damaged");
    match answer[3] & 0x0f {
        0 => {}
        3 => return Err(io::Error::new(io::ErrorKind::NotFound, "no such host")),
        code => return Err(io::Error::other(format!("it refused with code {code}"))),
    }
    let number = |place: usize| answer.get(place..place + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let mut place = skip_name(answer, 12).ok_or_else(damaged)? + 4;
    let mut found = Vec::new();
    for _ in 0..number(6).ok_or_else(damaged)?.min(64) {
        place = skip_name(answer, place).ok_or_else(damaged)?;
        let (this, length) = (number(place).ok_or_else(damaged)?, number(place + 8).ok_or_else(damaged)?);
        let data = answer.get(place + 10..place + 10 + usize::from(length)).ok_or_else(damaged)?;
        place += 10 + usize::from(length);
        if this == kind {
            let address = match kind {
                A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
            };
            found.push(address.ok_or_else(damaged)?);
        }
    }
    Ok(found)
}

/// Place after a name, which ends with an empty label or a pointer.
fn skip_name(answer: &[u8], mut place: usize) -> Option<usize> {
    loop {
        match *answer.get(place)? {
            0 => return Some(place + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(place + 2),
            length if length & 0xc0 == 0 => place += 1 + usize::from(length),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn files() {
        let text = "127.0.0.1 localhost # x\n::1 localhost\n10.0.0.1 Mirror.example m\n#10.0.0.2 m\n";
        assert_eq!(hosts(text, "mirror.EXAMPLE"), ["10.0.0.1".parse::<IpAddr>().expect("address")]);
        assert_eq!(hosts(text, "localhost").len(), 2);
        assert!(hosts(text, "other").is_empty());
        let set = settings(
            "nameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch a.b c\noptions timeout:1 attempts:9 ndots:2\n",
        );
        assert_eq!((set.servers.len(), set.attempts, set.ndots, set.timeout), (2, 5, 2, Duration::from_secs(1)));
        assert_eq!(names("x", &set), ["x.a.b", "x.c", "x"]);
        assert_eq!(names("x.y.z", &set), ["x.y.z", "x.y.z.a.b", "x.y.z.c"]);
        assert_eq!(settings("").servers, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }

    /// A server on the loopback device that answers every query by `answer`, and its resolver.
    fn server(answer: fn(&[u8]) -> Vec<u8>) -> (tempfile::TempDir, Resolver) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let port = socket.local_addr().expect("address").port();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&answer(&buffer[..length]), from);
            }
        });
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
            .expect("write");
        let resolver = Resolver::of(dir.path(), port);
        (dir, resolver)
    }

    fn with_records(query: &[u8], records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = query.to_vec();
        bytes[2] |= 0x80;
        bytes[7] = u8::try_from(records.len()).expect("few");
        for (kind, data) in records {
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 9]);
            bytes.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            bytes.extend(*data);
        }
        bytes
    }

    fn kind(query: &[u8]) -> u8 {
        query[query.len() - 3]
    }

    #[test]
    fn addresses_of_both_kinds_behind_an_alias() {
        let (_dir, resolver) = server(|query| {
            let alias: (u16, &[u8]) = (5, &[1, b'x', 0]);
            match kind(query) {
                1 => with_records(query, &[alias, (A, &[192, 0, 2, 1]), (A, &[192, 0, 2, 2])]),
                _ => with_records(query, &[alias, (AAAA, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])]),
            }
        });
        let found: Vec<String> =
            resolver.lookup("m.example").expect("answer").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    }

    #[test]
    fn no_such_host_and_refusal() {
        let (_dir, resolver) = server(|query| {
            let mut bytes = with_records(query, &[]);
            bytes[3] |= 3;
            bytes
        });
        assert_eq!(resolver.lookup("m.example").expect_err("none").kind(), io::ErrorKind::NotFound);
        let (_dir, resolver) = server(|query| {
            let mut bytes = with_records(query, &[]);
            bytes[3] |= 5;
            bytes
        });
        assert!(resolver.lookup("m.example").expect_err("refused").to_string().contains("code 5"));
    }

    #[test]
    fn forged_and_damaged_answers() {
        let (_dir, resolver) = server(|query| {
            let mut bytes = with_records(query, &[(A, &[192, 0, 2, 1])]);
            bytes[0] ^= 1;
            bytes
        });
        assert!(resolver.lookup("m.example").is_err());
        let (_dir, resolver) = server(|query| {
            let whole = with_records(query, &[(A, &[192, 0, 2, 1])]);
            whole[..whole.len() - 2].to_vec()
        });
        assert!(resolver.lookup("m.example").expect_err("damaged").to_string().contains("damaged"));
        assert!(resolver.lookup("a..b").is_err() && resolver.lookup(&"a".repeat(64)).is_err());
        for length in 0..40 {
            let _ = addresses(&vec![0xc0; 12 + length], A);
            let _ = addresses(&[vec![0; 6], vec![0, 9], vec![0; 4 + length]].concat(), A);
        }
    }
}
