//! Creating, entering, limiting.
use hull_oci::spec::Resources;
use crate::{cgroup::Cgroup, error::Error};
impl Cgroup {
    /// Creates the groups and writes the limits.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn create(&self, _resources: &Resources) -> Result<(), Error> { Ok(()) }
    /// Moves a process into the groups.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn attach(&self, _pid: i32) -> Result<(), Error> { Ok(()) }
    /// Moves a process of `exec` into the groups or sub-groups (`[controller:]path`).
    ///
    /// # Errors
    /// See [`Error`].
    pub fn attach_exec(&self, _pid: i32, _sub: &[String]) -> Result<(), Error> { Ok(()) }
    /// Changes limits; `current` are those in force.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn update(&self, _resources: &Resources, _current: &Resources) -> Result<(), Error> { Ok(()) }
}
