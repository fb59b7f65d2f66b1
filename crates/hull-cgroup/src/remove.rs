//! Removing groups.
use crate::{cgroup::Cgroup, error::Error};
impl Cgroup {
    /// Removes the groups.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete(&self) -> Result<(), Error> { Ok(()) }
}
