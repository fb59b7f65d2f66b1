//! Mount options: the strings of `mounts[].options`, and what each means to the kernel.
//!
//! An option is a mount attribute, an attribute of all submounts (the `r` forms), a propagation type, a flag of the
//! file system, an instruction to the runtime, or else a parameter of the file system itself.

use std::ffi::CString;

use hull_oci::spec::IdMapping;
use hull_sys::mount::{Attributes, Propagation};

/// What one known option string does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Nothing: the default.
    Nothing,
    /// Sets attributes, clears others, on the mount alone or on its submounts too.
    Attribute { set: Attributes, clear: Attributes, recursive: bool },
    /// Changes propagation, of the mount alone or of its submounts too.
    Propagate(Propagation, bool),
    /// Passed to a new file system as a flag parameter of that name.
    Superblock,
    /// A bind mount, with or without submounts.
    Bind { recursive: bool },
    /// Changes an existing mount.
    Remount,
    /// A tmpfs starts with what the directory under it holds.
    CopyUp,
    /// IDs are mapped.
    Idmap { recursive: bool },
    /// A source that is a symbolic link is copied instead of mounted.
    CopySymlink,
    /// A source that is a symbolic link is mounted itself.
    SourceNoFollow,
    /// A target that is a symbolic link is mounted on itself.
    TargetNoFollow,
}

const fn set(set: Attributes, recursive: bool) -> Meaning {
    Meaning::Attribute { set, clear: Attributes::empty(), recursive }
}

const fn clear(clear: Attributes, recursive: bool) -> Meaning {
    Meaning::Attribute { set: Attributes::empty(), clear, recursive }
}

/// Access time settings replace each other.
const fn atime(set: Attributes, recursive: bool) -> Meaning {
    Meaning::Attribute { set, clear: Attributes::ATIME_MASK, recursive }
}

const RELATIME: Attributes = Attributes::empty();

/// Every option string with a meaning of its own, sorted.
const TABLE: &[(&str, Meaning)] = &[
    ("async", Meaning::Superblock),
    ("atime", atime(RELATIME, false)),
    ("bind", Meaning::Bind { recursive: false }),
    ("copy-symlink", Meaning::CopySymlink),
    ("defaults", Meaning::Nothing),
    ("dest-nofollow", Meaning::TargetNoFollow),
    ("dev", clear(Attributes::NODEV, false)),
    ("diratime", clear(Attributes::NODIRATIME, false)),
    ("dirsync", Meaning::Superblock),
    ("exec", clear(Attributes::NOEXEC, false)),
    ("idmap", Meaning::Idmap { recursive: false }),
    ("iversion", Meaning::Superblock),
    ("lazytime", Meaning::Superblock),
    ("loud", Meaning::Nothing),
    ("mand", Meaning::Superblock),
    ("noatime", atime(Attributes::NOATIME, false)),
    ("nodev", set(Attributes::NODEV, false)),
    ("nodiratime", set(Attributes::NODIRATIME, false)),
    ("noexec", set(Attributes::NOEXEC, false)),
    ("noiversion", Meaning::Nothing),
    ("nolazytime", Meaning::Superblock),
    ("nomand", Meaning::Superblock),
    ("norelatime", atime(RELATIME, false)),
    ("nostrictatime", atime(RELATIME, false)),
    ("nosuid", set(Attributes::NOSUID, false)),
    ("nosymfollow", set(Attributes::NOSYMFOLLOW, false)),
    ("private", Meaning::Propagate(Propagation::Private, false)),
    ("ratime", atime(RELATIME, true)),
    ("rbind", Meaning::Bind { recursive: true }),
    ("rdev", clear(Attributes::NODEV, true)),
    ("rdiratime", clear(Attributes::NODIRATIME, true)),
    ("relatime", atime(RELATIME, false)),
    ("remount", Meaning::Remount),
    ("rexec", clear(Attributes::NOEXEC, true)),
    ("ridmap", Meaning::Idmap { recursive: true }),
    ("rnoatime", atime(Attributes::NOATIME, true)),
    ("rnodev", set(Attributes::NODEV, true)),
    ("rnodiratime", set(Attributes::NODIRATIME, true)),
    ("rnoexec", set(Attributes::NOEXEC, true)),
    ("rnorelatime", atime(RELATIME, true)),
    ("rnostrictatime", atime(RELATIME, true)),
    ("rnosuid", set(Attributes::NOSUID, true)),
    ("rnosymfollow", set(Attributes::NOSYMFOLLOW, true)),
    ("ro", set(Attributes::RDONLY, false)),
    ("rprivate", Meaning::Propagate(Propagation::Private, true)),
    ("rrelatime", atime(RELATIME, true)),
    ("rro", set(Attributes::RDONLY, true)),
    ("rrw", clear(Attributes::RDONLY, true)),
    ("rshared", Meaning::Propagate(Propagation::Shared, true)),
    ("rslave", Meaning::Propagate(Propagation::Slave, true)),
    ("rstrictatime", atime(Attributes::STRICTATIME, true)),
    ("rsuid", clear(Attributes::NOSUID, true)),
    ("rsymfollow", clear(Attributes::NOSYMFOLLOW, true)),
    ("runbindable", Meaning::Propagate(Propagation::Unbindable, true)),
    ("rw", clear(Attributes::RDONLY, false)),
    ("shared", Meaning::Propagate(Propagation::Shared, false)),
    ("silent", Meaning::Nothing),
    ("slave", Meaning::Propagate(Propagation::Slave, false)),
    ("src-nofollow", Meaning::SourceNoFollow),
    ("strictatime", atime(Attributes::STRICTATIME, false)),
    ("suid", clear(Attributes::NOSUID, false)),
    ("symfollow", clear(Attributes::NOSYMFOLLOW, false)),
    ("sync", Meaning::Superblock),
    ("tmpcopyup", Meaning::CopyUp),
    ("unbindable", Meaning::Propagate(Propagation::Unbindable, false)),
];

/// The option strings that are understood, sorted: `mountOptions` of `hull oci features`.
#[must_use]
pub fn known() -> Vec<&'static str> {
    TABLE.iter().map(|(name, _)| *name).collect()
}

/// Attributes to set and to clear in one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Set.
    pub set: Attributes,
    /// Cleared.
    pub clear: Attributes,
}

impl Change {
    fn add(&mut self, set: Attributes, clear: Attributes) {
        // The later option wins.
        self.set = (self.set - clear) | set;
        self.clear = (self.clear - (set - Attributes::ATIME_MASK)) | clear;
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.clear.is_empty()
    }
}

/// A parameter of a file system, for `fsconfig(2)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Name.
    pub key: CString,
    /// Value; absent for a flag.
    pub value: Option<CString>,
}

impl Parameter {
    /// A parameter with a value; `None` when either holds a null byte.
    #[must_use]
    pub fn new(key: &str, value: Option<&str>) -> Option<Self> {
        let value = match value {
            Some(value) => Some(CString::new(value).ok()?),
            None => None,
        };
        Some(Self { key: CString::new(key).ok()?, value })
    }
}

/// The options of one mount, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Attributes of the mount.
    pub attributes: Change,
    /// Attributes of the mount and all below it.
    pub recursive: Change,
    /// Propagation changes in order; `true` includes submounts.
    pub propagation: Vec<(Propagation, bool)>,
    /// Bind mount; `true` includes submounts.
    pub bind: Option<bool>,
    /// Change an existing mount.
    pub remount: bool,
    /// Fill a tmpfs from below.
    pub copy_up: bool,
    /// Map IDs; `true` includes submounts.
    pub idmap: Option<bool>,
    /// The mapping's ranges, where the option itself gives them.
    pub idmap_ranges: Option<InlineRanges>,
    /// Copy a source that is a symbolic link.
    pub copy_symlink: bool,
    /// Do not follow the source.
    pub source_nofollow: bool,
    /// Do not follow the target.
    pub target_nofollow: bool,
    /// Flags and parameters of the file system.
    pub parameters: Vec<Parameter>,
    /// First option without a meaning of its own, which a bind mount cannot have.
    pub foreign: Option<String>,
}

impl MountOptions {
    /// Understands a list of options; one string may hold several, separated by commas.
    ///
    /// # Errors
    /// The option that cannot be passed to the kernel.
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self, String> {
        let mut parsed = Self::default();
        for option in options.iter().flat_map(|option| split_commas(option.as_ref())) {
            parsed.add(option)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<(), String> {
        if option.is_empty() {
            return Ok(());
        }
        let Ok(index) = TABLE.binary_search_by_key(&option, |(name, _)| name) else {
            return self.add_parameter(option);
        };
        match TABLE[index].1 {
            Meaning::Nothing => {}
            Meaning::Attribute { set, clear, recursive: false } => self.attributes.add(set, clear),
            Meaning::Attribute { set, clear, recursive: true } => self.recursive.add(set, clear),
            Meaning::Propagate(kind, recursive) => self.propagation.push((kind, recursive)),
            Meaning::Superblock => {
                let parameter = Parameter::new(option, None).ok_or_else(|| option.to_owned())?;
                self.parameters.push(parameter);
            }
            Meaning::Bind { recursive } => self.bind = Some(recursive || self.bind == Some(true)),
            Meaning::Remount => self.remount = true,
            Meaning::CopyUp => self.copy_up = true,
            Meaning::Idmap { recursive } => self.idmap = Some(recursive || self.idmap == Some(true)),
            Meaning::CopySymlink => self.copy_symlink = true,
            Meaning::SourceNoFollow => self.source_nofollow = true,
            Meaning::TargetNoFollow => self.target_nofollow = true,
        }
        Ok(())
    }

    fn add_parameter(&mut self, option: &str) -> Result<(), String> {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        if matches!(key, "idmap" | "ridmap") {
            let ranges = InlineRanges::parse(value.unwrap_or_default()).ok_or_else(|| option.to_owned())?;
            self.idmap = Some(key == "ridmap" || self.idmap == Some(true));
            self.idmap_ranges = Some(ranges);
            return Ok(());
        }
        if key.is_empty() {
            return Err(option.to_owned());
        }
        self.foreign.get_or_insert_with(|| option.to_owned());
        self.parameters.push(Parameter::new(key, value).ok_or_else(|| option.to_owned())?);
        Ok(())
    }

    /// Whether a parameter of this name was given.
    #[must_use]
    pub fn has_parameter(&self, key: &str) -> bool {
        self.parameters.iter().any(|parameter| parameter.key.as_bytes() == key.as_bytes())
    }
}

/// Ranges in an option, as crun takes them: `idmap=uids=0-1000-1#1-2000-10;gids=0-1000-11`. A range is the ID on disk,
/// the ID on the host and the count; with `@` the second is one of the container's user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InlineRanges {
    uids: Vec<InlineRange>,
    gids: Vec<InlineRange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InlineRange {
    relative: bool,
    map: IdMapping,
}

impl InlineRanges {
    fn parse(text: &str) -> Option<Self> {
        let mut parsed = Self::default();
        for part in text.split(';') {
            let (list, ranges) = match part.split_once('=')? {
                ("uids", ranges) => (&mut parsed.uids, ranges),
                ("gids", ranges) => (&mut parsed.gids, ranges),
                _ => return None,
            };
            for range in ranges.split('#') {
                let (relative, numbers) = range.strip_prefix('@').map_or((false, range), |rest| (true, rest));
                let mut numbers = numbers.split('-').map(|number| number.parse::<u32>().ok());
                let map =
                    IdMapping { container_id: numbers.next()??, host_id: numbers.next()??, size: numbers.next()?? };
                if numbers.next().is_some() || map.size == 0 {
                    return None;
                }
                list.push(InlineRange { relative, map });
            }
        }
        Some(parsed)
    }

    /// The ranges with IDs of the host, given the maps of the container's user namespace.
    ///
    /// # Errors
    /// A sentence about a relative range that the container's user namespace does not hold.
    pub fn resolve(&self, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(Vec<IdMapping>, Vec<IdMapping>), String> {
        let list = |ranges: &[InlineRange], outer: &[IdMapping]| {
            ranges.iter().map(|range| range.resolve(outer)).collect::<Result<Vec<_>, _>>()
        };
        Ok((list(&self.uids, uids)?, list(&self.gids, gids)?))
    }
}

impl InlineRange {
    fn resolve(&self, outer: &[IdMapping]) -> Result<IdMapping, String> {
        if !self.relative {
            return Ok(self.map);
        }
        let IdMapping { host_id: first, size, .. } = self.map;
        let holds = |one: &&IdMapping| {
            let offset = first.checked_sub(one.container_id);
            offset.is_some_and(|offset| u64::from(offset) + u64::from(size) <= u64::from(one.size))
        };
        let outer = outer.iter().find(holds).ok_or_else(|| {
            format!("idmap: {size} IDs from {first} are not within one range of the container's user namespace")
        })?;
        Ok(IdMapping { host_id: outer.host_id + (first - outer.container_id), ..self.map })
    }
}

/// Splits at commas outside quotation marks (SELinux contexts are quoted and hold commas).
fn split_commas(option: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    option.split(move |character: char| {
        quoted ^= character == '"';
        character == ',' && !quoted
    })
}

/// `linux.rootfsPropagation`: the plain and the `r` form both.
#[must_use]
pub fn root_propagation(name: &str) -> Option<(Propagation, bool)> {
    let index = TABLE.binary_search_by_key(&name, |(known, _)| known).ok()?;
    match TABLE[index].1 {
        Meaning::Propagate(kind, recursive) => Some((kind, recursive)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> MountOptions {
        MountOptions::parse(options).unwrap()
    }

    #[test]
    fn table_is_sorted_and_complete() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        // Everything that runc lists.
        let expected = "async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noatime \
             nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private \
             ratime rbind rdev rdiratime relatime remount rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime \
             rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
             rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable";
        for name in expected.split_whitespace() {
            assert!(known().contains(&name), "{name}");
        }
    }

    #[test]
    fn attributes_and_their_clear_forms() {
        for (option, bit) in [
            ("ro", Attributes::RDONLY),
            ("nosuid", Attributes::NOSUID),
            ("nodev", Attributes::NODEV),
            ("noexec", Attributes::NOEXEC),
            ("nodiratime", Attributes::NODIRATIME),
            ("nosymfollow", Attributes::NOSYMFOLLOW),
        ] {
            let inverse = if option == "ro" { "rw" } else { &option[2..] };
            assert_eq!(parse(&[option]).attributes, Change { set: bit, clear: Attributes::empty() }, "{option}");
            assert_eq!(parse(&[option, inverse]).attributes, Change { set: Attributes::empty(), clear: bit });
            assert_eq!(parse(&[inverse, option]).attributes, Change { set: bit, clear: Attributes::empty() });
            let (recursive, back) = (format!("r{option}"), format!("r{inverse}"));
            assert_eq!(parse(&[&recursive]).recursive.set, bit, "{recursive}");
            assert_eq!(parse(&[&back]).recursive.clear, bit, "{back}");
            assert!(parse(&[&recursive]).attributes.is_empty());
        }
    }

    #[test]
    fn access_time_settings_replace_each_other() {
        for (options, expected) in [
            (vec!["noatime"], Attributes::NOATIME),
            (vec!["noatime", "strictatime"], Attributes::STRICTATIME),
            (vec!["strictatime", "relatime"], Attributes::empty()),
            (vec!["noatime", "atime"], Attributes::empty()),
            (vec!["relatime", "noatime"], Attributes::NOATIME),
        ] {
            let change = parse(&options).attributes;
            assert_eq!(change, Change { set: expected, clear: Attributes::ATIME_MASK }, "{options:?}");
        }
    }

    #[test]
    fn the_rest() {
        let parsed = parse(&["rbind,ro", "rslave", "private", "mode=755", "size=64m", "sync", "newinstance"]);
        assert_eq!(parsed.bind, Some(true));
        assert_eq!(parsed.propagation, [(Propagation::Slave, true), (Propagation::Private, false)]);
        assert_eq!(parsed.foreign.as_deref(), Some("mode=755"));
        let keys: Vec<_> = parsed.parameters.iter().map(|one| one.key.to_str().unwrap()).collect();
        assert_eq!(keys, ["mode", "size", "sync", "newinstance"]);
        assert!(parsed.has_parameter("mode") && !parsed.has_parameter("uid"));
        assert_eq!(parse(&["idmap", "ridmap"]).idmap, Some(true));
        assert_eq!(parse(&["context=\"a:b:c1,c2\""]).parameters.len(), 1);
        assert!(MountOptions::parse(&["=x"]).is_err());
        assert!(MountOptions::parse(&["a\0b"]).is_err());
    }

    #[test]
    fn ranges_in_the_option_itself() {
        let map = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        let parsed = parse(&["bind", "idmap=uids=0-1000-1#1-2000-10;gids=0-5-11"]);
        assert_eq!(parsed.idmap, Some(false));
        let (uids, gids) = parsed.idmap_ranges.unwrap().resolve(&[], &[]).unwrap();
        assert_eq!((uids, gids), (vec![map(0, 1000, 1), map(1, 2000, 10)], vec![map(0, 5, 11)]));
        let relative = parse(&["ridmap=uids=@1-3-10;gids=@0-0-1"]);
        assert_eq!(relative.idmap, Some(true));
        let ranges = relative.idmap_ranges.unwrap();
        let outer = [map(0, 0, 1), map(1, 2, 1000)];
        let (uids, gids) = ranges.resolve(&outer, &outer).unwrap();
        assert_eq!((uids, gids), (vec![map(1, 4, 10)], vec![map(0, 0, 1)]));
        assert!(ranges.resolve(&[map(0, 0, 5)], &outer).unwrap_err().contains("10 IDs from 3"));
        for wrong in ["", "uids", "uids=", "uids=1-2", "uids=1-2-0", "uids=1-2-3-4", "pids=0-0-1", "uids=0-0-1;"] {
            assert!(MountOptions::parse(&[format!("idmap={wrong}")]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn root_propagation_takes_both_forms() {
        assert_eq!(root_propagation("private"), Some((Propagation::Private, false)));
        assert_eq!(root_propagation("rslave"), Some((Propagation::Slave, true)));
        assert_eq!(root_propagation("unbindable"), Some((Propagation::Unbindable, false)));
        assert_eq!(root_propagation("ro"), None);
        assert_eq!(root_propagation("sideways"), None);
    }
}
