//! The cgroup file systems of this machine: where each controller is mounted and where this process stands.
//!
//! Reads `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and `/proc/self/cgroup` (cgroups(7)); nothing is changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::io;

/// Where everybody mounts them.
const STANDARD: &str = "/sys/fs/cgroup";

/// Version of one hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One of several hierarchies, each with its controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// How the machine uses the versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Only v1.
    V1,
    /// Controllers on v1 and a unified hierarchy beside them.
    Hybrid,
    /// Only v2.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// v1 or v2.
    pub version: Version,
    /// Its controllers; `name=systemd` for a named one, `cgroup.controllers` of the root on v2.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Group that is the mount's root; `/` unless only a part is mounted.
    pub root: String,
    /// Group of this process, from the hierarchy's root.
    pub own: String,
}

impl Hierarchy {
    /// Name of its directory in a container: `memory`, `cpu,cpuacct`, `systemd`, `unified`.
    #[must_use]
    pub fn name(&self) -> String {
        if self.version == Version::V2 {
            return "unified".to_owned();
        }
        let joined = self.controllers.join(",");
        joined.strip_prefix("name=").map_or(joined.clone(), str::to_owned)
    }

    /// Whether it has a kernel controller (a named hierarchy has none).
    #[must_use]
    pub fn has_controllers(&self) -> bool {
        self.controllers.iter().any(|name| !name.starts_with("name="))
    }

    /// A group's directory; `group` is a path from the hierarchy's root.
    #[must_use]
    pub fn directory(&self, group: &str) -> PathBuf {
        let below = group.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(group);
        self.mount.join(below.trim_start_matches('/'))
    }
}

/// All hierarchies, probed once per command.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    list: Vec<Hierarchy>,
}

impl Hierarchies {
    /// Finds the mounted hierarchies.
    ///
    /// # Errors
    /// When procfs cannot be read. A machine without any hierarchy is not an error here.
    pub fn probe() -> Result<Self, Error> {
        let own_path = Path::new("/proc/self/cgroup");
        let own = io::read_path(own_path).map_err(Error::system("read", own_path))?;
        // The common machine needs no walk through a mount table that may have thousands of lines.
        if rustix::fs::statfs(STANDARD).is_ok_and(|stat| stat.f_type as u64 == CGROUP2_SUPER_MAGIC) {
            let own = parse_own(&own).remove("").unwrap_or_else(|| "/".to_owned());
            let mut unified = Hierarchy {
                version: Version::V2,
                controllers: Vec::new(),
                mount: STANDARD.into(),
                root: "/".to_owned(),
                own,
            };
            unified.controllers = unified_controllers(&unified.mount);
            return Ok(Self { list: vec![unified] });
        }
        let table_path = Path::new("/proc/self/mountinfo");
        let table = io::read_path(table_path).map_err(Error::system("read", table_path))?;
        let mut found = Self::parse(&table, &own);
        for hierarchy in &mut found.list {
            if hierarchy.version == Version::V2 {
                hierarchy.controllers = unified_controllers(&hierarchy.mount);
            }
        }
        Ok(found)
    }

    /// As [`Hierarchies::probe`], from the text of the two files; the controllers of a unified hierarchy stay empty.
    #[must_use]
    pub fn parse(mountinfo: &str, own: &str) -> Self {
        let own = parse_own(own);
        let mut list: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(mount)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            let (version, controllers) = match kind {
                Some("cgroup2") => (Version::V2, Vec::new()),
                Some("cgroup") => (Version::V1, v1_controllers(options, &own)),
                _ => continue,
            };
            if version == Version::V1 && controllers.is_empty() {
                continue;
            }
            let mount = PathBuf::from(unescape(mount));
            let at_standard = mount.starts_with(STANDARD);
            // The first mount of a hierarchy counts, unless a later one is at the standard place.
            let same = |one: &Hierarchy| one.version == version && one.controllers == controllers;
            if let Some(earlier) = list.iter().position(same) {
                if list[earlier].mount.starts_with(STANDARD) || !at_standard {
                    continue;
                }
                list.remove(earlier);
            }
            let key = controllers.first().map_or("", String::as_str);
            let own = own.get(key).cloned().unwrap_or_else(|| "/".to_owned());
            list.push(Hierarchy { version, controllers, mount, root: unescape(root), own });
        }
        Self { list }
    }

    /// For tests and for machines described elsewhere.
    #[must_use]
    pub fn from_list(list: Vec<Hierarchy>) -> Self {
        Self { list }
    }

    /// The hierarchies in the order of the mount table.
    #[must_use]
    pub fn list(&self) -> &[Hierarchy] {
        &self.list
    }

    /// How the machine uses the versions; `None` without any hierarchy.
    #[must_use]
    pub fn layout(&self) -> Option<Layout> {
        let v1 = self.list.iter().any(|one| one.version == Version::V1 && one.has_controllers());
        match (v1, self.unified().is_some()) {
            (true, true) => Some(Layout::Hybrid),
            (true, false) => Some(Layout::V1),
            (false, true) => Some(Layout::V2),
            (false, false) => None,
        }
    }

    /// Whether there is only the unified hierarchy.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        self.layout() == Some(Layout::V2)
    }

    /// The unified hierarchy.
    #[must_use]
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.list.iter().find(|one| one.version == Version::V2)
    }

    /// The hierarchy that has a controller (`io` and `blkio` are different names here).
    #[must_use]
    pub fn of(&self, controller: &str) -> Option<&Hierarchy> {
        self.list.iter().find(|one| one.controllers.iter().any(|name| name == controller))
    }
}

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

fn unified_controllers(mount: &Path) -> Vec<String> {
    let content = io::read_path(&mount.join("cgroup.controllers")).unwrap_or_default();
    content.split_whitespace().map(str::to_owned).collect()
}

/// `/proc/self/cgroup`: group by controller; the unified one under an empty name.
fn parse_own(content: &str) -> BTreeMap<String, String> {
    let mut own = BTreeMap::new();
    for line in content.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(path)) = (fields.next(), fields.next()) {
            for controller in controllers.split(',') {
                own.insert(controller.to_owned(), path.to_owned());
            }
        }
    }
    own
}

/// The controllers among the super block's options: those that `/proc/self/cgroup` also knows.
fn v1_controllers(options: &str, own: &BTreeMap<String, String>) -> Vec<String> {
    options.split(',').filter(|option| own.contains_key(*option)).map(str::to_owned).collect()
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\'
            && let Some(digits) = tail.get(..3)
            && let Some(value) = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            bytes.push(value);
            rest = &tail[3..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 20 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
32 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
34 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
35 30 0:27 / /mnt/a\\040b rw,relatime - cgroup cgroup rw,memory
";
    const OWN: &str = "3:name=systemd:/init.scope\n2:memory:/a:b\n1:cpu,cpuacct:/\n0::/init.scope\n";

    #[test]
    fn hybrid_machine() {
        let found = Hierarchies::parse(HYBRID, OWN);
        assert_eq!(found.layout(), Some(Layout::Hybrid));
        let names: Vec<_> = found.list().iter().map(Hierarchy::name).collect();
        assert_eq!(names, ["cpu,cpuacct", "memory", "systemd", "unified"]);
        assert_eq!(found.of("memory").unwrap().own, "/a:b");
        assert_eq!(found.of("cpuacct").unwrap().mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found.unified().unwrap().own, "/init.scope");
        assert!(found.of("pids").is_none());
    }

    #[test]
    fn standard_place_is_preferred_and_partial_mounts_are_stripped() {
        let table = "35 30 0:27 /docker/x /mnt/a\\040b rw - cgroup cgroup rw,memory\n";
        let found = Hierarchies::parse(table, OWN);
        let memory = found.of("memory").unwrap();
        assert_eq!(memory.mount, Path::new("/mnt/a b"));
        assert_eq!(memory.directory("/docker/x/y"), Path::new("/mnt/a b/y"));
        let both = Hierarchies::parse(&format!("{table}{HYBRID}"), OWN);
        assert_eq!(both.of("memory").unwrap().mount, Path::new("/sys/fs/cgroup/memory"));
    }

    #[test]
    fn nothing_mounted() {
        let found = Hierarchies::parse("1 1 0:1 / / rw - ext4 /dev/a rw\nbroken\n", "");
        assert_eq!(found.layout(), None);
    }
}
