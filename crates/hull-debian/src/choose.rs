//! From `debian:bookworm` to archives and keyrings: what the user gave, what apt is configured to, known defaults.

use std::path::{Path, PathBuf};

use crate::apt::{Keys, Machine, Source};
use crate::error::{Error, one_line};

/// A distribution's release, as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Such as `debian`.
    pub family: String,
    /// Such as `bookworm`.
    pub suite: String,
}

/// What is known about a distribution.
struct Family {
    name: &'static str,
    mirror: &'static str,
    security: &'static str,
    keyring: &'static str,
    components: &'static [&'static str],
    /// Versions and other names of releases.
    aliases: &'static [(&'static str, &'static str)],
    /// Releases without updates of their own.
    rolling: &'static [&'static str],
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "debian",
        mirror: "http://deb.debian.org/debian",
        security: "http://deb.debian.org/debian-security",
        keyring: "/usr/share/keyrings/debian-archive-keyring.gpg",
        components: &["main"],
        aliases: &[
            ("latest", "stable"),
            ("11", "bullseye"),
            ("12", "bookworm"),
            ("13", "trixie"),
            ("14", "forky"),
            ("unstable", "sid"),
        ],
        rolling: &["sid", "experimental"],
    },
    Family {
        name: "ubuntu",
        mirror: "http://archive.ubuntu.com/ubuntu",
        security: "http://security.ubuntu.com/ubuntu",
        keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        components: &["main", "universe"],
        aliases: &[("latest", "noble"), ("20.04", "focal"), ("22.04", "jammy"), ("24.04", "noble")],
        rolling: &[],
    },
];

impl Target {
    /// Reads `family:suite`; without a suite the family's latest stable one is meant.
    ///
    /// # Errors
    /// [`Error::Sources`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (family, suite) = text.split_once(':').unwrap_or((text, "latest"));
        let word = |text: &str| {
            let plain = |one: char| one.is_ascii_alphanumeric() || "._-".contains(one);
            (1..=64).contains(&text.len())
                && text.starts_with(|one: char| one.is_ascii_alphanumeric())
                && text.chars().all(plain)
        };
        if !word(family) || !word(suite) {
            let text = one_line(text);
            return Err(Error::Sources(format!(
                "{text:?} names no distribution: expected one such as debian:bookworm"
            )));
        }
        let family = family.to_ascii_lowercase();
        let known = FAMILIES.iter().find(|one| one.name == family);
        let alias = known.and_then(|known| known.aliases.iter().find(|(name, _)| *name == suite));
        let suite = alias.map_or(suite, |(_, suite)| suite).to_owned();
        Ok(Self { family, suite })
    }

    fn known(&self) -> Option<&'static Family> {
        FAMILIES.iter().find(|one| one.name == self.family)
    }
}

/// What the user gave.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The archive to use instead of all others.
    pub mirror: Option<String>,
    /// The keyring to use instead of all others.
    pub keyring: Option<PathBuf>,
    /// Components instead of the configured or usual ones.
    pub components: Vec<String>,
}

/// Archives to take packages from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The release itself first, then its updates.
    pub sources: Vec<Source>,
    /// Whether they are the machine's own; only then its options about dates count.
    pub configured: bool,
}

/// Chooses the archives of a release.
///
/// # Errors
/// [`Error::Sources`] when nothing is known about it.
pub fn choose(target: &Target, machine: &Machine, given: &Given, architecture: &str) -> Result<Choice, Error> {
    let known = target.known();
    let usual = || known.map_or_else(|| vec!["main".to_owned()], |one| own(one.components));
    let mut configured = false;
    let mut sources: Vec<Source> = if let Some(mirror) = &given.mirror {
        check_uri(mirror, "--mirror")?;
        // A mirror's signature is checked as that of the archive it is one of.
        let keys = machine_keys(target, machine, known);
        vec![source(mirror, &target.suite, usual(), keys)]
    } else {
        let family =
            |one: &&Source| one.architectures.is_empty() || one.architectures.iter().any(|arch| arch == architecture);
        let suites = [
            target.suite.clone(),
            format!("{}-updates", target.suite),
            format!("{}-security", target.suite),
            format!("{}/updates", target.suite),
        ];
        let of_suite = |one: &&Source| {
            let suite = one.suite.trim_end_matches('/');
            known.is_some() && suites.iter().any(|wanted| wanted == suite) && !one.components.is_empty()
        };
        let mut found: Vec<Source> = machine.sources.iter().filter(family).filter(of_suite).cloned().collect();
        // The release itself comes first, whatever the order of apt's files.
        found.sort_by_key(|one| one.suite.trim_end_matches('/') != target.suite);
        if found.first().is_some_and(|first| first.suite.trim_end_matches('/') == target.suite) {
            configured = true;
            found
        } else {
            defaults(target, machine, known)?
        }
    };
    for source in &mut sources {
        if !given.components.is_empty() {
            source.components.clone_from(&given.components);
        }
        if let Some(keyring) = &given.keyring {
            source.keys = Keys { files: vec![keyring.clone()], ..Keys::default() };
        } else if source.keys.files.is_empty() && source.keys.embedded.is_none() {
            source.keys.files = fallback_keyrings(machine, known);
        }
        source.uri = source.uri.trim_end_matches('/').to_owned();
    }
    Ok(Choice { sources, configured })
}

fn own(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn source(uri: &str, suite: &str, components: Vec<String>, keys: Keys) -> Source {
    Source { uri: uri.to_owned(), suite: suite.to_owned(), components, architectures: Vec::new(), keys }
}

/// The archives of a release that apt is not configured to: the mirror it uses for another release, or the usual one.
fn defaults(target: &Target, machine: &Machine, known: Option<&'static Family>) -> Result<Vec<Source>, Error> {
    let Some(known) = known else {
        let names: Vec<&str> = FAMILIES.iter().map(|one| one.name).collect();
        let reason = format!(
            "nothing is known about {:?}: give --mirror and --keyring, or one of {}",
            target.family,
            names.join(", ")
        );
        return Err(Error::Sources(reason));
    };
    let components = own(known.components);
    let used = |ending: &str| machine.sources.iter().find(|one| one.uri.trim_end_matches('/').ends_with(ending));
    let keys = machine_keys(target, machine, Some(known));
    let mirror = used(&format!("/{}", known.name)).map_or(known.mirror, |one| one.uri.as_str());
    let security = used(&format!("/{}-security", known.name)).map_or(known.security, |one| one.uri.as_str());
    let mut sources = vec![source(mirror, &target.suite, components.clone(), keys.clone())];
    if !known.rolling.contains(&target.suite.as_str()) {
        for (uri, suffix) in [(mirror, "updates"), (security, "security")] {
            sources.push(source(uri, &format!("{}-{suffix}", target.suite), components.clone(), keys.clone()));
        }
    }
    Ok(sources)
}

/// The keys that apt takes for another release of the distribution.
fn machine_keys(target: &Target, machine: &Machine, known: Option<&'static Family>) -> Keys {
    let ending = format!("/{}", target.family);
    let same = machine.sources.iter().find(|one| known.is_some() && one.uri.trim_end_matches('/').ends_with(&ending));
    same.map(|one| one.keys.clone()).unwrap_or_default()
}

/// What the distribution installs, or else what apt trusts for everything.
fn fallback_keyrings(machine: &Machine, known: Option<&'static Family>) -> Vec<PathBuf> {
    let usual = known.map(|one| PathBuf::from(one.keyring)).filter(|path| Path::is_file(path));
    usual.map_or_else(|| machine.trusted.clone(), |path| vec![path])
}

/// Refuses what is no archive's address.
///
/// # Errors
/// [`Error::Sources`].
pub fn check_uri(uri: &str, flag: &str) -> Result<(), Error> {
    let shown = one_line(uri);
    let wrong = |reason: &str| Error::Sources(format!("{flag} {shown:?}: {reason}"));
    let rest = ["http://", "https://", "file:/"].iter().find_map(|scheme| uri.strip_prefix(scheme));
    let Some(rest) = rest else {
        return Err(wrong("expected an address that starts with http://, https:// or file:/"));
    };
    let host = rest.split('/').next().unwrap_or_default();
    if !uri.starts_with("file:") && (host.is_empty() || host.contains('@')) {
        return Err(wrong("it needs a host, without a user name or password, which would be kept in the image"));
    }
    if uri.len() > 1000 || !uri.chars().all(|one| one.is_ascii_graphic() && !"?#\\\"'<>[]{}|^`".contains(one)) {
        return Err(wrong("it has characters that no archive's address has"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let keys = Keys { files: vec![PathBuf::from("/k.gpg")], ..Keys::default() };
        let one = |uri: &str, suite: &str| source(uri, suite, vec!["main".to_owned()], keys.clone());
        let sources = vec![
            one("http://m/debian-security", "bookworm-security"),
            one("http://m/debian", "bookworm"),
            one("http://m/debian", "bookworm-updates"),
            one("http://m/debian", "bookworm-backports"),
            one("https://third/party", "stable"),
        ];
        Machine { sources, ..Machine::default() }
    }

    fn chosen(target: &str, machine: &Machine, given: &Given) -> Vec<String> {
        let target = Target::parse(target).expect("target");
        let choice = choose(&target, machine, given, "amd64").expect("choice");
        choice.sources.iter().map(|one| format!("{} {} {}", one.uri, one.suite, one.components.join(","))).collect()
    }

    #[test]
    fn names() {
        let parse = |text| Target::parse(text).map(|one| format!("{}:{}", one.family, one.suite)).ok();
        assert_eq!(parse("debian:12").as_deref(), Some("debian:bookworm"));
        assert_eq!(parse("debian").as_deref(), Some("debian:stable"));
        assert_eq!(parse("Ubuntu:22.04").as_deref(), Some("ubuntu:jammy"));
        for bad in ["", "debian:", ":x", "debian:../x", "debian:a/b", "a b:c", "debian:a:b"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_machines_own_archives() {
        assert_eq!(
            chosen("debian:bookworm", &machine(), &Given::default()),
            [
                "http://m/debian bookworm main",
                "http://m/debian-security bookworm-security main",
                "http://m/debian bookworm-updates main"
            ]
        );
    }

    #[test]
    fn another_release_from_the_machines_mirror() {
        assert_eq!(
            chosen("debian:trixie", &machine(), &Given::default()),
            [
                "http://m/debian trixie main",
                "http://m/debian trixie-updates main",
                "http://m/debian-security trixie-security main"
            ]
        );
        assert_eq!(chosen("debian:sid", &machine(), &Given::default()), ["http://m/debian sid main"]);
    }

    #[test]
    fn defaults_without_configuration() {
        let none = Machine::default();
        assert_eq!(
            chosen("ubuntu:24.04", &none, &Given::default()),
            [
                "http://archive.ubuntu.com/ubuntu noble main,universe",
                "http://archive.ubuntu.com/ubuntu noble-updates main,universe",
                "http://security.ubuntu.com/ubuntu noble-security main,universe"
            ]
        );
        let target = Target::parse("other:x").expect("target");
        let error = choose(&target, &none, &Given::default(), "amd64").expect_err("unknown").to_string();
        assert!(error.contains("--mirror"), "{error}");
    }

    #[test]
    fn what_is_given_wins() {
        let given = Given {
            mirror: Some("file:///srv/mirror/".to_owned()),
            keyring: Some(PathBuf::from("/mine.gpg")),
            components: vec!["main".to_owned(), "contrib".to_owned()],
        };
        assert_eq!(chosen("debian:bookworm", &machine(), &given), ["file:///srv/mirror bookworm main,contrib"]);
        let target = Target::parse("own:thing").expect("target");
        let choice = choose(&target, &machine(), &given, "amd64").expect("any family");
        assert_eq!(choice.sources[0].keys.files, [PathBuf::from("/mine.gpg")]);
        assert!(!choice.configured);
        for bad in ["ftp://x/y", "http://", "http://user:secret@host/x", "http://h/a b", "debian", "http://h/\n"] {
            assert!(check_uri(bad, "--mirror").is_err(), "{bad}");
        }
    }
}
