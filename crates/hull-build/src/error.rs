//! Errors of builds.

use std::path::Path;

use hull_dockerfile::ast::Lines;
use hull_oci::spec::one_line;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("{operation} {object}: {source}")]
    Io {
        /// Verb phrase.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The answer.
        source: std::io::Error,
    },
    /// What was asked for cannot be done, or not in this way.
    #[error("{}", one_line(.0))]
    Request(String),
    /// An instruction cannot be used.
    #[error("{}", one_line(reason))]
    Instruction {
        /// Where it is.
        lines: Lines,
        /// What is wrong with it.
        reason: String,
    },
    /// The Dockerfile cannot be read.
    #[error(transparent)]
    Dockerfile(#[from] hull_dockerfile::Error),
    /// A step failed.
    #[error("{source}")]
    Step {
        /// What progress calls it.
        name: String,
        /// Where it is.
        lines: Option<Lines>,
        /// Why.
        source: Box<Error>,
    },
    /// The program of a `RUN` failed. The words are BuildKit's.
    #[error("process {} did not complete successfully: exit code: {code}", crate::plan::words::quote(command))]
    Process {
        /// Program and arguments, with spaces between them.
        command: String,
        /// Its exit code; 128 and the signal's number if it was killed.
        code: i32,
    },
    /// Somebody gave up, or another step failed.
    #[error("canceled")]
    Canceled,
    /// The image store.
    #[error(transparent)]
    Image(#[from] hull_image::Error),
    /// The engine, which runs a step.
    #[error(transparent)]
    Engine(#[from] hull_engine::Error),
    /// The records.
    #[error(transparent)]
    Records(#[from] hull_db::Error),
    /// Layers.
    #[error(transparent)]
    Layer(#[from] hull_layer::Error),
    /// Contexts, sources and copies.
    #[error(transparent)]
    Files(Box<crate::files::Error>),
    /// Files and locks.
    #[error(transparent)]
    Fs(#[from] hull_fs::Error),
    /// A registry failed or refused.
    #[error(transparent)]
    Registry(#[from] hull_registry::Error),
}

impl From<crate::files::Error> for Error {
    fn from(error: crate::files::Error) -> Self {
        match error {
            crate::files::Error::Canceled => Self::Canceled,
            other => Self::Files(Box::new(other)),
        }
    }
}

impl Error {
    /// `.map_err(Error::io("open", path))`.
    pub fn io<E: Into<std::io::Error>>(operation: &'static str, object: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        let object = object.as_ref().display().to_string();
        move |source| Self::Io { operation, object, source: source.into() }
    }

    /// What is wrong with an instruction.
    pub fn instruction(lines: Lines, reason: impl Into<String>) -> Self {
        Self::Instruction { lines, reason: reason.into() }
    }

    /// Where in the Dockerfile the cause is.
    #[must_use]
    pub fn lines(&self) -> Option<Lines> {
        match self {
            Self::Instruction { lines, .. } => Some(*lines),
            Self::Dockerfile(error) => error.lines,
            Self::Step { lines, source, .. } => lines.or_else(|| source.lines()),
            _ => None,
        }
    }
}
