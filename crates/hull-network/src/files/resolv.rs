//! `/etc/resolv.conf`: reading the machine's and making a container's (`resolv.conf(5)`).

use std::fmt::{self, Display, Formatter, Write as _};
use std::net::IpAddr;
use std::path::Path;

use crate::dns::ADDRESS;

/// What is behind this many bytes is not read.
const MAX: usize = 64 << 10;

/// Says whose file it is; without it a file was replaced by somebody else.
const MARK: &str = "# Written by Hull; a changed file is left alone.";

/// One `nameserver` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nameserver {
    /// Its address.
    pub address: IpAddr,
    /// The interface of a link-local address.
    pub zone: Option<String>,
}

impl Nameserver {
    /// Whether it can be asked from the machine's network namespace only.
    #[must_use]
    pub fn is_of_machine(&self) -> bool {
        let address = self.address.to_canonical();
        address.is_loopback() || address.is_unspecified() || self.zone.is_some()
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, zone) = match text.split_once('%') {
            Some((address, zone)) => (address, Some(zone.to_owned()).filter(|zone| !zone.is_empty())),
            None => (text, None),
        };
        Some(Self { address: address.parse().ok()?, zone })
    }
}

impl Display for Nameserver {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.address)?;
        self.zone.as_ref().map_or(Ok(()), |zone| write!(formatter, "%{zone}"))
    }
}

/// The content of such a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// In the order in which they are asked.
    pub nameservers: Vec<Nameserver>,
    /// Domains that are tried behind short names.
    pub search: Vec<String>,
    /// Such as `ndots:2`.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads a file. Lines that mean nothing are passed over, as by every resolver; of several search lists the last one
    /// counts.
    #[must_use]
    pub fn parse(content: &[u8]) -> Self {
        let mut parsed = Self::default();
        for line in String::from_utf8_lossy(content).lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => parsed.nameservers.extend(words.next().and_then(Nameserver::parse)),
                Some("search") => parsed.search = words.map(str::to_owned).collect(),
                Some("domain") => parsed.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => parsed.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        parsed
    }

    /// Reads a file of the machine; one that is missing is empty.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> Result<Self, hull_fs::Error> {
        let content = crate::dns::read_bounded(path, MAX).map_err(hull_fs::Error::system("read", path));
        match content {
            Err(error) if error.is_not_found() => Ok(Self::default()),
            content => content.map(|content| Self::parse(&content)),
        }
    }

    /// Whether an option is there, with or without a value.
    #[must_use]
    pub fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option.split(':').next() == Some(name))
    }
}

impl Display for ResolvConf {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{MARK}")?;
        for server in &self.nameservers {
            writeln!(formatter, "nameserver {server}")?;
        }
        for (word, list) in [("search", &self.search), ("options", &self.options)] {
            if !list.is_empty() {
                writeln!(formatter, "{word} {}", list.join(" "))?;
            }
        }
        Ok(())
    }
}

/// Whose servers a container can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is in the machine's network namespace.
    Machine,
    /// It has a namespace of its own, and no resolver of Hull's in it.
    Private {
        /// Whether it has IPv6.
        ipv6: bool,
    },
    /// Hull's resolver answers in its namespace.
    Embedded,
}

/// What the user wants (`--dns`, `--dns-search`, `--dns-opt`); an empty list is the machine's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Servers.
    pub servers: Vec<IpAddr>,
    /// Search domains; a single `.` is none.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A container's file, from the machine's and the user's wishes.
///
/// `systemd` is what systemd-resolved asks itself (`/run/systemd/resolve/resolv.conf`): it stands in where the machine's
/// file only names systemd's own loopback address. `None` when a private namespace could reach none of the machine's
/// servers: Hull's own resolver is needed then.
#[must_use]
pub fn generate(
    machine: &ResolvConf,
    systemd: Option<&ResolvConf>,
    wishes: &Wishes,
    reach: Reach,
) -> Option<ResolvConf> {
    let named: Vec<Nameserver> =
        wishes.servers.iter().map(|address| Nameserver { address: *address, zone: None }).collect();
    let nameservers = match reach {
        Reach::Embedded => vec![Nameserver { address: ADDRESS.into(), zone: None }],
        _ if !named.is_empty() => named,
        Reach::Machine => machine.nameservers.clone(),
        Reach::Private { ipv6 } => {
            let reachable = |list: &[Nameserver]| -> Vec<Nameserver> {
                let usable = |server: &&Nameserver| !server.is_of_machine() && (ipv6 || server.address.is_ipv4());
                list.iter().filter(usable).cloned().collect()
            };
            let own = reachable(&machine.nameservers);
            let list = if own.is_empty() { reachable(&systemd?.nameservers) } else { own };
            if list.is_empty() {
                return None;
            }
            list
        }
    };
    let search = match wishes.search.as_slice() {
        [] => machine.search.clone(),
        [none] if none == "." => Vec::new(),
        list => list.to_vec(),
    };
    let options = if wishes.options.is_empty() { &machine.options } else { &wishes.options };
    let mut made = ResolvConf { nameservers, search, options: options.clone() };
    // Names of containers have no dot, and are asked as they are before the search list.
    if reach == Reach::Embedded && !made.has_option("ndots") {
        made.options.push("ndots:0".to_owned());
    }
    Some(made)
}

/// What to write over a container's file when its networks have changed: nothing if it is not the one that was written.
#[must_use]
pub fn replace(current: &[u8], written: &ResolvConf, new: &ResolvConf) -> Option<Vec<u8>> {
    let mut expected = String::new();
    let _ = write!(expected, "{written}");
    (current == expected.as_bytes()).then(|| new.to_string().into_bytes())
}

/// Checks a search domain or option: one word that cannot end its line.
#[must_use]
pub fn valid_word(word: &str) -> bool {
    !word.is_empty() && word.len() <= 255 && word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conf(text: &str) -> ResolvConf {
        ResolvConf::parse(text.as_bytes())
    }

    fn text(conf: Option<ResolvConf>) -> String {
        let text = conf.unwrap().to_string();
        text.strip_prefix(MARK).unwrap().trim_start().to_owned()
    }

    const MACHINE: &str = "; comment\n# nameserver 1.1.1.1\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n\
        nameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver nonsense\ndomain first.example\n\
        search a.example b.example\noptions edns0 trust-ad\noptions timeout:1\n";

    #[test]
    fn a_file_is_read_as_resolvers_read_it() {
        let parsed = conf(MACHINE);
        let servers: Vec<String> = parsed.nameservers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53", "192.0.2.1", "2001:db8::1", "fe80::1%eth0"]);
        let own: Vec<bool> = parsed.nameservers.iter().map(Nameserver::is_of_machine).collect();
        assert_eq!(own, [true, false, false, true]);
        assert_eq!(parsed.search, ["a.example", "b.example"]);
        assert_eq!(parsed.options, ["edns0", "trust-ad", "timeout:1"]);
        assert_eq!(conf("search x y\ndomain z w").search, ["z"]);
    }

    #[test]
    fn a_missing_file_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        assert_eq!(ResolvConf::read(&path).unwrap(), ResolvConf::default());
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(ResolvConf::read(&path).unwrap().nameservers.len(), 1);
        assert!(ResolvConf::read(directory.path()).is_err());
    }

    #[test]
    fn a_namespace_gets_what_it_can_reach() {
        let machine = conf(MACHINE);
        let none = Wishes::default();
        let tail = "search a.example b.example\noptions edns0 trust-ad timeout:1\n";
        let of = |ipv6| text(generate(&machine, None, &none, Reach::Private { ipv6 }));
        assert_eq!(of(true), format!("nameserver 192.0.2.1\nnameserver 2001:db8::1\n{tail}"));
        assert_eq!(of(false), format!("nameserver 192.0.2.1\n{tail}"));
        let shared = generate(&machine, None, &none, Reach::Machine).unwrap();
        assert_eq!(shared, machine);
        let embedded = text(generate(&machine, None, &none, Reach::Embedded));
        assert_eq!(
            embedded,
            "nameserver 127.0.0.11\nsearch a.example b.example\noptions edns0 trust-ad timeout:1 ndots:0\n"
        );
    }

    #[test]
    fn systemds_servers_stand_in_for_its_loopback_address() {
        let machine = conf("nameserver 127.0.0.53\nsearch lan\n");
        let systemd = conf("nameserver 192.0.2.7\nsearch other\n");
        let private = Reach::Private { ipv6: true };
        let none = Wishes::default();
        assert_eq!(text(generate(&machine, Some(&systemd), &none, private)), "nameserver 192.0.2.7\nsearch lan\n");
        assert_eq!(generate(&machine, None, &none, private), None);
        assert_eq!(generate(&machine, Some(&machine), &none, private), None);
    }

    #[test]
    fn wishes_come_first() {
        let machine = conf("nameserver 192.0.2.1\nsearch lan\noptions ndots:3\n");
        let mut wishes = Wishes {
            servers: vec!["9.9.9.9".parse().unwrap(), "::1".parse().unwrap()],
            search: vec!["x.example".into()],
            options: vec!["ndots:5".into()],
        };
        let made = text(generate(&machine, None, &wishes, Reach::Private { ipv6: false }));
        assert_eq!(made, "nameserver 9.9.9.9\nnameserver ::1\nsearch x.example\noptions ndots:5\n");
        wishes.search = vec![".".into()];
        let made = text(generate(&machine, None, &wishes, Reach::Embedded));
        assert_eq!(made, "nameserver 127.0.0.11\noptions ndots:5\n");
        assert!(text(generate(&machine, None, &Wishes::default(), Reach::Embedded)).ends_with("options ndots:3\n"));
        for (word, valid) in [("a.example", true), ("", false), ("a b", false), ("a\nnameserver", false), ("#", false)]
        {
            assert_eq!(valid_word(word), valid, "{word:?}");
        }
    }

    #[test]
    fn a_file_that_the_container_changed_stays() {
        let old = conf("nameserver 192.0.2.1\n");
        let new = conf("nameserver 127.0.0.11\n");
        let written = old.to_string().into_bytes();
        assert_eq!(replace(&written, &old, &new), Some(new.to_string().into_bytes()));
        let changed = [&written[..], b"# mine\n"].concat();
        assert_eq!(replace(&changed, &old, &new), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(content in "([a-z0-9.:% ]|nameserver |search |options |\n){0,30}") {
            let parsed = conf(&content);
            prop_assert_eq!(&conf(&parsed.to_string()), &parsed);
        }
    }
}
