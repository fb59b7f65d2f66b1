//! Cache and memory bandwidth allocation: a group of the `resctrl` file system.
//!
//! Only groups below `/sys/fs/resctrl` are touched, by names without a slash. A group that existed before is joined and
//! never removed.

use std::path::{Path, PathBuf};

use hull_oci::spec::IntelRdt;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Error;

const ROOT: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC`.
const MAGIC: u64 = 0x0765_5821;
/// Directories of the file system's own.
const RESERVED: [&str; 3] = ["info", "mon_groups", "mon_data"];

/// Whether this machine allocates caches or memory bandwidth.
#[must_use]
pub fn available() -> bool {
    rustix::fs::statfs(ROOT).is_ok_and(|stat| stat.f_type as u64 == MAGIC)
}

/// A group to make or join.
#[derive(Debug)]
pub struct IntelRdtPlan {
    group: PathBuf,
    /// The group is made here, and goes with the container.
    create: bool,
    /// Lines for `schemata`.
    schemata: Vec<String>,
    /// Monitoring group inside the group.
    monitor: Option<PathBuf>,
}

impl IntelRdtPlan {
    /// Checks the section.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the machine has no mounted `resctrl`; [`Error::Config`] for a wrong name or line, and
    /// for a group that must exist and does not, or has other contents.
    pub fn new(rdt: &IntelRdt, id: &str) -> Result<Self, Error> {
        let plan = Self::build(Path::new(ROOT), rdt, id)?;
        if !available() {
            let reason = format!("{ROOT} is not mounted: this machine or kernel does not allocate caches");
            return Err(Error::unsupported("linux.intelRdt", reason));
        }
        plan.check_existing(rdt)
    }

    fn build(root: &Path, rdt: &IntelRdt, id: &str) -> Result<Self, Error> {
        let name = if rdt.clos_id.is_empty() { id } else { &rdt.clos_id };
        let root_group = rdt.clos_id == "/";
        let plain = !name.is_empty()
            && name.len() <= 255
            && !matches!(name, "." | "..")
            && !RESERVED.contains(&name)
            && !name.bytes().any(|byte| matches!(byte, b'/' | b'\n' | 0));
        if !plain && !root_group {
            return Err(Error::config("linux.intelRdt.closID", format!("{name:?} cannot be the name of a group")));
        }
        let mut schemata = Vec::new();
        let named = [("l3CacheSchema", "L3", &rdt.l3_cache_schema), ("memBwSchema", "MB", &rdt.mem_bw_schema)];
        for (field, resource, line) in named {
            if line.is_empty() {
                continue;
            }
            let starts = line.split(':').next().is_some_and(|start| start.trim().starts_with(resource));
            let several = line.trim().contains('\n') && field == "memBwSchema";
            if !starts || several || line.contains('\0') {
                let reason = format!("expected lines such as {resource}:0=f, found {line:?}");
                return Err(Error::config(format!("linux.intelRdt.{field}"), reason));
            }
            // An L3 schema may carry an MB line, which belongs to the other field.
            schemata.extend(line.lines().filter(|line| line.trim().starts_with(resource)).map(str::to_owned));
        }
        for (index, line) in rdt.schemata.iter().enumerate() {
            if line.contains(['\n', '\0']) || !line.contains(':') {
                let reason = format!("expected one line such as L3:0=f, found {line:?}");
                return Err(Error::config(format!("linux.intelRdt.schemata[{index}]"), reason));
            }
            schemata.push(line.clone());
        }
        let group = if root_group { root.to_owned() } else { root.join(name) };
        // A group for several containers is told apart by a monitoring group of each.
        let monitor = rdt.enable_monitoring.then(|| group.join("mon_groups").join(id));
        Ok(Self { group, create: false, schemata, monitor })
    }

    fn check_existing(mut self, rdt: &IntelRdt) -> Result<Self, Error> {
        let exists = self.group.is_dir();
        if !exists && !rdt.clos_id.is_empty() && self.schemata.is_empty() {
            let reason =
                format!("the group {} does not exist, and nothing is given to make it from", self.group.display());
            return Err(Error::config("linux.intelRdt.closID", reason));
        }
        self.create = !exists;
        if exists && !self.schemata.is_empty() {
            let path = self.group.join("schemata");
            let current = std::fs::read_to_string(&path).map_err(|error| io_error("read", &path, &error))?;
            for line in &self.schemata {
                if !current.lines().any(|existing| same_line(existing, line)) {
                    let reason = format!("the group {} exists with other contents than {line:?}", self.group.display());
                    return Err(Error::config("linux.intelRdt.closID", reason));
                }
            }
        }
        Ok(self)
    }

    /// The directory that is made for this container alone, to be removed with it.
    #[must_use]
    pub fn created_group(&self) -> Option<PathBuf> {
        if self.create { Some(self.group.clone()) } else { self.monitor.clone() }
    }

    /// Makes the group and its monitoring group, writes the schemata, and moves a process in.
    ///
    /// # Errors
    /// [`Error::System`]; a schema that the hardware refuses carries the kernel's own words.
    pub fn attach(&mut self, pid: i32) -> Result<(), Error> {
        if self.create {
            make(&self.group)?;
            for line in &self.schemata {
                let path = self.group.join("schemata");
                if let Err(error) = write(&path, &format!("{line}\n")) {
                    let words =
                        std::fs::read_to_string(Path::new(ROOT).join("info/last_cmd_status")).unwrap_or_default();
                    return Err(Error::config(
                        "linux.intelRdt",
                        format!("schema {line:?} was refused: {} ({error})", words.trim()),
                    ));
                }
            }
        }
        write(&self.group.join("tasks"), &pid.to_string())?;
        if let Some(monitor) = &self.monitor {
            make(monitor)?;
            write(&monitor.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }
}

/// Removes a group that was made for a container; a missing one is fine.
///
/// # Errors
/// [`Error::System`].
pub fn remove(group: &Path) -> Result<(), Error> {
    match rustix::fs::rmdir(group) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::system("remove resctrl group", group.display())(errno)),
    }
}

/// The kernel prints `L3:0=00f;1=00f`, with leading zeros and padding that the document need not have.
fn same_line(left: &str, right: &str) -> bool {
    let normal = |line: &str| -> Option<(String, Vec<(String, String)>)> {
        let (name, values) = line.trim().split_once(':')?;
        let values = values
            .split(';')
            .map(|value| {
                let (domain, value) = value.split_once('=').unwrap_or((value, ""));
                let value = value.trim().trim_start_matches('0').to_lowercase();
                (domain.trim().to_owned(), value)
            })
            .collect();
        Some((name.trim().to_owned(), values))
    };
    let (Some((left_name, left)), Some((right_name, right))) = (normal(left), normal(right)) else { return false };
    left_name == right_name && right.iter().all(|value| left.contains(value))
}

fn make(path: &Path) -> Result<(), Error> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::system("create resctrl group", path.display())(errno)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |errno| Error::system("write", path.display())(errno);
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    rustix::io::write(&file, text.as_bytes()).map(drop).map_err(failed)
}

fn io_error(operation: &'static str, path: &Path, error: &std::io::Error) -> Error {
    Error::system(operation, path.display())(Errno::from_io_error(error).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(change: impl FnOnce(&mut IntelRdt)) -> Result<IntelRdtPlan, Error> {
        let mut rdt = IntelRdt::default();
        change(&mut rdt);
        IntelRdtPlan::build(Path::new("/r"), &rdt, "box")
    }

    #[test]
    fn groups_are_named_after_the_class_or_the_container() {
        let plan = build(|rdt| rdt.l3_cache_schema = "L3:0=f\nMB:0=5".into()).unwrap();
        assert_eq!((plan.group, plan.schemata), ("/r/box".into(), vec![String::from("L3:0=f")]));
        let plan = build(|rdt| {
            rdt.clos_id = "gold".into();
            rdt.enable_monitoring = true;
        })
        .unwrap();
        assert_eq!(plan.monitor, Some("/r/gold/mon_groups/box".into()));
        assert_eq!(plan.created_group(), Some("/r/gold/mon_groups/box".into()));
    }

    #[test]
    fn wrong_sections_are_refused() {
        for name in ["..", ".", "a/b", "info", "a\nb"] {
            assert!(build(|rdt| rdt.clos_id = name.into()).is_err(), "{name:?}");
        }
        assert!(build(|rdt| rdt.mem_bw_schema = "L3:0=f".into()).is_err());
        assert!(build(|rdt| rdt.mem_bw_schema = "MB:0=5\nL3:0=1".into()).is_err());
        assert!(build(|rdt| rdt.schemata = vec!["L3:0=f\nX:1".into()]).is_err());
        assert!(build(|rdt| rdt.schemata = vec!["nonsense".into()]).is_err());
    }

    #[test]
    fn lines_are_compared_by_value() {
        assert!(same_line("    L3:0=00f;1=00F", "L3:0=f;1=f"));
        assert!(same_line("L3:0=f;1=f", "L3:1=f"));
        assert!(!same_line("L3:0=f", "L3:0=7"));
        assert!(!same_line("MB:0=10", "L3:0=10"));
    }

    #[test]
    fn a_machine_without_resctrl_says_so() {
        if available() {
            println!("skipped: this machine has resctrl");
            return;
        }
        let error = IntelRdtPlan::new(&IntelRdt::default(), "box").unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}
