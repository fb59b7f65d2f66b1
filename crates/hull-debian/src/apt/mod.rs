//! The machine's own apt configuration: archives, keyrings, proxies, date checks.
//!
//! Nothing is executed and nothing is written. What apt would complain about is passed over here: Hull only wants to know
//! where packages may come from.

mod conf;
mod sources;

pub use conf::Conf;
pub use sources::{Keys, Source};

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

const MAX_FILE: u64 = 4 << 20;

/// What apt is configured to on this machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Archives in apt's order.
    pub sources: Vec<Source>,
    /// Options.
    pub conf: Conf,
    /// Keyrings of archives that name none.
    pub trusted: Vec<PathBuf>,
}

impl Machine {
    /// Reads the configuration below `root`, `/` for the machine itself. What is missing is empty.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let apt = root.join("etc/apt");
        let mut conf = Conf::default();
        for path in listed(&apt.join("apt.conf.d"), &["conf", ""]).into_iter().chain([apt.join("apt.conf")]) {
            conf.add(&text(&path));
        }
        let mut sources = sources::one_line(&text(&apt.join("sources.list")));
        for path in listed(&apt.join("sources.list.d"), &["list", "sources"]) {
            let text = text(&path);
            sources.extend(if path.extension().is_some_and(|one| one == "list") {
                sources::one_line(&text)
            } else {
                sources::deb822(&text)
            });
        }
        let mut trusted = listed(&apt.join("trusted.gpg.d"), &["gpg", "asc"]);
        trusted.extend(Some(apt.join("trusted.gpg")).filter(|path| path.is_file()));
        Self { sources, conf, trusted }
    }
}

/// Files of a directory with one of the endings, sorted by name.
fn listed(directory: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let ending = path.extension().and_then(|one| one.to_str()).unwrap_or_default();
            endings.contains(&ending) && path.is_file()
        })
        .collect();
    files.sort();
    files
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let apt = dir.path().join("etc/apt");
        for (name, text) in [
            ("apt.conf.d/10x", "Acquire::http::Proxy \"http://a:1\";"),
            ("apt.conf.d/20x.conf", "Acquire::http::Proxy \"http://b:2\";"),
            ("apt.conf.d/30x.bak", "Acquire::http::Proxy \"http://c:3\";"),
            ("sources.list", "deb http://one/debian bookworm main\n"),
            ("sources.list.d/two.sources", "Types: deb\nURIs: http://two/debian\nSuites: bookworm\nComponents: main\n"),
            ("sources.list.d/three.save", "deb http://three/debian bookworm main\n"),
            ("trusted.gpg.d/k.gpg", "x"),
            ("trusted.gpg.d/k.txt", "x"),
        ] {
            let path = apt.join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("create directory");
            fs::write(path, text).expect("write");
        }
        let machine = Machine::read(dir.path());
        let uris: Vec<_> = machine.sources.iter().map(|source| source.uri.as_str()).collect();
        assert_eq!(uris, ["http://one/debian", "http://two/debian"]);
        assert_eq!(machine.conf.get("Acquire::http::Proxy"), Some("http://b:2"));
        assert_eq!(machine.trusted, [apt.join("trusted.gpg.d/k.gpg")]);
        assert!(Machine::read(&dir.path().join("none")).sources.is_empty());
    }
}
