//! What is asked for: everything that the command lines of `docker buildx build` and `docker build` can say, as plain
//! data.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use hull_oci::image::Platform;
use hull_oci::{Digest, Reference};

use crate::graph::{GitSource, Network};

/// One build.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// The main context.
    pub context: Context,
    /// Where the Dockerfile is.
    pub dockerfile: DockerfileSource,
    /// `--target`: the last stage if absent.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// Proxies of whoever builds, by the names of their variables; `build_args` go before.
    pub proxies: BTreeMap<String, String>,
    /// `--label`, over those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// `--annotation`.
    pub annotations: Vec<Annotation>,
    /// `--secret`, by ID.
    pub secrets: BTreeMap<String, Secret>,
    /// `--host-certificates`: a bundle of authorities that programs of steps trust while they run.
    pub certificates: Option<PathBuf>,
    /// `--ssh`: sockets and keys, by ID.
    pub ssh: BTreeMap<String, Vec<PathBuf>>,
    /// `--build-context`, by name.
    pub contexts: BTreeMap<String, Context>,
    /// `--add-host`: `NAME:ADDRESS`, in order.
    pub extra_hosts: Vec<String>,
    /// `--network` of steps that do not say otherwise.
    pub network: Network,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`: `NAME=SOFT[:HARD]`.
    pub ulimits: Vec<String>,
    /// Limits of each step, in the words of `hull run`: `memory`, `cpus`, `cpu-shares`, `cgroup-parent`, ...
    pub limits: BTreeMap<String, String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stages.
    pub no_cache_filter: Vec<String>,
    /// `--pull`: images are asked for even if the store has them.
    pub pull: bool,
    /// `--platform`: this machine's if there is none.
    pub platforms: Vec<Platform>,
    /// `--cache-from`.
    pub cache_from: Vec<CacheEntry>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheEntry>,
    /// `--output`; none means an image in the store.
    pub outputs: Vec<Output>,
    /// `--tag`.
    pub tags: Vec<Reference>,
    /// `--allow`: `network.host`, `security.insecure`, ...
    pub allow: BTreeSet<String>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub source_date_epoch: Option<i64>,
    /// `--timestamps=keep`: files keep the times that they have, wherever they come from.
    pub keep_times: bool,
    /// `--no-normalise`: layers of `RUN` are left as the step left them.
    pub keep_noise: bool,
    /// Where the lock is, and what is asked for of it.
    pub lock: LockOptions,
    /// `--provenance`.
    pub provenance: Provenance,
    /// What is said beside the image in an index, where one is pushed or written.
    pub attest: Attest,
    /// `--explain`: what differs is told of each step that is not in the cache.
    pub explain: bool,
}

/// `--provenance`, `--sbom` and `--attest`, where they ask for a manifest of statements: not what is done anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attest {
    /// How it was built.
    pub provenance: bool,
    /// What is in it.
    pub sbom: bool,
}

/// Where files come from.
#[derive(Clone, Debug, Default)]
pub enum Context {
    /// No files.
    #[default]
    Empty,
    /// A directory of this machine.
    Directory(PathBuf),
    /// A tar archive, compressed or not, from its beginning.
    Archive(Arc<File>),
    /// A Git repository.
    Git(GitSource),
    /// A tar archive, or a single file, by HTTP(S).
    Url(String),
    /// `docker-image://`: an image's files; as a named context also its configuration.
    Image(String),
    /// `oci-layout://`: an image in a layout of this machine.
    OciLayout {
        /// The layout.
        path: PathBuf,
        /// Which of its images; the only one if both are absent.
        tag: Option<String>,
        /// Which of its images.
        digest: Option<Digest>,
    },
    /// `target:`: a stage of the Dockerfile.
    Target(String),
}

/// Where the Dockerfile is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` of the context, or else `dockerfile`.
    #[default]
    Default,
    /// A file: within a context that is no directory, below its root; otherwise of this machine.
    Path(PathBuf),
    /// Its text, which came by standard input.
    Text(Vec<u8>),
}

/// `--annotation [TYPE[,TYPE]:]KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// `manifest`, `index`, `manifest-descriptor`, `index-descriptor`, with `[PLATFORM]` taken off.
    pub kind: String,
    /// For which platform alone.
    pub platform: Option<Platform>,
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
}

/// Where a secret is. It is read when a step needs it, and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// In a variable of this process.
    Variable(String),
}

/// `--cache-from`, `--cache-to`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    /// `type`: `registry`, `local`, `inline`, `gha`.
    pub kind: String,
    /// Everything else.
    pub attributes: BTreeMap<String, String>,
}

/// `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What is made.
    pub kind: OutputKind,
    /// Where it goes; absent for images, and for standard output.
    pub destination: Option<PathBuf>,
    /// Everything else that was said: `name`, `push`, `compression`, ...
    pub attributes: BTreeMap<String, String>,
}

/// What is made of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// An image in the store; with `push=true` also in its registry.
    Image,
    /// An archive as `docker save` writes it; without destination an image in the store.
    Docker,
    /// An OCI layout, as a tar or, with `tar=false`, as a directory.
    Oci,
    /// The files, in a directory.
    Local,
    /// The files, in a tar.
    Tar,
    /// Nothing.
    CacheOnly,
}

/// What is asked for of a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockOptions {
    /// Where it is; without a place there is none.
    pub path: Option<PathBuf>,
    /// `--lock`: it is written even if it is not there yet.
    pub write: bool,
    /// `--locked`: nothing else is built.
    pub locked: bool,
}

/// How much of a build is told in its provenance ([`crate::record::provenance`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provenance {
    /// Nothing.
    Off,
    /// What nobody minds.
    #[default]
    Min,
    /// Everything but secrets.
    Max,
}
