//! Intents: which process works on which container, so that whoever comes after a process that was killed finishes what it
//! left. An intent is a file whose name says it all, written before anything is made and removed after everything is undone.

use std::fs;
use std::path::{Path, PathBuf};

use hull_runtime::state::process_start_time;

use super::{Engine, alive, create_private, is_id, own_pid};
use crate::error::Error;

/// An intent on disk.
#[derive(Debug)]
pub(crate) struct Intent {
    path: PathBuf,
}

impl Intent {
    /// The intent that this process has already left.
    pub(crate) fn of(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything is done or undone.
    pub(crate) fn clear(self) -> Result<(), Error> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &self.path)(error)),
            _ => Ok(()),
        }
    }
}

/// What an intent's owner was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Make a record.
    Create,
    /// Make a record, start it, and watch it.
    Run,
    /// Start what has a record, and watch it.
    Start,
    /// Use a container that is nothing without this process; beside the monitor's own.
    Tied,
    Remove,
}

impl Work {
    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Run => "run",
            Self::Start => "start",
            Self::Tied => "tied",
            Self::Remove => "remove",
        }
    }
}

/// `ID.KIND.PID.START`.
pub(super) fn parse_intent(name: &str) -> Option<(&str, Work, i32, u64)> {
    let mut parts = name.split('.');
    let (id, kind, pid, start) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let work = match kind {
        "create" => Work::Create,
        "run" => Work::Run,
        "start" => Work::Start,
        "tied" => Work::Tied,
        "remove" => Work::Remove,
        _ => return None,
    };
    (parts.next().is_none() && is_id(id)).then_some(())?;
    Some((id, work, pid.parse().ok()?, start.parse().ok()?))
}

impl Engine {
    /// Declares that this process works on a container.
    pub(crate) fn intend(&self, id: &str, work: Work) -> Result<Intent, Error> {
        let live = self.live();
        create_private(&live)?;
        let pid = own_pid();
        let start = process_start_time(pid).unwrap_or(0);
        let path = live.join(format!("{id}.{}.{pid}.{start}", work.word()));
        fs::File::create_new(&path).map_err(Error::io("create", &path))?;
        Ok(Intent { path })
    }

    /// Whether the process that a container ends with still wants it.
    pub(crate) fn is_tied(&self, id: &str) -> bool {
        let Ok(entries) = fs::read_dir(self.live()) else { return false };
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            name.to_str().and_then(parse_intent).is_some_and(|(other, work, ..)| other == id && work == Work::Tied)
        })
    }

    /// Whether a living process has declared that it starts or runs a container.
    pub(crate) fn starting(&self, id: &str) -> bool {
        let Ok(entries) = fs::read_dir(self.live()) else { return false };
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let intent = name.to_str().and_then(parse_intent);
            let works = |work| matches!(work, Work::Run | Work::Start | Work::Create);
            intent.is_some_and(|(other, work, pid, start)| other == id && works(work) && alive(pid, start))
        })
    }
}
