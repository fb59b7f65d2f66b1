//! Which namespaces are made, which are joined, and in which order.
//!
//! One `clone3` makes everything that is new. A second fork is needed only when a user namespace is joined, because the
//! other new namespaces must then belong to it. A PID namespace is joined by the parent around the clone: the child is
//! born inside.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use hull_oci::spec::{IdMapping, NamespaceType, Spec};
use hull_sys::clone::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::Error;
use crate::failure::{Failure, Step, step};

/// Everything about namespaces, opened and checked.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// Made by `clone3`.
    pub new: CloneFlags,
    /// Made by the child once it is in its cgroup: a cgroup namespace's root is the cgroup at that moment.
    pub new_cgroup: bool,
    /// Joined by the child, user namespace first.
    joined: Vec<(NamespaceType, OwnedFd)>,
    /// Joined by the parent around the clone.
    joined_pid: Option<OwnedFd>,
    /// Lines for `/proc/self/timens_offsets`, when there is a new time namespace.
    time_offsets: Option<String>,
    /// Maps of a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Maps of a new user namespace.
    pub gid_mappings: Vec<IdMapping>,
}

fn flag(kind: NamespaceType) -> CloneFlags {
    match kind {
        NamespaceType::Pid => CloneFlags::NEWPID,
        NamespaceType::Network => CloneFlags::NEWNET,
        NamespaceType::Mount => CloneFlags::NEWNS,
        NamespaceType::Ipc => CloneFlags::NEWIPC,
        NamespaceType::Uts => CloneFlags::NEWUTS,
        NamespaceType::User => CloneFlags::NEWUSER,
        NamespaceType::Cgroup => CloneFlags::NEWCGROUP,
        NamespaceType::Time => CloneFlags::NEWTIME,
    }
}

fn link_type(kind: NamespaceType) -> LinkNameSpaceType {
    match kind {
        NamespaceType::Pid => LinkNameSpaceType::ProcessID,
        NamespaceType::Network => LinkNameSpaceType::Network,
        NamespaceType::Mount => LinkNameSpaceType::Mount,
        NamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
        NamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        NamespaceType::User => LinkNameSpaceType::User,
        NamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
        NamespaceType::Time => LinkNameSpaceType::Time,
    }
}

impl Namespaces {
    /// Checks the document's namespaces against each other and this kernel, and opens those that are joined.
    ///
    /// # Errors
    /// [`Error::Config`] for conflicts, [`Error::System`] when a path cannot be opened.
    pub fn plan(spec: &Spec) -> Result<Self, Error> {
        let mut plan = Self::default();
        let Some(linux) = &spec.linux else {
            return Err(Error::config("linux", "is missing; expected the Linux section with its namespaces"));
        };
        let mut seen = Vec::new();
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            let field = || format!("linux.namespaces[{index}]");
            let kind = namespace.kind;
            if seen.contains(&kind) {
                return Err(Error::config(field(), format!("malformed spec file: duplicated ns {kind:?}")));
            }
            seen.push(kind);
            if namespace.path.is_empty() {
                let supported = format!("/proc/self/ns/{}", proc_name(kind));
                if rustix::fs::access(&supported, rustix::fs::Access::EXISTS).is_err() {
                    return Err(Error::unsupported(field(), format!("this kernel has no {kind:?} namespaces")));
                }
                match kind {
                    NamespaceType::Cgroup => plan.new_cgroup = true,
                    NamespaceType::Time => plan.time_offsets = Some(String::new()),
                    _ => plan.new |= flag(kind),
                }
                continue;
            }
            if !namespace.path.starts_with('/') {
                return Err(Error::config(format!("{}.path", field()), "expected an absolute path"));
            }
            let file =
                rustix::fs::open(&namespace.path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
                    .map_err(Error::system("open namespace", &namespace.path))?;
            const NSFS_MAGIC: u64 = 0x6e73_6673;
            let statfs = rustix::fs::fstatfs(&file).map_err(Error::system("inspect namespace", &namespace.path))?;
            if statfs.f_type as u64 != NSFS_MAGIC {
                return Err(Error::config(
                    format!("{}.path", field()),
                    format!("{} is not a namespace", namespace.path),
                ));
            }
            match kind {
                NamespaceType::Pid => plan.joined_pid = Some(file),
                _ => plan.joined.push((kind, file)),
            }
        }
        plan.joined.sort_by_key(|(kind, _)| *kind != NamespaceType::User);
        plan.check_maps(spec, seen.contains(&NamespaceType::User))?;
        plan.check_dependents(spec, &seen)?;
        Ok(plan)
    }

    fn check_maps(&mut self, spec: &Spec, has_user: bool) -> Result<(), Error> {
        let Some(linux) = &spec.linux else { return Ok(()) };
        for (field, maps) in [("linux.uidMappings", &linux.uid_mappings), ("linux.gidMappings", &linux.gid_mappings)] {
            if !maps.is_empty() && !has_user {
                return Err(Error::config(field, "user namespace mappings specified, but no user namespace is listed"));
            }
            if maps.is_empty() && self.new.contains(CloneFlags::NEWUSER) {
                return Err(Error::config(field, "is empty; a new user namespace needs at least one mapping"));
            }
            if maps.len() > 340 {
                return Err(Error::config(field, "has more than the 340 lines that the kernel takes"));
            }
            for (index, map) in maps.iter().enumerate() {
                let fits = |start: u32| start.checked_add(map.size).is_some();
                if map.size == 0 || !fits(map.container_id) || !fits(map.host_id) {
                    return Err(Error::config(
                        format!("{field}[{index}]"),
                        "expected 1 to 4294967295 IDs without wrapping",
                    ));
                }
            }
        }
        if self.new.contains(CloneFlags::NEWUSER) {
            self.uid_mappings.clone_from(&linux.uid_mappings);
            self.gid_mappings.clone_from(&linux.gid_mappings);
        }
        Ok(())
    }

    fn check_dependents(&mut self, spec: &Spec, seen: &[NamespaceType]) -> Result<(), Error> {
        let Some(linux) = &spec.linux else { return Ok(()) };
        let has = |kind| seen.contains(&kind);
        if !has(NamespaceType::Mount) {
            return Err(Error::config(
                "linux.namespaces",
                "no mount namespace is listed; without one the container's mounts would be the machine's",
            ));
        }
        if !spec.hostname.is_empty() && !has(NamespaceType::Uts) {
            return Err(Error::config("hostname", "unable to set hostname without a private UTS namespace"));
        }
        if !spec.domainname.is_empty() && !has(NamespaceType::Uts) {
            return Err(Error::config("domainname", "unable to set domainname without a private UTS namespace"));
        }
        if !linux.net_devices.is_empty() && !has(NamespaceType::Network) {
            return Err(Error::config(
                "linux.netDevices",
                "unable to move network devices without a network namespace",
            ));
        }
        if !linux.time_offsets.is_empty() {
            let Some(lines) = &mut self.time_offsets else {
                return Err(Error::config("linux.timeOffsets", "time namespace offsets need a new time namespace"));
            };
            for (clock, offset) in &linux.time_offsets {
                if clock != "monotonic" && clock != "boottime" {
                    return Err(Error::config(
                        format!("linux.timeOffsets.{clock}"),
                        "unknown clock; expected `monotonic` or `boottime`",
                    ));
                }
                if offset.nanosecs >= 1_000_000_000 {
                    return Err(Error::config(
                        format!("linux.timeOffsets.{clock}.nanosecs"),
                        "expected below 1000000000",
                    ));
                }
                let _ = writeln!(lines, "{clock} {} {}", offset.secs, offset.nanosecs);
            }
        }
        Ok(())
    }

    /// Whether a user namespace is made.
    #[must_use]
    pub fn new_user(&self) -> bool {
        self.new.contains(CloneFlags::NEWUSER)
    }

    /// Whether a user namespace is joined, which takes a second fork.
    #[must_use]
    pub fn joined_user(&self) -> bool {
        self.joins(NamespaceType::User)
    }

    /// Whether the child joins a namespace of this kind.
    #[must_use]
    pub fn joins(&self, kind: NamespaceType) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// In the parent, before the clone: children are born in the joined PID namespace.
    pub(crate) fn enter_pid(&self) -> Result<(), Error> {
        self.joined_pid.as_ref().map_or(Ok(()), |file| join_pid(file.as_fd()))
    }

    /// In the parent, after the clone: hooks and other children belong to the runtime's own PID namespace again.
    pub(crate) fn leave_pid(&self) -> Result<(), Error> {
        if self.joined_pid.is_some() { rejoin_own_pid() } else { Ok(()) }
    }

    /// In the child: joins what is joined.
    pub(crate) fn join(&self) -> Result<(), Failure> {
        for (index, (kind, file)) in self.joined.iter().enumerate() {
            move_into_link_name_space(file.as_fd(), Some(link_type(*kind)))
                .map_err(|errno| Failure::at(Step::JoinNamespace, index, errno))?;
        }
        Ok(())
    }

    /// In the child: makes the time namespace and enters it.
    pub(crate) fn enter_time(&self) -> Result<(), Failure> {
        let Some(lines) = &self.time_offsets else { return Ok(()) };
        unshare(CloneFlags::NEWTIME).map_err(step(Step::UnshareNamespace))?;
        if !lines.is_empty() {
            let file = rustix::fs::open("/proc/self/timens_offsets", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(step(Step::TimeOffset))?;
            rustix::io::write(&file, lines.as_bytes()).map_err(step(Step::TimeOffset))?;
        }
        let own = rustix::fs::open("/proc/self/ns/time_for_children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(step(Step::UnshareNamespace))?;
        move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Time)).map_err(step(Step::UnshareNamespace))
    }

    /// In the child, once it is in its cgroup.
    pub(crate) fn enter_cgroup(&self) -> Result<(), Failure> {
        if self.new_cgroup {
            unshare(CloneFlags::NEWCGROUP).map_err(step(Step::UnshareNamespace))?;
        }
        Ok(())
    }

    /// What a failure was about.
    pub(crate) fn describe(&self, failure: &Failure) -> Option<String> {
        (failure.step == Step::JoinNamespace)
            .then(|| self.joined.get(usize::from(failure.index)))
            .flatten()
            .map(|(kind, _)| format!("join {} namespace", proc_name(*kind)))
    }
}

/// Whether this process is not the machine's root: an ordinary user, or root of a user namespace only.
#[must_use]
pub fn without_privilege() -> bool {
    // Root of the machine's own namespace has every ID mapped to itself.
    let whole = |map: String| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    !rustix::process::geteuid().is_root() || !std::fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
}

/// Makes the caller's next children members of a PID namespace.
pub(crate) fn join_pid(namespace: std::os::fd::BorrowedFd<'_>) -> Result<(), Error> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::ProcessID))
        .map_err(Error::system("join namespace", "pid"))
}

/// Undoes [`join_pid`].
pub(crate) fn rejoin_own_pid() -> Result<(), Error> {
    let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::system("open namespace", "/proc/self/ns/pid"))?;
    join_pid(own.as_fd())
}

/// The name of a namespace below `/proc/PID/ns`.
#[must_use]
pub fn proc_name(kind: NamespaceType) -> &'static str {
    match kind {
        NamespaceType::Pid => "pid",
        NamespaceType::Network => "net",
        NamespaceType::Mount => "mnt",
        NamespaceType::Ipc => "ipc",
        NamespaceType::Uts => "uts",
        NamespaceType::User => "user",
        NamespaceType::Cgroup => "cgroup",
        NamespaceType::Time => "time",
    }
}

/// In the parent: writes the maps of the process's new user namespace.
///
/// An ordinary user who maps more than itself needs `newuidmap` and `newgidmap`, which are set-user-ID programs.
pub(crate) fn write_maps(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Error> {
    let write = |name: &str, text: &str| -> Result<(), Errno> {
        let file = rustix::fs::open(
            format!("/proc/{pid}/{name}"),
            OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?;
        rustix::io::write(&file, text.as_bytes()).map(drop)
    };
    let privileged = rustix::process::geteuid().is_root();
    if !privileged && gids.len() == 1 && gids[0].size == 1 {
        write("setgroups", "deny").map_err(Error::system("write", format!("/proc/{pid}/setgroups")))?;
    }
    for (name, tool, maps) in [("uid_map", "newuidmap", uids), ("gid_map", "newgidmap", gids)] {
        match write(name, &lines(maps)) {
            Ok(()) => {}
            Err(Errno::PERM) if !privileged => run_map_tool(tool, pid, maps)?,
            Err(errno) => {
                return Err(Error::System { operation: "write", object: format!("/proc/{pid}/{name}"), errno });
            }
        }
    }
    Ok(())
}

fn lines(maps: &[IdMapping]) -> String {
    let mut text = String::new();
    for map in maps {
        let _ = writeln!(text, "{} {} {}", map.container_id, map.host_id, map.size);
    }
    text
}

fn run_map_tool(tool: &'static str, pid: i32, maps: &[IdMapping]) -> Result<(), Error> {
    let mut command = std::process::Command::new(tool);
    command.arg(pid.to_string());
    for map in maps {
        command.args([map.container_id.to_string(), map.host_id.to_string(), map.size.to_string()]);
    }
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Error::config(
            if tool == "newuidmap" { "linux.uidMappings" } else { "linux.gidMappings" },
            format!("{tool}: {}", String::from_utf8_lossy(&output.stderr).trim()),
        )),
        Err(error) => Err(Error::System {
            operation: "run",
            object: tool.to_owned(),
            errno: error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error),
        }),
    }
}
