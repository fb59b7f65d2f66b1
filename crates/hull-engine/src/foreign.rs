//! Containers under another OCI runtime (`--runtime NAME|PATH`): the same specification, network, streams and monitor,
//! with `create`, `start`, `kill`, `exec` and `delete` as command lines.
//!
//! ```text
//! STATE/foreign/ID            which runtime has the container; written before it is called, removed after `delete`
//! STATE/foreign/ID.NAME.sock  the socket that a terminal comes over, while the runtime starts something
//! STATE/foreign/roots/NAME/   the runtime's own state
//! ROOT/containers/ID/         the bundle: config.json, rootfs, runtime.log
//! ```
//!
//! The root file system is mounted in a mount namespace of the monitor's own for as long as `create` takes; the runtime
//! copies it into the container's, so nothing is ever mounted in the machine's. The monitor is the subreaper of what the
//! runtime leaves behind, and so the parent of the container's first process. The same record as for a container of our
//! own is kept beside (`hull_runtime::state`), by which control groups are read and frozen and the end is cleaned up.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use hull_cgroup::{Cgroup, Driver, Hierarchies};
use hull_oci::spec::{Process, Spec};
use hull_runtime::state::{Record, process_start_time};
use hull_runtime::{Running, Streams};
use hull_sys::clone::{CloneFlags, Cloned, clone3, exit_now, reset_signals, unshare};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::records::{Container, Engine, create_private, own_pid};

/// Programs that Docker's short names mean.
const NAMES: [(&str, &[&str]); 3] =
    [("kata", &["kata-runtime"]), ("runsc", &["runsc"]), ("io.containerd.runc.v2", &["runc"])];

/// Where programs are looked for beside `PATH`.
const DIRECTORIES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/opt/kata/bin"];

/// A runtime's log is read up to here.
const MAX_LOG: u64 = 1 << 20;

/// A runtime and where it keeps its state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Foreign {
    program: PathBuf,
    root: PathBuf,
    log: PathBuf,
}

/// A container that its runtime has created.
#[derive(Debug)]
pub(crate) struct Created {
    foreign: Foreign,
    id: String,
    pub(crate) pid: i32,
    pub(crate) pid_start: u64,
    pidfd: OwnedFd,
    /// The socket that its terminal has come over.
    pub(crate) terminal: Option<OwnedFd>,
}

impl Created {
    /// Starts its program.
    pub(crate) fn start(self) -> Result<Running, Error> {
        self.foreign.call("start", &[&self.id])?;
        Ok(Running { pid: self.pid, pidfd: self.pidfd })
    }
}

/// The program that a name means.
fn find(name: &str) -> Result<PathBuf, Error> {
    let unknown = || Error::flag("--runtime", format!("unknown or invalid runtime name: {name}"));
    let executable = |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if name.contains('/') {
        let path = std::path::absolute(name).map_err(|_| unknown())?;
        return if executable(&path) { Ok(path) } else { Err(unknown()) };
    }
    let own = [name];
    let names = NAMES.iter().find(|(short, _)| *short == name).map_or(&own[..], |(_, names)| *names);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(DIRECTORIES.map(PathBuf::from))
        .flat_map(|directory| names.iter().map(move |name| directory.join(name)))
        .find(|path| executable(path))
        .ok_or_else(unknown)
}

impl Foreign {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--log").arg(&self.log).args(["--log-format", "json", verb]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // Which sockets the container gets is said by a flag, and its specification tells it; some runtimes add these.
        for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command line to its end.
    fn finish(&self, mut command: Command) -> Result<(), Error> {
        let _ = fs::remove_file(&self.log);
        // A child of our own first: the runtime, and what it starts, must not inherit that signals are blocked here.
        let running = match clone3(CloneFlags::empty(), None).map_err(Error::io("clone", &self.program))? {
            Cloned::Child => {
                reset_signals(u64::MAX);
                // What it would make after this process's death, nobody would undo.
                let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
                let _ = command.exec();
                exit_now(127)
            }
            Cloned::Parent(pid, pidfd) => Running { pid, pidfd },
        };
        match running.wait()? {
            0 => Ok(()),
            code => Err(self.failure(&format!("ended with exit code {code}"))),
        }
    }

    fn call(&self, verb: &str, args: &[&str]) -> Result<(), Error> {
        let mut command = self.command(verb);
        command.args(args);
        self.finish(command)
    }

    /// What the runtime said last, with the exit code that belongs to it.
    fn failure(&self, otherwise: &str) -> Error {
        let mut text = String::new();
        // Without a log there is still the exit status.
        let _ = File::open(&self.log).and_then(|file| file.take(MAX_LOG).read_to_string(&mut text));
        let said = text.lines().rev().find_map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(value.get("msg")?.as_str()?.to_owned()).filter(|text| !text.is_empty())
        });
        let said = said.unwrap_or_else(|| otherwise.to_owned());
        let has = |words: &[&str]| words.iter().any(|word| said.to_ascii_lowercase().contains(word));
        let code = if has(&["executable file", "no such file or directory"]) && !has(&["permission denied"]) {
            127
        } else if has(&["permission denied", "exec format", "is a directory"]) {
            126
        } else {
            125
        };
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        Error::Start { message: format!("{name}: {}", hull_oci::spec::one_line(&said)), code, no_image: false }
    }

    pub(crate) fn kill(&self, id: &str, signal: i32) -> Result<(), Error> {
        self.call("kill", &[id, &signal.to_string()])
    }
}

/// A listening socket under a path that fits into a socket's name.
struct Listener {
    socket: OwnedFd,
    _directory: OwnedFd,
    path: PathBuf,
    name: String,
}

impl Listener {
    fn open(directory: &Path, name: &str) -> Result<Self, Error> {
        let path = directory.join(format!("{name}.sock"));
        let opened = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("open", directory))?;
        let name = format!("/proc/{}/fd/{}/{name}.sock", own_pid(), opened.as_raw_fd());
        let address = SocketAddrUnix::new(&name).map_err(Error::io("name socket of", &path))?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(Error::io("create", "socket"))?;
        let _ = fs::remove_file(&path);
        bind(&socket, &address).map_err(Error::io("bind", &path))?;
        listen(&socket, 1).map_err(Error::io("listen on", &path))?;
        rustix::fs::fcntl_setfl(&socket, OFlags::NONBLOCK).map_err(Error::io("set flags of", "socket"))?;
        Ok(Self { socket, _directory: opened, path, name })
    }

    /// The connection that the runtime has made before it ended.
    fn accept(&self) -> Result<OwnedFd, Error> {
        accept_with(&self.socket, SocketFlags::CLOEXEC).map_err(Error::io("receive terminal over", &self.path))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Engine {
    fn foreign_directory(&self) -> PathBuf {
        self.state_root().join("foreign")
    }

    /// The runtime that has a container, unless it is our own.
    pub(crate) fn foreign(&self, id: &str) -> Option<Foreign> {
        crate::records::read(&self.foreign_directory().join(id)).ok()
    }

    /// Creates a container under another runtime.
    pub(crate) fn create_foreign(
        &self,
        name: &str,
        container: &Container,
        spec: &Spec,
        layers: Option<&[Arc<OwnedFd>]>,
        streams: Streams,
    ) -> Result<Created, Error> {
        let program = find(name)?;
        let directory = self.directory(&container.id);
        let place = self.foreign_directory();
        let roots = place.join("roots");
        create_private(&roots)?;
        let stem = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let foreign = Foreign { program, root: roots.join(stem), log: directory.join("runtime.log") };
        crate::records::write(&place.join(&container.id), &foreign)?;
        let linux = spec.linux.clone().unwrap_or_default();
        let hierarchies = Hierarchies::probe()?;
        let cgroup = Cgroup::plan(&hierarchies, Driver::Cgroupfs, &linux.cgroups_path, &container.id, false)?;
        let mut record = Record {
            oci_version: spec.oci_version.clone(),
            id: container.id.clone(),
            pid: 0,
            pid_start_time: 0,
            bundle: directory.clone(),
            rootfs: PathBuf::from(spec.root.as_ref().map(|root| root.path.clone()).unwrap_or_default()),
            created: hull_oci::time::rfc3339_nanos(SystemTime::now()),
            owner: 0,
            annotations: spec.annotations.clone(),
            cgroup,
            hooks: hull_oci::spec::Hooks::default(),
            user_namespace: !linux.uid_mappings.is_empty(),
            intel_rdt: None,
        };
        let own = self.oci_root().join(&container.id);
        create_private(&own)?;
        record.save(&self.oci_root())?;
        crate::records::write(&own.join("config.json"), spec)?;
        // Older runtimes refuse a later version, and nothing of one is in a container's specification.
        let dated = Spec { oci_version: "1.0.2".to_owned(), ..spec.clone() };
        crate::records::write(&directory.join("config.json"), &dated)?;
        let _ = fs::remove_file(directory.join("pid"));
        let listener = streams.console.is_some().then(|| Listener::open(&place, &container.id[..12])).transpose()?;
        let mut command = foreign.command("create");
        command.arg("--bundle").arg(&directory).arg("--pid-file").arg(directory.join("pid"));
        if let Some(listener) = &listener {
            command.arg("--console-socket").arg(&listener.name);
        } else if let Some([input, output, error]) = streams.stdio {
            command.stdin(input).stdout(output).stderr(error);
        }
        if streams.preserve_fds > 0 {
            command.arg("--preserve-fds").arg(streams.preserve_fds.to_string());
        }
        command.arg(&container.id);
        // What the runtime leaves behind is this process's child.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(Error::io("become subreaper of", &container.id))?;
        let mounted = Mounted::new(&directory, layers, container.config.remove)?;
        let finished = foreign.finish(command);
        mounted.leave()?;
        finished?;
        let pid = read_pid(&directory.join("pid"))?;
        let pidfd = open_process(pid)?;
        let pid_start = process_start_time(pid).unwrap_or(0);
        (record.pid, record.pid_start_time) = (pid, pid_start);
        record.save(&self.oci_root())?;
        let terminal = listener.as_ref().map(Listener::accept).transpose()?;
        Ok(Created { foreign, id: container.id.clone(), pid, pid_start, pidfd, terminal })
    }

    /// Has the runtime of a container forget it; nothing for one of our own.
    pub(crate) fn delete_foreign(&self, id: &str) {
        let Some(foreign) = self.foreign(id) else { return };
        // One that it never had, or that is gone already: our own record says what is left to clean up.
        let _ = foreign.call("delete", &["--force", id]);
        if let (Ok(record), Ok(hierarchies)) = (Record::load(&self.oci_root(), id), Hierarchies::probe()) {
            record.cgroup.delete_elsewhere(&hierarchies);
        }
        let _ = fs::remove_file(self.foreign_directory().join(id));
    }

    /// Starts a further program in a container of another runtime. This process becomes its parent.
    pub(crate) fn exec_foreign(
        &self,
        foreign: &Foreign,
        id: &str,
        exec_id: &str,
        process: &Process,
        streams: Streams,
    ) -> Result<(Running, Option<OwnedFd>), Error> {
        let place = self.foreign_directory();
        let stem = format!("exec-{}", &exec_id[..12]);
        let (description, pid_file) = (place.join(format!("{stem}.json")), place.join(format!("{stem}.pid")));
        let foreign = Foreign { log: place.join(format!("{stem}.log")), ..foreign.clone() };
        let result = (|| {
            crate::records::write(&description, process)?;
            let listener = streams.console.is_some().then(|| Listener::open(&place, &stem)).transpose()?;
            let mut command = foreign.command("exec");
            command.arg("--process").arg(&description).arg("--detach").arg("--pid-file").arg(&pid_file);
            if let Some(listener) = &listener {
                command.arg("--tty").arg("--console-socket").arg(&listener.name);
            } else if let Some([input, output, error]) = streams.stdio {
                command.stdin(input).stdout(output).stderr(error);
            }
            command.arg(id);
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                .map_err(Error::io("become subreaper of", id))?;
            foreign.finish(command)?;
            let pid = read_pid(&pid_file)?;
            let running = Running { pid, pidfd: open_process(pid)? };
            Ok((running, listener.as_ref().map(Listener::accept).transpose()?))
        })();
        for path in [&description, &pid_file, &foreign.log] {
            let _ = fs::remove_file(path);
        }
        result
    }
}

fn read_pid(path: &Path) -> Result<i32, Error> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    text.trim().parse().map_err(|_| Error::flag("--runtime", format!("{text:?} is not a process ID")))
}

fn open_process(pid: i32) -> Result<OwnedFd, Error> {
    let gone = || Error::flag("--runtime", format!("the runtime's process {pid} is not there"));
    pidfd_open(Pid::from_raw(pid).ok_or_else(gone)?, PidfdFlags::empty()).map_err(|_| gone())
}

/// A root file system mounted at the bundle's `rootfs`, where only this process and its children see it.
struct Mounted {
    /// The mount namespace that this process belongs in.
    home: Option<OwnedFd>,
}

impl Mounted {
    fn new(directory: &Path, layers: Option<&[Arc<OwnedFd>]>, volatile: bool) -> Result<Self, Error> {
        let Some(layers) = layers else { return Ok(Self { home: None }) };
        let target = directory.join("rootfs");
        let fail = |errno: Errno| Error::io("mount overlay on", &target)(errno);
        // Layers belong to the namespace of before.
        let overlay = overlay(layers, &directory.join("upper"), &directory.join("work"), volatile).map_err(fail)?;
        let home = rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("open", "/proc/self/ns/mnt"))?;
        unshare(CloneFlags::NEWNS).map_err(Error::io("unshare", "mount namespace"))?;
        let mounted = Self { home: Some(home) };
        let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        let attach = || {
            rustix::mount::mount_change("/", flags)?;
            rustix::mount::move_mount(&overlay, c"", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        };
        if let Err(errno) = attach() {
            mounted.leave()?;
            return Err(fail(errno));
        }
        Ok(mounted)
    }

    /// Back to the machine's mounts; the namespace goes with its last member.
    fn leave(self) -> Result<(), Error> {
        let Some(home) = self.home else { return Ok(()) };
        move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(Error::io("return to", "mount namespace"))?;
        rustix::process::chdir("/").map_err(Error::io("enter", "/"))
    }
}

fn overlay(layers: &[Arc<OwnedFd>], upper: &Path, work: &Path, volatile: bool) -> Result<OwnedFd, Errno> {
    let optional = |result: Result<(), Errno>| match result {
        Err(Errno::INVAL) => Ok(()),
        other => other,
    };
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, c"source", c"overlay")?;
    for layer in layers {
        rustix::mount::fsconfig_set_fd(&context, c"lowerdir+", layer.as_fd())?;
    }
    rustix::mount::fsconfig_set_string(&context, c"upperdir", upper)?;
    rustix::mount::fsconfig_set_string(&context, c"workdir", work)?;
    for (key, value) in [(c"redirect_dir", c"off"), (c"metacopy", c"off"), (c"index", c"off"), (c"xino", c"auto")] {
        optional(rustix::mount::fsconfig_set_string(&context, key, value))?;
    }
    if volatile {
        optional(rustix::mount::fsconfig_set_flag(&context, c"volatile"))?;
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_found_by_name_and_path() {
        assert_eq!(find("/bin/sh").unwrap(), Path::new("/bin/sh"));
        assert!(find("sh").unwrap().is_absolute());
        for name in ["no-such-runtime", "/etc/passwd", "/", ""] {
            let error = find(name).unwrap_err().to_string();
            assert!(error.contains("unknown or invalid runtime name"), "{error}");
        }
    }
}
