//! The files of `/etc` that a container gets its own of, in its directory, from where they are bound.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::config::{NamespaceChoice, RunConfig};
use crate::error::Error;
use crate::records::{Container, Engine};

/// Everybody reads them.
const MODE: Mode = Mode::from_raw_mode(0o644);

impl Engine {
    /// Writes the files by which names are resolved in a container where they are bound from; gives what its resolver
    /// serves if it needs one.
    pub(crate) fn write_name_files(
        &self,
        container: &Container,
        plan: Option<&hull_network::Plan>,
        directory: &Path,
    ) -> Result<Option<hull_network::dns::Settings>, Error> {
        let files = self.name_files(container, plan)?;
        for (name, content) in files.list {
            write_over(&directory.join(name), content.as_bytes())?;
        }
        Ok(files.settings)
    }
}

/// The files of `/etc` that a container gets its own of; see [`Engine::name_files`].
pub(super) fn generated(config: &RunConfig) -> impl Iterator<Item = &'static str> {
    let hostname = config.namespaces.uts == NamespaceChoice::Private;
    let apart = config.namespaces.network == NamespaceChoice::Private && config.networks.is_empty();
    // Without a network there is nobody to ask, unless the user says whom.
    let resolver = !apart || config.dns.is_asked();
    [("hostname", hostname), ("hosts", true), ("resolv.conf", resolver)]
        .into_iter()
        .filter(|(_, wanted)| *wanted)
        .map(|(name, _)| name)
}

fn open(path: &Path) -> Result<fs::File, Error> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, MODE).map(fs::File::from).map_err(Error::io("open", path))
}

/// Makes a file that everybody may read, unless it is there.
pub(super) fn touch(path: &Path) -> Result<(), Error> {
    open(path).map(drop)
}

/// Makes a file that everybody may read have this content. Nobody reads it yet, so it is written over where it is: ext4
/// writes a file that was emptied first out to the disk at once, and whoever starts a container would wait for that.
fn write_over(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut file = open(path)?;
    file.write_all(content).map_err(Error::io("write", path))?;
    let found = rustix::fs::fstat(&file).map_err(Error::io("look at", path))?;
    let length = content.len() as u64;
    if u64::try_from(found.st_size).is_ok_and(|size| size > length) {
        file.set_len(length).map_err(Error::io("truncate", path))?;
    }
    if Mode::from_raw_mode(found.st_mode) != MODE {
        rustix::fs::fchmod(&file, MODE).map_err(Error::io("change mode of", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_over_is_all_there_is_and_everybody_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        touch(&path).unwrap();
        for content in ["127.0.0.1 localhost\n", "a\n", ""] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            write_over(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        }
        // What a container might have put in its place is not followed.
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("other", &path).unwrap();
        assert!(write_over(&path, b"x").is_err() && !dir.path().join("other").exists());
    }
}
