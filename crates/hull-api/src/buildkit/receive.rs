//! Directories that come from a client: fsutil's protocol, as the side that receives.
//!
//! The client names everything that there is, in order; files whose content is wanted are asked for by their number, and
//! come in pieces. Everything is resolved below the directory's descriptor, so that no name, link or order of names
//! leads out of it. What is no file, directory or link is left out.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use hull_fs::inside;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::grpc::{Exchange, Failure, code};
use super::pb::{Packet, Stat, packet};
use super::session::Session;

const METHOD: &str = "/moby.filesync.v1.FileSync/DiffCopy";

/// Files that are on their way at once.
const AT_ONCE: usize = 32;

/// More names than this are refused.
const MOST: u32 = 4_000_000;

// Go's bits of modes.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const TYPES: u32 = DIRECTORY | SYMLINK | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const STICKY: u32 = 1 << 20;

/// Which part of a client's directory is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The directory's name in the session: `context`, `dockerfile`.
    pub(crate) name: String,
    /// Only what fits.
    pub(crate) include: Vec<String>,
    /// Nothing that fits.
    pub(crate) exclude: Vec<String>,
    /// Only these, and what links there lead to.
    pub(crate) follow: Vec<String>,
}

impl Wanted {
    fn metadata(&self) -> Vec<(String, String)> {
        let mut all = vec![("dir-name".to_owned(), self.name.clone())];
        let lists =
            [("include-patterns", &self.include), ("exclude-patterns", &self.exclude), ("followpaths", &self.follow)];
        for (name, list) in lists {
            let is_ascii = list.iter().all(|one| one.is_ascii());
            if !is_ascii {
                all.push((format!("{name}-encoded"), "1".to_owned()));
            }
            let text = |one: &String| if is_ascii { one.clone() } else { encode(one) };
            all.extend(list.iter().map(|one| (name.to_owned(), text(one))));
        }
        all
    }
}

/// As in a query.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut line, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => line.push(char::from(byte)),
            _ => line.push_str(&format!("%{byte:02X}")),
        }
        line
    })
}

/// What has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Brings a client's directory below `root`, which is empty. `told` hears of the bytes now and then.
pub(crate) async fn receive(
    session: &Session,
    wanted: &Wanted,
    root: &OwnedFd,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<Received, Failure> {
    let mut exchange = session.begin(METHOD, &wanted.metadata()).await?;
    let mut receiver = Receiver {
        root,
        next: 0,
        files: BTreeMap::new(),
        waiting: VecDeque::new(),
        open: BTreeMap::new(),
        late: Vec::new(),
        done: Received::default(),
    };
    let result = receiver.run(&mut exchange, told).await;
    if let Err(failure) = &result {
        let data = failure.message.clone().into_bytes();
        // It may have gone.
        let _ = exchange.outgoing.send(&Packet { kind: packet::ERR, data, ..Packet::default() }).await;
    }
    exchange.outgoing.finish();
    result?;
    Ok(receiver.done)
}

struct Open {
    file: File,
    stat: Stat,
}

struct Receiver<'r> {
    root: &'r OwnedFd,
    next: u32,
    /// Not asked for yet.
    files: BTreeMap<u32, Stat>,
    waiting: VecDeque<u32>,
    /// Asked for.
    open: BTreeMap<u32, Open>,
    /// Directories, whose times and modes come last.
    late: Vec<Stat>,
    done: Received,
}

/// A path of a client, which must be below its directory.
fn checked(path: &str) -> Result<PathBuf, Failure> {
    let bad = || Failure::new(code::INVALID_ARGUMENT, format!("invalid path {:?}", hull_oci::spec::one_line(path)));
    let parsed = Path::new(path);
    let plain = parsed.components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || path.len() > 4096 || path.contains('\0') || !plain {
        Err(bad())
    } else {
        Ok(parsed.to_owned())
    }
}

fn mode(stat: &Stat) -> Mode {
    let mut bits = stat.mode & 0o777;
    for (go, unix) in [(SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000)] {
        if stat.mode & go != 0 {
            bits |= unix;
        }
    }
    Mode::from_raw_mode(bits)
}

fn times(stat: &Stat) -> Timestamps {
    let time =
        Timespec { tv_sec: stat.mod_time.div_euclid(1_000_000_000), tv_nsec: stat.mod_time.rem_euclid(1_000_000_000) };
    Timestamps { last_access: time, last_modification: time }
}

fn owner(stat: &Stat) -> Option<(Uid, Gid)> {
    // Others than root own what they make, and clients send nothing else than root's.
    let wanted = (stat.uid != 0 || stat.gid != 0) && stat.uid != u32::MAX && stat.gid != u32::MAX;
    wanted.then(|| (Uid::from_raw(stat.uid), Gid::from_raw(stat.gid)))
}

impl Receiver<'_> {
    async fn run(&mut self, exchange: &mut Exchange, told: &mut (dyn FnMut(u64) + Send)) -> Result<(), Failure> {
        let mut listed = false;
        let mut finished = false;
        loop {
            while listed_or_many(listed, &self.waiting) && self.open.len() < AT_ONCE {
                let Some(id) = self.waiting.pop_front() else { break };
                let Some(stat) = self.files.remove(&id) else { continue };
                let file = inside::open(
                    self.root.as_fd(),
                    Path::new(&stat.path),
                    OFlags::WRONLY | OFlags::NOFOLLOW,
                    Mode::empty(),
                );
                let file = File::from(file.map_err(|errno| failed("open", &stat.path, errno))?);
                self.open.insert(id, Open { file, stat });
                exchange.outgoing.send(&Packet { kind: packet::REQ, id, ..Packet::default() }).await?;
            }
            if listed && self.waiting.is_empty() && self.open.is_empty() && !finished {
                self.finish()?;
                exchange.outgoing.send(&Packet { kind: packet::FIN, ..Packet::default() }).await?;
                finished = true;
            }
            let Some(next) = exchange.next::<Packet>().await? else {
                if finished {
                    return Ok(());
                }
                return Err(Failure::unknown("the client ended the transfer early"));
            };
            match next.kind {
                packet::STAT => match next.stat {
                    None => listed = true,
                    Some(stat) if !listed => self.named(stat)?,
                    Some(_) => return Err(Failure::new(code::INVALID_ARGUMENT, "a name came after the last one")),
                },
                packet::DATA => {
                    self.data(next.id, &next.data)?;
                    told(self.done.bytes);
                }
                packet::FIN if finished => return Ok(()),
                packet::ERR => {
                    let text = hull_oci::spec::one_line(&String::from_utf8_lossy(&next.data));
                    return Err(Failure::unknown(format!("error from sender: {text}")));
                }
                _ => return Err(Failure::new(code::INVALID_ARGUMENT, "an unexpected packet came")),
            }
        }
    }

    fn named(&mut self, stat: Stat) -> Result<(), Failure> {
        let id = self.next;
        self.next += 1;
        if id >= MOST {
            return Err(Failure::new(code::INVALID_ARGUMENT, format!("the directory has more than {MOST} names")));
        }
        let path = checked(&stat.path)?;
        let fail = |operation: &'static str| {
            let path = stat.path.clone();
            move |errno: Errno| failed(operation, &path, errno)
        };
        let kind = stat.mode & TYPES;
        let root = self.root.as_fd();
        if kind == DIRECTORY {
            inside::create_dir_all(root, &path, Mode::from_raw_mode(0o700)).map_err(fail("create directory"))?;
            self.late.push(stat);
            return Ok(());
        }
        if kind != 0 && kind != SYMLINK {
            return Ok(());
        }
        let (parent, name) = inside::create_parent(root, &path).map_err(fail("create directory of"))?;
        if kind == SYMLINK {
            rustix::fs::symlinkat(stat.linkname.as_str(), &parent, name).map_err(fail("create link"))?;
            if let Some((uid, gid)) = owner(&stat) {
                let _ = rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            }
            rustix::fs::utimensat(&parent, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(fail("set times of"))?;
            return Ok(());
        }
        self.done.files += 1;
        if !stat.linkname.is_empty() {
            let target = checked(&stat.linkname)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let (beside, base) = (target.parent().unwrap_or(Path::new("")), target.file_name().unwrap_or_default());
            let beside = if beside.as_os_str().is_empty() { Path::new(".") } else { beside };
            let beside = inside::open(root, beside, flags | OFlags::DIRECTORY, Mode::empty())
                .map_err(fail("find the file of link"))?;
            return rustix::fs::linkat(&beside, base, &parent, name, AtFlags::empty()).map_err(fail("create link"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600)).map_err(fail("create"))?;
        self.waiting.push_back(id);
        self.files.insert(id, stat);
        Ok(())
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), Failure> {
        let Some(open) = self.open.get_mut(&id) else {
            return Err(Failure::new(code::INVALID_ARGUMENT, "content came that was not asked for"));
        };
        if !data.is_empty() {
            self.done.bytes += data.len() as u64;
            let written = open.file.write_all(data);
            return written.map_err(|error| Failure::unknown(format!("write {}: {error}", open.stat.path)));
        }
        let Some(Open { file, stat }) = self.open.remove(&id) else { return Ok(()) };
        let fail = |errno| failed("finish", &stat.path, errno);
        if let Some((uid, gid)) = owner(&stat) {
            let _ = rustix::fs::fchown(&file, Some(uid), Some(gid));
        }
        rustix::fs::fchmod(&file, mode(&stat)).map_err(fail)?;
        rustix::fs::futimens(&file, &times(&stat)).map_err(fail)
    }

    /// Modes and times of directories, the deepest first.
    fn finish(&mut self) -> Result<(), Failure> {
        for stat in std::mem::take(&mut self.late).into_iter().rev() {
            let fail = |errno| failed("finish", &stat.path, errno);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let directory =
                inside::open(self.root.as_fd(), Path::new(&stat.path), flags, Mode::empty()).map_err(fail)?;
            if let Some((uid, gid)) = owner(&stat) {
                let _ = rustix::fs::fchown(&directory, Some(uid), Some(gid));
            }
            rustix::fs::fchmod(&directory, mode(&stat)).map_err(fail)?;
            rustix::fs::futimens(&directory, &times(&stat)).map_err(fail)?;
        }
        Ok(())
    }
}

/// Files are asked for when all are named, or when many wait.
fn listed_or_many(listed: bool, waiting: &VecDeque<u32>) -> bool {
    listed || waiting.len() >= AT_ONCE
}

fn failed(operation: &str, path: &str, errno: Errno) -> Failure {
    Failure::unknown(format!("{operation} {}: {errno}", hull_oci::spec::one_line(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::grpc::{Call, Caller, Connection, end, serve};
    use crate::buildkit::session::Sessions;

    #[test]
    fn names_that_lead_out_are_refused() {
        for wrong in ["", "/etc/passwd", "../x", "a/../../x", "a/./..", "a\0b", &"x".repeat(5000)] {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
        assert!(checked("a/b c/ä").is_ok());
    }

    #[test]
    fn modes_are_go_s() {
        let stat = |mode| Stat { mode, ..Stat::default() };
        assert_eq!(mode(&stat(0o755 | DIRECTORY | STICKY)).as_raw_mode(), 0o1755);
        assert_eq!(mode(&stat(0o4755)).as_raw_mode(), 0o755);
        assert_eq!(mode(&stat(0o755 | SETUID | SETGID)).as_raw_mode(), 0o6755);
    }

    #[test]
    fn patterns_that_are_not_ascii_are_encoded() {
        let wanted = Wanted { name: "context".to_owned(), exclude: vec!["ä b".to_owned()], ..Wanted::default() };
        let metadata = wanted.metadata();
        assert!(metadata.contains(&("exclude-patterns-encoded".to_owned(), "1".to_owned())));
        assert!(metadata.contains(&("exclude-patterns".to_owned(), "%C3%A4%20b".to_owned())));
    }

    fn entry(path: &str, mode: u32, data: &[u8]) -> (Stat, Vec<u8>) {
        let (path, size) = (path.to_owned(), i64::try_from(data.len()).expect("short"));
        (Stat { path, mode, size, mod_time: 1_700_000_000_000_000_000, ..Stat::default() }, data.to_vec())
    }

    fn link(path: &str, mode: u32, target: &str) -> (Stat, Vec<u8>) {
        let (mut stat, data) = entry(path, mode, b"");
        stat.linkname = target.to_owned();
        (stat, data)
    }

    /// A client that sends these names, and what is asked for of them.
    async fn client(mut call: Call, entries: Vec<(Stat, Vec<u8>)>) {
        let mut out = call.begin().expect("an answer");
        for (stat, _) in &entries {
            let packet = Packet { kind: packet::STAT, stat: Some(stat.clone()), ..Packet::default() };
            let _ = out.send(&packet).await;
        }
        let _ = out.send(&Packet { kind: packet::STAT, ..Packet::default() }).await;
        while let Ok(Some(next)) = call.incoming.next::<Packet>().await {
            match next.kind {
                packet::REQ => {
                    let data = entries.get(next.id as usize).map(|(_, data)| data.clone()).unwrap_or_default();
                    for data in [data, Vec::new()] {
                        let _ = out.send(&Packet { kind: packet::DATA, id: next.id, data, ..Packet::default() }).await;
                    }
                }
                packet::FIN => {
                    let _ = out.send(&Packet { kind: packet::FIN, ..Packet::default() }).await;
                    break;
                }
                _ => break,
            }
        }
        end(&mut out, &Ok(()));
    }

    /// Receives these below a new directory.
    fn received(entries: Vec<(Stat, Vec<u8>)>) -> (tempfile::TempDir, Result<Received, Failure>) {
        let home = tempfile::tempdir().expect("a directory");
        let place = home.path().join("place");
        std::fs::create_dir(&place).expect("a directory");
        let root = rustix::fs::open(&place, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("open");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let result = runtime.block_on(async {
            let (ours, theirs) = tokio::net::UnixStream::pair().expect("a pair");
            tokio::spawn(async move {
                let answer = |call: Call| {
                    tokio::spawn(client(call, entries.clone()));
                };
                let _ = serve(Connection::of(theirs), answer).await;
            });
            let (caller, life) = Caller::new(Connection::of(ours)).await.expect("a connection");
            tokio::spawn(life);
            let sessions = Sessions::default();
            let _ = sessions.add("s".to_owned(), caller, [METHOD.to_ascii_lowercase()].into());
            let session = sessions.find("s").await.expect("a session");
            receive(&session, &Wanted::default(), &root, &mut |_| ()).await
        });
        (home, result)
    }

    #[test]
    fn a_directory_comes_whole() {
        let big = vec![7; 3 << 20];
        let mut entries = vec![
            entry("d", 0o750 | DIRECTORY, b""),
            entry("d/f", 0o640 | SETUID, b"hello"),
            link("d/hard", 0o640, "d/f"),
            entry("e", 0o755 | DIRECTORY, b""),
            link("l", 0o777 | SYMLINK, "../outside"),
            entry("pipe", 0o644 | 1 << 25, b""),
            entry("z", 0o600, &big),
        ];
        entries.extend((0..200).map(|number| entry(&format!("zz{number:03}"), 0o644, b"x")));
        let (home, result) = received(entries);
        assert_eq!(result, Ok(Received { files: 203, bytes: 5 + big.len() as u64 + 200 }));
        let place = home.path().join("place");
        use std::os::unix::fs::MetadataExt as _;
        let file = std::fs::metadata(place.join("d/f")).expect("a file");
        assert_eq!((file.mode() & 0o7777, file.mtime(), file.nlink()), (0o4640, 1_700_000_000, 2));
        assert_eq!(std::fs::read(place.join("d/hard")).expect("a link"), b"hello");
        assert_eq!(std::fs::metadata(place.join("d")).expect("a directory").mode() & 0o777, 0o750);
        assert_eq!(std::fs::read_link(place.join("l")).expect("a link"), Path::new("../outside"));
        assert!(!place.join("pipe").exists() && place.join("e").is_dir());
        assert_eq!(std::fs::read(place.join("z")).expect("a file"), big);
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        for entries in [
            vec![entry("../x", 0o644, b"bad")],
            vec![entry("/tmp/x", 0o644, b"bad")],
            vec![link("l", 0o777 | SYMLINK, ".."), entry("l/x", 0o644, b"bad")],
            vec![link("l", 0o777 | SYMLINK, "/tmp"), entry("l/hull-escaped", 0o644, b"bad")],
            vec![link("hard", 0o644, "../../../etc/passwd")],
            vec![link("l", 0o777 | SYMLINK, ".."), link("hard", 0o644, "l/secret")],
            vec![entry("f", 0o644, b"a"), entry("f", 0o644, b"b")],
        ] {
            let (home, _) = received(entries.clone());
            let names: Vec<_> =
                std::fs::read_dir(home.path()).expect("read").flatten().map(|one| one.file_name()).collect();
            assert_eq!(names, ["place"], "{entries:?}");
            assert!(!Path::new("/tmp/hull-escaped").exists());
        }
        let (_, result) = received(vec![entry("f", 0o644, b"a"), entry("f", 0o644, b"b")]);
        assert!(result.is_err());
    }
}
