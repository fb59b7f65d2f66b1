//! Git repositories as sources, by the `git` command.
//!
//! ```text
//! ROOT/cache/git/NAME/   NAME is the digest of address, commit and what is taken of it
//!   lock                 shared while somebody uses the files, exclusive while they are made or removed
//!   done                 the commit's time and number; without it the files are not whole
//!   files/               what was checked out
//! ```
//!
//! A repository is hostile, and so is its address. `git` runs with an environment of its own: no settings but those
//! given here, no hooks, no credentials that are asked for, no transports but https, http, ssh and git (and local ones
//! only where the build was told to use one). Submodules are held to the same. What is checked out is only read by names
//! below open directories.

mod address;
#[cfg(test)]
mod tests;
mod tree;

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hull_fs::lock::Lock;
use hull_oci::Digest;
use hull_oci::spec::one_line;

use crate::files::cursor::Cursor;
use crate::files::error::Error;
use crate::files::tree::raw_components;
use crate::files::trees::MachineDirectory;
use crate::graph::GitSource;

use address::is_repository;
pub use address::parse;
pub use tree::RepositoryTree;

/// The longest that one command may take.
const TIMEOUT: Duration = Duration::from_secs(3600);
/// How often is looked whether a command has ended or is not wanted any more.
const TICK: Duration = Duration::from_millis(10);
/// What is read of a command's output.
const MAX_OUTPUT: u64 = 16 << 20;
/// Checkouts that are kept.
const MAX_KEPT: usize = 32;
/// What a command says that failed, at most.
const MAX_REASON: usize = 400;

/// A repository's files at a commit.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// The directory that was asked for.
    pub directory: PathBuf,
    /// The commit.
    pub commit: String,
    /// When it was made: seconds since 1970.
    pub time: i64,
    /// The files stay as long as this is held.
    pub lock: Arc<Lock>,
}

/// Repositories that are checked out into a directory of the store.
#[derive(Debug)]
pub struct Repositories {
    directory: PathBuf,
    /// Paths and `file:` addresses may be used.
    local: bool,
    /// `NAME=value` of an SSH agent's socket.
    agent: Option<PathBuf>,
}

impl Repositories {
    /// Repositories that are kept in this directory.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, local: false, agent: None }
    }

    /// Allows repositories that are directories of this machine.
    #[must_use]
    pub fn with_local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Asks this SSH agent.
    #[must_use]
    pub fn with_agent(mut self, socket: PathBuf) -> Self {
        self.agent = Some(socket);
        self
    }

    /// Fetches and checks out what is asked for, unless that is there. `authorization` is sent to the address's server.
    ///
    /// # Errors
    /// When the repository or the reference is not there, is not what the checksum says, or `git` fails.
    pub fn checkout(
        &self,
        source: &GitSource,
        authorization: Option<&str>,
        canceled: &dyn Fn() -> bool,
    ) -> Result<Checkout, Error> {
        self.check(source)?;
        if authorization.is_some_and(|header| header.bytes().any(|byte| byte < b' ' || byte == 0x7f)) {
            return Err(Error::Refused(format!(
                "git address {:?}: its authorization is no header",
                without_password(&source.url)
            )));
        }
        let git = Git { repositories: self, source, authorization, canceled };
        let commit = if is_commit(&source.reference) { source.reference.clone() } else { git.resolve()? };
        git.check_commit(&commit)?;
        let words = [&source.url, &commit, &format!("{} {}", source.keep_git_dir, source.submodules)];
        let name = Digest::of(words.map(String::as_str).join("\n").as_bytes());
        let place = self.directory.join(name.hex());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&place)
            .map_err(Error::io("create directory", &place))?;
        let mut checkout = self.whole(&git, &place, &commit)?;
        if !source.subdir.is_empty() {
            let tree = MachineDirectory::open(&checkout.directory, "repository")?;
            let path = raw_components(source.subdir.as_bytes());
            let found = Cursor::new(&tree)?.resolve(&path).map_err(Error::io("look up", &source.subdir))?;
            let Some(found) = found.filter(|found| found.meta.is_dir()) else {
                return Err(git.failed(&format!("it has no directory {:?}", source.subdir)));
            };
            for name in found.path {
                checkout.directory.push(std::ffi::OsStr::new(&*String::from_utf8_lossy(&name)));
            }
        }
        Ok(checkout)
    }

    /// The files of a commit, which are made if they are not there.
    fn whole(&self, git: &Git<'_>, place: &Path, commit: &str) -> Result<Checkout, Error> {
        let path = place.join("lock");
        loop {
            let lock = Lock::shared(&path)?;
            if let Some(time) = self.kept(place, commit) {
                let directory = place.join("files");
                return Ok(Checkout { directory, commit: commit.to_owned(), time, lock: Arc::new(lock) });
            }
            drop(lock);
            let _exclusive = Lock::exclusive(&path)?;
            // Somebody else may have done it while this one waited.
            if self.kept(place, commit).is_none() {
                let time = git.fetch(place, commit)?;
                hull_fs::atomic::write_path(&place.join("done"), format!("{time} {commit}").as_bytes(), 0o600)?;
                self.prune(place);
            }
        }
    }

    /// The time of the commit that was checked out before, if it is whole.
    fn kept(&self, place: &Path, commit: &str) -> Option<i64> {
        let text = fs::read_to_string(place.join("done")).ok()?;
        let (time, kept) = text.split_once(' ')?;
        let time = time.parse().ok().filter(|_| kept == commit)?;
        // Only what is pruned first depends on it.
        let _ = fs::File::open(place.join("done")).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        Some(time)
    }

    /// Refuses what `git` could take for something else.
    fn check(&self, source: &GitSource) -> Result<(), Error> {
        let wrong = |reason: &str| Error::Refused(format!("git address {:?}: {reason}", source.url));
        let bad = |text: &str| text.starts_with('-') || text.bytes().any(|byte| byte < b' ' || byte == 0x7f);
        if source.url.is_empty() || bad(&source.url) {
            return Err(wrong("it is none"));
        }
        let special = |byte: u8| byte == b' ' || b"~^:?*[\\".contains(&byte);
        if bad(&source.reference) || source.reference.bytes().any(special) || source.reference.contains("..") {
            return Err(wrong(&format!("{:?} is no reference", source.reference)));
        }
        let scheme = source.url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("https" | "http" | "ssh" | "git") => Ok(()),
            Some("file") if self.local => Ok(()),
            None if self.local && source.url.starts_with('/') => Ok(()),
            None if is_repository(&source.url) => Ok(()),
            _ => Err(wrong("repositories come by https, http, ssh or git")),
        }
    }

    /// Removes the checkouts used least recently when there are too many; `keep` and those in use stay.
    fn prune(&self, keep: &Path) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut all = Vec::new();
        let mut broken = 0;
        for entry in entries.flatten().filter(|entry| entry.path() != keep) {
            match fs::metadata(entry.path().join("done")).and_then(|meta| meta.modified()) {
                Ok(used) => all.push((used, entry.path())),
                Err(_) => {
                    // What was begun and not finished; not what another process has just begun.
                    let age =
                        entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
                    if age.is_some_and(|age| age > TIMEOUT) {
                        broken += 1;
                        all.push((std::time::UNIX_EPOCH, entry.path()));
                    }
                }
            }
        }
        all.sort();
        let surplus = all.len().saturating_sub(MAX_KEPT).max(broken);
        for (_, path) in all.into_iter().take(surplus) {
            if let Ok(Some(_lock)) = Lock::try_exclusive(&path.join("lock")) {
                // What stays is removed the next time; without `done` nobody uses it.
                let _ = fs::remove_file(path.join("done"));
                let _ = fs::remove_dir_all(path.join("files"));
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Commands for one source.
struct Git<'g> {
    repositories: &'g Repositories,
    source: &'g GitSource,
    /// The value of a header.
    authorization: Option<&'g str>,
    canceled: &'g dyn Fn() -> bool,
}

impl Git<'_> {
    fn failed(&self, reason: &str) -> Error {
        Error::Fetch(format!("failed to load git repository {}: {reason}", without_password(&self.source.url)))
    }

    /// The commit that a name means now.
    fn resolve(&self) -> Result<String, Error> {
        let wanted = self.source.reference.as_str();
        let output = self.run(None, &["ls-remote", "--", &self.source.url])?;
        let mut found: Option<(usize, &str)> = None;
        let candidates = if wanted.is_empty() {
            vec!["HEAD".to_owned()]
        } else {
            // A tag's own commit before the tag; branches first, as BuildKit.
            let names = [format!("refs/heads/{wanted}"), format!("refs/tags/{wanted}"), wanted.to_owned()];
            names.into_iter().flat_map(|name| [format!("{name}^{{}}"), name]).collect()
        };
        for line in output.lines() {
            let Some((commit, name)) = line.split_once('\t') else { continue };
            let rank = candidates.iter().position(|candidate| candidate == name);
            if let Some(rank) = rank.filter(|_| is_commit(commit))
                && found.is_none_or(|(best, _)| rank < best)
            {
                found = Some((rank, commit));
            }
        }
        if let Some((_, commit)) = found {
            return Ok(commit.to_owned());
        }
        let short = wanted.len() >= 7 && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        let named = output.lines().filter_map(|line| line.split_once('\t')).map(|(commit, _)| commit);
        let mut begins: Vec<&str> = named.filter(|commit| short && commit.starts_with(wanted)).collect();
        begins.dedup();
        match begins[..] {
            [one] if is_commit(one) => Ok(one.to_owned()),
            _ => Err(self.failed(&format!("repository does not contain ref {wanted}"))),
        }
    }

    fn check_commit(&self, commit: &str) -> Result<(), Error> {
        match self.source.checksum.as_deref() {
            Some(expected) if expected.len() < 7 || !commit.starts_with(expected) => {
                Err(self.failed(&format!("expected checksum to match {expected}, got {commit}")))
            }
            _ => Ok(()),
        }
    }

    /// Makes the files of a commit. Returns its time.
    fn fetch(&self, place: &Path, commit: &str) -> Result<i64, Error> {
        let files = place.join("files");
        for left in [&files, &place.join("home")] {
            match fs::remove_dir_all(left) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", left)(error));
                }
                _ => {}
            }
        }
        fs::DirBuilder::new().mode(0o700).create(&files).map_err(Error::io("create directory", &files))?;
        let inside = Some(files.as_path());
        let format = if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        self.run(inside, &["init", "--quiet", "--initial-branch=main", format])?;
        self.run(inside, &["remote", "add", "--", "origin", &self.source.url])?;
        let direct = self.run(inside, &["fetch", "--quiet", "--depth=1", "--no-tags", "--", "origin", commit]);
        if let Err(error) = direct {
            if matches!(error, Error::Canceled) {
                return Err(error);
            }
            // Not every server gives a commit by its number.
            let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
            self.run(inside, &["fetch", "--quiet", "--no-tags", "--", "origin", all[0], all[1]])?;
        }
        let object = format!("{commit}^{{commit}}");
        self.run(inside, &["checkout", "--quiet", "--detach", &object, "--"])?;
        let time = self.run(inside, &["show", "--no-patch", "--format=%ct", "HEAD"])?;
        if self.source.submodules && files.join(".gitmodules").symlink_metadata().is_ok() {
            let update = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
            self.run(inside, &update)?;
        }
        if !self.source.keep_git_dir {
            remove_git(&files)?;
        }
        time.trim().parse().map_err(|_| self.failed("its commit has no time"))
    }

    /// Runs `git` and returns what it printed.
    fn run(&self, directory: Option<&Path>, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new("git");
        command.env_clear();
        for name in ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let protocols = if self.repositories.local { "https:http:ssh:git:file" } else { "https:http:ssh:git" };
        // Keys of whoever builds are not a Dockerfile's to use; those of an agent that was given are.
        let ssh = match self.repositories.agent {
            Some(_) => "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o IdentityFile=none",
            None => {
                "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o IdentityFile=none \
                 -o IdentityAgent=none"
            }
        };
        let settings: [(&str, &str); 12] = [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "/bin/false"),
            ("SSH_ASKPASS", "/bin/false"),
            ("GIT_ALLOW_PROTOCOL", protocols),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_SSH_COMMAND", ssh),
            ("HOME", "/nonexistent"),
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
        ];
        command.envs(settings);
        if let Some(agent) = &self.repositories.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        if let Some(authorization) = self.authorization {
            // Not as an argument: everybody on the machine sees those.
            command.env("GIT_CONFIG_COUNT", "1");
            command.env("GIT_CONFIG_KEY_0", format!("http.{}.extraHeader", scope(&self.source.url)));
            command.env("GIT_CONFIG_VALUE_0", format!("Authorization: {authorization}"));
        }
        let mut options: Vec<OsString> = Vec::new();
        for setting in [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.protectNTFS=true",
            "credential.helper=",
            "protocol.ext.allow=never",
            "gc.auto=0",
            "maintenance.auto=false",
            "advice.detachedHead=false",
            "safe.directory=*",
        ] {
            options.extend(["-c".into(), setting.into()]);
        }
        command.args(options).args(arguments);
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What it starts ends with it.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => self.failed("there is no `git` command; install git"),
            _ => self.failed(&format!("run git: {error}")),
        })?;
        let reader = |stream: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut stream) = stream {
                    // What was read before an error counts.
                    let _ = stream.by_ref().take(MAX_OUTPUT).read_to_end(&mut bytes);
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                }
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let output = reader(child.stdout.take().map(|one| Box::new(one) as _));
        let errors = reader(child.stderr.take().map(|one| Box::new(one) as _));
        let started = Instant::now();
        let status = loop {
            let ended = child.try_wait().map_err(|error| self.failed(&format!("wait for git: {error}")))?;
            if let Some(status) = ended {
                break Some(status);
            }
            if (self.canceled)() || started.elapsed() > TIMEOUT {
                if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                    // It may be gone already.
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                let _ = child.wait();
                break None;
            }
            std::thread::sleep(TICK);
        };
        let (output, errors) = (output.join().unwrap_or_default(), errors.join().unwrap_or_default());
        match status {
            Some(status) if status.success() => Ok(output),
            Some(_) => {
                let said = errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
                let said: String = without_password(&one_line(&said)).chars().take(MAX_REASON).collect();
                Err(self.failed(&format!("git {}: {said}", arguments.first().copied().unwrap_or_default())))
            }
            None if (self.canceled)() => Err(Error::Canceled),
            None => Err(self.failed(&format!("git did not end within {} seconds", TIMEOUT.as_secs()))),
        }
    }
}

/// Where an authorization is sent: to the repository alone, but to all of GitHub's, whose submodules are often private too.
fn scope(url: &str) -> &str {
    let github = ["https://github.com/", "https://www.github.com/"];
    github.into_iter().find(|prefix| url.starts_with(prefix)).unwrap_or(url)
}

/// An address without the password in it.
fn without_password(url: &str) -> String {
    let Some((before, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '\'', ' ']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{before}://{host}{}", &rest[end..]),
        None => url.to_owned(),
    }
}

/// Removes `.git` of a checkout and of the submodules in it. Links are not followed.
fn remove_git(directory: &Path) -> Result<(), Error> {
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).map_err(Error::io("read directory", &directory))? {
            let entry = entry.map_err(Error::io("read directory", &directory))?;
            let (path, kind) = (entry.path(), entry.file_type());
            let kind = kind.map_err(Error::io("stat", &path))?;
            match (entry.file_name() == ".git", kind.is_dir()) {
                (true, true) => fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?,
                (true, false) => fs::remove_file(&path).map_err(Error::io("remove", &path))?,
                (false, true) => pending.push(path),
                (false, false) => {}
            }
        }
    }
    Ok(())
}
