//! Places of a build that is asked for by a client: what came of its files on the store's disk, and what is secret in
//! memory.
//!
//! ```text
//! ROOT/contexts/RANDOM/    lock      held as long as the build lives: whoever can take it removes the rest
//!                          ...       what the client sent
//! STATE/contexts/RANDOM/   ...       secrets and credentials, on the state's tmpfs
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use hull_engine::Engine;
use hull_fs::lock::Lock;

use crate::refusal::Refusal;

/// The places of one build; they go with it.
#[derive(Debug)]
pub(crate) struct Work {
    files: PathBuf,
    secrets: PathBuf,
    _lock: Lock,
}

fn failed(operation: &str, path: &Path, error: &dyn std::fmt::Display) -> Refusal {
    Refusal::failed(format!("{operation} {}: {error}", path.display()))
}

fn private(path: &Path) -> Result<(), Refusal> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| failed("create directory", path, &error))
}

impl Work {
    /// Makes the places, after what killed servers left is removed.
    pub(crate) fn new(engine: &Engine) -> Result<Self, Refusal> {
        let (root, state) = (engine.root().join("contexts"), engine.state_root().join("contexts"));
        private(&root)?;
        sweep(&root, &state);
        let mut random = [0_u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| failed("get random bytes for", &root, &errno))?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (files, secrets) = (root.join(&name), state.join(&name));
        private(&files)?;
        let path = files.join("lock");
        let lock = Lock::exclusive(&path).map_err(|error| failed("lock", &path, &error))?;
        private(&secrets)?;
        Ok(Self { files, secrets, _lock: lock })
    }

    /// A new directory for files of the client.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, Refusal> {
        let path = self.files.join(name);
        private(&path)?;
        Ok(path)
    }

    /// A path for what is written beside them.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }

    /// The directory of what is secret.
    pub(crate) fn secrets(&self) -> &Path {
        &self.secrets
    }

    /// Writes a secret, and returns its path.
    pub(crate) fn secret(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Refusal> {
        let path = self.secrets.join(name);
        hull_fs::atomic::write_path(&path, bytes, 0o600).map_err(|error| failed("write", &path, &error))?;
        Ok(path)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed now is swept later.
        let _ = fs::remove_dir_all(&self.secrets);
        let _ = hull_image::remove_tree(&self.files);
    }
}

/// Removes the places of builds that nobody holds.
fn sweep(root: &Path, state: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let lock = entry.path().join("lock");
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|made| made.elapsed().ok());
        // One that has just been made may not be locked yet.
        let old = age.is_none_or(|age| age > std::time::Duration::from_secs(60));
        let free = if lock.exists() { matches!(Lock::try_exclusive(&lock), Ok(Some(_))) } else { old };
        if free && old {
            let _ = fs::remove_dir_all(state.join(entry.file_name()));
            let _ = hull_image::remove_tree(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_with_the_build() {
        let home = tempfile::tempdir().expect("a directory");
        let engine = Engine::new(home.path().join("root"), home.path().join("state"));
        let work = Work::new(&engine).expect("places");
        let other = Work::new(&engine).expect("places");
        let context = work.directory("context").expect("a directory");
        fs::write(context.join("file"), "x").expect("a file");
        let secret = work.secret("token", b"t").expect("a secret");
        drop(work);
        assert!(!context.exists() && !secret.exists());
        assert!(other.secrets().is_dir());
    }
}
