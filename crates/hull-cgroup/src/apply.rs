//! Creating the groups, writing their limits, and moving processes in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_oci::spec::Resources;
use hull_sys::bpf;
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::cgroup::{Cgroup, Driver, Group};
use crate::convert::Setting;
use crate::devices::Rules;
use crate::error::Error;
use crate::hierarchies::Version;
use crate::{io, v1, v2};

/// The controllers that a container's group gets on v2, where the machine has them.
const WANTED: [&str; 8] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];

impl Cgroup {
    /// Creates the groups and writes the limits. On failure, what was created is removed again.
    ///
    /// With systemd the groups come with the first process: the limits are checked here and written by
    /// [`Cgroup::attach`].
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::Unsupported`] name a limit before anything is created; [`Error::InUse`] if a group
    /// exists and has processes or is frozen; [`Error::Write`] if the kernel refuses a value.
    pub fn create(&self, resources: &Resources) -> Result<(), Error> {
        let settings = self.compile(resources)?;
        let rules = Rules::parse(&resources.devices)?;
        match self.driver {
            Driver::Disabled => return refuse_limits(&settings, "the container has no cgroup of its own"),
            Driver::Systemd => {
                let _ = self.pending.set(resources.clone());
                return Ok(());
            }
            Driver::Cgroupfs => {}
        }
        let mut created = Vec::new();
        let done = self.make(&mut created, false).and_then(|()| {
            self.write_all(&settings)?;
            self.limit_devices(&rules, None, !resources.devices.is_empty())
        });
        let Err(error) = done else { return Ok(()) };
        for directory in created.iter().rev() {
            // A parent may meanwhile be in use by others; it stays then.
            let _ = rustix::fs::rmdir(directory);
        }
        let denied = matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS));
        if self.rootless && denied && settings.iter().all(|setting| setting.optional) {
            let _ = self.inert.set(());
            return Ok(());
        }
        Err(error)
    }

    /// Files by which a single-threaded process moves *itself* into the v1 groups, by writing `0` to each.
    ///
    /// Moving another process, or a whole one by `cgroup.procs`, takes a lock that waits some 8 ms for an RCU grace
    /// period; a thread that moves itself through `tasks` does not (Linux 5.4). Empty with systemd, which moves processes
    /// itself. What is moved by these files need not be attached: see [`Cgroup::attach_rest`].
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn tasks_files(&self) -> Result<Vec<OwnedFd>, Error> {
        if self.driver() != Driver::Cgroupfs {
            return Ok(Vec::new());
        }
        let v1 = self.groups.iter().filter(|group| group.version == Version::V1);
        v1.map(|group| {
            io::open_write(group.fd()?, "tasks").map_err(Error::system("open", group.directory().join("tasks")))
        })
        .collect()
    }

    /// As [`Cgroup::attach`] for a process that has entered the v1 groups by [`Cgroup::tasks_files`]: moves it into the rest,
    /// which is nothing if it was `born` in the group of [`Cgroup::clone_fd`].
    ///
    /// # Errors
    /// When the kernel or systemd refuses.
    pub fn attach_rest(&self, pid: i32, born: bool) -> Result<(), Error> {
        if self.driver() != Driver::Cgroupfs {
            return self.attach(pid);
        }
        if born {
            return Ok(());
        }
        for group in self.groups.iter().filter(|group| group.version == Version::V2) {
            enter(group.fd()?, &group.directory(), pid)?;
        }
        Ok(())
    }

    /// Moves a process into the groups. On v1 the first write waits for an RCU grace period of some milliseconds, so it
    /// should be made right after the clone.
    ///
    /// # Errors
    /// When the kernel or systemd refuses.
    pub fn attach(&self, pid: i32) -> Result<(), Error> {
        if let Some(unit) = self.unit.as_ref().filter(|_| self.driver() == Driver::Systemd) {
            let fallback = Resources::default();
            let resources = self.pending.get().unwrap_or(&fallback);
            unit.start(pid, resources, self.is_v2(), self.rootless)?;
            if let Some(group) = self.groups.first().filter(|group| self.is_v2() && !group.directory().exists()) {
                let reason = format!("the scope's group is not {}", group.directory().display());
                let _ = unit.stop(self.rootless);
                return Err(Error::Systemd { operation: "start".to_owned(), reason });
            }
            let done = self.make(&mut Vec::new(), true).and_then(|()| {
                self.enter(pid)?;
                self.write_all(&self.compile(resources)?)?;
                self.limit_devices(&Rules::parse(&resources.devices)?, None, !resources.devices.is_empty())
            });
            return done.inspect_err(|_| drop(unit.stop(self.rootless)));
        }
        self.enter(pid)
    }

    fn enter(&self, pid: i32) -> Result<(), Error> {
        if self.driver() == Driver::Disabled {
            return Ok(());
        }
        for group in &self.groups {
            enter(group.fd()?, &group.directory(), pid)?;
        }
        Ok(())
    }

    /// Moves a process of `exec` into the groups, or into groups below them: each of `sub` is `path` for all
    /// hierarchies or `controller[,controller]:path`.
    ///
    /// # Errors
    /// For a path with `..` or a controller that is not in use, and when the kernel refuses.
    pub fn attach_exec(&self, pid: i32, sub: &[String]) -> Result<(), Error> {
        if self.driver() == Driver::Disabled {
            return match sub.first() {
                None => Ok(()),
                Some(path) => Err(Error::Path { path: path.clone(), reason: "the container has no cgroup".to_owned() }),
            };
        }
        for argument in sub {
            let wrong = |reason: &str| Error::Path { path: argument.clone(), reason: reason.to_owned() };
            let (controllers, path) = argument.split_once(':').unwrap_or(("", argument));
            if path.contains('\0') || path.split('/').any(|part| part == "..") {
                return Err(wrong("contains `..` or NUL"));
            }
            if let Some(unknown) = controllers.split(',').find(|name| !name.is_empty() && self.of(name).is_none()) {
                return Err(wrong(&format!("the container has no cgroup of controller {unknown}")));
            }
        }
        for group in &self.groups {
            let chosen = sub.iter().rev().find_map(|argument| match argument.split_once(':') {
                None => Some(argument.as_str()),
                Some((controllers, path)) => controllers.split(',').any(|name| group.has(name)).then_some(path),
            });
            let directory = group.directory();
            match chosen.map(|path| path.trim_matches('/')).filter(|path| !path.is_empty()) {
                Some(path) => {
                    let below = directory.join(path);
                    let flags =
                        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
                    let how = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
                    let opened = rustix::fs::openat2(group.fd()?, path, flags, Mode::empty(), how)
                        .map_err(Error::system("open cgroup", &below))?;
                    enter(opened.as_fd(), &below, pid)?;
                }
                None => match enter(group.fd()?, &directory, pid) {
                    // The container has moved its processes to leaves and enabled controllers for them.
                    Err(error) if matches!(error.errno(), Some(Errno::BUSY | Errno::OPNOTSUPP)) => {
                        let leaf = busy_leaf(group.fd()?, &directory).ok_or(error)?;
                        enter(io::open_dir(&leaf).map_err(Error::system("open cgroup", &leaf))?.as_fd(), &leaf, pid)?;
                    }
                    other => other?,
                },
            }
        }
        Ok(())
    }

    /// Changes the limits that `resources` has; `current` are those in force. Devices change only when there are rules.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; what was written before the failure stays.
    pub fn update(&self, resources: &Resources, current: &Resources) -> Result<(), Error> {
        let merged = merge(resources, current);
        let settings = self.compile(&merged)?;
        if self.driver() == Driver::Disabled {
            return refuse_limits(&settings, "the container has no cgroup of its own");
        }
        if let Some(memory) = &merged.memory
            && let (Some(true), Some(limit)) = (memory.check_before_update, memory.limit.filter(|&limit| limit > 0))
            && let Some(group) = self.of("memory")
        {
            let file = if group.version == Version::V2 { "memory.current" } else { "memory.usage_in_bytes" };
            let usage = io::read_number(group.fd()?, file).unwrap_or(0);
            if usage > limit.unsigned_abs() {
                let reason = format!("{limit} is below the present usage of {usage} bytes");
                return Err(Error::invalid("memory.limit", reason));
            }
        }
        if let Some(unit) = self.unit.as_ref() {
            unit.update(&merged, self.is_v2(), self.rootless)?;
        }
        self.write_all(&settings)?;
        if !resources.devices.is_empty() {
            let old = Rules::parse(&current.devices)?;
            self.limit_devices(&Rules::parse(&resources.devices)?, Some(&old), true)?;
        }
        Ok(())
    }

    /// Compiles limits for the hierarchies in use, and finds those that have no home.
    fn compile(&self, resources: &Resources) -> Result<Vec<Setting>, Error> {
        if self.is_v2() {
            let settings = v2::compile(resources)?;
            return self.check_controllers(settings, "cgroup v2");
        }
        let unified = self.unified().filter(|group| !group.controllers.is_empty());
        let on_unified = |setting: &Setting| unified.is_some_and(|group| group.has(&setting.controller));
        let mut settings = Vec::new();
        let alias = |name: &str| if name == "blkio" { "io".to_owned() } else { name.to_owned() };
        for setting in v1::compile(resources)? {
            if !unified.is_some_and(|group| group.has(&alias(&setting.controller))) {
                settings.push(setting);
            }
        }
        if unified.is_some() {
            // Only what lives on v2 here is judged by what v2 can do.
            let has = |controller: &str| unified.is_some_and(|group| group.has(controller));
            let plain = Resources {
                unified: Default::default(),
                network: None,
                memory: resources.memory.clone().filter(|_| has("memory")),
                cpu: resources.cpu.clone().filter(|_| has("cpu") || has("cpuset")),
                block_io: resources.block_io.clone().filter(|_| has("io")),
                ..resources.clone()
            };
            settings.extend(v2::compile(&plain)?.into_iter().filter(on_unified));
        }
        let mut raw = Vec::new();
        v2::unified(resources, &mut raw)?;
        if let Some(homeless) = raw.iter().find(|setting| !on_unified(setting)) {
            let reason = format!("controller {} is not on cgroup v2 here", homeless.controller);
            return Err(Error::unsupported(&homeless.field, reason));
        }
        settings.extend(raw);
        self.check_controllers(settings, "cgroup v1")
    }

    fn check_controllers(&self, mut settings: Vec<Setting>, version: &str) -> Result<Vec<Setting>, Error> {
        let absent = |setting: &Setting| !setting.controller.is_empty() && self.of(&setting.controller).is_none();
        settings.retain(|setting| !(setting.optional && absent(setting)));
        match settings.iter().find(|setting| absent(setting)) {
            Some(setting) if self.driver != Driver::Disabled => {
                let reason = format!("this machine has no {} controller on {version}", setting.controller);
                Err(Error::unsupported(&setting.field, reason))
            }
            _ => Ok(settings),
        }
    }

    /// Writes limits; a value that another one bounds is tried again at the end.
    fn write_all(&self, settings: &[Setting]) -> Result<(), Error> {
        let mut again = Vec::new();
        for setting in settings {
            match self.write_one(setting) {
                Err(Error::Write { errno: Errno::INVAL, .. }) => again.push(setting),
                other => other?,
            }
        }
        again.into_iter().try_for_each(|setting| self.write_one(setting))
    }

    fn write_one(&self, setting: &Setting) -> Result<(), Error> {
        let group = if setting.controller.is_empty() { self.unified() } else { self.of(&setting.controller) };
        let Some(group) = group else {
            let reason = format!("this machine has no {} controller", setting.controller);
            return Err(Error::unsupported(&setting.field, reason));
        };
        let dir = group.fd()?;
        let mut tried = (setting.file.as_str(), setting.value.as_str());
        let mut written = io::write(dir, tried.0, tried.1);
        if let (Err(Errno::NOENT), Some((file, value))) = (written, &setting.fallback) {
            tried = (file, value);
            written = io::write(dir, file, value);
        }
        match written {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) if setting.optional => Ok(()),
            Err(Errno::NOENT) => {
                let path = group.directory().join(&setting.file);
                let reason = format!("the {} controller has no file {}", setting.controller, path.display());
                Err(Error::unsupported(&setting.field, reason))
            }
            Err(errno) => Err(Error::Write {
                field: setting.field.clone(),
                value: tried.1.to_owned(),
                path: group.directory().join(tried.0),
                errno,
            }),
        }
    }

    /// Restricts devices. A rootless container cannot make device nodes, so there only explicit rules matter, and only
    /// where they are permitted.
    fn limit_devices(&self, rules: &Rules, old: Option<&Rules>, explicit: bool) -> Result<(), Error> {
        if self.rootless && !explicit {
            return Ok(());
        }
        let done = if let Some(group) = self.of("devices") {
            limit_v1(group, rules, old)
        } else if let Some(group) = self.unified() {
            limit_v2(group, rules, old.is_some())
        } else if rules.allow_all() || !explicit {
            Ok(())
        } else {
            Err(Error::unsupported("devices", "this machine has no devices controller on cgroup v1"))
        };
        match done {
            Err(error) if self.rootless && matches!(error.errno(), Some(Errno::PERM | Errno::ACCESS)) => Ok(()),
            other => other,
        }
    }

    /// Makes the directories; `shared` accepts groups that exist and have processes, as those of a scope.
    fn make(&self, created: &mut Vec<PathBuf>, shared: bool) -> Result<(), Error> {
        for group in &self.groups {
            let directory = group.directory();
            let fresh = make_directory(&directory, &group.mount, created)?;
            if !fresh && !shared {
                refuse_in_use(group, &directory)?;
            }
            if group.has("cpuset") && group.version == Version::V1 {
                inherit_cpuset(&directory, &group.mount)?;
            }
            if group.version == Version::V2 {
                enable_controllers(group, &directory)?;
            }
        }
        Ok(())
    }
}

fn refuse_limits(settings: &[Setting], why: &str) -> Result<(), Error> {
    match settings.iter().find(|setting| !setting.optional) {
        Some(setting) => Err(Error::unsupported(&setting.field, why)),
        None => Ok(()),
    }
}

/// Fills in the values that a changed one depends on.
fn merge(changed: &Resources, current: &Resources) -> Resources {
    let mut merged = changed.clone();
    if let (Some(cpu), Some(old)) = (&mut merged.cpu, &current.cpu)
        && (cpu.quota.is_some() || cpu.period.is_some())
    {
        cpu.quota = cpu.quota.or(old.quota);
        cpu.period = cpu.period.or(old.period);
    }
    if let (Some(memory), Some(old)) = (&mut merged.memory, &current.memory) {
        if memory.swap.is_some_and(|swap| swap > 0) {
            memory.limit = memory.limit.or(old.limit);
        } else if memory.limit.is_some_and(|limit| limit > 0) && memory.swap.is_none() {
            memory.swap = old.swap.filter(|&swap| swap >= memory.limit.unwrap_or(0));
        }
    }
    merged
}

/// Makes a directory and its missing parents; `false` if it existed.
fn make_directory(directory: &Path, mount: &Path, created: &mut Vec<PathBuf>) -> Result<bool, Error> {
    // Somebody may remove an empty parent between the two calls.
    for _ in 0..16 {
        match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                created.push(directory.to_path_buf());
                return Ok(true);
            }
            Err(Errno::EXIST) => return Ok(false),
            Err(Errno::NOENT) if directory != mount => {
                let Some(parent) = directory.parent().filter(|parent| parent.starts_with(mount)) else { break };
                if parent == mount {
                    return Err(Error::system("create cgroup", directory)(Errno::NOENT));
                }
                make_directory(parent, mount, created)?;
            }
            Err(errno) => return Err(Error::system("create cgroup", directory)(errno)),
        }
    }
    Err(Error::system("create cgroup", directory)(Errno::NOENT))
}

fn refuse_in_use(group: &Group, directory: &Path) -> Result<(), Error> {
    let dir = group.fd()?;
    let procs = match io::read(dir, "cgroup.procs") {
        // A threaded group on v2.
        Err(Errno::OPNOTSUPP) => String::new(),
        other => other.map_err(Error::system("read cgroup.procs of", directory))?,
    };
    let in_use = |reason: String| Error::InUse { path: directory.to_path_buf(), reason };
    if let Some(pid) = procs.lines().next() {
        return Err(in_use(format!("is not empty: it has process {pid}")));
    }
    let frozen = match group.version {
        Version::V2 => io::read(dir, "cgroup.freeze").is_ok_and(|state| state.trim() == "1"),
        Version::V1 => io::read(dir, "freezer.state").is_ok_and(|state| state.trim() != "THAWED"),
    };
    if frozen { Err(in_use("is frozen".to_owned())) } else { Ok(()) }
}

/// A new v1 cpuset is empty and takes no process: it gets what its parent has.
fn inherit_cpuset(directory: &Path, mount: &Path) -> Result<(), Error> {
    let dir = io::open_dir(directory).map_err(Error::system("open cgroup", directory))?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = directory.join(file);
        let present = io::read(&dir, file).map_err(Error::system("read", &path))?;
        if !present.trim().is_empty() || directory == mount {
            continue;
        }
        let Some(parent) = directory.parent() else { continue };
        let mut value = io::read_path(&parent.join(file)).map_err(Error::system("read", parent.join(file)))?;
        if value.trim().is_empty() {
            inherit_cpuset(parent, mount)?;
            value = io::read_path(&parent.join(file)).map_err(Error::system("read", parent.join(file)))?;
        }
        io::write(&dir, file, value.trim()).map_err(Error::system("write", &path))?;
    }
    Ok(())
}

/// Gives a v2 group its controllers through `cgroup.subtree_control` of its ancestors. One that cannot be enabled shows
/// when a limit is written: its file is missing then.
fn enable_controllers(group: &Group, directory: &Path) -> Result<(), Error> {
    let wanted: Vec<&str> = WANTED.into_iter().filter(|name| group.has(name)).collect();
    let present = io::read(group.fd()?, "cgroup.controllers").unwrap_or_default();
    if wanted.iter().all(|name| present.split_whitespace().any(|one| one == *name)) {
        return Ok(());
    }
    let all: Vec<String> = wanted.iter().map(|name| format!("+{name}")).collect();
    let below = directory.strip_prefix(&group.mount).unwrap_or(Path::new(""));
    let mut ancestor = group.mount.clone();
    for part in below.components() {
        let dir = io::open_dir(&ancestor).map_err(Error::system("open cgroup", &ancestor))?;
        if io::write(&dir, "cgroup.subtree_control", &all.join(" ")).is_err() {
            for one in &all {
                let _ = io::write(&dir, "cgroup.subtree_control", one);
            }
        }
        ancestor.push(part);
    }
    Ok(())
}

fn enter(dir: BorrowedFd<'_>, directory: &Path, pid: i32) -> Result<(), Error> {
    let text = pid.to_string();
    for _ in 0..5 {
        match io::write(dir, "cgroup.procs", &text) {
            // The kernel says so for a task that is still being set up.
            Err(Errno::INVAL) => std::thread::sleep(std::time::Duration::from_millis(10)),
            other => return other.map_err(Error::system("move a process into cgroup", directory)),
        }
    }
    io::write(dir, "cgroup.procs", &text).map_err(Error::system("move a process into cgroup", directory))
}

/// The first group below that has processes.
fn busy_leaf(dir: BorrowedFd<'_>, directory: &Path) -> Option<PathBuf> {
    for name in io::children(dir).ok()? {
        let below = directory.join(&name);
        let opened = io::open_dir_at(dir, &name).ok()?;
        if io::read(&opened, "cgroup.procs").is_ok_and(|procs| !procs.is_empty()) {
            return Some(below);
        }
        if let Some(found) = busy_leaf(opened.as_fd(), &below) {
            return Some(found);
        }
    }
    None
}

fn limit_v1(group: &Group, rules: &Rules, old: Option<&Rules>) -> Result<(), Error> {
    let writes = rules.v1_writes(old)?;
    let mut open: Option<(&str, std::os::fd::OwnedFd)> = None;
    for (file, line) in writes {
        let path = || group.directory().join(file);
        if open.as_ref().is_none_or(|one| one.0 != file) {
            open =
                Some((file, io::open_write(group.fd()?, file).map_err(|errno| Error::system("open", path())(errno))?));
        }
        if let Some((_, fd)) = &open {
            io::write_fd(fd, line.as_bytes()).map_err(|errno| Error::Write {
                field: "devices".to_owned(),
                value: line.clone(),
                path: path(),
                errno,
            })?;
        }
    }
    Ok(())
}

fn limit_v2(group: &Group, rules: &Rules, replace: bool) -> Result<(), Error> {
    if rules.allow_all() && !replace {
        return Ok(());
    }
    let failed = |operation| Error::system(operation, group.directory());
    let dir = group.fd()?;
    let program = bpf::load_device_program(&rules.program()).map_err(failed("load device program of"))?;
    let old = if replace { bpf::device_programs(dir).map_err(failed("list device programs of"))? } else { Vec::new() };
    // A group that always had one keeps having one.
    if let [one] = old.as_slice() {
        match bpf::attach_device_program(dir, program.as_fd(), Some(one.as_fd())) {
            // Before Linux 5.6.
            Err(Errno::INVAL) => {}
            other => return other.map_err(failed("replace device program of")),
        }
    }
    bpf::attach_device_program(dir, program.as_fd(), None).map_err(failed("attach device program to"))?;
    for one in &old {
        bpf::detach_device_program(dir, one.as_fd()).map_err(failed("detach device program from"))?;
    }
    Ok(())
}
