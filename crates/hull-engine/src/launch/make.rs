//! The making: from what was prepared to a program that runs, in the container's monitor.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_cgroup::Driver;
use hull_image::snapshot::Lower;
use hull_network::Plan;
use hull_network::dns::Settings;
use hull_runtime::{CreateOptions, Rootfs, Streams};

use super::prepare::Prepared;
use super::{Started, files, null};
use crate::config::{RunConfig, UserChoice};
use crate::error::Error;
use crate::monitor::Ends;
use crate::network::Reach;
use crate::records::{Container, Engine, Phase, State, now, own_pid};
use crate::{events, init, terminal};

impl Engine {
    /// The root file system over an image's layers: `upper` is written to, `work/` and `rootfs/` of `place` serve the mount.
    pub(crate) fn overlay(
        &self,
        lower: Option<&Lower>,
        upper: PathBuf,
        place: &Path,
        volatile: bool,
    ) -> Result<Rootfs, Error> {
        let Some(lower) = lower else { return Ok(Rootfs::Config) };
        let mut layers = lower.layers().to_vec();
        layers.push(Arc::new(self.skeleton()?));
        Ok(Rootfs::Overlay { lower: layers, upper, work: place.join("work"), target: place.join("rootfs"), volatile })
    }

    /// [`Self::overlay`], or the directory that the container runs on.
    pub(crate) fn root_of(
        &self,
        config: &RunConfig,
        lower: Option<&Lower>,
        upper: PathBuf,
        place: &Path,
        volatile: bool,
    ) -> Result<Rootfs, Error> {
        match self.overlay(lower, upper, place, volatile)? {
            Rootfs::Config if config.namespaces.user == UserChoice::Private => Ok(Rootfs::Mapped),
            other => Ok(other),
        }
    }

    /// Makes a container's directory, process and devices, and starts its program.
    pub(super) fn make(&self, prepared: Prepared, warn: &mut dyn FnMut(&str)) -> Result<Started, Error> {
        let Prepared { container, mut spec, filter, image, defaults, known, restarts } = prepared;
        let held = image.as_ref().filter(|_| !known).map(|(image, _)| image.id.clone());
        let directory = if known {
            self.renew(&container)?
        } else {
            let made = self.register(&container, image.as_ref().map(|(_, lower)| lower.layers()))?;
            events::emit(self, &container, "create", &[]);
            made
        };
        if container.config.init {
            init::wrap(&mut spec, &directory);
        }
        let connect = || {
            if let Some(image) = &held {
                self.hold_image(&container.id, image)?;
            }
            let plan = self.plan_network(&container, &defaults)?;
            let settings = self.write_name_files(&container, plan.as_ref(), &directory)?;
            Ok::<_, Error>(plan.map(|plan| (plan, settings)))
        };
        // They are bound by the container's process, and have their content before its program starts.
        files::generated(&container.config).try_for_each(|name| files::touch(&directory.join(name)))?;
        let lower = image.map(|(_, lower)| lower);
        let (upper, volatile) = (directory.join("upper"), container.config.remove);
        let rootfs = self.root_of(&container.config, lower.as_ref(), upper, &directory, volatile)?;
        self.ready_volumes(&container, lower.as_ref().map(Lower::layers), !known)?;
        let mut trees = self.attach_mounts(&container, &mut spec)?;
        let (mut streams, mut ends) = program_streams(&container.config)?;
        streams.preserve_fds = self.sockets.count;
        let (running, pid_start, reach) = if let Some(name) = &container.config.runtime {
            if !trees.is_empty() {
                let reason = "volumes with options or subpaths, and images as mounts, need Hull's own runtime";
                return Err(Error::flag("--runtime", reason));
            }
            let bounding = capabilities(&spec);
            if filter.is_some()
                && let Some(linux) = &mut spec.linux
            {
                linux.seccomp = Some(hull_seccomp::default_profile(&bounding, &[]));
            }
            let layers = match &rootfs {
                Rootfs::Overlay { lower, .. } => Some(lower.as_slice()),
                Rootfs::Config | Rootfs::Mapped => None,
            };
            let plan = connect()?;
            let mut created = self.create_foreign(name, &container, &spec, layers, streams)?;
            if let Some(terminal) = created.terminal.take() {
                ends = Ends::Terminal(terminal);
            }
            let pid_start = created.pid_start;
            let reach = self.reach(&container, plan, created.pid, warn)?;
            (created.start()?, pid_start, reach)
        } else {
            self.share_memory(&container, &mut spec, &mut trees)?;
            let options = CreateOptions {
                id: container.id.clone(),
                bundle: directory.clone(),
                root: self.oci_root(),
                rootfs,
                trees,
                streams,
                cgroup_driver: Driver::Cgroupfs,
                no_pivot: false,
                no_new_keyring: false,
                signals_blocked: container.config.init,
                filter,
            };
            // Records, ports, devices and names, while the container's process makes its mounts.
            let mut joined = Ok(Reach::default());
            let created = hull_runtime::create_with(spec, options, &mut |pid| {
                joined = connect().and_then(|plan| self.reach(&container, plan, pid, warn));
                joined.is_ok()
            });
            let (created, reach) = match created {
                Err(hull_runtime::Error::Meanwhile) => return joined.and(Err(hull_runtime::Error::Meanwhile.into())),
                created => (created?, joined?),
            };
            created.warnings().iter().for_each(|warning| warn(warning));
            let pid_start = created.record().pid_start_time;
            (created.start()?, pid_start, reach)
        };
        let started = Started { container, state: State::default(), running, ends, reach, lower };
        self.started(started, pid_start, restarts)
    }

    /// [`Self::join_network`], if the container is on any.
    fn reach(
        &self,
        container: &Container,
        plan: Option<(Plan, Option<Settings>)>,
        pid: i32,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Reach, Error> {
        match plan {
            Some((plan, settings)) => self.join_network(container, plan, settings, pid, warn),
            None => Ok(Reach::default()),
        }
    }

    /// Records that a container runs.
    fn started(&self, started: Started, pid_start: u64, restarts: u32) -> Result<Started, Error> {
        let (id, monitor) = (&started.container.id, own_pid());
        let state = State {
            phase: Phase::Running,
            pid: started.running.pid,
            pid_start,
            monitor,
            monitor_start: hull_runtime::state::process_start_time(monitor).unwrap_or(0),
            started: now(),
            restarts,
            ..State::default()
        };
        self.save(id, &state)?;
        events::emit_surroundings(self, &started.container, true);
        events::emit(self, &started.container, "start", &[]);
        Ok(Started { state, ..started })
    }
}

/// What the program may do at most.
fn capabilities(spec: &hull_oci::spec::Spec) -> Vec<String> {
    let process = spec.process.as_ref();
    process.and_then(|process| process.capabilities.as_ref()).map_or_else(Vec::new, |sets| sets.bounding.clone())
}

/// The program's streams, and the monitor's ends of them.
fn program_streams(config: &RunConfig) -> Result<(Streams, Ends), Error> {
    if config.tty {
        let (ours, theirs) = terminal::console_pair().map_err(Error::io("create", "console socket"))?;
        return Ok((Streams { console: Some(theirs), ..Streams::default() }, Ends::Terminal(ours)));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::io("create", "pipe"));
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    let (input, held) = if config.interactive {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (null()?, None)
    };
    let streams = Streams { stdio: Some([input, out_end, err_end]), ..Streams::default() };
    Ok((streams, Ends::Pipes(out, err, held)))
}
