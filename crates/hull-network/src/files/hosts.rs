//! `/etc/hosts`: a container's own names, the user's (`--add-host`) and links (`hosts(5)`).

use std::net::IpAddr;

/// Why an `--add-host` is refused; Docker's words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// No name, or no value.
    #[error("bad format for add-host: {0:?}")]
    Format(String),
    /// The value is no address.
    #[error("invalid IP address in add-host: {0:?}")]
    Address(String),
    /// There is no gateway to put in.
    #[error("unable to derive the IP value for host-gateway: no default bridge network has an address")]
    NoGateway,
}

/// What `--add-host` gives a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(IpAddr),
    /// Where the machine can be reached (`host-gateway`).
    Gateway,
}

/// One `--add-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// The name.
    pub name: String,
    /// Its address.
    pub target: Target,
}

impl Extra {
    /// Reads `NAME:ADDRESS` or `NAME=ADDRESS`; an IPv6 address may be in brackets.
    ///
    /// # Errors
    /// [`Invalid::Format`], [`Invalid::Address`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let format = || Invalid::Format(text.to_owned());
        let (name, value) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(format)?;
        if name.is_empty() || !valid_name(name) {
            return Err(format());
        }
        let bare = value.strip_prefix('[').and_then(|value| value.strip_suffix(']')).unwrap_or(value);
        let target = if bare == "host-gateway" {
            Target::Gateway
        } else {
            Target::Address(bare.parse().map_err(|_| Invalid::Address(value.to_owned()))?)
        };
        Ok(Self { name: name.to_owned(), target })
    }
}

/// A name that can stand in a line without ending it or becoming a comment.
fn valid_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// One line: an address and its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address.
    pub address: IpAddr,
    /// The first one is what the address is called.
    pub names: Vec<String>,
}

impl Entry {
    fn line(&self) -> Option<String> {
        let names: Vec<&str> =
            self.names.iter().map(String::as_str).filter(|name| !name.is_empty() && valid_name(name)).collect();
        (!names.is_empty()).then(|| format!("{}\t{}\n", self.address, names.join(" ")))
    }
}

/// The lines of a container's own addresses: full name, then host name.
#[must_use]
pub fn own(addresses: &[IpAddr], hostname: &str, domain: &str) -> Vec<Entry> {
    let names = match hostname.split_once('.') {
        _ if !domain.is_empty() => vec![format!("{hostname}.{domain}"), hostname.to_owned()],
        Some((short, _)) => vec![hostname.to_owned(), short.to_owned()],
        None => vec![hostname.to_owned()],
    };
    addresses.iter().map(|address| Entry { address: *address, names: names.clone() }).collect()
}

/// The lines of the user's wishes; `gateways` are the machine's addresses as the container reaches them.
///
/// # Errors
/// [`Invalid::NoGateway`].
pub fn extra(wishes: &[Extra], gateways: &[IpAddr]) -> Result<Vec<Entry>, Invalid> {
    let mut entries = Vec::new();
    for wish in wishes {
        let addresses = match &wish.target {
            Target::Address(address) => std::slice::from_ref(address),
            Target::Gateway if gateways.is_empty() => return Err(Invalid::NoGateway),
            Target::Gateway => gateways,
        };
        entries.extend(addresses.iter().map(|address| Entry { address: *address, names: vec![wish.name.clone()] }));
    }
    Ok(entries)
}

/// A whole file: the loopback names, then the entries.
#[must_use]
pub fn generate(ipv6: bool, entries: &[Entry]) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n");
    if ipv6 {
        text += "::1\tlocalhost ip6-localhost ip6-loopback\n\
            fe00::\tip6-localnet\n\
            ff00::\tip6-mcastprefix\n\
            ff02::1\tip6-allnodes\n\
            ff02::2\tip6-allrouters\n";
    }
    text.extend(entries.iter().filter_map(Entry::line));
    text
}

/// The file after a container was connected or disconnected: lines that Hull wrote go, others are added, and all that
/// the container wrote itself stays.
#[must_use]
pub fn edit(current: &[u8], without: &[Entry], with: &[Entry]) -> Vec<u8> {
    let gone: Vec<String> = without.iter().filter_map(Entry::line).collect();
    let mut content: Vec<u8> = Vec::with_capacity(current.len() + 128);
    for line in current.split_inclusive(|byte| *byte == b'\n') {
        if !gone.iter().any(|gone| gone.as_bytes() == line) {
            content.extend_from_slice(line);
        }
    }
    if content.last().is_some_and(|last| *last != b'\n') {
        content.push(b'\n');
    }
    for line in with.iter().filter_map(Entry::line) {
        content.extend_from_slice(line.as_bytes());
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn wishes_are_read_as_docker_reads_them() {
        let address = |text: &str| Target::Address(ip(text));
        for (text, name, target) in [
            ("db:10.0.0.1", "db", address("10.0.0.1")),
            ("db=10.0.0.1", "db", address("10.0.0.1")),
            ("db:::1", "db", address("::1")),
            ("db:[fd00::1]", "db", address("fd00::1")),
            ("db=[fd00::1]", "db", address("fd00::1")),
            ("host.docker.internal:host-gateway", "host.docker.internal", Target::Gateway),
        ] {
            assert_eq!(Extra::parse(text), Ok(Extra { name: name.to_owned(), target }), "{text}");
        }
        for text in ["", "db", ":10.0.0.1", "a b:10.0.0.1", "a\n6.6.6.6 x:10.0.0.1"] {
            assert_eq!(Extra::parse(text), Err(Invalid::Format(text.to_owned())));
        }
        for (text, value) in [("db:", ""), ("db:10.0.0", "10.0.0"), ("db:[10.0.0.1", "[10.0.0.1"), ("db:x", "x")] {
            assert_eq!(Extra::parse(text), Err(Invalid::Address(value.to_owned())), "{text}");
        }
        let error = Extra::parse("db:x").unwrap_err().to_string();
        assert_eq!(error, "invalid IP address in add-host: \"x\"");
    }

    #[test]
    fn a_file_has_loopback_wishes_and_own_names() {
        let wishes = ["db:10.0.0.9", "machine:host-gateway"].map(|text| Extra::parse(text).unwrap());
        let mut entries = extra(&wishes, &[ip("172.17.0.1"), ip("fd00::1")]).unwrap();
        entries.extend(own(&[ip("172.17.0.2")], "web", "example.com"));
        assert_eq!(
            generate(false, &entries),
            "127.0.0.1\tlocalhost\n10.0.0.9\tdb\n172.17.0.1\tmachine\nfd00::1\tmachine\n\
             172.17.0.2\tweb.example.com web\n"
        );
        assert_eq!(extra(&wishes, &[]), Err(Invalid::NoGateway));
        assert_eq!(own(&[ip("::1")], "web.example.com", "")[0].names, ["web.example.com", "web"]);
        assert!(generate(true, &[]).contains("::1\tlocalhost ip6-localhost ip6-loopback\n"));
        let hostile = Entry { address: ip("10.0.0.1"), names: vec!["a\n6.6.6.6 bank".into(), "ok".into()] };
        assert!(generate(false, &[hostile]).ends_with("10.0.0.1\tok\n"));
    }

    #[test]
    fn connecting_changes_only_what_hull_wrote() {
        let first = own(&[ip("172.18.0.2"), ip("fd00::2")], "web", "");
        let second = own(&[ip("172.19.0.2")], "web", "");
        let mut file = generate(true, &first).into_bytes();
        file.extend_from_slice(b"10.9.9.9 mine # 172.18.0.2\tweb");
        let both = edit(&file, &[], &second);
        let text = String::from_utf8(both.clone()).unwrap();
        assert!(text.ends_with("10.9.9.9 mine # 172.18.0.2\tweb\n172.19.0.2\tweb\n"), "{text}");
        let only = String::from_utf8(edit(&both, &first, &[])).unwrap();
        assert!(!only.contains("fd00::2") && !only.contains("\n172.18.0.2"), "{only}");
        assert!(only.contains("mine") && only.ends_with("172.19.0.2\tweb\n"));
        assert_eq!(edit(b"\xff\xfe", &first, &[]), b"\xff\xfe\n");
    }
}
