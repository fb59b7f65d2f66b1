//! Everything about a container that can be decided and refused before anything is made: its image and layers, names
//! resolved in them, the specification.

use std::fs;

use hull_fs::Root;
use hull_image::Runnable;
use hull_image::snapshot::Lower;
use hull_oci::spec::{ConsoleSize, Spec};

use super::{Request, files};
use crate::config::{IpcMode, MountConfig, NamespaceChoice, RunConfig, SeccompChoice, Source, UserChoice};
use crate::error::Error;
use crate::records::{Container, Engine, Phase, now};
use crate::rootfs::{self, Files};
use crate::spec::{self, Context};
use crate::{cdi, machine, names, sandbox, users, volumes};

/// A container that only has to be made.
pub(crate) struct Prepared {
    pub(crate) container: Container,
    pub(crate) spec: Spec,
    pub(crate) filter: Option<hull_seccomp::Filter>,
    /// The image and its opened layers; absent runs on a directory of the user's.
    pub(crate) image: Option<(Runnable, Lower)>,
    /// The image's configuration.
    pub(super) defaults: hull_image::Config,
    /// It is registered already.
    pub(super) known: bool,
    pub(super) restarts: u32,
}

impl Engine {
    /// Makes the plan of a container that is to start.
    pub(crate) fn prepare(&self, request: Request) -> Result<Prepared, Error> {
        self.planned(request, true)
    }

    /// The same of one that may start later: whose namespaces it will share need not run yet.
    pub(super) fn planned(&self, request: Request, starts: bool) -> Result<Prepared, Error> {
        let mut directory = None;
        let (id, mut config, known, restarts, random) = match request {
            Request::New { id, random, config } => (id, *config, None, 0, random),
            Request::Sandbox { id, container, config } => {
                directory = Some(sandbox::directory(&self.directory(&container.id)));
                (id, *config, Some(*container), 0, [0; 32])
            }
            Request::Again(container, restarts) => {
                let mut container = *container;
                let config = std::mem::take(&mut container.config);
                (container.id.clone(), config, Some(container), restarts, [0; 32])
            }
        };
        let directory = directory.unwrap_or_else(|| self.directory(&id));
        // What is kept is what was asked for: a namespace is resolved anew at each start.
        let asked = known.is_some().then(|| config.clone());
        let mut context = Context { id: id.clone(), ..Context::default() };
        let mut image = None;
        let files = match &config.source {
            Source::Image(name) => {
                let mut found = match &known {
                    Some(container) => self.images.runnable(&container.image_id, None)?,
                    None => self.images.runnable(name, config.platform.as_ref())?,
                };
                // A policy may have become stricter since the image was pulled; without any this looks for its file.
                hull_image::registry::permitted(&self.images, &found, name)?;
                let lower = self.lower(&found.layers)?;
                let files = Files::Layers(lower.merged());
                context.image = std::mem::take(&mut found.config.config);
                context.rootfs = directory.join("rootfs").to_string_lossy().into_owned();
                image = Some((found, lower));
                files
            }
            Source::Directory(path) => {
                let path = fs::canonicalize(path)
                    .map_err(|error| Error::flag("--rootfs", format!("{}: {error}", path.display())))?;
                context.rootfs = path.to_string_lossy().into_owned();
                let opened =
                    rootfs::open_directory(&path).map_err(|error| Error::flag("--rootfs", error.to_string()))?;
                let files = Files::Directory(Root::from_fd(opened));
                config.source = Source::Directory(path);
                files
            }
        };
        context.user = files.user(&config, &context.image.user)?;
        machine::probe(&config, &mut context)?;
        if asked.is_none() {
            self.complete_mounts(&mut config, &context.image)?;
        }
        let asked = asked.unwrap_or_else(|| config.clone());
        config.mounts.extend(volumes::mounts::writable(&config, |path| files.has_directory(path)));
        self.resolve_namespaces(&mut config, starts)?;
        make_bind_sources(&config.mounts)?;
        if config.namespaces.user == UserChoice::Private {
            if config.runtime.is_some() {
                return Err(Error::flag("--userns", "users of its own need Hull's own runtime: use --userns=host"));
            }
            if let Source::Directory(path) = &config.source {
                rootfs::can_map_owners(path).map_err(|reason| Error::flag("--userns", reason))?;
            }
            context.first_id = Some(self.block(known.as_ref().map_or(&id, |container| &container.id))?);
        }
        if config.tty
            && let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdout())
        {
            context.console = Some(ConsoleSize { height: size.ws_row, width: size.ws_col });
        }
        context.files = files::generated(&config)
            .map(|name| (directory.join(name).to_string_lossy().into_owned(), format!("/etc/{name}")))
            // A directory of the user's gets no new files.
            .filter(|(_, target)| {
                image.is_some()
                    || fs::symlink_metadata(format!("{}{target}", context.rootfs)).is_ok_and(|one| one.is_file())
            })
            .collect();
        let mut spec = spec::spec(&config, &context)?;
        if let Some(process) = &mut spec.process {
            process.env.extend(self.sockets.variables());
        }
        cdi::inject(&mut spec, &config.cdi, &cdi::DIRECTORIES)?;
        if config.namespaces.user == UserChoice::Private {
            users::bind_devices(&mut spec);
        }
        let capabilities = spec::capabilities(&config, &context.available);
        let builtin = matches!(config.security.seccomp, SeccompChoice::Builtin) && !config.security.privileged;
        let already = known.is_some();
        let container = match known {
            Some(container) => Container { config: asked, ..container },
            None => {
                let mut config = asked;
                config.health = crate::health::merged(config.health.take(), context.image.healthcheck.as_ref());
                for (key, value) in &context.image.labels {
                    config.labels.entry(key.clone()).or_insert_with(|| value.clone());
                }
                let stop_signal = config
                    .stop_signal
                    .or_else(|| hull_runtime::lifecycle::signal::parse(&context.image.stop_signal))
                    .unwrap_or(15);
                Container {
                    name: config.name.clone().unwrap_or_else(|| names::generated(&random)),
                    created: now(),
                    image_id: image.as_ref().map(|(image, _)| image.id.to_string()).unwrap_or_default(),
                    args: spec.process.as_ref().map(|process| process.args.clone()).unwrap_or_default(),
                    config,
                    stop_signal,
                    id,
                }
            }
        };
        Ok(Prepared {
            container,
            spec,
            filter: builtin.then(|| hull_seccomp::default_filter(&capabilities)),
            image,
            defaults: context.image,
            known: already,
            restarts,
        })
    }

    /// Another container's namespaces are joined through its first process, once it has one.
    fn resolve_namespaces(&self, config: &mut RunConfig, starts: bool) -> Result<(), Error> {
        let mut hostname = None;
        let chosen = &mut config.namespaces;
        let kinds = [
            (&mut chosen.pid, "pid"),
            (&mut chosen.ipc, "ipc"),
            (&mut chosen.uts, "uts"),
            (&mut chosen.network, "net"),
            (&mut chosen.cgroup, "cgroup"),
        ];
        for (choice, file) in kinds {
            if let NamespaceChoice::Container(name) = choice {
                let other = self.find(name)?;
                if file == "ipc" && other.config.namespaces.ipc_mode != IpcMode::Shareable {
                    let hint = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)";
                    return Err(Error::flag("--ipc", format!("can't join IPC of container {}: {hint}", other.id)));
                }
                if !starts {
                    continue;
                }
                let state = self.state(&other.id)?;
                if state.phase != Phase::Running {
                    let status = state.phase.as_str().to_owned();
                    return Err(Error::Status { operation: "join a namespace of", id: other.id, status });
                }
                *choice = NamespaceChoice::Path(format!("/proc/{}/ns/{file}", state.pid));
                if file == "net" {
                    hostname = Some(crate::network::hostname(&other));
                }
            }
        }
        // Who is in its network is called as it is.
        if config.namespaces.uts == NamespaceChoice::Private {
            config.hostname = config.hostname.take().or(hostname);
        }
        Ok(())
    }
}

fn make_bind_sources(mounts: &[MountConfig]) -> Result<(), Error> {
    for mount in mounts {
        let MountConfig::Bind { source, create, .. } = mount else { continue };
        if source.exists() {
            continue;
        }
        let shown = hull_oci::spec::one_line(&source.to_string_lossy());
        if !create {
            let reason = format!("bind source path does not exist: {shown}");
            return Err(Error::Volume(format!("invalid mount config for type \"bind\": {reason}")));
        }
        fs::create_dir_all(source).map_err(|error| {
            Error::Volume(format!("error while creating mount source path '{shown}': mkdir {shown}: {error}"))
        })?;
    }
    Ok(())
}
