//! What one container's resolver serves: a small text file of its own, replaced by rename when the container is connected
//! to a network or disconnected, and read again by its monitor when it has changed.
//!
//! ```text
//! network backend /run/hull/networks/7d1c.../names
//! link db postgres-1
//! server 192.0.2.53
//! forward no
//! single-labels no
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::table::Followed;

/// Longer files are not read.
const MAX: usize = 64 << 10;

/// What one container's resolver serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The networks in the order in which they are asked: name and table.
    pub networks: Vec<(String, PathBuf)>,
    /// Names of this container's own for others' names (`--link`).
    pub links: Vec<(String, String)>,
    /// The servers to ask in place of the host's (`--dns`), at most three.
    pub servers: Vec<IpAddr>,
    /// Whether unknown names are asked of others. Must be false for a container that is on internal networks only.
    pub forward: bool,
    /// Whether unknown names of one label are asked of others; Docker does not when `ndots` is given.
    pub single_labels: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { networks: Vec::new(), links: Vec::new(), servers: Vec::new(), forward: true, single_labels: true }
    }
}

impl Settings {
    /// Replaces the settings file at the path.
    ///
    /// # Errors
    /// When it cannot be written; the old one is in place then.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        Ok(hull_fs::atomic::write_path(path, self.encode().as_bytes(), 0o644)?)
    }

    /// Reads a settings file.
    ///
    /// # Errors
    /// When it cannot be read, or was not written by [`Settings::write`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut file = Followed::new(path.to_owned());
        let content = file.read_changed(MAX).map_err(Error::system("read", path))?.unwrap_or_default();
        Self::decode(&content).map_err(|line| Error::Settings { path: path.to_owned(), line })
    }

    fn encode(&self) -> String {
        let mut text = String::new();
        let plain = |text: &str| !text.is_empty() && !text.contains([' ', '\n']);
        for (name, table) in &self.networks {
            let table = table.to_string_lossy();
            if plain(name) && !table.contains('\n') {
                text += &format!("network {name} {table}\n");
            }
        }
        for (alias, name) in self.links.iter().filter(|(alias, name)| plain(alias) && plain(name)) {
            text += &format!("link {alias} {name}\n");
        }
        for server in &self.servers {
            text += &format!("server {server}\n");
        }
        for (word, value) in [("forward", self.forward), ("single-labels", self.single_labels)] {
            if !value {
                text += &format!("{word} no\n");
            }
        }
        text
    }

    /// The number of a line that is wrong, otherwise.
    fn decode(content: &[u8]) -> Result<Self, usize> {
        let mut settings = Self::default();
        let text = std::str::from_utf8(content).map_err(|_| 1_usize)?;
        for (index, line) in text.lines().enumerate() {
            settings.line(line).ok_or(index + 1)?;
        }
        Ok(settings)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (word, value) = line.split_once(' ')?;
        match word {
            "network" => {
                let (name, table) = value.split_once(' ')?;
                self.networks.push((name.to_owned(), table.into()));
            }
            "link" => {
                let (alias, name) = value.split_once(' ')?;
                self.links.push((alias.to_owned(), name.to_owned()));
            }
            "server" => self.servers.push(value.parse().ok()?),
            "forward" if value == "no" => self.forward = false,
            "single-labels" if value == "no" => self.single_labels = false,
            _ => return None,
        }
        Some(())
    }
}

/// The settings of a running resolver.
#[derive(Debug)]
pub(super) struct Current {
    file: Followed,
    pub(super) settings: Settings,
}

impl Current {
    /// # Errors
    /// As [`Settings::read`].
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let settings = Settings::read(path)?;
        Ok(Self { file: Followed::new(path.to_owned()), settings })
    }

    /// Reads the settings again if the file was replaced; says whether it was. What cannot be read changes nothing: it is
    /// removed with the container.
    pub(super) fn follow(&mut self) -> bool {
        let Ok(Some(content)) = self.file.read_changed(MAX) else { return false };
        match Settings::decode(&content) {
            Ok(settings) => {
                let changed = settings != self.settings;
                self.settings = settings;
                changed
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> impl Strategy<Value = Settings> {
        let word = "[a-zA-Z0-9_.-]{1,20}";
        (
            proptest::collection::vec((word, "/[a-z /]{1,30}").prop_map(|(name, path)| (name, path.into())), 0..4),
            proptest::collection::vec((word, word), 0..4),
            proptest::collection::vec(any::<IpAddr>(), 0..4),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(networks, links, servers, forward, single_labels)| Settings {
                networks,
                links,
                servers,
                forward,
                single_labels,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(settings in settings()) {
            prop_assert_eq!(Settings::decode(settings.encode().as_bytes()), Ok(settings));
        }

        #[test]
        fn no_content_panics(content in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Settings::decode(&content);
        }
    }

    #[test]
    fn a_wrong_line_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dns");
        std::fs::write(&path, "forward no\nserver nowhere\n").unwrap();
        let error = Settings::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 2 cannot be read"), "{error}");
    }

    #[test]
    fn a_running_resolver_follows_and_keeps_what_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dns");
        Settings::default().write(&path).unwrap();
        let mut current = Current::new(&path).unwrap();
        let internal = Settings { forward: false, ..Settings::default() };
        internal.write(&path).unwrap();
        assert!(current.follow());
        assert!(!current.settings.forward);
        assert!(!current.follow());
        std::fs::remove_file(&path).unwrap();
        assert!(!current.follow());
        assert!(!current.settings.forward);
    }
}
