//! What a plan looks up: the Dockerfile, contexts, base images.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_engine::Engine;
use hull_image::Transfer;
use hull_image::registry::{self, PullOptions};
use hull_oci::image::{ImageConfig, Platform};
use hull_oci::{Digest, Reference};
use hull_registry::Client;
use rustix::fs::OFlags;

use crate::graph::{GitSource, HttpSource, ImageSource, LocalSource, Op};
use crate::observer::{Event, Observer, StepId};
use crate::plan::{Inputs, Place, full};
use crate::record::inputs::{self, Head};
use crate::record::{Lock, lock};
use crate::request::{BuildRequest, Context, DockerfileSource};
use crate::{Error, files};

/// An ignore file of more bytes is refused.
const MAX_IGNORE: u64 = 1 << 20;

/// The Dockerfile.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    /// What messages call it.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: Vec<u8>,
}

/// A Dockerfile's text, and the patterns of the ignore file that belongs to it alone.
type Found = (Vec<u8>, Option<Vec<String>>);

/// Looks things up, each once.
pub(crate) struct Sources<'a> {
    engine: &'a Engine,
    request: &'a BuildRequest,
    observer: &'a dyn Observer,
    transfer: &'a Transfer,
    files: &'a files::Sources,
    steps: Cell<u32>,
    images: RefCell<BTreeMap<(String, String), (ImageSource, ImageConfig)>>,
    places: RefCell<BTreeMap<String, Place>>,
    /// Patterns of the Dockerfile's own ignore file.
    own_ignore: RefCell<Option<Vec<String>>>,
    client: RefCell<Option<Arc<Client>>>,
    /// What nothing may differ from.
    locked: Option<&'a Lock>,
    /// The commit of the main context's work tree, once it was looked for.
    head: RefCell<Option<Option<Head>>>,
    /// The main context, if it is a repository.
    checkout: RefCell<Option<files::git::Checkout>>,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        request: &'a BuildRequest,
        observer: &'a dyn Observer,
        transfer: &'a Transfer,
        files: &'a files::Sources,
        locked: Option<&'a Lock>,
    ) -> Self {
        Self {
            engine,
            request,
            observer,
            transfer,
            files,
            steps: Cell::new(0),
            images: RefCell::default(),
            places: RefCell::default(),
            own_ignore: RefCell::default(),
            client: RefCell::default(),
            locked,
            head: RefCell::default(),
            checkout: RefCell::default(),
        }
    }

    /// A step beside the graph: what is done is told of.
    pub(crate) fn step<T>(&self, name: &str, work: impl FnOnce(StepId) -> Result<T, Error>) -> Result<T, Error> {
        let id = StepId::Beside(self.steps.get());
        self.steps.set(self.steps.get() + 1);
        self.observer.step(id, Event::Started { name });
        let result = work(id);
        match &result {
            Ok(_) => self.observer.step(id, Event::Done),
            Err(error) => self.observer.step(id, Event::Failed { reason: &error.to_string() }),
        }
        result
    }

    /// Says how much of something was read.
    fn read(&self, step: StepId, id: &str, bytes: usize) {
        self.observer.step(step, Event::Status { id, current: bytes as u64, total: 0, done: true });
    }

    /// The main context's directory, if it is one.
    fn directory(&self) -> Result<Option<PathBuf>, Error> {
        match self.context("")? {
            Some(Place::Source(Op::Local(local))) => Ok(Some(local.directory)),
            Some(Place::Source(Op::Git(repository))) => {
                let checkout = self.files.repository(&repository, &|| false)?;
                let directory = checkout.directory.clone();
                *self.checkout.borrow_mut() = Some(checkout);
                Ok(Some(directory))
            }
            _ => Ok(None),
        }
    }

    /// The date of the commit that is built: of the repository that is the context, or that the context is the work tree
    /// of.
    fn commit(&self) -> Option<i64> {
        match (self.locked, &self.request.context) {
            (Some(locked), _) => Some(locked.date),
            (None, Context::Directory(_)) => self.head().map(|head| head.date),
            _ => self.checkout.borrow().as_ref().map(|checkout| checkout.time),
        }
    }

    /// The commit that the main context is the work tree of.
    pub(crate) fn head(&self) -> Option<Head> {
        if let Some(known) = &*self.head.borrow() {
            return known.clone();
        }
        let found = match &self.request.context {
            Context::Directory(directory) if directory.join(".git").exists() => inputs::head(directory),
            _ => None,
        };
        self.head.replace(Some(found.clone()));
        found
    }

    /// Reads the Dockerfile.
    pub(crate) fn definition(&self) -> Result<Definition, Error> {
        let shown = match &self.request.dockerfile {
            DockerfileSource::Path(path) => {
                path.file_name().map_or_else(|| "Dockerfile".to_owned(), |name| name.to_string_lossy().into_owned())
            }
            DockerfileSource::Default | DockerfileSource::Text(_) => "Dockerfile".to_owned(),
        };
        let shown = hull_oci::spec::one_line(&shown);
        let name = format!("[internal] load build definition from {shown}");
        // What is missing is told at the end, not as a failure of this step.
        let found = self.step(&name, |step| {
            let found = self.find_definition()?;
            let bytes = found.as_ref().map_or(2, |(text, _)| text.len());
            self.read(step, "transferring dockerfile:", bytes);
            Ok(found)
        })?;
        let missing = || Error::Request(format!("failed to read dockerfile: open {shown}: no such file or directory"));
        let (text, ignore) = found.ok_or_else(missing)?;
        *self.own_ignore.borrow_mut() = ignore;
        Ok(Definition { name: shown, text })
    }

    fn find_definition(&self) -> Result<Option<Found>, Error> {
        let most = hull_dockerfile::MAX_SOURCE as u64;
        match (&self.request.dockerfile, &self.request.context) {
            (DockerfileSource::Text(text), _) => Ok(Some((text.clone(), None))),
            (DockerfileSource::Path(path), Context::Directory(_) | Context::Empty) => {
                let text = match File::open(path) {
                    Ok(file) => bounded(file, path, most)?,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(Error::io("open", path)(error)),
                };
                let mut own = path.clone().into_os_string();
                own.push(".dockerignore");
                let own = match File::open(&own) {
                    Ok(file) => Some(patterns(&bounded(file, Path::new(&own), MAX_IGNORE)?)),
                    Err(_) => None,
                };
                Ok(Some((text, own)))
            }
            (source, context) => {
                let directory = self.directory()?;
                if let (None, Context::Url(url), DockerfileSource::Default) = (&directory, context, source) {
                    // What is no archive is the Dockerfile itself. It is here already.
                    let found = self.files.download(&http(url), &|_, _| true)?;
                    let mut file = found.file.file.try_clone().map_err(Error::io("open", url))?;
                    file.seek(SeekFrom::Start(0)).map_err(Error::io("read", url))?;
                    return Ok(Some((bounded(file, Path::new(url), most)?, None)));
                }
                let Some(directory) = directory else { return Ok(None) };
                let names: Vec<PathBuf> = match source {
                    DockerfileSource::Path(path) => vec![path.clone()],
                    _ => vec![PathBuf::from("Dockerfile"), PathBuf::from("dockerfile")],
                };
                for name in names {
                    let Some(text) = inside(&directory, &name, most)? else { continue };
                    let mut own = name.into_os_string();
                    own.push(".dockerignore");
                    let own = inside(&directory, Path::new(&own), MAX_IGNORE)?;
                    return Ok(Some((text, own.map(|own| patterns(&own)))));
                }
                Ok(None)
            }
        }
    }

    fn client(&self) -> Arc<Client> {
        Arc::clone(self.client.borrow_mut().get_or_insert_with(Client::from_environment))
    }

    fn find_context(&self, name: &str) -> Result<Option<Place>, Error> {
        let context = if name.is_empty() {
            &self.request.context
        } else {
            match self.request.contexts.get(name) {
                Some(context) => context,
                None => return Ok(None),
            }
        };
        let shown = if name.is_empty() { "context" } else { name };
        Ok(Some(match context {
            Context::Empty => Place::Empty,
            Context::Directory(directory) => self.local(shown, directory.clone())?,
            Context::Image(reference) => Place::Image(reference.clone()),
            Context::Target(stage) => Place::Stage(stage.clone()),
            Context::OciLayout { path, tag, digest } => {
                let id = self.layout(path, tag.as_deref(), digest.as_ref())?;
                Place::Image(id.to_string())
            }
            Context::Git(repository) => Place::Source(Op::Git(repository.clone())),
            Context::Archive(archive) => {
                let directory = self.step("[internal] load remote build context", |_| self.unpacked(archive))?;
                unpacked(shown, directory)
            }
            Context::Url(url) => match self.step(&format!("[internal] load remote build context {url}"), |step| {
                let file = self.fetched(url, step)?;
                if is_archive(&file)? { self.unpacked(&file).map(Some) } else { Ok(None) }
            })? {
                Some(directory) => unpacked(shown, directory),
                // It is a Dockerfile, or a single file.
                None if name.is_empty() => Place::Empty,
                None => Place::Source(Op::Http(http(url))),
            },
        }))
    }

    /// An archive's files, in a directory that goes with the build.
    fn unpacked(&self, archive: &File) -> Result<PathBuf, Error> {
        let directory = self.transfer.directory()?;
        let mut archive = archive.try_clone().map_err(Error::io("open", "archive of the context"))?;
        archive.seek(SeekFrom::Start(0)).map_err(Error::io("read", "archive of the context"))?;
        files::export::extract(archive, &directory)?;
        Ok(directory)
    }

    /// A file by HTTP(S).
    fn fetched(&self, url: &str, step: StepId) -> Result<Arc<File>, Error> {
        let progress = |current: u64, total: u64| {
            self.observer.step(step, Event::Status { id: "transferring", current, total, done: false });
            true
        };
        Ok(self.files.download(&http(url), &progress)?.file.file)
    }

    /// A directory with what its ignore file says.
    fn local(&self, name: &str, directory: PathBuf) -> Result<Place, Error> {
        let own = (name == "context").then(|| self.own_ignore.borrow().clone()).flatten();
        let mut ignore = match own {
            Some(own) => own,
            None => inside(&directory, Path::new(".dockerignore"), MAX_IGNORE)?
                .map_or_else(Vec::new, |text| patterns(&text)),
        };
        // What a build writes is not what it is made of.
        ignore.extend((name == "context").then(|| self.lock_pattern(&directory)).flatten());
        Ok(Place::Source(Op::Local(LocalSource { name: name.to_owned(), directory, ignore })))
    }

    /// The lock, if it is in the context.
    fn lock_pattern(&self, directory: &Path) -> Option<String> {
        let options = &self.request.lock;
        let is_one = |path: &Path| options.write || Lock::read(path).is_ok_and(|lock| lock.is_some());
        let path = options.path.as_ref().filter(|path| is_one(path))?;
        let (path, directory) = (std::path::absolute(path).ok()?, std::path::absolute(directory).ok()?);
        let name = path.strip_prefix(directory).ok()?.to_str()?;
        let escape = |character: char| match character {
            '*' | '?' | '[' | '\\' => format!("\\{character}"),
            character => character.to_string(),
        };
        Some(name.chars().map(escape).collect())
    }

    /// Takes an image of a layout into the store.
    fn layout(&self, path: &Path, tag: Option<&str>, digest: Option<&Digest>) -> Result<Digest, Error> {
        let platforms = self.request.platforms.first().cloned().into_iter().collect();
        let options = hull_image::archive::LoadOptions { platforms, ..Default::default() };
        let loaded = hull_image::archive::load_path(&self.engine.images, path, &options)?;
        let fits = |one: &&hull_image::archive::Loaded| match (tag, digest) {
            (_, Some(digest)) => one.image.id == *digest || one.image.manifest.as_ref() == Some(digest),
            (Some(tag), None) => one.names.iter().any(|name| name.tag() == Some(tag)),
            (None, None) => true,
        };
        let found = loaded.iter().find(fits).map(|one| one.image.id.clone());
        found.ok_or_else(|| Error::Request(format!("{}: the layout has no such image", path.display())))
    }

    /// The image of the store, or of its registry.
    fn find_image(&self, text: &str, platform: &Platform, step: StepId) -> Result<(ImageSource, ImageConfig), Error> {
        let store = &self.engine.images;
        let by_id = text.parse::<Digest>().is_ok();
        let failed = |error: &dyn std::fmt::Display| {
            Error::Request(format!("{text}: failed to resolve source metadata for {}: {error}", full(text)))
        };
        let pinned = self.locked.and_then(|lock| lock.image(text, &platform.to_string()));
        if let Some(pinned) = pinned {
            return self.pinned(text, pinned, platform, step).map_err(|error| failed(&error));
        }
        let found = if self.request.pull && !by_id { None } else { store.find_for(text, platform).ok() };
        let suits = |image: &hull_image::Image| image.config.platform.suits(platform).is_some();
        if let Some(image) = found.filter(suits) {
            self.is_locked(text, &image)?;
            return Ok(source(text, image, None));
        }
        let plain: Reference = text.parse().map_err(|error| failed(&error))?;
        let meant = hull_registry::hosts::meant(text).map_err(|error| failed(&error))?;
        let reference = meant.into_iter().next().unwrap_or(plain);
        let options = PullOptions { platforms: vec![platform.clone()], ..PullOptions::default() };
        let progress = Pulling { observer: self.observer, step };
        let pulled =
            registry::pull(store, &self.client(), &reference, &options, &progress).map_err(|error| failed(&error))?;
        self.is_locked(text, &pulled.image)?;
        Ok(source(text, pulled.image, Some(pulled.digest)))
    }

    /// An image that the lock does not have under this name must be in it under another one.
    fn is_locked(&self, text: &str, image: &hull_image::Image) -> Result<(), Error> {
        let id = image.id.to_string();
        match self.locked {
            Some(lock) if !lock.inputs.images.iter().any(|one| one.id == id) => {
                Err(lock::refused(&[format!("image {text} is not in it")]))
            }
            _ => Ok(()),
        }
    }

    /// The image that the lock has under a name: that of the store, or that of the registry by its digest.
    fn pinned(
        &self,
        text: &str,
        pinned: &inputs::Image,
        platform: &Platform,
        step: StepId,
    ) -> Result<(ImageSource, ImageConfig), Error> {
        let store = &self.engine.images;
        let here = pinned.id.parse::<Digest>().ok().and_then(|id| store.get(&id).ok());
        if let Some(image) = here {
            return Ok(source(text, image, pinned.digest.clone()));
        }
        let gone = |reason: String| lock::refused(&[format!("image {text} {reason}")]);
        let Some(digest) = &pinned.digest else {
            return Err(gone(format!("was {}, which is not in the store and came from no registry", pinned.id)));
        };
        let plain: Reference = text.parse().map_err(|error| Error::Request(format!("{error}")))?;
        let meant = hull_registry::hosts::meant(text).map_err(|error| Error::Request(error.to_string()))?;
        let reference = meant.into_iter().next().unwrap_or(plain).with_digest(digest.clone());
        let options = PullOptions { platforms: vec![platform.clone()], ..PullOptions::default() };
        let progress = Pulling { observer: self.observer, step };
        let pulled = registry::pull(store, &self.client(), &reference, &options, &progress)?;
        if pulled.image.id.to_string() != pinned.id {
            return Err(gone(format!("changed from {} to {}", pinned.id, pulled.image.id)));
        }
        Ok(source(text, pulled.image, Some(digest.clone())))
    }
}

/// What the graph is told of an image.
fn source(text: &str, image: hull_image::Image, digest: Option<Digest>) -> (ImageSource, ImageConfig) {
    let own = || image.repo_digests.first().map(|(_, digest)| digest.clone());
    let source = ImageSource {
        reference: text.to_owned(),
        digest: digest.or_else(own),
        layers: image.config.rootfs.diff_ids.clone(),
        id: image.id,
    };
    (source, image.config)
}

impl Inputs for Sources<'_> {
    fn image(&self, reference: &str, platform: &Platform) -> Result<(ImageSource, ImageConfig), Error> {
        let key = (full(reference), platform.to_string());
        if let Some(known) = self.images.borrow().get(&key) {
            return Ok(known.clone());
        }
        let shown = if self.request.platforms.len() > 1 { format!("{platform} ") } else { String::new() };
        let name = format!("[{shown}internal] load metadata for {}", full(reference));
        let found = self.step(&name, |step| self.find_image(reference, platform, step))?;
        self.images.borrow_mut().insert(key, found.clone());
        Ok(found)
    }

    fn context(&self, name: &str) -> Result<Option<Place>, Error> {
        if let Some(known) = self.places.borrow().get(name) {
            return Ok(Some(known.clone()));
        }
        let found = self.find_context(name)?;
        if let Some(place) = &found {
            self.places.borrow_mut().insert(name.to_owned(), place.clone());
        }
        Ok(found)
    }

    fn commit_date(&self) -> Option<i64> {
        self.commit()
    }

    fn repository(&self, text: &str) -> Option<Result<GitSource, String>> {
        Some(files::git::parse(text)?.map_err(|error| error.to_string()))
    }
}

/// What came as an archive is taken whole: its ignore file counts where it was packed.
fn unpacked(name: &str, directory: PathBuf) -> Place {
    Place::Source(Op::Local(LocalSource { name: name.to_owned(), directory, ignore: Vec::new() }))
}

fn http(url: &str) -> HttpSource {
    HttpSource { url: url.to_owned(), checksum: None, auth: Vec::new() }
}

/// Whether a file begins like an archive, compressed or not.
fn is_archive(file: &File) -> Result<bool, Error> {
    let mut bytes = [0; 512];
    let length = file.read_at(&mut bytes, 0).map_err(Error::io("read", "context"))?;
    Ok(begins_archive(bytes.get(..length).unwrap_or_default()))
}

/// Whether bytes begin an archive, compressed or not.
#[must_use]
pub fn begins_archive(bytes: &[u8]) -> bool {
    let compressed: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    compressed.iter().any(|magic| bytes.starts_with(magic)) || bytes.get(257..262) == Some(b"ustar")
}

/// Tells of layers that come.
pub(crate) struct Pulling<'a> {
    pub(crate) observer: &'a dyn Observer,
    pub(crate) step: StepId,
}

impl registry::Progress for Pulling<'_> {
    fn layer(&self, layer: &Digest, event: registry::Event) {
        let (current, total, done) = match event {
            registry::Event::Downloading(current, total) => (current, total, false),
            registry::Event::PullComplete | registry::Event::Exists => (0, 0, true),
            _ => return,
        };
        self.observer.step(self.step, Event::Status { id: &layer.to_string(), current, total, done });
    }
}

/// A file's bytes, if they are not too many.
fn bounded(file: File, path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    file.take(most + 1).read_to_end(&mut text).map_err(Error::io("read", path))?;
    if text.len() as u64 > most {
        return Err(Error::Request(format!("{}: it has more than {most} bytes", path.display())));
    }
    Ok(text)
}

/// A file of a directory: links within it are followed, never out of it.
fn inside(directory: &Path, name: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
    let root = hull_fs::Root::open(directory)?;
    match root.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => bounded(File::from(file), name, most).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The patterns of an ignore file: what is no comment and not empty.
fn patterns(text: &[u8]) -> Vec<String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}
