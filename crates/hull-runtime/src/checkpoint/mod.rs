//! Checkpoint and restore through CRIU.
//!
//! CRIU does the work as `criu swrk`, a worker process of each request ([`rpc`]); this module says what of the container
//! is the container's own, what is outside, and what stands for the outside when it is restored. The image directory gets
//! one more file, `descriptors.json`: the names of descriptors 0, 1 and 2, so that new ones can take their place.
//!
//! A restored container is set up by CRIU inside a mount namespace of the restoring process, so that an aborted restore
//! leaves no mount on the machine.

mod dump;
mod protobuf;
mod restore;
mod rpc;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_cgroup::mount::CgroupMount;
use hull_cgroup::{Cgroup, Hierarchies};
use hull_oci::spec::{Mount, NamespaceType, Spec};
use rustix::fs::{Mode, OFlags};

use crate::error::Error;
use protobuf::Writer;

pub use dump::checkpoint;
pub use restore::restore;

/// Name of the file with the descriptors' names.
const DESCRIPTORS: &str = "descriptors.json";

/// What happens to cgroup properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// Cgroups are neither saved nor restored.
    Ignore,
    /// Properties of cgroups that CRIU makes are restored.
    #[default]
    Soft,
    /// Properties of all cgroups are restored.
    Full,
    /// As full, and an existing cgroup is an error.
    Strict,
}

impl CgroupMode {
    /// The mode by the name of the command line.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "ignore" => Some(Self::Ignore),
            "soft" => Some(Self::Soft),
            "full" => Some(Self::Full),
            "strict" => Some(Self::Strict),
            _ => None,
        }
    }

    const fn number(self) -> i64 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
        }
    }
}

/// What saving and restoring have in common.
#[derive(Debug, Default)]
pub struct ImageOptions {
    /// Directory of the image.
    pub image_path: PathBuf,
    /// Directory of logs and sockets; absent means the image's.
    pub work_path: Option<PathBuf>,
    /// Earlier image, relative to `image_path`.
    pub parent_path: Option<PathBuf>,
    /// Keep established TCP connections.
    pub tcp_established: bool,
    /// Skip connections that are just being made.
    pub tcp_skip_in_flight: bool,
    /// Allow external Unix sockets.
    pub ext_unix_sk: bool,
    /// The container's terminal and session belong to a shell outside.
    pub shell_job: bool,
    /// Keep file locks.
    pub file_locks: bool,
    /// Link unlinked files that are still open back into their directories.
    pub link_remap: bool,
    /// Fetch memory pages when they are touched.
    pub lazy_pages: bool,
    /// Drop pages of earlier images that a later one has.
    pub auto_dedup: bool,
    /// Leave these namespaces empty: network alone is supported.
    pub empty_network: bool,
    /// Cgroups.
    pub cgroup_mode: CgroupMode,
}

/// Options of [`checkpoint`].
#[derive(Debug, Default)]
pub struct CheckpointOptions {
    /// Image and features.
    pub image: ImageOptions,
    /// Let the container run on.
    pub leave_running: bool,
    /// Save memory only, ahead of the real checkpoint; the container runs on.
    pub pre_dump: bool,
    /// Address and port of the process that takes the memory pages.
    pub page_server: Option<(String, u16)>,
    /// Gets one null byte when lazy pages can be asked for.
    pub status_fd: Option<OwnedFd>,
}

/// Options of [`restore`], beside those of `create`.
#[derive(Debug, Default)]
pub struct RestoreOptions {
    /// Image and features.
    pub image: ImageOptions,
    /// `apparmor:NAME` or `selinux:LABEL` instead of the saved label.
    pub lsm_profile: Option<String>,
    /// SELinux context of the restored mounts.
    pub lsm_mount_context: Option<String>,
}

/// Field numbers of `criu_opts`.
mod field {
    pub(super) const IMAGES_DIR_FD: u32 = 1;
    pub(super) const PID: u32 = 2;
    pub(super) const LEAVE_RUNNING: u32 = 3;
    pub(super) const EXT_UNIX_SK: u32 = 4;
    pub(super) const TCP_ESTABLISHED: u32 = 5;
    pub(super) const EVASIVE_DEVICES: u32 = 6;
    pub(super) const SHELL_JOB: u32 = 7;
    pub(super) const FILE_LOCKS: u32 = 8;
    pub(super) const LOG_LEVEL: u32 = 9;
    pub(super) const LOG_FILE: u32 = 10;
    pub(super) const PAGE_SERVER: u32 = 11;
    pub(super) const NOTIFY_SCRIPTS: u32 = 12;
    pub(super) const ROOT: u32 = 13;
    pub(super) const PARENT_IMG: u32 = 14;
    pub(super) const TRACK_MEM: u32 = 15;
    pub(super) const AUTO_DEDUP: u32 = 16;
    pub(super) const WORK_DIR_FD: u32 = 17;
    pub(super) const LINK_REMAP: u32 = 18;
    pub(super) const MANAGE_CGROUPS: u32 = 24;
    pub(super) const CG_ROOT: u32 = 25;
    pub(super) const RST_SIBLING: u32 = 26;
    pub(super) const INHERIT_FD: u32 = 27;
    pub(super) const MANAGE_CGROUPS_MODE: u32 = 34;
    pub(super) const EXTERNAL: u32 = 37;
    pub(super) const EMPTY_NS: u32 = 38;
    pub(super) const JOIN_NS: u32 = 39;
    pub(super) const FREEZE_CGROUP: u32 = 44;
    pub(super) const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub(super) const LAZY_PAGES: u32 = 48;
    pub(super) const STATUS_FD: u32 = 49;
    pub(super) const ORPHAN_PTS_MASTER: u32 = 50;
    pub(super) const CONFIG_FILE: u32 = 51;
    pub(super) const LSM_PROFILE: u32 = 53;
    pub(super) const LSM_MOUNT_CONTEXT: u32 = 63;
    pub(super) const NETWORK_LOCK: u32 = 64;
}

/// Errors of the worker's log that a message repeats.
const MAX_ERRORS: usize = 3;
/// `network_lock`: not at all.
const LOCK_SKIP: i64 = 3;

/// Annotation that names a configuration file for CRIU.
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// `CLONE_NEWNET`.
const NEW_NETWORK: i64 = 0x4000_0000;

/// Open directories of a request.
#[derive(Debug)]
struct Directories {
    image: OwnedFd,
    work: OwnedFd,
    work_path: PathBuf,
}

impl Directories {
    fn open(options: &ImageOptions, create: bool) -> Result<Self, Error> {
        if options.image_path.as_os_str().is_empty() {
            return Err(Error::Checkpoint(String::from("expected an image path")));
        }
        let work_path = options.work_path.clone().unwrap_or_else(|| options.image_path.clone());
        Ok(Self { image: directory(&options.image_path, create)?, work: directory(&work_path, true)?, work_path })
    }

    /// The worker's errors, which its answer does not carry.
    fn explain(&self, error: Error, log: &str) -> Error {
        let Error::Checkpoint(message) = error else { return error };
        let path = self.work_path.join(log);
        let text = tail(&path);
        let errors = errors(&text);
        if errors.is_empty() {
            return Error::Checkpoint(format!("{message} (see {})", path.display()));
        }
        // The answer's own text is the log's first error, which is often one that did not matter.
        let message = message.split(": Error (").next().unwrap_or_default();
        Error::Checkpoint(format!("{message}: {} (see {})", errors.join("; "), path.display()))
    }
}

/// The last errors of a log, without their time stamps. What follows the final "... FAILED." is noise of undoing; what
/// comes from `util.c` says that some helper program was missing, and the line after it what that means.
fn errors(log: &str) -> Vec<&str> {
    let end = log.rfind("FAILED.").and_then(|end| log[..end].rfind('\n')).unwrap_or(log.len());
    let all = |helpers: bool| -> Vec<&str> {
        let mut errors: Vec<&str> = Vec::new();
        for line in log[..end].lines().rev() {
            let Some(error) = line.find("Error (").map(|start| line[start..].trim()) else { continue };
            if (helpers || !error.contains("util.c:")) && !errors.contains(&error) && errors.len() < MAX_ERRORS {
                errors.push(error);
            }
        }
        errors.reverse();
        errors
    };
    let found = all(false);
    if found.is_empty() { all(true) } else { found }
}

/// The last 64 KiB of a file, or nothing.
fn tail(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    const LENGTH: u64 = 64 << 10;
    let mut bytes = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(LENGTH)));
        let _ = file.take(LENGTH).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn directory(path: &Path, create: bool) -> Result<OwnedFd, Error> {
    if create {
        std::fs::create_dir_all(path).map_err(|error| crate::state::io_error("create directory", path, &error))?;
    }
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::system("open directory", path.display()))
}

/// Options that both requests have.
fn common(options: &ImageOptions, directories: &Directories, spec: &Spec, log: &str) -> Result<Writer, Error> {
    let mut writer = Writer::default();
    writer.number(field::IMAGES_DIR_FD, i64::from(directories.image.as_raw_fd()));
    writer.number(field::WORK_DIR_FD, i64::from(directories.work.as_raw_fd()));
    writer.number(field::LOG_LEVEL, 4);
    writer.bytes(field::LOG_FILE, log.as_bytes());
    writer.flag(field::NOTIFY_SCRIPTS, true);
    writer.flag(field::EVASIVE_DEVICES, true);
    writer.flag(field::EXT_UNIX_SK, options.ext_unix_sk);
    writer.flag(field::TCP_ESTABLISHED, options.tcp_established);
    writer.flag(field::TCP_SKIP_IN_FLIGHT, options.tcp_skip_in_flight);
    writer.flag(field::SHELL_JOB, options.shell_job);
    writer.flag(field::FILE_LOCKS, options.file_locks);
    writer.flag(field::LINK_REMAP, options.link_remap);
    writer.flag(field::LAZY_PAGES, options.lazy_pages);
    writer.flag(field::AUTO_DEDUP, options.auto_dedup);
    writer.flag(field::ORPHAN_PTS_MASTER, true);
    if !options.tcp_established {
        // Only open connections need the network to stand still, and locking it needs iptables or nftables.
        writer.number(field::NETWORK_LOCK, LOCK_SKIP);
    }
    if options.empty_network {
        writer.number(field::EMPTY_NS, NEW_NETWORK);
    }
    if let Some(parent) = &options.parent_path {
        use std::os::unix::ffi::OsStrExt;
        if parent.is_absolute() {
            let reason = format!("parent path {} must be relative to the image path", parent.display());
            return Err(Error::Checkpoint(reason));
        }
        let found = options.image_path.join(parent);
        if !found.is_dir() {
            return Err(Error::Checkpoint(format!("parent image {} does not exist", found.display())));
        }
        writer.bytes(field::PARENT_IMG, parent.as_os_str().as_bytes());
        writer.flag(field::TRACK_MEM, true);
    }
    // An empty annotation asks for no configuration file at all.
    if let Some(file) = spec.annotations.get(CONFIG_ANNOTATION) {
        writer.bytes(field::CONFIG_FILE, file.as_bytes());
    }
    Ok(writer)
}

/// Whether a mount is a directory or file of the outside.
fn is_bind(mount: &Mount) -> bool {
    mount.kind == "bind" || mount.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"))
}

/// Says what CRIU does with cgroups. Hull makes the container's groups and their limits itself; groups below them are
/// CRIU's part. Where the process shares a group with others, as in the hierarchies of a v1 machine that limit nothing,
/// CRIU would take all of that group's tree for the container's: then it keeps away from cgroups.
fn manage_cgroups(request: &mut Writer, mode: CgroupMode, cgroup: &Cgroup, of: &[(String, String)]) {
    let paths = cgroup.paths();
    let own = |(controllers, path): &(String, String)| {
        let group = controllers.split(',').next().and_then(|first| paths.get(first));
        group.is_some_and(|group| path != "/" && group.ends_with(path.trim_start_matches('/')))
    };
    let mode = if of.iter().all(own) { mode } else { CgroupMode::Ignore };
    if mode != CgroupMode::Ignore {
        request.flag(field::MANAGE_CGROUPS, true);
    }
    request.number(field::MANAGE_CGROUPS_MODE, mode.number());
}

/// Controllers and path of each of a process's cgroups (`cgroups(7)`).
fn own_cgroups(pid: i32) -> Result<Vec<(String, String)>, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = std::fs::read_to_string(&path).map_err(|error| crate::state::io_error("read", &path, &error))?;
    Ok(parse_cgroups(&text))
}

fn parse_cgroups(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            Some((controllers.to_owned(), path.to_owned()))
        })
        .collect()
}

/// The v1 hierarchies of a cgroup mount: where each is seen inside, and the group on the machine that is bound there.
fn cgroup_binds(spec: &Spec, cgroup: &Cgroup) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut list = Vec::new();
    let is_cgroup = |mount: &&Mount| matches!(mount.kind.as_str(), "cgroup" | "cgroup2");
    for mount in spec.mounts.iter().filter(is_cgroup) {
        if let Some(CgroupMount::V1 { hierarchies, .. }) = hull_cgroup::mount::describe(&Hierarchies::probe()?, cgroup)
        {
            let below = |name: &str| format!("{}/{name}", destination(mount).trim_end_matches('/'));
            list.extend(hierarchies.into_iter().map(|one| (below(&one.name), one.group)));
        }
    }
    Ok(list)
}

/// Namespaces that were joined by path and are kept as "outside": their names in requests.
const EXTERNAL_NAMESPACES: [(NamespaceType, &str, &str); 2] =
    [(NamespaceType::Network, "net", "extRootNetNS"), (NamespaceType::Pid, "pid", "extRootPidNS")];

/// Path of a namespace that the document joins.
fn joined(spec: &Spec, kind: NamespaceType) -> Option<&str> {
    spec.namespace(kind).map(|namespace| namespace.path.as_str()).filter(|path| !path.is_empty())
}

/// Absolute form of a mount's target.
fn destination(mount: &Mount) -> String {
    format!("/{}", mount.destination.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_their_names_and_numbers() {
        for (name, number) in [("ignore", 0), ("soft", 3), ("full", 4), ("strict", 5)] {
            assert_eq!(CgroupMode::from_name(name).map(CgroupMode::number), Some(number));
        }
        assert_eq!(CgroupMode::from_name("none"), None);
    }

    #[test]
    fn a_parent_is_relative_and_exists() {
        let base = std::env::temp_dir().join(format!("hull-checkpoint-{}", std::process::id()));
        std::fs::create_dir_all(base.join("one")).unwrap();
        let mut options = ImageOptions { image_path: base.join("two"), ..ImageOptions::default() };
        let directories = Directories::open(&options, true).unwrap();
        let mut ask = |parent: &str| {
            options.parent_path = Some(parent.into());
            common(&options, &directories, &Spec::default(), "dump.log").map(drop)
        };
        assert!(ask("../one").is_ok());
        assert!(ask("../none").is_err());
        assert!(ask("/tmp").is_err());
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn cgroup_lists_are_parsed() {
        let text = "5:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/u\nbroken\n";
        let pair = |left: &str, right: &str| (left.to_owned(), right.to_owned());
        assert_eq!(parse_cgroups(text), [pair("cpu,cpuacct", "/a:b"), pair("name=systemd", "/s"), pair("", "/u")]);
    }

    #[test]
    fn shared_groups_are_left_alone() {
        let table = "31 30 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let found = Hierarchies::parse(table, "1:pids:/\n");
        let cgroup = Cgroup::plan(&found, hull_cgroup::Driver::Cgroupfs, "/pod/a", "a", false).unwrap();
        let mode = |text: &str| {
            let mut request = Writer::default();
            manage_cgroups(&mut request, CgroupMode::Soft, &cgroup, &parse_cgroups(text));
            let mut expected = Writer::default();
            expected.number(field::MANAGE_CGROUPS_MODE, CgroupMode::Ignore.number());
            if request.as_bytes() == expected.as_bytes() { CgroupMode::Ignore } else { CgroupMode::Soft }
        };
        assert_eq!(mode("1:pids:/pod/a\n"), CgroupMode::Soft);
        assert_eq!(mode("1:pids:/pod/a\n0::/\n"), CgroupMode::Ignore);
        assert_eq!(mode("2:name=systemd:/user.slice\n1:pids:/pod/a\n"), CgroupMode::Ignore);
        assert_eq!(mode("1:pids:/\n"), CgroupMode::Ignore);
    }

    #[test]
    fn the_logs_errors_are_told() {
        let base = std::env::temp_dir().join(format!("hull-checkpoint-log-{}", std::process::id()));
        let options = ImageOptions { image_path: base.clone(), ..ImageOptions::default() };
        let directories = Directories::open(&options, true).unwrap();
        let log = "(00.1) Error (criu/util.c:1): helper\n(00.2)  1: Error (b.c:2): first\n(00.3) fine\n\
                   (00.4) Error (c.c:3): second\n(00.5) Error (d.c:4): Dumping FAILED.\nError (e.c:5): undoing\n";
        std::fs::write(base.join("dump.log"), log).unwrap();
        let error = Error::Checkpoint("criu failed: Error (criu/util.c:1): helper".into());
        let error = directories.explain(error, "dump.log").to_string();
        assert!(error.starts_with("criu failed: Error (b.c:2): first; Error (c.c:3): second (see "), "{error}");
        let error = directories.explain(Error::Checkpoint("criu failed".into()), "none.log").to_string();
        assert!(error.starts_with("criu failed (see "), "{error}");
        assert_eq!(errors("(0.1) Error (criu/util.c:1): alone\n"), ["Error (criu/util.c:1): alone"]);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
