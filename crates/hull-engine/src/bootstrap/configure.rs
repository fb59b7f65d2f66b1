//! dpkg, run in a container of the new root: no network, no services, no questions.
//!
//! The container sees the packages read-only, and one directory of its own for the script and what dpkg says. What it
//! leaves there is read as a stranger's.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use hull_debian::control::paragraphs;
use hull_debian::lock::Lock;
use hull_debian::order::{self, Member};
use hull_fs::inside;
use hull_oci::spec::{Seccomp, SyscallRule};
use rustix::fs::{Mode, OFlags};

use super::Ready;
use crate::config::{MountConfig, RunConfig, SeccompChoice, Security, Source};
use crate::error::Error;
use crate::{Engine, launch};

/// In the container.
const PLACE: &str = "/run/hull-bootstrap";

/// Bytes of dpkg's words that are looked at.
const MAX_LOG: u64 = 4 << 20;

/// Unpacks and configures all packages.
pub(super) fn run(engine: &Engine, work: &Path, rootfs: &Path, lock: &Lock, packages: &[Ready]) -> Result<(), Error> {
    let debs = work.join("debs");
    let own = work.join("own");
    for path in [&debs, &own] {
        fs::create_dir(path).map_err(Error::io("create directory", path))?;
    }
    for (index, ready) in packages.iter().enumerate() {
        let link = debs.join(file_name(index));
        fs::hard_link(&ready.path, &link).map_err(Error::io("link", &ready.path))?;
    }
    let script = own.join("script");
    fs::write(&script, self::script(lock, packages)?).map_err(Error::io("write", &script))?;
    write_sources(rootfs, lock)?;
    let bind = |source: &Path, target: &str, options: &[&str]| MountConfig::Bind {
        source: source.to_owned(),
        target: format!("{PLACE}/{target}"),
        options: options.iter().map(|one| (*one).to_owned()).collect(),
        create: false,
    };
    let variables = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "LC_ALL=C.UTF-8",
        "TZ=UTC",
        "DEBIAN_FRONTEND=noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN=true",
        "DPKG_MAINTSCRIPT_ARCH=",
        "PYTHONDONTWRITEBYTECODE=1",
    ];
    let mut env: Vec<String> = variables.iter().map(|one| (*one).to_owned()).collect();
    env.push(format!("SOURCE_DATE_EPOCH={}", lock.epoch));
    let config = RunConfig {
        source: Source::Directory(rootfs.to_owned()),
        command: vec!["/bin/sh".to_owned(), format!("{PLACE}/own/script")],
        env,
        // Some packages write it down.
        hostname: Some("localhost".to_owned()),
        remove: true,
        tied: true,
        mounts: vec![bind(&debs, "debs", &["ro"]), bind(&own, "own", &[])],
        security: Security { seccomp: SeccompChoice::Oci(Box::new(without_sync())), ..Security::default() },
        ..RunConfig::default()
    };
    let outcome = engine.run(config, launch::Options::new(&mut |_| {}));
    match outcome {
        Ok(launch::Outcome::Exited(0)) => Ok(()),
        Ok(launch::Outcome::Exited(code)) => Err(Error::Bootstrap(format!(
            "configure the packages: exit code {code}: {}",
            hull_oci::spec::one_line(&last_words(&own.join("log")))
        ))),
        Ok(launch::Outcome::Detached(_)) => {
            Err(Error::Bootstrap("configure the packages: the container left".to_owned()))
        }
        Err(error) if lock.architecture != super::native() => Err(Error::Bootstrap(format!(
            "this machine cannot run programs of {} (qemu-user-static helps): {error}",
            lock.architecture
        ))),
        Err(error) => Err(error),
    }
}

/// The default filter; what waits for the disk succeeds at once. Nobody needs half of this tree after a power loss, and
/// the store makes durable what becomes of it.
fn without_sync() -> Seccomp {
    const CALLS: [&str; 6] = ["fsync", "fdatasync", "msync", "sync", "syncfs", "sync_file_range"];
    // The default set of capabilities opens this one gate.
    let mut profile = hull_seccomp::default_profile(&["CAP_SYS_CHROOT".to_owned()], &[]);
    for rule in &mut profile.syscalls {
        rule.names.retain(|name| !CALLS.contains(&name.as_str()));
    }
    profile.syscalls.retain(|rule| !rule.names.is_empty());
    profile.syscalls.push(SyscallRule {
        names: CALLS.iter().map(|name| (*name).to_owned()).collect(),
        action: "SCMP_ACT_ERRNO".to_owned(),
        errno_ret: Some(0),
        args: Vec::new(),
    });
    profile
}

fn file_name(index: usize) -> String {
    format!("{index:05}.deb")
}

/// What the container runs.
fn script(lock: &Lock, packages: &[Ready]) -> Result<String, Error> {
    let mut members = Vec::new();
    for ready in packages {
        let text = ready.deb.control()?;
        let paragraph = paragraphs(&text).next().unwrap_or_default();
        let field = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        members.push(Member {
            name: field("Package"),
            version: field("Version"),
            pre_depends: field("Pre-Depends"),
            depends: field("Depends"),
            provides: field("Provides"),
        });
    }
    let base: BTreeSet<&str> = lock.packages.iter().filter(|one| one.base).map(|one| one.name.as_str()).collect();
    let mut script = format!(
        "set -e\nexec > {PLACE}/own/log 2>&1 < /dev/null\ncd /\numask 022\n\
         printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d\nchmod 755 /usr/sbin/policy-rc.d\n"
    );
    for step in order::steps(&members, &base) {
        let early = matches!(step[..], [only] if members[only].name == "base-passwd");
        let files: Vec<String> = step.into_iter().map(|index| format!("{PLACE}/debs/{}", file_name(index))).collect();
        // All that is missing comes in this step; dpkg only sees one package after the other.
        script.push_str("dpkg --force-unsafe-io --force-depends --force-confold --unpack");
        files.iter().for_each(|file| {
            script.push_str(" \\\n ");
            script.push_str(file);
        });
        // The users come first, when the libraries that their package depends on are there but not configured.
        let force = if early { " --force-depends" } else { "" };
        script.push_str(&format!("\ndpkg --force-unsafe-io{force} --force-confold --configure --pending\n"));
    }
    script.push_str(
        "rm -f /usr/sbin/policy-rc.d\naudit=$(dpkg --audit)\n\
         if [ -n \"$audit\" ]; then echo \"dpkg: error: $audit\" | head -n 3; exit 3; fi\n",
    );
    Ok(script)
}

/// apt's sources in the image: those that its packages came from, as far as a container can reach them.
fn write_sources(rootfs: &Path, lock: &Lock) -> Result<(), Error> {
    let family = lock.distribution.split(':').next().unwrap_or_default();
    let keyring = format!("usr/share/keyrings/{family}-archive-keyring.gpg");
    let mut text = String::new();
    for source in lock.sources.iter().filter(|source| !source.uri.starts_with("file:")) {
        let blank = if text.is_empty() { "" } else { "\n" };
        let components = source.components.join(" ");
        text.push_str(&format!(
            "{blank}Types: deb\nURIs: {}\nSuites: {}\nComponents: {components}\nSigned-By: /{keyring}\n",
            source.uri, source.suite
        ));
    }
    // Without the distribution's own keyring apt decides by itself whom to trust.
    let packaged = lock
        .packages
        .iter()
        .any(|one| one.name == format!("{family}-archive-keyring") || one.name == format!("{family}-keyring"));
    if !packaged {
        text = text.replace(&format!("Signed-By: /{keyring}\n"), "");
    }
    if text.is_empty() || !lock.packages.iter().any(|one| one.name == "apt") {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(rootfs, flags, Mode::empty()).map_err(Error::io("open", rootfs))?;
    let place = Path::new("etc/apt/sources.list.d");
    let made = inside::create_dir_all(std::os::fd::AsFd::as_fd(&root), place, Mode::from_raw_mode(0o755));
    let directory = made.map_err(Error::io("create directory", place))?;
    Ok(hull_fs::atomic::write(&directory, Path::new(&format!("{family}.sources")), text.as_bytes(), 0o644)?)
}

/// The line that says best what went wrong.
fn last_words(path: &Path) -> String {
    let mut bytes = Vec::new();
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    if let Ok(file) = File::options().read(true).custom_flags(flags).open(path) {
        let _ = file.take(MAX_LOG).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let wrong = |line: &&str| ["dpkg: error", "E: ", "error:"].iter().any(|start| line.starts_with(start));
    let found = lines().find(wrong).or_else(|| lines().next_back()).unwrap_or("the container said nothing");
    // dpkg breaks the line after a colon.
    let next = lines().skip_while(|line| *line != found).nth(1).filter(|_| found.ends_with(':'));
    format!("{found} {}", next.unwrap_or_default()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_tells_most() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("log");
        let said = |text: &str| {
            fs::write(&path, text).expect("write");
            last_words(&path)
        };
        assert_eq!(said("a\nb\n\n"), "b");
        assert_eq!(
            said("Setting up x\ndpkg: error processing package x (--configure):\n exit status 1\nErrors were:\n x\n"),
            "dpkg: error processing package x (--configure): exit status 1"
        );
        assert_eq!(said(""), "the container said nothing");
        fs::remove_file(&path).expect("remove");
        std::os::unix::fs::symlink("/etc/passwd", &path).expect("link");
        assert_eq!(last_words(&path), "the container said nothing");
    }
}
