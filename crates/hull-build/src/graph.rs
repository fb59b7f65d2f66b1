//! The graph of a build: steps, and which results each needs.
//!
//! `plan` makes it from a Dockerfile and decides everything that contents do not decide: variables are expanded, stages
//! and names resolved, unused steps left out. `solve` brings every step to a result, from the cache or by doing it.
//! Nodes only refer to nodes before them, so that there are no cycles.
//!
//! A file system is a list of layers, lowest first; a step that changes files adds at most one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hull_dockerfile::ast::{Lines, Sharing};
use hull_oci::Digest;
use serde::{Deserialize, Serialize};

/// A node of a [`Graph`]: its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

/// Steps, each after everything it needs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Steps.
    pub nodes: Vec<Node>,
}

impl Graph {
    /// Adds a step.
    pub fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX))
    }

    /// The step at a place.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)
    }
}

/// One step.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// What progress calls it: `[builder 2/5] RUN make`.
    pub name: String,
    /// The stage it is of.
    pub stage: Option<String>,
    /// Where it is in the Dockerfile.
    pub lines: Option<Lines>,
    /// It is done again even if the cache has it (`--no-cache`, `--no-cache-filter`).
    pub ignore_cache: bool,
    /// `OS/ARCH[/VARIANT]` that it is for.
    pub platform: String,
    /// Files that it makes are not newer than this, in seconds since 1970, and those of this machine are exactly so old. It
    /// is part of the key of a step that makes files: the date that was asked for, or that of the stage's base image, so
    /// that it changes with the base only. Absent, files keep their times.
    pub epoch: Option<i64>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Op {
    /// No files.
    Scratch,
    /// An image's layers. `plan` has resolved the name already: it needs the configuration.
    Image(ImageSource),
    /// Files of a directory of this machine.
    Local(LocalSource),
    /// A file by HTTP(S).
    Http(HttpSource),
    /// A Git repository.
    Git(GitSource),
    /// A command in a container.
    Run(Box<RunOp>),
    /// Files onto a file system: `COPY`, `ADD`.
    Copy(Box<CopyOp>),
    /// A directory, with those above it: `WORKDIR`. No layer if it is there.
    Mkdir(MkdirOp),
}

impl Op {
    /// Every node that it needs, the one it changes first.
    #[must_use]
    pub fn inputs(&self) -> Vec<NodeId> {
        match self {
            Self::Scratch | Self::Image(_) | Self::Local(_) | Self::Http(_) | Self::Git(_) => Vec::new(),
            Self::Run(op) => std::iter::once(op.base).chain(op.mounts.iter().filter_map(|mount| mount.from)).collect(),
            Self::Copy(op) => {
                op.base.or(op.onto).into_iter().chain(op.actions.iter().filter_map(|action| action.from)).collect()
            }
            Self::Mkdir(op) => vec![op.base],
        }
    }
}

/// An image that is in the store.
#[derive(Clone, Debug)]
pub struct ImageSource {
    /// As the user wrote it.
    pub reference: String,
    /// Digest of its configuration: the store's ID.
    pub id: Digest,
    /// Digest of its manifest or index in the registry, where it has one: what `hull.lock` pins.
    pub digest: Option<Digest>,
    /// Diff IDs, lowest first.
    pub layers: Vec<Digest>,
}

/// Files of a directory of this machine.
#[derive(Clone, Debug)]
pub struct LocalSource {
    /// `context`, or the name of a named context.
    pub name: String,
    /// The directory.
    pub directory: PathBuf,
    /// Patterns of `.dockerignore`, as written, in order.
    pub ignore: Vec<String>,
}

/// A file by HTTP(S).
#[derive(Clone, Debug)]
pub struct HttpSource {
    /// Address.
    pub url: String,
    /// What its content must be.
    pub checksum: Option<Digest>,
    /// Names of secrets that hold an `Authorization` header, tried in order.
    pub auth: Vec<String>,
}

/// A Git repository.
#[derive(Clone, Debug, Default)]
pub struct GitSource {
    /// Address, without fragment and query.
    pub url: String,
    /// Branch, tag or commit; empty means what HEAD is.
    pub reference: String,
    /// Directory within it.
    pub subdir: String,
    /// What the commit must be, or begin with.
    pub checksum: Option<String>,
    /// `.git` stays.
    pub keep_git_dir: bool,
    /// Submodules are fetched too.
    pub submodules: bool,
}

/// A command in a container.
#[derive(Clone, Debug)]
pub struct RunOp {
    /// File system that it changes.
    pub base: NodeId,
    /// Program and arguments, shell included.
    pub args: Vec<String>,
    /// `NAME=value`: the stage's `ENV`, and `ARG`s that are in effect.
    pub env: Vec<String>,
    /// Variables that must not change the key: proxies.
    pub quiet_env: Vec<String>,
    /// Working directory.
    pub workdir: String,
    /// User as `USER` says; empty means root.
    pub user: String,
    /// Heredocs that the shell does not read by itself: files `/dev/pipes/NAME` by content.
    pub pipes: BTreeMap<String, String>,
    /// What is mounted.
    pub mounts: Vec<RunMount>,
    /// Network.
    pub network: Network,
    /// `--security=insecure`.
    pub insecure: bool,
    /// `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Host name.
    pub hostname: String,
    /// Bytes of `/dev/shm`; absent is the engine's default.
    pub shm_size: Option<u64>,
    /// `NAME=SOFT[:HARD]`.
    pub ulimits: Vec<String>,
    /// Limits of the build, in the words of `hull run`: `memory`, `cpus`, `cpu-shares`, ...
    pub limits: BTreeMap<String, String>,
    /// Devices, by CDI names.
    pub devices: Vec<String>,
    /// What differs each time although nothing does is normalised.
    pub normalise: bool,
}

/// Network of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The engine's default.
    #[default]
    Default,
    /// Loopback alone.
    None,
    /// The machine's.
    Host,
}

/// What is mounted into a step.
#[derive(Clone, Debug)]
pub struct RunMount {
    /// Where: an absolute path.
    pub target: String,
    /// Whose files ([`MountSpec::Bind`], the first content of [`MountSpec::Cache`]); absent means none.
    pub from: Option<NodeId>,
    /// Path within `from`.
    pub source: String,
    /// Writing fails; where writing is allowed in a bind mount, what was written is lost.
    pub read_only: bool,
    /// What it is.
    pub spec: MountSpec,
}

/// What a mount is.
#[derive(Clone, Debug)]
pub enum MountSpec {
    /// Files of a node.
    Bind,
    /// A directory that stays from build to build.
    Cache {
        /// Which one; name spaces are already in it.
        id: String,
        /// With whom it is shared.
        sharing: Sharing,
        /// Mode of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
    },
    /// Memory, at most so many bytes.
    Tmpfs {
        /// Most bytes.
        size: Option<u64>,
    },
    /// A secret of the request as a file (`target`), a variable, or both.
    Secret {
        /// Which one.
        id: String,
        /// Variable; absent means none.
        env: Option<String>,
        /// There is a file.
        file: bool,
        /// The step fails without it.
        required: bool,
        /// The file's mode.
        mode: u32,
        /// The file's owner.
        uid: u32,
        /// The file's group.
        gid: u32,
    },
    /// A socket of the request's agent.
    Ssh {
        /// Which one.
        id: String,
        /// The step fails without it.
        required: bool,
        /// The socket's mode.
        mode: u32,
        /// The socket's owner.
        uid: u32,
        /// The socket's group.
        gid: u32,
    },
}

/// Files onto a file system.
#[derive(Clone, Debug)]
pub struct CopyOp {
    /// What they go onto; absent for `--link`, whose layer does not depend on what is below.
    pub base: Option<NodeId>,
    /// With `--link`, what the layer is put onto.
    pub onto: Option<NodeId>,
    /// What is done, in order, into one layer.
    pub actions: Vec<CopyAction>,
}

/// One source of a `COPY` or `ADD`.
#[derive(Clone, Debug)]
pub struct CopyAction {
    /// Whose files; absent for `content`.
    pub from: Option<NodeId>,
    /// Path or pattern within `from`.
    pub source: String,
    /// A file that is written in the Dockerfile, in place of `from`.
    pub content: Option<Vec<u8>>,
    /// Absolute path; with a final `/` a directory.
    pub destination: String,
    /// `USER[:GROUP]`, names or numbers; absent means 0:0.
    pub chown: Option<String>,
    /// Octal or symbolic.
    pub chmod: Option<String>,
    /// Directories above a source are made below the destination.
    pub parents: bool,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// Archives are unpacked.
    pub unpack: bool,
    /// The source's own name where `from` is a file without one (HTTP).
    pub name: Option<String>,
    /// A pattern that matches nothing, or a missing source, is no error.
    pub allow_missing: bool,
}

impl CopyAction {
    /// Files as they are, owned by root.
    pub(crate) fn plain(from: Option<NodeId>, source: &str, destination: &str) -> Self {
        Self {
            from,
            source: source.to_owned(),
            content: None,
            destination: destination.to_owned(),
            chown: None,
            chmod: None,
            parents: false,
            exclude: Vec::new(),
            unpack: false,
            name: None,
            allow_missing: false,
        }
    }
}

/// A directory.
#[derive(Clone, Debug)]
pub struct MkdirOp {
    /// File system that it changes.
    pub base: NodeId,
    /// Absolute path.
    pub path: String,
    /// Who owns what is made, as `USER` says; empty means root.
    pub user: String,
}
