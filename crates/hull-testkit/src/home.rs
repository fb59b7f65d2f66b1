//! A data directory of its own, for tests of `hull`'s own commands.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Finished, finish, leak, probe, tier};

/// Directories in which a removed container leaves nothing.
const CONTAINERS: [&str; 7] =
    ["data/containers", "data/names", "data/volumes/.staging", "run/oci", "run/live", "run/attach", "run/resolvers"];

/// Directories of work on the store, of which the next command removes what a killed one left.
const STORE: [&str; 3] = ["data/ingest", "data/trash", "data/partial"];

/// A data directory and a state directory; dropping it kills and removes what is left.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
    name: String,
    hull: PathBuf,
    /// Where commands run.
    place: PathBuf,
    /// Variables of every command; those without a value are removed.
    variables: Vec<(OsString, Option<OsString>)>,
}

impl Home {
    /// A home with a root file system for this binary, or `None` with a printed skip when not root.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(hull: impl Into<PathBuf>) -> Option<Self> {
        if !tier::root() {
            return None;
        }
        let home = Self::plain(hull, std::env::temp_dir());
        home.equip();
        Some(home)
    }

    /// A home for commands that need no container, made below a directory.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn plain(hull: impl Into<PathBuf>, parent: impl AsRef<Path>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hull-home-{}-{}x", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(parent).expect("temporary directory");
        Self { dir, name, hull: hull.into(), place: "/".into(), variables: Vec::new() }
    }

    /// Runs every command in the home's directory, not in `/`.
    #[must_use]
    pub fn here(mut self) -> Self {
        self.place = self.path().to_owned();
        self
    }

    /// Sets a variable for every command.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.into(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes variables from every command's environment.
    #[must_use]
    pub fn without(mut self, names: &[&str]) -> Self {
        self.variables.extend(names.iter().map(|name| (name.into(), None)));
        self
    }

    /// With a file in its directory.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(name, content);
        self
    }

    /// Layers in this form; the best that the machine offers when empty.
    #[must_use]
    pub fn snapshotter(self, kind: &str) -> Self {
        if kind.is_empty() { self } else { self.with("HULL_SNAPSHOTTER", kind) }
    }

    /// Makes the root file system: the probe, and what every root file system has.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn equip(&self) {
        for sub in ["", "proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(self.rootfs().join(sub)).expect("create root file system");
        }
        std::fs::copy(probe(), self.rootfs().join("probe")).expect("copy the probe");
    }

    /// A text that is in every path, cgroup and command line of this home.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path in its directory.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        self.at(name).to_string_lossy().into_owned()
    }

    /// The root file system.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.at("rootfs")
    }

    /// Writes a file in its directory.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("create directory");
        std::fs::write(path, content).expect("write");
    }

    /// Packs the root file system as `rootfs.tar`, whose path it gives.
    #[track_caller]
    #[must_use]
    pub fn pack(&self) -> String {
        let archive = self.text("rootfs.tar");
        finish(Command::new("tar").args(["-cf", &archive, "-C"]).arg(self.rootfs()).arg(".")).ok();
        archive
    }

    /// Imports the root file system as an image, and gives its ID.
    #[track_caller]
    #[expect(clippy::must_use_candidate, reason = "the import is often all that is wanted")]
    pub fn import(&self, flags: &[&str], name: &str) -> String {
        let archive = self.pack();
        finish(self.hull(&["import"]).args(flags).args([&archive, name])).ok().text().to_owned()
    }

    /// `hull --root ... --state ... WORDS`, without input.
    #[must_use]
    pub fn hull(&self, words: &[&str]) -> Command {
        self.hull_on("data", words)
    }

    /// The same on another store.
    #[must_use]
    pub fn hull_on(&self, store: &str, words: &[&str]) -> Command {
        let mut command = Command::new(&self.hull);
        command.arg("--root").arg(self.at(store)).arg("--state").arg(self.at("run"));
        command.args(words).stdin(Stdio::null()).current_dir(&self.place);
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// `hull VERB --network none --cgroup-parent NAME FLAGS --rootfs DIR /probe ARGS`; the verb is `run` or `create`.
    #[must_use]
    pub fn container(&self, verb: &str, flags: &[&str], args: &[&str]) -> Command {
        let mut command = self.hull(&[verb, "--network=none", "--cgroup-parent", &self.name]);
        command.args(flags).arg("--rootfs").arg(self.rootfs()).arg("/probe").args(args);
        command
    }

    /// Runs `hull WORDS` to its end.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Finished {
        finish(&mut self.hull(words))
    }

    /// Standard output of a command that succeeds.
    #[track_caller]
    #[expect(clippy::must_use_candidate, reason = "that it succeeds is often all that is wanted")]
    pub fn ok(&self, words: &[&str]) -> String {
        self.run(words).ok().stdout
    }

    /// Starts a container in the background and gives its ID.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn detached(&self, flags: &[&str], args: &[&str]) -> String {
        let mut words = vec!["-d"];
        words.extend(flags);
        finish(&mut self.container("run", &words, args)).ok().text().to_owned()
    }

    /// A container's field of `inspect`.
    ///
    /// # Panics
    /// When there is no such container.
    #[track_caller]
    #[must_use]
    pub fn field(&self, container: &str, template: &str) -> String {
        self.run(&["inspect", "--format", template, container]).ok().text().to_owned()
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    /// When it does not within 30 seconds.
    #[track_caller]
    pub fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !condition() {
            assert!(begin.elapsed() < Duration::from_secs(30), "never: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Names in one of its directories, sorted; none if there is no such directory.
    #[must_use]
    pub fn entries(&self, below: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.at(below)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// What is left on the machine and of containers; the home's own cgroup is not.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let mut lines: Vec<String> = leak::mounts(&self.name);
        let cgroups = leak::cgroups(&self.name).into_iter().filter(|path| !path.ends_with(&self.name));
        lines.extend(cgroups.map(|path| format!("cgroup {}", path.display())));
        lines.extend(leak::processes(&self.name).into_iter().map(|(pid, command)| format!("process {pid} {command}")));
        lines.extend(self.within(&CONTAINERS));
        lines
    }

    /// What is half done in the store.
    #[must_use]
    pub fn unfinished(&self) -> Vec<String> {
        self.within(&STORE)
    }

    fn within(&self, directories: &[&str]) -> Vec<String> {
        let below = |directory: &&str| {
            let directory = (*directory).to_owned();
            self.entries(&directory).into_iter().map(move |name| format!("{directory}/{name}"))
        };
        directories.iter().flat_map(below).collect()
    }

    /// Asserts that nothing is [`left`](Self::left), soon.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn assert_clean(&self) {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if self.left().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("left behind:\n{}", self.left().join("\n"));
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let containers = self.entries("data/containers");
        if !containers.is_empty() {
            let quiet = |words: &[&str]| self.hull(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
            for container in containers {
                let _ = quiet(&["rm", "-f", &container]);
            }
        }
        leak::clear(&self.name);
    }
}
