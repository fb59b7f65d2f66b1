//! Ports of `EXPOSE`: `[[IP:]HOST:]PORT[-PORT][/PROTOCOL]`, of which only the last part means anything.

use crate::error::quote;

/// What an `EXPOSE` word means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// Protocol as written; `tcp` if none is.
    pub protocol: String,
    /// An address or a port of the host was written, too.
    pub mapped: bool,
}

impl Ports {
    /// Parses an expanded word.
    ///
    /// # Errors
    /// A port, a range, a protocol or an address that is none.
    pub fn parse(word: &str) -> Result<Self, String> {
        let mut parts = word.rsplitn(3, ':');
        let (port, host, address) =
            (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let (port, protocol) = port.split_once('/').unwrap_or((port, ""));
        let invalid = |reason: String| format!("invalid port: {}: {reason}", quote(word));
        if port.is_empty() {
            return Err(invalid("no port specified".into()));
        }
        let protocol = match protocol.to_lowercase().as_str() {
            "" => "tcp",
            "tcp" | "udp" | "sctp" => protocol,
            _ => return Err(invalid(format!("invalid proto: {protocol}"))),
        };
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        if !address.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("invalid IP address: {bare}"));
        }
        let (first, last) = range(port).ok_or_else(|| format!("invalid containerPort: {port}"))?;
        if !host.is_empty() {
            let (low, high) = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
            if high - low != last - first && last != first {
                return Err(format!("invalid ranges specified for container and host Ports: {port} and {host}"));
            }
        }
        Ok(Self { first, last, protocol: protocol.to_owned(), mapped: !host.is_empty() || !address.is_empty() })
    }

    /// The ports as an image's configuration has them: `80/tcp`.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let protocol = self.protocol.to_lowercase();
        (self.first..=self.last).map(move |port| format!("{port}/{protocol}"))
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.strip_prefix('+').unwrap_or(text).parse().ok();
    match text.split_once('-') {
        Some((first, last)) => port(first).zip(port(last)).filter(|(first, last)| first <= last),
        None => port(text).map(|port| (port, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_every_port_of_it() {
        let ports = Ports::parse("127.0.0.1:90-92:80-82/UDP").unwrap();
        assert_eq!(ports.names().collect::<Vec<_>>(), ["80/udp", "81/udp", "82/udp"]);
        assert!(ports.mapped);
        assert!(Ports::parse("[::1]:80:80").unwrap().mapped);
        assert!(!Ports::parse("80").unwrap().mapped);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (word, reason) in [
            ("abc", "invalid containerPort: abc"),
            ("9-1", "invalid containerPort: 9-1"),
            ("70000", "invalid containerPort: 70000"),
            ("80/foo", "invalid port: \"80/foo\": invalid proto: foo"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("x:80:80", "invalid IP address: x"),
            ("y:80", "invalid hostPort: y"),
            ("1-3:80-81", "invalid ranges specified for container and host Ports: 80-81 and 1-3"),
        ] {
            assert_eq!(Ports::parse(word).unwrap_err(), reason);
        }
    }
}
