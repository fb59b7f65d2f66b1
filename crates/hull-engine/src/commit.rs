//! `commit` and `export`: a container as an image, or as an archive of its files.
//!
//! The layer of a commit is what [`diff`](crate::diff) finds, in the deterministic form of `hull_layer::tar`: the same
//! changes give the same bytes wherever they are made. It goes to the store through a pipe, so that nothing is written
//! twice. The image's new configuration is the old one with what the container was started with and the `--change`
//! instructions, and one more row of history.

use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hull_image::{Image, LayerSource, Transfer};
use hull_layer::tar::walk::{self, Options, Overlay};
use hull_layer::tar::{Writer, WriterOptions};
use hull_oci::Reference;
use hull_oci::image::{ContainerConfig, History, ImageConfig};
use hull_runtime::lifecycle;
use rustix::fs::{Mode, OFlags};

use crate::config::Source;
use crate::diff::{ChangeKind, Changes, is_changed};
use crate::error::Error;
use crate::records::{Container, Engine, Phase};
use crate::rootfs;

/// Writes of this size go through the pipe.
const BUFFER: usize = 256 << 10;

/// What `commit` is told.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// Name of the new image.
    pub name: Option<Reference>,
    /// `--author`.
    pub author: Option<String>,
    /// `--message`.
    pub message: Option<String>,
    /// `--change` instructions, in order.
    pub changes: Vec<String>,
    /// Stop a running container's processes meanwhile.
    pub pause: bool,
    /// What is set of it takes the place of the container's, before the changes.
    pub config: Option<Box<ContainerConfig>>,
}

/// Files that an archive cannot have, for a warning.
pub use hull_layer::tar::walk::Report;

/// Lets a container's processes go on, however this ends.
struct Paused<'e> {
    engine: &'e Engine,
    id: &'e str,
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = lifecycle::resume(&self.engine.oci_root(), self.id);
    }
}

/// `SOURCE_DATE_EPOCH`, which makes the dates of what is made the same everywhere.
fn source_date() -> Option<i64> {
    std::env::var("SOURCE_DATE_EPOCH").ok()?.parse().ok()
}

fn now() -> i64 {
    source_date().unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// Where the marks of a writable layer are.
pub(crate) fn marks() -> Overlay {
    if rustix::process::geteuid().is_root() { Overlay::Trusted } else { Overlay::User }
}

impl Engine {
    /// Makes an image of a container.
    ///
    /// # Errors
    /// [`Error::NoImageOf`] for a container on a directory; what a layer cannot express; instructions that are wrong.
    /// The store is unchanged then.
    pub fn commit(&self, container: &Container, options: &CommitOptions) -> Result<(Image, Report), Error> {
        let lower = self.lower_of("commit", container)?;
        let id = container.image_id.parse().map_err(|_| Error::NoContainer(container.id.clone()))?;
        let base = self.images.get(&id)?;
        let mut config = base.config.clone();
        merge(&mut config.config, container);
        if let Some(wanted) = &options.config {
            lay_over(&mut config.config, wanted);
        }
        hull_image::apply_changes(&mut config.config, &options.changes)?;
        let transfer = self.images.begin()?;
        for diff_id in &config.rootfs.diff_ids {
            transfer.has_layer(diff_id)?;
        }
        let running = self.state(&container.id)?.phase == Phase::Running;
        let paused = if running && options.pause {
            lifecycle::pause(&self.oci_root(), &container.id)?;
            Some(Paused { engine: self, id: &container.id })
        } else {
            None
        };
        let changes = self.changes(container, &lower)?;
        let mut report = Report::default();
        if !changes.is_empty() {
            let layer;
            (layer, report) = self.layer_of(container, &transfer, &changes)?;
            config.rootfs.diff_ids.push(layer.diff_id);
        }
        drop(paused);
        describe(&mut config, container, options, &changes);
        let bytes = serde_json::to_vec(&config)
            .map_err(|source| Error::Record { path: "configuration of the image".to_owned(), source })?;
        let names: Vec<Reference> = options.name.iter().cloned().collect();
        Ok((transfer.image(&bytes, None, &names)?, report))
    }

    /// The writable layer as a layer of the store.
    fn layer_of(
        &self,
        container: &Container,
        transfer: &Transfer,
        changes: &Changes,
    ) -> Result<(hull_image::Layer, Report), Error> {
        let path = self.upper(&container.id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = rustix::fs::open(&path, flags, Mode::empty()).map_err(Error::io("open", &path))?;
        let (reader, writer) = std::io::pipe().map_err(Error::io("create", "pipe"))?;
        let exclude = |path: &[u8]| !is_changed(changes, path);
        let walk = Options { upper: Some(marks()), exclude: Some(&exclude), ..Options::default() };
        std::thread::scope(|scope| {
            let taking = scope.spawn(move || transfer.layer(reader, LayerSource::default()));
            let written = write(upper, &walk, writer);
            let taken = match taking.join() {
                Ok(taken) => taken.map_err(Error::from),
                Err(_) => Err(Error::io("read", "layer")(std::io::Error::other("the reading thread died"))),
            };
            match (taken, written) {
                (Ok(layer), Ok(report)) => Ok((layer, report)),
                // A reader that gives up breaks the pipe.
                (Err(error), Err(Error::Layer(hull_layer::Error::File { source, .. })))
                    if source.kind() == std::io::ErrorKind::BrokenPipe =>
                {
                    Err(error)
                }
                (_, Err(error)) | (Err(error), _) => Err(error),
            }
        })
    }

    /// Writes all files of a container as a tar archive.
    ///
    /// # Errors
    /// When they cannot be read, or the output not be written.
    pub fn export(&self, container: &Container, output: impl Write) -> Result<Report, Error> {
        let options = Options { one_file_system: true, ..Options::default() };
        if let Source::Directory(path) = &container.config.source {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
            return write(root, &options, output);
        }
        let lower = self.lower_of("export", container)?;
        let mut layers = vec![Arc::new(rootfs::open_directory(&self.upper(&container.id))?)];
        layers.extend_from_slice(lower.layers());
        layers.push(Arc::new(self.empty()?));
        let mount = rootfs::overlay(&layers)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&mount, c".", flags, Mode::empty()).map_err(Error::io("open", "overlay"))?;
        write(root, &options, output)
    }
}

fn write(root: impl AsFd, options: &Options<'_>, output: impl Write) -> Result<Report, Error> {
    let settings = WriterOptions { clamp_mtime: source_date(), ..WriterOptions::default() };
    let mut writer = Writer::with_options(BufWriter::with_capacity(BUFFER, output), settings);
    let report = walk::write_directory(&mut writer, root.as_fd(), options)?;
    let finish = writer.finish().and_then(|mut output| output.flush());
    finish.map_err(hull_layer::Error::file("write", "archive"))?;
    Ok(report)
}

/// What a container was started with, over the image's defaults, as Docker keeps it.
fn merge(config: &mut ContainerConfig, container: &Container) {
    let run = &container.config;
    if let Some(entrypoint) = &run.entrypoint {
        let words = [std::slice::from_ref(entrypoint), &run.entrypoint_words].concat();
        config.entrypoint = if entrypoint.is_empty() { Vec::new() } else { words };
        config.cmd.clear();
    }
    if !run.command.is_empty() {
        config.cmd.clone_from(&run.command);
    }
    for variable in &run.env {
        let name = variable.split('=').next();
        match config.env.iter_mut().find(|one| one.split('=').next() == name) {
            Some(present) => present.clone_from(variable),
            None => config.env.push(variable.clone()),
        }
    }
    if let Some(user) = &run.user {
        config.user.clone_from(user);
    }
    if let Some(directory) = &run.workdir {
        config.working_dir.clone_from(directory);
    }
    if run.stop_signal.is_some() {
        config.stop_signal = lifecycle::signal::name(container.stop_signal);
    }
    config.labels.extend(run.labels.clone());
}

/// What a client wants of the new image, over what there is: fields that say nothing change nothing.
fn lay_over(config: &mut ContainerConfig, wanted: &ContainerConfig) {
    let wanted = wanted.clone();
    if !wanted.entrypoint.is_empty() {
        config.entrypoint = wanted.entrypoint;
        config.cmd.clear();
    }
    if !wanted.cmd.is_empty() {
        config.cmd = wanted.cmd;
    }
    for variable in wanted.env {
        let name = variable.split('=').next();
        match config.env.iter_mut().find(|one| one.split('=').next() == name) {
            Some(present) => *present = variable,
            None => config.env.push(variable),
        }
    }
    if !wanted.user.is_empty() {
        config.user = wanted.user;
    }
    if !wanted.working_dir.is_empty() {
        config.working_dir = wanted.working_dir;
    }
    if !wanted.stop_signal.is_empty() {
        config.stop_signal = wanted.stop_signal;
    }
    config.exposed_ports.extend(wanted.exposed_ports);
    config.volumes.extend(wanted.volumes);
    config.labels.extend(wanted.labels);
}

/// Dates, author, and the row of history.
fn describe(config: &mut ImageConfig, container: &Container, options: &CommitOptions, changes: &Changes) {
    let seconds = u64::try_from(now()).unwrap_or(0);
    let created = Some(hull_oci::time::rfc3339_nanos(UNIX_EPOCH + Duration::from_secs(seconds)));
    config.created.clone_from(&created);
    config.author.clone_from(&options.author);
    let mark = hand_made(container, changes);
    // The user's words do not hide that no instruction made the layer.
    let comment = options.message.as_ref().map_or_else(|| mark.clone(), |message| format!("{message} ({mark})"));
    config.comment = Some(options.message.clone().unwrap_or(mark));
    config.history.push(History {
        created,
        created_by: Some(container.args.join(" ")),
        author: options.author.clone(),
        comment: Some(comment),
        empty_layer: changes.is_empty(),
    });
}

/// What `history` shows of a layer that no instruction made: who made it of which container, and how much is in it.
fn hand_made(container: &Container, changes: &Changes) -> String {
    let count = |wanted| changes.values().filter(|kind| **kind == wanted).count();
    let counts = format!(
        "{} added, {} changed, {} deleted",
        count(ChangeKind::Added),
        count(ChangeKind::Changed),
        count(ChangeKind::Deleted)
    );
    // With a fixed date the same changes give the same image whoever makes it.
    if source_date().is_some() {
        return format!("hand-made: {counts}");
    }
    let who = ["SUDO_USER", "USER"].iter().find_map(|name| std::env::var(name).ok());
    let who = who.unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()));
    hull_oci::spec::one_line(&format!("hand-made by {who} from container {}: {counts}", container.name))
}
