//! What the solver asks of files: sources made ready, selections, layers of copies.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hull_engine::Engine;
use hull_http::Client;
use hull_http::proxy::Proxies;
use hull_image::snapshot::shared::Mounts;
use hull_image::{Layer, Transfer};
use hull_oci::Digest;

use super::context::Context;
use super::copy::{self, Source};
use super::error::{Error, absolute};
use super::git::{Checkout, Repositories, RepositoryTree};
use super::http::{Downloads, Fetched, Progress};
use super::onto::{Attributes, Onto, Seen};
use super::select::{self, Selected};
use super::settings::{Settings, Spool};
use super::tree::{FileTree, components, join};
use super::trees::{LayerTree, SingleFile};
use super::write;
use crate::graph::{CopyAction, CopyOp, GitSource, HttpSource, LocalSource, MkdirOp, Op};
use crate::request::Secret;
use crate::solve::{Files, Tree, Work};

/// What servers are told.
const USER_AGENT: &str = concat!("hull/", env!("CARGO_PKG_VERSION"));
/// The longest secret.
const MAX_SECRET: u64 = 64 << 10;

/// A source that is ready.
#[derive(Debug)]
pub enum Opened {
    /// A directory of this machine.
    Context(Arc<Context>),
    /// A download.
    File(SingleFile),
    /// A repository.
    Repository(Arc<RepositoryTree>),
}

/// Everything that files come from.
#[derive(Debug)]
pub struct Sources {
    layers: PathBuf,
    mounts: Mounts,
    /// Where sources are kept from build to build: `cache` of the store's root.
    cache: PathBuf,
    downloads: Downloads,
    repositories: Repositories,
    /// Secrets of the request, by ID: what downloads and repositories are asked with.
    secrets: BTreeMap<String, Secret>,
}

impl Sources {
    /// The sources of an engine's builds.
    #[must_use]
    pub fn new(engine: &Engine) -> Self {
        let cache = engine.root().join("cache");
        Self {
            layers: engine.root().join("layers"),
            mounts: Mounts::new(engine.state_root()),
            downloads: Downloads::new(cache.join("http"), Client::new(USER_AGENT, Proxies::from_environment())),
            repositories: Repositories::new(cache.join("git")),
            cache,
            secrets: BTreeMap::new(),
        }
    }

    /// With these secrets.
    #[must_use]
    pub fn with_secrets(mut self, secrets: &BTreeMap<String, Secret>) -> Self {
        self.secrets.clone_from(secrets);
        self
    }

    /// With the agent that `--ssh` gives: the socket of `default`, or the only one.
    #[must_use]
    pub fn with_ssh(mut self, ssh: &BTreeMap<String, Vec<PathBuf>>) -> Self {
        use std::os::unix::fs::FileTypeExt as _;
        let socket = |path: &&PathBuf| path.metadata().is_ok_and(|meta| meta.file_type().is_socket());
        let first = ssh.get("default").or_else(|| ssh.values().next());
        let found = first.and_then(|paths| paths.iter().find(socket)).cloned();
        let from_environment = || std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
        let agent = match first {
            // Without a path it is the agent of this process.
            Some(paths) if paths.is_empty() => from_environment(),
            _ => found,
        };
        if let Some(agent) = agent {
            self.repositories = Repositories::new(self.cache.join("git")).with_agent(agent);
        }
        self
    }

    /// Fetches a file.
    ///
    /// # Errors
    /// When it cannot be had, or is not what its checksum says.
    pub fn download(&self, source: &HttpSource, progress: Progress<'_>) -> Result<Fetched, Error> {
        let authorization = source.auth.iter().find_map(|name| self.authorization(name));
        self.downloads.fetch(source, authorization.as_deref(), progress)
    }

    /// Fetches and checks out a repository.
    ///
    /// # Errors
    /// When it cannot be had, or is not what its checksum says.
    pub fn repository(&self, source: &GitSource, canceled: &dyn Fn() -> bool) -> Result<Checkout, Error> {
        self.repositories.checkout(source, self.repository_header(source).as_deref(), canceled)
    }

    /// What a repository's server is to be sent for authorization: as a secret of its host has it, or, by https only, a
    /// secret for all hosts.
    fn repository_header(&self, source: &GitSource) -> Option<String> {
        use base64::Engine as _;
        let (scheme, rest) = source.url.split_once("://")?;
        let host = rest.split('/').next()?.rsplit('@').next()?;
        let general = match scheme.to_ascii_lowercase().as_str() {
            "https" => vec!["GIT_AUTH_HEADER".to_owned(), "GIT_AUTH_TOKEN".to_owned()],
            "http" => Vec::new(),
            _ => return None,
        };
        let own = ["GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"].map(|name| format!("{name}.{host}"));
        own.into_iter().chain(general).find_map(|name| {
            let value = self.secret(&name)?;
            let value = value.trim();
            let word = |token: &str| {
                let pair = format!("x-access-token:{token}");
                format!("basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            };
            Some(if name.starts_with("GIT_AUTH_TOKEN") { word(value) } else { value.to_owned() })
        })
    }

    fn secret(&self, name: &str) -> Option<String> {
        match self.secrets.get(name)? {
            Secret::Variable(variable) => std::env::var(variable).ok(),
            Secret::File(path) => {
                let mut text = String::new();
                File::open(path).ok()?.take(MAX_SECRET).read_to_string(&mut text).ok()?;
                Some(text)
            }
        }
    }

    /// The header that a secret holds: whole, or a token for it.
    fn authorization(&self, name: &str) -> Option<String> {
        let value = self.secret(name)?;
        let value = value.trim();
        Some(if name.starts_with("HTTP_AUTH_TOKEN") { format!("Bearer {value}") } else { value.to_owned() })
    }

    /// Opens a context.
    ///
    /// # Errors
    /// When the directory cannot be opened, or a pattern of `.dockerignore` is none.
    pub fn context(&self, source: &LocalSource) -> Result<Context, Error> {
        Context::open(source, Some(&self.cache.join("context")))
    }

    /// Opens layers, lowest first, as one tree.
    ///
    /// # Errors
    /// When one is not there or cannot be mounted.
    pub fn layers(&self, diff_ids: &[Digest]) -> Result<LayerTree, Error> {
        LayerTree::open(&self.layers, &self.mounts, diff_ids, "stage")
    }
}

/// Temporary files of a transfer, without names.
#[derive(Debug)]
struct Temporary<'t> {
    transfer: &'t Transfer,
    count: AtomicU64,
}

impl Spool for Temporary<'_> {
    fn file(&self) -> Result<File, Error> {
        let directory = self.transfer.directory()?;
        let path = directory.join(self.count.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        Ok(file)
    }
}

/// The time of what has none of its own: now, where times are kept.
fn time(work: &Work<'_>) -> i64 {
    let now =
        || SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok());
    work.epoch.or_else(now).unwrap_or(0)
}

/// A tree that is open for one call.
enum Held {
    Context(Arc<Context>),
    File(SingleFile),
    Repository(Arc<RepositoryTree>),
    Layers(LayerTree),
}

impl Held {
    fn tree(&self) -> &dyn FileTree {
        match self {
            Self::Layers(layers) => layers,
            Self::File(file) => file,
            Self::Repository(repository) => &**repository,
            Self::Context(context) => &**context,
        }
    }

    fn context(&self) -> Option<&Context> {
        if let Self::Context(context) = self { Some(context) } else { None }
    }
}

impl Sources {
    fn hold(&self, tree: &Tree) -> Result<Held, Error> {
        let source = match tree {
            Tree::Layers(layers) => return self.layers(layers).map(Held::Layers),
            Tree::Source(source) => source,
        };
        let opened = Arc::downcast::<Opened>(Arc::clone(source))
            .map_err(|_| Error::Refused("a source that is none of this build".to_owned()))?;
        Ok(match &*opened {
            Opened::Repository(repository) => Held::Repository(Arc::clone(repository)),
            Opened::File(file) => Held::File(file.clone()),
            Opened::Context(context) => Held::Context(Arc::clone(context)),
        })
    }

    fn select(
        &self,
        action: &CopyAction,
        held: &Held,
        contents: bool,
        work: &Work<'_>,
    ) -> Result<Arc<Selected>, Error> {
        let key = select::key(action);
        if let Some(kept) = held.context().and_then(|context| context.kept(&key)) {
            return Ok(kept);
        }
        let tree = held.tree();
        let mut selected = match held {
            // A download is the file itself, whatever its name is here.
            Held::File(file) => {
                let one =
                    CopyAction { source: file.name.clone(), exclude: Vec::new(), parents: false, ..action.clone() };
                let mut selected = select::select(tree, &one)?;
                if let (Some(name), Some(found)) = (&action.name, selected.matches.first_mut()) {
                    found.name = name.clone().into_bytes();
                }
                selected
            }
            _ => select::select(tree, action)?,
        };
        if contents {
            selected.read_contents(tree, &|| work.is_canceled())?;
        }
        let selected = Arc::new(selected);
        if let Some(context) = held.context().filter(|_| contents) {
            context.keep(key, Arc::clone(&selected));
            // The next build only reads more without it.
            let _ = context.save();
        }
        Ok(selected)
    }

    fn write_copy(
        &self,
        op: &CopyOp,
        base: &[Digest],
        from: &[Option<Tree>],
        transfer: &Transfer,
        work: Work<'_>,
    ) -> Result<Option<Layer>, Error> {
        let base = self.base(base)?;
        let base = base.as_ref().map(|base| base as &dyn FileTree);
        let mut held = Vec::new();
        for tree in from {
            held.push(tree.as_ref().map(|tree| self.hold(tree)).transpose()?);
        }
        let spool = Temporary { transfer, count: AtomicU64::new(0) };
        let settings = Settings { time: time(&work), fixed: work.epoch.is_some(), spool: &spool };
        let mut onto = Onto::new(base)?;
        for (number, action) in op.actions.iter().enumerate() {
            let source = match held.get(number) {
                Some(Some(held)) => {
                    Some(Source { tree: held.tree(), selected: self.select(action, held, false, &work)? })
                }
                _ => None,
            };
            copy::apply(&mut onto, number, action, source.as_ref(), base, &settings)?;
        }
        let trees: Vec<Option<&dyn FileTree>> = held.iter().map(|held| held.as_ref().map(Held::tree)).collect();
        write::layer(&onto, &trees, work.epoch, transfer, &|| work.is_canceled())
    }

    fn base(&self, layers: &[Digest]) -> Result<Option<LayerTree>, Error> {
        if layers.is_empty() { Ok(None) } else { self.layers(layers).map(Some) }
    }

    fn write_directory(
        &self,
        op: &MkdirOp,
        base: &[Digest],
        transfer: &Transfer,
        work: Work<'_>,
    ) -> Result<Option<Layer>, Error> {
        let base = self.base(base)?;
        let mut onto = Onto::new(base.as_ref().map(|base| base as &dyn FileTree))?;
        let path = onto.resolve(&[], &join(&components(op.path.as_bytes())))?;
        if !matches!(onto.see(&path)?, Seen::Directory | Seen::Nothing) {
            return Err(Error::Refused(format!("mkdir {}: not a directory", absolute(&join(&path)))));
        }
        let attributes = Attributes { mode: 0o755, mtime: (time(&work), 0), ..Attributes::default() };
        onto.make_directories(&path, &attributes)?;
        write::layer(&onto, &[], work.epoch, transfer, &|| work.is_canceled())
    }
}

impl Files for Sources {
    fn source(&self, op: &Op, work: Work<'_>) -> Result<Arc<dyn Any + Send + Sync>, crate::Error> {
        let opened = match op {
            Op::Local(source) => Opened::Context(Arc::new(self.context(source)?)),
            Op::Http(source) => {
                let progress = |current, total| {
                    work.status(&source.url, current, total, false);
                    !work.is_canceled()
                };
                Opened::File(self.download(source, &progress)?.file)
            }
            Op::Git(source) => {
                let checkout = self.repository(source, &|| work.is_canceled())?;
                Opened::Repository(Arc::new(RepositoryTree::open(checkout)?))
            }
            _ => return Err(Error::Refused("not a source".to_owned()).into()),
        };
        Ok(Arc::new(opened))
    }

    fn selection(&self, action: &CopyAction, from: &Tree, work: Work<'_>) -> Result<Digest, crate::Error> {
        let held = self.hold(from)?;
        let selected = self.select(action, &held, true, &work)?;
        Ok(selected.digest(held.tree().keeps_owners()))
    }

    fn listing(&self, action: &CopyAction, from: &Tree, work: Work<'_>) -> Result<Vec<(String, String)>, crate::Error> {
        let held = self.hold(from)?;
        Ok(super::listing::listing(&*self.select(action, &held, true, &work)?))
    }

    fn copy(
        &self,
        op: &CopyOp,
        base: &[Digest],
        from: &[Option<Tree>],
        transfer: &Transfer,
        work: Work<'_>,
    ) -> Result<Option<Layer>, crate::Error> {
        Ok(self.write_copy(op, base, from, transfer, work)?)
    }

    fn mkdir(
        &self,
        op: &MkdirOp,
        base: &[Digest],
        transfer: &Transfer,
        work: Work<'_>,
    ) -> Result<Option<Layer>, crate::Error> {
        Ok(self.write_directory(op, base, transfer, work)?)
    }
}
