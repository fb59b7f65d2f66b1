//! Scopes.
use crate::error::Error;
use serde::{Deserialize, Serialize};
/// A scope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) slice: String,
    pub(crate) name: String,
}
impl Unit {
    pub(crate) fn parse(path: &str, _id: &str, _rootless: bool) -> Result<Self, Error> {
        Err(Error::Path { path: path.to_owned(), reason: "systemd is not reachable".into() })
    }
    pub(crate) fn path(&self, _rootless: bool) -> String {
        format!("/{}/{}", self.slice, self.name)
    }
}
impl Unit {
    pub(crate) fn start(&self, _pid: i32, _r: &hull_oci::spec::Resources, _rootless: bool) -> Result<(), Error> {
        Ok(())
    }
    pub(crate) fn update(&self, _r: &hull_oci::spec::Resources, _rootless: bool) -> Result<(), Error> {
        Ok(())
    }
    pub(crate) fn stop(&self, _rootless: bool) -> Result<(), Error> {
        Ok(())
    }
}
