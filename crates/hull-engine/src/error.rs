//! Errors of the engine, and the exit codes that `run` and `exec` give them.

use std::path::Path;

use hull_runtime::failure::Step;
use rustix::io::Errno;

/// Why an engine operation failed. Each is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A flag has a value that cannot be used.
    #[error("{flag}: {reason}")]
    Flag {
        /// Such as `--memory`.
        flag: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// A system call or file operation failed.
    #[error("{operation} {object}: {source}")]
    Io {
        /// Verb phrase such as `create directory`.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The answer.
        source: std::io::Error,
    },
    /// A record on disk cannot be read.
    #[error("container record {path}: {source}")]
    Record {
        /// The file.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// No container of that name, ID or ID prefix.
    #[error("no such container: {0}")]
    NoContainer(String),
    /// Several containers have IDs with that prefix.
    #[error("container ID prefix {0} is ambiguous: give more characters")]
    Ambiguous(String),
    /// The name is taken.
    #[error(
        "conflict. The container name \"/{name}\" is already in use by container {id:?}. You have to remove (or rename) \
         that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The operation does not fit the container's state.
    #[error("{}", status_text(operation, id, status))]
    Status {
        /// Verb phrase.
        operation: &'static str,
        /// The container.
        id: String,
        /// Its state.
        status: String,
    },
    /// A detached container's monitor reported why it could not start; carries the exit code that belongs to it.
    #[error("{message}")]
    Start {
        /// The monitor's message.
        message: String,
        /// Exit code for the command.
        code: u8,
        /// This machine does not have the image.
        no_image: bool,
    },
    /// The operation is refused; Docker's words.
    #[error("{0}")]
    Refused(String),
    /// A container on a directory of the user's has no image below it.
    #[error("cannot {operation} container {id}: it runs on a directory, not on an image")]
    NoImageOf {
        /// Verb.
        operation: &'static str,
        /// The container.
        id: String,
    },
    /// What the container writes is kept elsewhere, or nowhere.
    #[error("configured logging driver does not support reading")]
    Unreadable,
    /// A copy between host and container, or of a volume, is not possible; Docker's words.
    #[error("{0}")]
    Copy(String),
    /// No volume of that name.
    #[error("get {0}: no such volume")]
    NoVolume(String),
    /// A volume operation is refused; Docker's words.
    #[error("{0}")]
    Volume(String),
    /// The image is not mounted.
    #[error("image {0} is not mounted")]
    NotMounted(String),
    /// An archive or a layer.
    #[error(transparent)]
    Layer(#[from] hull_layer::Error),
    /// An image could not be put together of packages.
    #[error("{0}")]
    Bootstrap(String),
    /// Packages and their archives.
    #[error(transparent)]
    Debian(#[from] hull_debian::Error),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] hull_runtime::Error),
    /// The image store.
    #[error(transparent)]
    Image(#[from] hull_image::Error),
    /// Networks.
    #[error(transparent)]
    Network(#[from] hull_network::Error),
    /// Names on networks.
    #[error(transparent)]
    Names(#[from] hull_network::dns::Error),
    /// Control groups.
    #[error(transparent)]
    Cgroup(#[from] hull_cgroup::Error),
    /// Files and locks.
    #[error(transparent)]
    Fs(#[from] hull_fs::Error),
}

/// Docker's words where scripts may look for them.
fn status_text(operation: &str, id: &str, status: &str) -> String {
    match (operation, status) {
        ("pause", "paused already") => format!("container {id} is already paused"),
        ("unpause", _) => format!("container {id} is not paused"),
        ("pause" | "list processes of", "exited" | "created" | "restarting") => {
            format!("container {id} is not running")
        }
        ("kill", "exited" | "created") => format!("container {id} is not running"),
        ("exec in", "paused") => format!("container {id} is paused, unpause the container before exec"),
        ("attach to", "exited" | "created") => "you cannot attach to a stopped container, start it first".to_owned(),
        ("remove", "running" | "restarting" | "paused") => {
            format!(
                "cannot remove container {id:?}: container is {status}: stop the container before removing or force remove"
            )
        }
        _ => format!("cannot {operation} container {id}: it is {status}"),
    }
}

impl Error {
    /// A flag's value is wrong.
    pub fn flag(flag: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Flag { flag: flag.into(), reason: reason.into() }
    }

    /// `.map_err(Error::io("open", path))`.
    pub fn io<E: Into<std::io::Error>>(operation: &'static str, object: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        let object = object.as_ref().display().to_string();
        move |source| Self::Io { operation, object, source: source.into() }
    }

    /// Whether this machine does not have the image.
    #[must_use]
    pub fn is_no_image(&self) -> bool {
        matches!(self, Self::Start { no_image: true, .. } | Self::Image(hull_image::Error::NoImage(_)))
    }

    /// Exit code of `run` and `exec`: 127 when the program (or its working directory) does not exist, 126 when it cannot
    /// be executed, 125 for everything that is Hull's own failure.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start { code, .. } => *code,
            Self::Runtime(hull_runtime::Error::Init { failure, .. }) => match (failure.step, failure.errno) {
                (Step::Exec | Step::ProgramLookup | Step::WorkingDirectory, Errno::NOENT | Errno::NOTDIR) => 127,
                (Step::Exec | Step::ProgramLookup | Step::WorkingDirectory, _) => 126,
                _ => 125,
            },
            _ => 125,
        }
    }
}
