//! What happens to a container: `state.json`, replaced whole; `exit`, the code for whoever waits; `stopping`, why it is made
//! to end. On a full disk they are written into the room that they have, which is less than one block.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{Engine, Phase, State, Stopping, alive, read, repair, write};
use crate::error::Error;

/// Room for an exit code.
const CODE_BYTES: u64 = 16;

fn is_full(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::StorageFull
}

/// Makes the file of a container's exit code, with the room that it needs: a full disk must not lose it. A file system that
/// cannot take room ahead may run out of it later.
pub(super) fn create_exit(directory: &Path) -> Result<(), Error> {
    let path = directory.join("exit");
    let file = fs::File::create_new(&path).map_err(Error::io("create", &path))?;
    let _ = rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, CODE_BYTES);
    Ok(())
}

/// Writes over a record in one piece, padded with what JSON ignores.
fn overwrite(path: &Path, state: &State) -> Result<(), Error> {
    let record = |source| Error::Record { path: path.display().to_string(), source };
    let mut bytes = serde_json::to_vec(state).map_err(record)?;
    let file = fs::File::options().write(true).open(path).map_err(Error::io("open", path))?;
    let before = file.metadata().map_err(Error::io("look at", path))?.len();
    bytes.resize(bytes.len().max(usize::try_from(before).unwrap_or(0)), b' ');
    file.write_all_at(&bytes, 0).map_err(Error::io("write", path))
}

impl Engine {
    /// Says that a container is made to end, before it is.
    pub(crate) fn set_stopping(&self, id: &str, why: Stopping) -> Result<(), Error> {
        let path = self.directory(id).join("stopping");
        let word = match why {
            Stopping::Stop => "stop",
            Stopping::Restart => "restart",
            Stopping::Shutdown => "shutdown",
        };
        match fs::write(&path, word) {
            // Its monitor was faster, and it is gone.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            // An empty one says the same: a full disk keeps nobody from stopping who fills it.
            Err(error) if is_full(&error) && why == Stopping::Stop && path.exists() => Ok(()),
            result => result.map_err(Error::io("write", &path)),
        }
    }

    /// Whether somebody made a container end since it was started.
    #[must_use]
    pub(crate) fn stopping(&self, id: &str) -> Option<Stopping> {
        let word = fs::read(self.directory(id).join("stopping")).ok()?;
        Some(match word.as_slice() {
            b"restart" => Stopping::Restart,
            b"shutdown" => Stopping::Shutdown,
            _ => Stopping::Stop,
        })
    }

    /// Its policy counts again.
    pub(crate) fn clear_stopping(&self, id: &str) -> Result<(), Error> {
        let path = self.directory(id).join("stopping");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Replaces a container's state.
    pub(crate) fn save(&self, id: &str, state: &State) -> Result<(), Error> {
        let path = self.directory(id).join("state.json");
        match write(&path, state) {
            // The room that it has is enough: how it ended must not be lost because somebody filled the disk.
            Err(Error::Fs(error)) if error.errno() == Some(Errno::NOSPC) => overwrite(&path, state),
            other => other,
        }
    }

    /// Writes the exit code where [`crate::control::wait`] looks for it.
    pub(crate) fn write_exit(&self, id: &str, code: i32) -> Result<(), Error> {
        let path = self.directory(id).join("exit");
        let mut file = fs::File::options().write(true).open(&path).map_err(Error::io("open", &path))?;
        file.write_all(format!("{code}\n").as_bytes()).map_err(Error::io("write", &path))
    }

    /// A container's state; one that ran when the machine went down has ended.
    ///
    /// # Errors
    /// As [`Engine::container`].
    pub fn state(&self, id: &str) -> Result<State, Error> {
        self.state_by(id, alive)
    }

    /// [`Self::state`] by what the caller knows of processes, given by ID and start time.
    pub(super) fn state_by(&self, id: &str, lives: impl Fn(i32, u64) -> bool) -> Result<State, Error> {
        let is_lost = |state: &State| {
            matches!(state.phase, Phase::Running | Phase::Restarting)
                && !lives(state.monitor, state.monitor_start)
                && !lives(state.pid, state.pid_start)
        };
        let mut state = self.saved_state(id)?;
        if !is_lost(&state) {
            return Ok(state);
        }
        // Its monitor may have written the end, and ended, since that was read: now nobody writes any more.
        state = self.saved_state(id)?;
        if is_lost(&state) {
            state = State {
                phase: Phase::Exited,
                exit_code: repair::LOST,
                pid: 0,
                monitor: 0,
                finished: state.started,
                ..state
            };
            state.error = "the machine went down while it ran".to_owned();
        }
        Ok(state)
    }

    /// The state as it was written last.
    pub(crate) fn saved_state(&self, id: &str) -> Result<State, Error> {
        let directory = self.directory(id);
        let path = directory.join("state.json");
        let state = match &self.kept {
            Some(kept) => kept.state(id, &path),
            None => read(&path),
        };
        match state {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                // It has never been started, or is gone.
                match directory.join("container.json").exists() {
                    true => Ok(State::default()),
                    false => Err(Error::NoContainer(id.to_owned())),
                }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_over_by_a_longer_and_a_shorter_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let mut state = State { error: "its monitor was killed".to_owned(), ..State::default() };
        write(&path, &State::default()).unwrap();
        for text in ["a longer text than there was before it was written over", ""] {
            text.clone_into(&mut state.error);
            overwrite(&path, &state).unwrap();
            assert_eq!(read::<State>(&path).unwrap().error, text);
        }
    }
}
