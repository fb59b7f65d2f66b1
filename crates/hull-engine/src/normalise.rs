//! What package managers write that is different each time although nothing is: it is left out of a step's layer, or
//! becomes what it would be anywhere.
//!
//! Only what nobody relies on is left out: logs, and caches that are made again when they are missing. Where something
//! must be there, it is changed as little as can be:
//!
//! * Numbers that name the machine become ones that follow from the step: other images have others, the same has the same.
//! * Python's compiled files hold the time of their source. It follows the time that the source has in the layer, so that
//!   they stay valid.
//! * Days of password changes are not later than the layer.
//!
//! Regular files that have several names are left alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use hull_layer::tar::walk::Amended;
use hull_oci::Digest;
use serde::{Deserialize, Serialize};

/// Larger files are left as they are where they would have to be rewritten.
const MAX_TEXT: u64 = 1 << 20;

/// So many paths of each kind are named.
const NAMED: usize = 16;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// One kind of change, and the files that it was made to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Normalised {
    /// `omitted`, `machine-id`, `pyc` or `shadow`.
    pub what: String,
    /// How many files.
    pub count: u64,
    /// The first of them.
    pub paths: Vec<String>,
}

/// What a step's layer is normalised to.
#[derive(Debug)]
pub(crate) struct Normaliser {
    epoch: i64,
    machine_id: String,
    done: BTreeMap<&'static str, Normalised>,
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Omitted,
    MachineId,
    Python,
    Shadow,
}

impl Rule {
    fn name(self) -> &'static str {
        match self {
            Self::Omitted => "omitted",
            Self::MachineId => "machine-id",
            Self::Python => "pyc",
            Self::Shadow => "shadow",
        }
    }
}

/// The path below somebody's home directory.
fn of_home(path: &str) -> Option<&str> {
    path.strip_prefix("root/").or_else(|| path.strip_prefix("home/")?.split_once('/').map(|(_, rest)| rest))
}

fn is_log(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "dpkg.log",
        "alternatives.log",
        "bootstrap.log",
        "fontconfig.log",
        "apk.log",
        "pacman.log",
        "yum.log",
        "hawkey.log",
    ];
    NAMES.contains(&name) || name.starts_with("apt/") || (name.starts_with("dnf") && name.contains(".log"))
}

fn rule(path: &[u8]) -> Option<Rule> {
    let path = std::str::from_utf8(path).ok()?;
    let omitted = match path {
        "etc/machine-id" | "var/lib/dbus/machine-id" => return Some(Rule::MachineId),
        "etc/shadow" | "etc/shadow-" => return Some(Rule::Shadow),
        "var/cache/ldconfig/aux-cache" | "var/cache/apt/pkgcache.bin" | "var/cache/apt/srcpkgcache.bin" => true,
        path if path.ends_with(".pyc") => return Some(Rule::Python),
        path => {
            path.strip_prefix("var/log/").is_some_and(is_log)
                || path.starts_with("var/cache/man/") && path.ends_with("/index.db")
                || of_home(path).is_some_and(|rest| {
                    matches!(rest, ".wget-hsts" | ".npm/_update-notifier-last-checked")
                        || rest.starts_with(".npm/_logs/")
                        || rest.starts_with(".cache/pip/selfcheck/")
                })
        }
    };
    omitted.then_some(Rule::Omitted)
}

impl Normaliser {
    /// For a layer whose files are not later than `epoch`; `seed` is what the step is made of.
    pub(crate) fn new(epoch: i64, seed: &str) -> Self {
        let machine_id = Digest::of(format!("machine-id\n{seed}").as_bytes()).hex().chars().take(32).collect();
        Self { epoch, machine_id, done: BTreeMap::new() }
    }

    /// What is written of a file.
    pub(crate) fn amend(&mut self, path: &[u8], file: &File, size: u64) -> io::Result<Amended> {
        let Some(rule) = rule(path) else { return Ok(Amended::Same) };
        let amended = match rule {
            Rule::Omitted => Amended::Omitted,
            Rule::Python => self.python(file, size)?,
            Rule::MachineId => {
                let text = text(file, size)?;
                let is_id = |id: &str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
                match text.as_deref().map(str::trim_end).filter(|id| is_id(id)) {
                    Some(_) => Amended::Replaced(format!("{}\n", self.machine_id).into_bytes()),
                    None => Amended::Same,
                }
            }
            Rule::Shadow => match text(file, size)? {
                Some(text) => self.shadow(&text),
                None => Amended::Same,
            },
        };
        if amended != Amended::Same {
            let done = self.done.entry(rule.name()).or_default();
            rule.name().clone_into(&mut done.what);
            done.count += 1;
            if done.paths.len() < NAMED {
                done.paths.push(format!("/{}", hull_oci::spec::one_line(&String::from_utf8_lossy(path))));
            }
        }
        Ok(amended)
    }

    /// What was done.
    pub(crate) fn finish(self) -> Vec<Normalised> {
        self.done.into_values().collect()
    }

    /// Magic number, `\r\n`, four bytes of flags, the source's time and size; other flags mean a digest in their place.
    fn python(&self, file: &File, size: u64) -> io::Result<Amended> {
        let mut head = [0; 12];
        if size < 16 {
            return Ok(Amended::Same);
        }
        file.read_exact_at(&mut head, 0)?;
        let [_, _, 0x0d, 0x0a, 0, 0, 0, 0, time @ ..] = head else { return Ok(Amended::Same) };
        match u32::try_from(self.epoch) {
            Ok(epoch) if u32::from_le_bytes(time) > epoch => {
                head[8..].copy_from_slice(&epoch.to_le_bytes());
                Ok(Amended::Begins(head.to_vec()))
            }
            _ => Ok(Amended::Same),
        }
    }

    /// The third field is the day of the last change.
    fn shadow(&self, text: &str) -> Amended {
        let latest = self.epoch.div_euclid(DAY);
        let mut changed = false;
        let mut line = |line: &str| {
            let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
            if let Some(field) = fields.get_mut(2)
                && field.parse::<i64>().is_ok_and(|day| day > latest)
            {
                *field = latest.to_string();
                changed = true;
            }
            fields.join(":")
        };
        let lines: Vec<String> = text.split('\n').map(&mut line).collect();
        if changed { Amended::Replaced(lines.join("\n").into_bytes()) } else { Amended::Same }
    }
}

/// A small file's text, if it is one.
fn text(file: &File, size: u64) -> io::Result<Option<String>> {
    if size > MAX_TEXT {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8(bytes).ok())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const EPOCH: i64 = 1_700_000_000;

    fn amend(normaliser: &mut Normaliser, path: &str, content: &[u8]) -> Amended {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        normaliser.amend(path.as_bytes(), &file, content.len() as u64).unwrap()
    }

    #[test]
    fn noise_is_left_out_and_nothing_else() {
        let mut normaliser = Normaliser::new(EPOCH, "step");
        for (path, omitted) in [
            ("var/log/dpkg.log", true),
            ("var/log/apt/history.log", true),
            ("var/log/dnf.rpm.log", true),
            ("var/log/nginx/access.log", false),
            ("opt/var/log/dpkg.log", false),
            ("var/cache/ldconfig/aux-cache", true),
            ("var/cache/apt/pkgcache.bin", true),
            ("var/cache/apt/archives/x.deb", false),
            ("var/lib/apt/lists/deb.example_InRelease", false),
            ("var/cache/man/de/index.db", true),
            ("root/.wget-hsts", true),
            ("home/me/.npm/_logs/2026.log", true),
            ("home/me/.npm/_cacache/x", false),
            ("srv/.wget-hsts", false),
        ] {
            let expected = if omitted { Amended::Omitted } else { Amended::Same };
            assert_eq!(amend(&mut normaliser, path, b"x"), expected, "{path}");
        }
        let done = normaliser.finish();
        assert_eq!((done.len(), done[0].what.as_str(), done[0].count), (1, "omitted", 8));
        assert_eq!(done[0].paths[0], "/var/log/dpkg.log");
    }

    #[test]
    fn a_machine_id_follows_from_the_step() {
        let id =
            |seed: &str, path: &str, content: &str| amend(&mut Normaliser::new(EPOCH, seed), path, content.as_bytes());
        let own = "0123456789abcdef0123456789abcdef\n";
        let Amended::Replaced(first) = id("a", "etc/machine-id", own) else { panic!("not replaced") };
        assert_eq!((first.len(), first[32]), (33, b'\n'));
        assert!(first != own.as_bytes());
        assert_eq!(id("a", "var/lib/dbus/machine-id", &own.to_uppercase()), Amended::Replaced(first.clone()));
        assert_ne!(id("b", "etc/machine-id", own), Amended::Replaced(first));
        // systemd takes these to mean that there is none yet.
        assert_eq!(id("a", "etc/machine-id", ""), Amended::Same);
        assert_eq!(id("a", "etc/machine-id", "uninitialized\n"), Amended::Same);
    }

    #[test]
    fn compiled_python_follows_its_source() {
        let pyc = |flags: u32, time: u32| {
            let mut bytes = vec![0x6f, 0x0d, 0x0d, 0x0a];
            bytes.extend(flags.to_le_bytes());
            bytes.extend(time.to_le_bytes());
            bytes.extend(b"size and code");
            bytes
        };
        let mut normaliser = Normaliser::new(EPOCH, "step");
        let mut check = |bytes: &[u8]| amend(&mut normaliser, "usr/lib/python3/__pycache__/x.pyc", bytes);
        let later = pyc(0, 1_800_000_000);
        assert_eq!(check(&later), Amended::Begins(pyc(0, 1_700_000_000)[..12].to_vec()));
        assert_eq!(check(&pyc(0, 1_600_000_000)), Amended::Same);
        assert_eq!(check(&pyc(1, 1_800_000_000)), Amended::Same);
        assert_eq!(check(b"none"), Amended::Same);
        assert_eq!(check(b"nothing of the kind"), Amended::Same);
    }

    #[test]
    fn passwords_do_not_change_later_than_the_layer() {
        let mut normaliser = Normaliser::new(EPOCH, "step");
        let text = "root:*:19000:0:99999:7:::\nme:!:20777:0:99999:7:::\nodd\n";
        let expected = "root:*:19000:0:99999:7:::\nme:!:19675:0:99999:7:::\nodd\n";
        let amended = amend(&mut normaliser, "etc/shadow", text.as_bytes());
        assert_eq!(amended, Amended::Replaced(expected.as_bytes().to_vec()));
        assert_eq!(amend(&mut normaliser, "etc/shadow-", expected.as_bytes()), Amended::Same);
        assert_eq!(amend(&mut normaliser, "etc/gshadow", text.as_bytes()), Amended::Same);
    }
}
