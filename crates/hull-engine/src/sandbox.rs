//! `exec` into a container that does not run: its files with what the user wants to do to them, and nothing else.
//!
//! The program gets the container's root file system, mounts, user and limits, a network of its own with only the
//! loopback device, and an ID of its own as far as the runtime is concerned. The container stays stopped. Its lock is
//! held meanwhile, so that nobody starts or removes it; this process's intent under the sandbox's ID lets the next
//! command end what is left if this one is killed.
//!
//! ```text
//! ROOT/containers/ID/sandbox/   bundle, work directory and files of the sandbox, as in a container's own directory
//! ```

use std::fs;
use std::path::Path;

use hull_cgroup::Driver;
use hull_image::snapshot::Lower;
use hull_runtime::{CreateOptions, Running, Streams};
use hull_sys::clone::{CloneFlags, Cloned, clone3, exit_now};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::config::{HealthConfig, LogConfig, NamespaceChoice, RestartPolicy, RunConfig};
use crate::error::Error;
use crate::exec::{ExecConfig, Stage};
use crate::launch::{Prepared, Request};
use crate::records::{Container, Engine, Phase, Work};
use crate::{attach, init, launch, monitor, names};

/// The directory of a container's sandbox.
pub(crate) fn directory(container: &Path) -> std::path::PathBuf {
    container.join("sandbox")
}

/// The container's configuration with what `exec` changes, and without what belongs to a container's life.
fn config(container: &Container, exec: &ExecConfig) -> RunConfig {
    let mut config = container.config.clone();
    let chosen = &mut config.namespaces;
    for choice in [&mut chosen.pid, &mut chosen.ipc, &mut chosen.uts, &mut chosen.cgroup] {
        // Whoever else was there may be gone.
        if matches!(choice, NamespaceChoice::Container(_)) {
            *choice = NamespaceChoice::Private;
        }
    }
    chosen.network = NamespaceChoice::Private;
    config.entrypoint = Some(String::new());
    config.command.clone_from(&exec.args);
    config.env.extend(exec.env.iter().cloned());
    config.user = exec.user.clone().or(config.user);
    config.workdir = exec.workdir.clone().or(config.workdir);
    if config.hostname.is_none() && config.namespaces.uts == NamespaceChoice::Private {
        config.hostname = Some(container.id.chars().take(12).collect());
    }
    config.tty = exec.tty;
    config.interactive = exec.interactive;
    if exec.privileged {
        config.security.cap_add.push("ALL".to_owned());
        config.security.cap_drop.clear();
    }
    RunConfig {
        networks: Vec::new(),
        publish: Vec::new(),
        publish_all: false,
        links: Vec::new(),
        detach: false,
        remove: false,
        restart: RestartPolicy::No,
        log: LogConfig::default(),
        health: Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() }),
        runtime: None,
        ..config
    }
}

impl Engine {
    /// Runs a program on a stopped container's files and returns its exit code; 0 at once with `detach`, where a process
    /// stays behind that waits for the program and removes the sandbox.
    pub(crate) fn exec_stopped(&self, container: &Container, exec: &ExecConfig) -> Result<i32, Error> {
        if !exec.detach {
            return self.run_stopped(container, exec, || {});
        }
        // The child opens the store itself.
        self.images.close();
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(Error::io("create", "socket"))?;
        match clone3(CloneFlags::empty(), None).map_err(Error::io("clone", "process of the sandbox"))? {
            Cloned::Child => {
                drop(ours);
                let _ = rustix::process::setsid();
                let mut theirs = Some(theirs);
                let result = self.run_stopped(container, exec, || {
                    let _ = launch::leave_caller();
                    if let Some(socket) = theirs.take() {
                        monitor::tell_start(socket, Ok(()));
                    }
                });
                if let (Err(error), Some(socket)) = (&result, theirs) {
                    monitor::tell_start(socket, Err(error));
                }
                exit_now(0)
            }
            Cloned::Parent(..) => {
                drop(theirs);
                attach::await_start(&ours, &mut |_| {}).map(|()| 0)
            }
        }
    }

    /// The same in this process, which waits in any case; calls `started` once the program runs.
    fn run_stopped(&self, container: &Container, exec: &ExecConfig, started: impl FnOnce()) -> Result<i32, Error> {
        let refuse = |status: &str| {
            Err(Error::Status { operation: "exec in", id: container.id.clone(), status: status.to_owned() })
        };
        let lock = self.lock(&container.id)?;
        let container = self.container(&container.id)?;
        let state = self.state(&container.id)?;
        self.await_monitor(&container.id, &state);
        if !matches!(state.phase, Phase::Created | Phase::Exited) {
            drop(lock);
            return self.exec(&container, exec);
        }
        if self.starting(&container.id) {
            return refuse("being started");
        }
        let id = names::hex(&names::random()?);
        let intent = self.intend(&id, Work::Create)?;
        let place = directory(&self.directory(&container.id));
        let mut stage = Stage::open(exec, &container)?;
        let result = self.sandbox(&id, &container, exec, &place, stage.streams(exec)?);
        let result = match result {
            Ok((running, lower)) => {
                started();
                let code = stage.attend(self, &container, exec, &running);
                let code = if exec.detach { code.and(running.wait().map_err(Error::from)) } else { code };
                let released = lower.map_or(Ok(()), Lower::release);
                code.and_then(|code| Ok(released.map(|()| code)?))
            }
            Err(error) => Err(error),
        };
        match hull_runtime::lifecycle::delete(&self.oci_root(), &id, true) {
            Ok(_) | Err(hull_runtime::Error::NoContainer(_)) => {}
            // The intent stays, and the next command tries again.
            Err(error) => return result.and(Err(error.into())),
        }
        let cleared =
            hull_image::remove_tree(&place).map_err(Error::io("remove", &place)).and_then(|()| intent.clear());
        drop(lock);
        result.and_then(|code| cleared.map(|()| code))
    }

    fn sandbox(
        &self,
        id: &str,
        container: &Container,
        exec: &ExecConfig,
        place: &Path,
        streams: Streams,
    ) -> Result<(Running, Option<Lower>), Error> {
        // A killed one may have left it.
        hull_image::remove_tree(place).map_err(Error::io("remove", place))?;
        let config = Box::new(config(container, exec));
        let request = Request::Sandbox { id: id.to_owned(), container: Box::new(container.clone()), config };
        let Prepared { container, mut spec, filter, image, .. } = self.prepare(request)?;
        for path in [place.to_owned(), place.join("work"), place.join("rootfs")] {
            fs::create_dir(&path).map_err(Error::io("create directory", &path))?;
        }
        if container.config.init {
            init::wrap(&mut spec, place);
        }
        self.write_name_files(&container, None, place)?;
        let lower = image.map(|(_, lower)| lower);
        let rootfs = self.root_of(&container.config, lower.as_ref(), self.upper(&container.id), place, false)?;
        self.ready_volumes(&container, lower.as_ref().map(Lower::layers), false)?;
        let trees = self.attach_mounts(&container, &mut spec)?;
        let options = CreateOptions {
            id: id.to_owned(),
            bundle: place.to_owned(),
            root: self.oci_root(),
            rootfs,
            streams,
            trees,
            cgroup_driver: Driver::Cgroupfs,
            no_pivot: false,
            no_new_keyring: false,
            signals_blocked: container.config.init,
            filter,
        };
        let running = hull_runtime::create(spec, options)?.start()?;
        Ok((running, lower))
    }
}
