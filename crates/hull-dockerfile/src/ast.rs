//! A parsed Dockerfile: instructions with their words unexpanded, as they were written, each with its lines.
//!
//! Words that the language expands (`FROM`, `COPY`, `ENV`, ...) are kept raw: quotes, escapes and variables are still in
//! them, and the builder expands them with the stage's variables. Words that it does not expand (`RUN`, `CMD`,
//! `ENTRYPOINT`, `SHELL`) are as the program gets them.

use serde::Serialize;

/// Lines of the file, counted from 1, both inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// First line.
    pub start: u32,
    /// Last line.
    pub end: u32,
}

/// A whole Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Dockerfile {
    /// `# syntax=`, as written.
    pub syntax: Option<String>,
    /// The escape character: `\` or `` ` ``.
    pub escape: char,
    /// `# check=`, as written.
    pub check: Option<String>,
    /// `ARG`s before the first `FROM`.
    pub args: Vec<Instruction>,
    /// Stages, in order; never empty.
    pub stages: Vec<Stage>,
}

/// `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// Base, raw: an image, an earlier stage's name, or `scratch`.
    pub base: String,
    /// `--platform`, raw.
    pub platform: Option<String>,
    /// Name after `AS`, as written; compared without regard to case.
    pub name: Option<String>,
    /// The whole `FROM` line, as written.
    pub original: String,
    /// Where `FROM` is.
    pub lines: Lines,
    /// Comment that describes the stage: what follows its name in a comment line above `FROM` that begins with it.
    pub comment: Option<String>,
    /// All comment lines above `FROM`, without `#`: a `check=` among them counts for the instruction.
    pub comments: Vec<String>,
    /// Instructions, in order.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Instruction {
    /// What it is.
    pub kind: Kind,
    /// Text as written, continuation lines joined, flags included, without heredocs' bodies: what history shows.
    pub original: String,
    /// Where it is, heredocs included.
    pub lines: Lines,
    /// Comment that describes it (`ARG`: that of its first name that has one).
    pub comment: Option<String>,
    /// All comment lines above it, without `#`: a `check=` among them counts for the instruction.
    pub comments: Vec<String>,
}

/// A command: words to be executed, or text for the shell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Command {
    /// JSON form: the program and its arguments.
    Exec(Vec<String>),
    /// Text for the stage's shell, heredoc operators included where there are any.
    Shell(String),
}

/// A heredoc.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Heredoc {
    /// Delimiter; for `COPY` and `ADD` the file's name.
    pub name: String,
    /// Descriptor before `<<`, 0 where none is written.
    pub fd: u32,
    /// Body, with its line feeds; tabs already stripped for `<<-`.
    pub content: String,
    /// Variables in the body are expanded: the delimiter is not quoted.
    pub expand: bool,
    /// `<<-`.
    pub chomp: bool,
}

/// `KEY=value`, raw.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyValue {
    /// Name, raw.
    pub key: String,
    /// Value, raw; absent only in `ARG NAME`.
    pub value: Option<String>,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Copy {
    /// Sources, raw, without heredocs.
    pub sources: Vec<String>,
    /// Files whose content is in the Dockerfile.
    pub heredocs: Vec<Heredoc>,
    /// Destination, raw.
    pub destination: String,
    /// `--from`, raw: a stage's name or index, a named context or an image.
    pub from: Option<String>,
    /// `--chown`, raw.
    pub chown: Option<String>,
    /// `--chmod`, raw: octal or symbolic.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, raw, in order.
    pub exclude: Vec<String>,
    /// `--checksum` (`ADD`), raw.
    pub checksum: Option<String>,
    /// `--keep-git-dir` (`ADD`).
    pub keep_git_dir: Option<bool>,
    /// `--unpack` (`ADD`); absent means local archives are, remote ones are not.
    pub unpack: Option<bool>,
}

/// What kind of file system a `RUN --mount` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that stays from build to build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret.
    Secret,
    /// An SSH agent's socket.
    Ssh,
}

/// How a cache mount is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// By all at once.
    #[default]
    Shared,
    /// Another directory while this one is in use.
    Private,
    /// One after the other.
    Locked,
}

/// `RUN --mount`.
///
/// The language expands every value but `from`'s, and judges them only then: [`Mount::resolve`] gives the mount that is
/// meant. In a parsed instruction the fields hold what is literal, and `raw` all of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Mount {
    /// The flag's value as written.
    pub raw: String,
    /// What it is.
    pub kind: MountKind,
    /// `target`; absent where the kind has a default.
    pub target: Option<String>,
    /// `source`.
    pub source: Option<String>,
    /// `from`.
    pub from: Option<String>,
    /// `ro`/`rw` as said; absent means the kind's default.
    pub read_only: Option<bool>,
    /// `id`.
    pub id: Option<String>,
    /// `sharing`.
    pub sharing: Sharing,
    /// `required`.
    pub required: bool,
    /// `mode`.
    pub mode: Option<u32>,
    /// `uid`.
    pub uid: Option<u32>,
    /// `gid`.
    pub gid: Option<u32>,
    /// `size` in bytes (`tmpfs`).
    pub size: Option<u64>,
    /// `env`: the variable that holds a secret; an empty name means the secret's own.
    pub env: Option<String>,
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// What is run.
    pub command: Command,
    /// Heredocs, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`.
    pub mounts: Vec<Mount>,
    /// `--network`: `default`, `none` or `host`.
    pub network: Option<String>,
    /// `--security`: `sandbox` or `insecure`.
    pub security: Option<String>,
    /// `--device`, raw (labs).
    pub devices: Vec<String>,
}

/// `HEALTHCHECK`. Times are in nanoseconds; absent ones are the engine's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Healthcheck {
    /// `NONE`, `CMD ...` or `CMD-SHELL ...`, as in an image's configuration.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval: Option<u64>,
    /// `--timeout`.
    pub timeout: Option<u64>,
    /// `--start-period`.
    pub start_period: Option<u64>,
    /// `--start-interval`.
    pub start_interval: Option<u64>,
    /// `--retries`.
    pub retries: Option<u32>,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Kind {
    /// `ADD`.
    Add(Copy),
    /// `ARG`, one or more.
    Arg(Vec<KeyValue>),
    /// `CMD`.
    Cmd(Command),
    /// `COPY`.
    Copy(Copy),
    /// `ENTRYPOINT`.
    Entrypoint(Command),
    /// `ENV`, one or more.
    Env(Vec<KeyValue>),
    /// `EXPOSE`, raw words.
    Expose(Vec<String>),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `LABEL`, one or more.
    Label(Vec<KeyValue>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `ONBUILD`: the text of the instruction that a child runs, as written.
    Onbuild(String),
    /// `RUN`.
    Run(Run),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `STOPSIGNAL`, raw.
    StopSignal(String),
    /// `USER`, raw.
    User(String),
    /// `VOLUME`, raw words.
    Volume(Vec<String>),
    /// `WORKDIR`, raw.
    Workdir(String),
}
