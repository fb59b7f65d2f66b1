//! Restoring a container.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hull_cgroup::{Cgroup, Hierarchies};
use hull_fs::Root;
use hull_oci::Status;
use hull_oci::spec::{NamespaceType, Spec};
use hull_sys::clone::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::process::{Pid, PidfdFlags};

use super::dump::masked_files;
use super::protobuf::Writer;
use super::rpc::{self, Kind, Worker};
use super::{
    DESCRIPTORS, Directories, EXTERNAL_NAMESPACES, RestoreOptions, common, destination, field, is_bind, joined,
    manage_cgroups, own_cgroups,
};
use crate::error::Error;
use crate::hooks::Point;
use crate::options::{CreateOptions, Rootfs};
use crate::start::Running;
use crate::state::{self, Creation, Record};

const LOG: &str = "restore.log";
/// `descriptors.json` has three short names.
const MAX_DESCRIPTORS: usize = 64 << 10;

/// Makes a container from an image, with the configuration of its bundle. Its first process is a child of this one.
///
/// The calling process leaves the machine's mount namespace for one of its own.
///
/// # Errors
/// [`Error::Exists`]; [`Error::Checkpoint`] without CRIU and when it fails, with the last error of its log. Nothing is left
/// behind then.
pub fn restore(spec: &Spec, mut options: CreateOptions, restore: &RestoreOptions) -> Result<Running, Error> {
    let program = rpc::find()?;
    rpc::check_version(&program)?;
    // Before any directory is opened: the worker mounts below its work directory, which must be in the same namespace.
    leave_mount_namespace()?;
    let directories = Directories::open(&restore.image, false)?;
    let linux = spec.linux.as_ref().ok_or_else(|| Error::config("linux", "is missing"))?;
    let names = descriptor_names(&directories.image)?;
    let filter = linux.seccomp.as_ref().map(hull_seccomp::compile).transpose()?;
    let rootfs = match (&options.rootfs, &spec.root) {
        (Rootfs::Config | Rootfs::Mapped, Some(root)) => options.bundle.join(&root.path),
        (Rootfs::Overlay { target, .. }, _) => target.clone(),
        (Rootfs::Config | Rootfs::Mapped, None) => return Err(Error::config("root", "is missing")),
    };
    let hierarchies = Hierarchies::probe()?;
    let rootless = crate::namespaces::without_privilege();
    let cgroup = Cgroup::plan(&hierarchies, options.cgroup_driver, &linux.cgroups_path, &options.id, rootless)?;
    let hooks = spec.hooks.clone().unwrap_or_default();
    let mut creation = Creation::begin(&options.root, &options.id)?;
    let mut record = Record {
        oci_version: spec.oci_version.clone(),
        id: options.id.clone(),
        pid: 0,
        pid_start_time: 0,
        bundle: options.bundle.clone(),
        rootfs,
        created: hull_oci::time::rfc3339_nanos(SystemTime::now()),
        owner: rustix::process::getuid().as_raw(),
        annotations: spec.annotations.clone(),
        cgroup,
        hooks,
        user_namespace: spec.namespace(NamespaceType::User).is_some(),
        intel_rdt: None,
    };
    record.save(&options.root)?;
    let made = Restoring { spec, options: &mut options, restore, directories, names, program }.run(
        &creation,
        &mut record,
        filter.as_ref(),
    );
    // Until it is undone the creation stays: dropping it would take the record that says what to undo.
    match made.and_then(|running| creation.commit().map(|()| running)) {
        Ok(running) => {
            Point::plan("poststart", &record.hooks.poststart)?.run(&record.state(Status::Running))?;
            Ok(running)
        }
        Err(error) => Err(creation.give_up(&record, error)),
    }
}

/// A mount namespace that ends with this process and the container, so that nothing is left of what is mounted for CRIU.
fn leave_mount_namespace() -> Result<(), Error> {
    hull_sys::clone::unshare(CloneFlags::NEWNS).map_err(Error::system("create", "mount namespace"))?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(Error::system("set propagation of", "/"))
}

struct Restoring<'a> {
    spec: &'a Spec,
    options: &'a mut CreateOptions,
    restore: &'a RestoreOptions,
    directories: Directories,
    names: Vec<String>,
    program: PathBuf,
}

impl Restoring<'_> {
    fn run(
        mut self,
        creation: &Creation,
        record: &mut Record,
        filter: Option<&hull_seccomp::Filter>,
    ) -> Result<Running, Error> {
        let directory = creation.directory();
        keep_configuration(&directory, self.spec, filter)?;
        let root = self.mount_root(&record.rootfs)?;
        let resources = self.spec.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
        record.cgroup.create(&resources)?;

        let mut request = common(&self.restore.image, &self.directories, self.spec, LOG)?;
        request.bytes(field::ROOT, root.as_os_str().as_bytes());
        // The restored process is a child of this one, not of the worker.
        request.flag(field::RST_SIBLING, true);
        if let Some(profile) = &self.restore.lsm_profile {
            request.bytes(field::LSM_PROFILE, profile.as_bytes());
        }
        if let Some(context) = &self.restore.lsm_mount_context {
            request.bytes(field::LSM_MOUNT_CONTEXT, context.as_bytes());
        }
        self.external_mounts(&mut request, &root, &record.cgroup)?;
        let streams = self.streams()?;
        for (name, file) in self.names.iter().zip(&streams) {
            if name.starts_with("pipe:[") || name.starts_with("file[") {
                inherit(&mut request, name, file);
            }
        }
        let namespaces = self.namespaces(&mut request)?;
        let mut files: Vec<&OwnedFd> = vec![&self.directories.image, &self.directories.work];
        files.extend(&streams);
        files.extend(&namespaces);

        let worker = Worker::start(&self.program, &files)?;
        // What the worker restores is born in the worker's cgroup, and the image's paths count from there.
        record.cgroup.attach(worker.pid())?;
        let own = own_cgroups(worker.pid())?;
        manage_cgroups(&mut request, self.restore.image.cgroup_mode, &record.cgroup, &own);
        for (controllers, path) in own {
            let mut group = Writer::default();
            if !controllers.is_empty() {
                group.bytes(1, controllers.as_bytes());
            }
            group.bytes(2, path.as_bytes());
            request.message(field::CG_ROOT, &group);
        }
        let console = self.options.streams.console.take();
        let mut pid = 0;
        let answer = worker
            .request(Kind::Restore, Some(&request), |notification| {
                match notification.script.as_str() {
                    "setup-namespaces" => {
                        let mut state = record.state(Status::Creating);
                        state.pid = notification.pid;
                        Point::plan("prestart", &record.hooks.prestart)?.run(&state)?;
                        Point::plan("createRuntime", &record.hooks.create_runtime)?.run(&state)?;
                    }
                    "post-restore" => pid = notification.pid,
                    "orphan-pts-master" => {
                        if let (Some(console), Some(master)) = (&console, &notification.file) {
                            crate::terminal::send_fd(console, b"/dev/ptmx", master)
                                .map_err(Error::system("send terminal over", "console socket"))?;
                        }
                    }
                    _ => {}
                }
                Ok(())
            })
            .map_err(|error| self.directories.explain(error, LOG))?;
        if answer.restored_pid > 0 {
            pid = answer.restored_pid;
        }
        let gone = || Error::Checkpoint(String::from("the restored process ended at once"));
        let process = Pid::from_raw(pid).ok_or_else(gone)?;
        let pidfd = rustix::process::pidfd_open(process, PidfdFlags::empty()).map_err(|_| gone())?;
        record.pid = pid;
        record.pid_start_time = state::process_start_time(pid).ok_or_else(gone)?;
        record.save(&self.options.root)?;
        if let Some(socket) = &self.options.streams.pidfd {
            crate::terminal::send_fd(socket, b"\0", &pidfd)
                .map_err(Error::system("send pidfd over", "pidfd socket"))?;
        }
        Ok(Running { pid, pidfd })
    }

    /// Makes the root file system a mount of its own, which CRIU needs.
    fn mount_root(&self, rootfs: &Path) -> Result<PathBuf, Error> {
        rustix::mount::mount_bind_recursive(rootfs, rootfs)
            .map_err(Error::system("bind root file system", rootfs.display()))?;
        std::fs::canonicalize(rootfs).map_err(|error| state::io_error("resolve", rootfs, &error))
    }

    /// Names the sources of mounts from outside, and makes their targets.
    fn external_mounts(&self, request: &mut Writer, rootfs: &Path, cgroup: &Cgroup) -> Result<(), Error> {
        let root = Root::open(rootfs)?;
        let mut over: Vec<String> = Vec::new();
        for mount in &self.spec.mounts {
            let target = destination(mount);
            // What lies on another mount is made by CRIU together with that mount.
            if !over.iter().any(|outer| Path::new(&target).starts_with(outer)) {
                let relative = Path::new(target.trim_start_matches('/'));
                let file = is_bind(mount) && !self.source(&mount.source).is_dir();
                if file {
                    root.create_file(relative, 0o644)?
                } else {
                    root.create_dir_all(relative, 0o755)?
                };
            }
            over.push(target.clone());
            if is_bind(mount) {
                let source = self.source(&mount.source);
                request.bytes(field::EXTERNAL, format!("mnt[{target}]:{}", source.display()).as_bytes());
            }
        }
        for (target, group) in super::cgroup_binds(self.spec, cgroup)? {
            request.bytes(field::EXTERNAL, format!("mnt[{target}]:{}", group.display()).as_bytes());
        }
        // Which of them are files was decided by the saved container; naming one too many does no harm.
        let host = Root::open(Path::new("/"))?;
        for path in masked_files(&host, self.spec) {
            request.bytes(field::EXTERNAL, format!("mnt[{path}]:/dev/null").as_bytes());
        }
        Ok(())
    }

    fn source(&self, source: &str) -> PathBuf {
        self.options.bundle.join(source)
    }

    /// Standard streams for the restored program, above the worker's own.
    fn streams(&mut self) -> Result<Vec<OwnedFd>, Error> {
        if let Some(streams) = self.options.streams.stdio.take() {
            return Ok(streams.into());
        }
        let copy = |file: std::os::fd::BorrowedFd<'_>| {
            rustix::io::fcntl_dupfd_cloexec(file, 3).map_err(Error::system("duplicate", "standard stream"))
        };
        Ok(vec![copy(rustix::stdio::stdin())?, copy(rustix::stdio::stdout())?, copy(rustix::stdio::stderr())?])
    }

    /// Namespaces that the document joins by path.
    fn namespaces(&self, request: &mut Writer) -> Result<Vec<OwnedFd>, Error> {
        let mut files = Vec::new();
        let listed = self.spec.linux.as_ref().map(|linux| linux.namespaces.as_slice()).unwrap_or_default();
        for namespace in listed.iter().filter(|namespace| !namespace.path.is_empty()) {
            match EXTERNAL_NAMESPACES.iter().find(|(kind, ..)| *kind == namespace.kind) {
                Some((kind, _, key)) => {
                    let path = joined(self.spec, *kind).unwrap_or_default();
                    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .map_err(Error::system("open namespace", path))?;
                    inherit(request, key, &file);
                    files.push(file);
                }
                None => {
                    let mut join = Writer::default();
                    join.bytes(1, crate::namespaces::proc_name(namespace.kind).as_bytes());
                    join.bytes(2, namespace.path.as_bytes());
                    request.message(field::JOIN_NS, &join);
                }
            }
        }
        Ok(files)
    }
}

fn inherit(request: &mut Writer, key: &str, file: &OwnedFd) {
    let mut entry = Writer::default();
    entry.bytes(1, key.as_bytes());
    entry.number(2, i64::from(file.as_fd().as_raw_fd()));
    request.message(field::INHERIT_FD, &entry);
}

fn descriptor_names(image: &OwnedFd) -> Result<Vec<String>, Error> {
    let root = Root::from_fd(image.try_clone().map_err(|error| {
        Error::system("duplicate", "image directory")(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })?);
    match root.read_bounded(Path::new(DESCRIPTORS), MAX_DESCRIPTORS) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Error::Checkpoint(format!("{DESCRIPTORS} of the image: {error}"))),
    }
}

fn keep_configuration(directory: &Path, spec: &Spec, filter: Option<&hull_seccomp::Filter>) -> Result<(), Error> {
    let bytes = serde_json::to_vec(spec).map_err(|error| Error::config("config", error.to_string()))?;
    hull_fs::atomic::write_path(&directory.join("config.json"), &bytes, 0o600)?;
    if let Some(filter) = filter.filter(|filter| !filter.notify()) {
        let mut stored = filter.flags().to_ne_bytes().to_vec();
        stored.extend_from_slice(filter.program());
        hull_fs::atomic::write_path(&directory.join("filter"), &stored, 0o600)?;
    }
    Ok(())
}
