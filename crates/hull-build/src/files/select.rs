//! What a `COPY` takes: sources and patterns to exact lists of files, and their digest.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use hull_dockerfile::ignore::{Ignore, Verdict};
use hull_dockerfile::pattern::{Pattern, has_wildcards};
use hull_oci::Digest;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::cursor::Cursor;
use super::error::{Error, absolute};
use super::tree::{FileTree, Handle, Kind, MAX_PATH, Meta, Xattrs, below, components, join};
use crate::graph::CopyAction;

/// Threads that compute digests.
const THREADS: usize = 2;
/// How much is read at once.
const BUFFER: usize = 256 << 10;
/// Files that one thread takes at once.
const BATCH: usize = 16;

/// What one action takes of a tree.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    /// What matched, in the order in which it is copied.
    pub matches: Vec<Match>,
}

/// A source that matched.
#[derive(Clone, Debug)]
pub struct Match {
    /// Its own name, before links were followed.
    pub name: Vec<u8>,
    /// Its path in the tree, without links.
    pub path: Vec<u8>,
    /// What it is.
    pub meta: Meta,
    /// It and what is in it, directories before what is in them.
    pub picks: Vec<Pick>,
}

/// A name that is taken.
#[derive(Clone, Debug)]
pub struct Pick {
    /// Path below the match; empty for itself.
    pub path: Vec<u8>,
    /// What it is.
    pub meta: Meta,
    /// It is not taken itself: it is a directory that something is in which is.
    pub implied: bool,
    /// A symbolic link's text.
    pub target: Vec<u8>,
    /// Attributes that are kept.
    pub xattrs: Xattrs,
    /// The path of the first name of the same file.
    pub first: Option<Vec<u8>>,
    /// The content's digest, once it is known.
    pub digest: Option<[u8; 32]>,
}

impl Match {
    /// The path of a pick in the tree.
    #[must_use]
    pub fn path_of(&self, pick: &Pick) -> Vec<u8> {
        if pick.path.is_empty() { self.path.clone() } else { below(&self.path, &pick.path) }
    }
}

/// Finds what an action takes. Contents are not read.
///
/// # Errors
/// [`Error::Missing`] where something must be there and is not; when the tree cannot be read.
pub fn select(tree: &dyn FileTree, action: &CopyAction) -> Result<Selected, Error> {
    let mut cursor = Cursor::new(tree)?;
    let exclude = patterns(&action.exclude)?;
    let (source, include) = sources(action)?;
    let names = components(source.as_bytes());
    if include.is_some() && !has_wildcards(&action.source) {
        let required = components(action.source.as_bytes());
        let found = cursor.resolve(&required).map_err(Error::at("look up", &join(&required)))?;
        let hidden = found.as_ref().is_some_and(|found| {
            let path = join(&found.path);
            tree.ignored().is_some_and(|ignored| {
                ignored.excludes(&text(&path)) && !(found.meta.is_dir() && may_be_let_in(ignored, &path))
            })
        });
        if found.is_none() || hidden {
            return if action.allow_missing { Ok(Selected::default()) } else { Err(missing(tree, &required, hidden)) };
        }
    }
    let wild = names.iter().position(|name| has_wildcards(&String::from_utf8_lossy(name)));
    let sources = match wild {
        None => vec![names],
        Some(at) => expand(&mut cursor, &names[..at], &names[at..])?,
    };
    let mut selected = Selected::default();
    for names in sources {
        let path = join(&names);
        let found = cursor.resolve(&names).map_err(Error::at("look up", &path))?;
        let Some(found) = found else {
            if action.allow_missing {
                continue;
            }
            return Err(missing(tree, &names, false));
        };
        // What a pattern is looked for in must be a directory.
        if include.is_some() && !found.meta.is_dir() {
            continue;
        }
        let hidden = tree.ignored().is_some_and(|ignored| ignored.excludes(&text(&join(&found.path))));
        let one = Match {
            name: names.last().cloned().unwrap_or_default(),
            path: join(&found.path),
            meta: found.meta,
            picks: Vec::new(),
        };
        let mut walk = Walk { tree, include: include.as_ref(), exclude: &exclude, one, first: HashMap::new() };
        walk.run(&mut cursor, &found.path, hidden)?;
        if walk.one.picks.is_empty() && hidden {
            if action.allow_missing {
                continue;
            }
            return Err(missing(tree, &names, true));
        }
        selected.matches.push(walk.one);
    }
    Ok(selected)
}

fn missing(tree: &dyn FileTree, names: &[Vec<u8>], ignored: bool) -> Error {
    Error::Missing { origin: tree.origin().to_owned(), path: absolute(&join(names)), ignored }
}

/// The directory that is walked, and what is taken of it (`--parents`).
fn sources(action: &CopyAction) -> Result<(String, Option<Pattern>), Error> {
    if !action.parents {
        return Ok((action.source.clone(), None));
    }
    let (directory, pattern) = match action.source.split_once("/./") {
        Some((directory, pattern)) => (directory, pattern),
        None => ("/", action.source.as_str()),
    };
    let pattern = text(&join(&components(pattern.as_bytes()))).into_owned();
    let pattern = Pattern::parse(&pattern).map_err(|error| Error::Refused(error.to_string()))?;
    Ok((directory.to_owned(), Some(pattern)))
}

/// The names that a source with wildcards means, sorted. Links are followed before the first wildcard only.
fn expand(cursor: &mut Cursor<'_>, base: &[Vec<u8>], pattern: &[Vec<u8>]) -> Result<Vec<Vec<Vec<u8>>>, Error> {
    let path = join(base);
    let globs = pattern.iter().map(|name| Pattern::wildcard(&text(name))).collect::<Result<Vec<_>, _>>();
    let globs = globs.map_err(|error| Error::Refused(error.to_string()))?;
    let found = cursor.resolve(base).map_err(Error::at("look up", &path))?;
    let Some(found) = found.filter(|found| found.meta.is_dir()) else {
        return Err(Error::Refused(format!("lstat {}: no such file or directory", absolute(&path))));
    };
    let tree = cursor.tree();
    let mut all = vec![found.path];
    for (at, glob) in globs.iter().enumerate() {
        let last = at + 1 == globs.len();
        let mut next = Vec::new();
        for directory in all {
            let listed = tree.list(cursor.go(&directory).map_err(Error::at("open", &join(&directory)))?);
            for (name, meta) in listed.map_err(Error::at("read directory", &join(&directory)))? {
                if !glob.matches(&text(&name)) || (!last && !meta.is_dir()) {
                    continue;
                }
                let mut path = directory.clone();
                path.push(name);
                let hidden = tree.ignored().is_some_and(|ignored| {
                    let whole = join(&path);
                    ignored.excludes(&text(&whole)) && !(meta.is_dir() && may_be_let_in(ignored, &whole))
                });
                if !hidden {
                    next.push(path);
                }
            }
        }
        all = next;
    }
    Ok(all)
}

struct Walk<'w> {
    tree: &'w dyn FileTree,
    include: Option<&'w Pattern>,
    exclude: &'w Ignore,
    one: Match,
    /// The first name of each file that has several.
    first: HashMap<(u64, u64), Vec<u8>>,
}

/// A directory that is being walked.
struct Frame {
    handle: Handle,
    path: Vec<u8>,
    meta: Meta,
    /// It is among the picks.
    taken: bool,
    names: std::vec::IntoIter<(Vec<u8>, Meta)>,
    state: State,
}

/// What patterns matched so far.
#[derive(Clone, Copy, Default)]
struct State {
    ignored: Verdict,
    excluded: Verdict,
    included: bool,
}

impl Walk<'_> {
    fn run(&mut self, cursor: &mut Cursor<'_>, path: &[Vec<u8>], hidden: bool) -> Result<(), Error> {
        let meta = self.one.meta;
        let Some((name, parent)) = path.split_last().filter(|_| !meta.is_dir()) else {
            return self.directory(cursor, path, hidden);
        };
        if !hidden {
            let tree = self.tree;
            let parent = cursor.go(parent).map_err(Error::at("open", &self.one.path))?;
            self.take(tree, parent, name, Vec::new(), meta)?;
        }
        Ok(())
    }

    fn directory(&mut self, cursor: &mut Cursor<'_>, path: &[Vec<u8>], hidden: bool) -> Result<(), Error> {
        let tree = self.tree;
        let mut state = State::default();
        if let Some(ignored) = tree.ignored() {
            state.ignored = verdict(ignored, path);
            if hidden && ignored.prunes(state.ignored, &text(&join(path))) {
                return Ok(());
            }
        }
        // The cursor keeps its own descriptors.
        let top = match path.split_last() {
            None => tree.root().map(|(handle, _)| handle),
            Some((name, parent)) => cursor.go(parent).and_then(|parent| tree.enter(parent, name)),
        };
        let handle = top.map_err(Error::at("open", &self.one.path))?;
        let names = tree.list(&handle).map_err(Error::at("read directory", &self.one.path))?.into_iter();
        let mut root = Frame { handle, path: Vec::new(), meta: self.one.meta, taken: false, names, state };
        if !hidden {
            self.one.picks.push(pick(Vec::new(), self.one.meta));
            root.taken = true;
        }
        let mut open = vec![root];
        while let Some(frame) = open.last_mut() {
            let Some((name, meta)) = frame.names.next() else {
                open.pop();
                continue;
            };
            let path = below(&frame.path, &name);
            let whole = if self.one.path.is_empty() { path.clone() } else { below(&self.one.path, &path) };
            if whole.len() > MAX_PATH {
                return Err(Error::at("read", &whole)(Errno::NAMETOOLONG));
            }
            let mut state = State { included: true, ..State::default() };
            let (mut take, mut enter) = (true, meta.is_dir());
            if let Some(ignored) = tree.ignored() {
                let whole = text(&whole);
                state.ignored = ignored.verdict(frame.state.ignored, &whole);
                take &= !state.ignored.excluded;
                enter &= !state.ignored.excluded || !ignored.prunes(state.ignored, &whole);
            }
            if !self.exclude.is_empty() {
                let path = text(&path);
                state.excluded = self.exclude.verdict(frame.state.excluded, &path);
                take &= !state.excluded.excluded;
                enter &= !state.excluded.excluded || !self.exclude.prunes(state.excluded, &path);
            }
            if let Some(include) = self.include {
                let path = text(&path);
                state.included = frame.state.included || include.matches(&path);
                take &= state.included;
                enter &= state.included || include.may_match_below(&path);
            }
            if take {
                // Directories that are needed for it alone come first.
                for parent in &mut open {
                    if !parent.taken {
                        parent.taken = true;
                        let implied = Pick { implied: true, ..pick(parent.path.clone(), parent.meta) };
                        self.one.picks.push(implied);
                    }
                }
            }
            let Some(frame) = open.last() else { break };
            if take && !meta.is_dir() {
                self.take(tree, &frame.handle, &name, path, meta)?;
            } else if enter {
                let handle = tree.enter(&frame.handle, &name).map_err(Error::at("open", &whole))?;
                let names = tree.list(&handle).map_err(Error::at("read directory", &whole))?.into_iter();
                if take {
                    self.one.picks.push(pick(path.clone(), meta));
                }
                open.push(Frame { handle, path, meta, taken: take, names, state });
            }
        }
        Ok(())
    }

    /// Takes anything but a directory.
    fn take(
        &mut self,
        tree: &dyn FileTree,
        directory: &Handle,
        name: &[u8],
        path: Vec<u8>,
        meta: Meta,
    ) -> Result<(), Error> {
        let mut pick = pick(path, meta);
        match meta.kind {
            Kind::Symlink => {
                pick.target = tree.read_link(directory, name).map_err(Error::at("read link", &pick.path))?;
            }
            Kind::File => {
                pick.xattrs = tree.xattrs(directory, name).map_err(Error::at("read attributes of", &pick.path))?;
                if meta.shared {
                    match self.first.get(&meta.inode) {
                        Some(first) => pick.first = Some(first.clone()),
                        None => drop(self.first.insert(meta.inode, pick.path.clone())),
                    }
                }
            }
            _ => {}
        }
        self.one.picks.push(pick);
        Ok(())
    }
}

/// Patterns in order, for errors that name the one that is none.
pub(super) fn patterns(patterns: &[String]) -> Result<Ignore, Error> {
    Ignore::new(patterns.iter().map(String::as_str)).map_err(|error| Error::Refused(format!("patterns: {error}")))
}

/// A path as patterns see it.
fn text(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}

/// What the patterns say of a path.
fn verdict(ignored: &Ignore, path: &[Vec<u8>]) -> Verdict {
    let mut verdict = Verdict::default();
    for length in 1..=path.len() {
        verdict = ignored.verdict(verdict, &text(&join(&path[..length])));
    }
    verdict
}

/// Whether something in an ignored directory may not be ignored.
fn may_be_let_in(ignored: &Ignore, path: &[u8]) -> bool {
    !ignored.prunes(verdict(ignored, &components(path)), &text(path))
}

fn pick(path: Vec<u8>, meta: Meta) -> Pick {
    Pick { path, meta, implied: false, target: Vec::new(), xattrs: Vec::new(), first: None, digest: None }
}

impl Selected {
    /// Computes the digests of all contents that are not known yet, on two threads where there is much to do.
    ///
    /// # Errors
    /// When a file cannot be read, or changes meanwhile; [`Error::Canceled`].
    pub(super) fn read_contents(
        &mut self,
        tree: &dyn FileTree,
        canceled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Error> {
        let mut unknown = Vec::new();
        for (at, one) in self.matches.iter_mut().enumerate() {
            for number in 0..one.picks.len() {
                let pick = &mut one.picks[number];
                if pick.meta.kind == Kind::File && pick.digest.is_none() {
                    pick.digest = tree.known_digest(&pick.meta);
                    if pick.digest.is_none() {
                        unknown.push((at, number));
                    }
                }
            }
        }
        let bytes: u64 = unknown.iter().map(|(at, number)| self.matches[*at].picks[*number].meta.size).sum();
        let threads = if unknown.len() < BATCH && bytes < 4 << 20 { 1 } else { THREADS };
        let next = AtomicUsize::new(0);
        let found: Mutex<Vec<(usize, usize, [u8; 32])>> = Mutex::default();
        let failure: Mutex<Option<Error>> = Mutex::default();
        let work = || -> Result<(), Error> {
            let mut cursor = Cursor::new(tree)?;
            let mut buffer = vec![0; BUFFER];
            let mut done = Vec::new();
            loop {
                let start = next.fetch_add(BATCH, Ordering::Relaxed);
                if start >= unknown.len() {
                    break;
                }
                if canceled() {
                    return Err(Error::Canceled);
                }
                for (at, number) in &unknown[start..unknown.len().min(start + BATCH)] {
                    let one = &self.matches[*at];
                    let pick = &one.picks[*number];
                    done.push((*at, *number, digest_of(&mut cursor, &one.path_of(pick), &pick.meta, &mut buffer)?));
                }
            }
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(done);
            Ok(())
        };
        let run = || {
            if let Err(error) = work() {
                next.store(unknown.len(), Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(run);
            }
            run();
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        for (at, number, digest) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.matches[at].picks[number].digest = Some(digest);
        }
        Ok(())
    }

    /// The digest of what is taken: names below each match, types, modes, contents, texts of links, capabilities and
    /// which names are one file; owners where they are the files' own. Contents must have been read.
    #[must_use]
    pub fn digest(&self, owners: bool) -> Digest {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for one in &self.matches {
            field(b"match");
            field(if one.meta.is_dir() { b"" } else { &one.name });
            for pick in &one.picks {
                field(&pick.path);
                let (kind, major, minor) = match pick.meta.kind {
                    Kind::Directory if pick.implied => (b'D', 0, 0),
                    Kind::Directory => (b'd', 0, 0),
                    Kind::File => (b'f', 0, 0),
                    Kind::Symlink => (b'l', 0, 0),
                    Kind::Character(major, minor) => (b'c', major, minor),
                    Kind::Block(major, minor) => (b'b', major, minor),
                    Kind::Fifo => (b'p', 0, 0),
                    Kind::Socket => (b's', 0, 0),
                };
                let owner = if owners { (pick.meta.uid, pick.meta.gid) } else { (0, 0) };
                // A link's mode means nothing.
                let mode = if kind == b'l' { 0o777 } else { u32::from(pick.meta.mode) };
                let mut fixed = vec![kind];
                for number in [mode, major, minor, owner.0, owner.1] {
                    fixed.extend_from_slice(&number.to_le_bytes());
                }
                field(&fixed);
                field(&pick.target);
                field(pick.first.as_deref().unwrap_or_default());
                field(pick.digest.as_ref().map_or(&[], |digest| &digest[..]));
                for (name, value) in &pick.xattrs {
                    field(name);
                    field(value);
                }
            }
        }
        let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Digest::from_hex(&hex).unwrap_or_else(|_| Digest::of(hex.as_bytes()))
    }

    /// Bytes of all files that are taken.
    #[must_use]
    pub fn size(&self) -> u64 {
        let picks = self.matches.iter().flat_map(|one| &one.picks);
        picks.filter(|pick| pick.meta.kind == Kind::File).map(|pick| pick.meta.size).sum()
    }
}

/// Whether a file is still the one that was looked at.
pub(crate) fn unchanged(file: &File, meta: &Meta) -> Result<bool, Errno> {
    let now = Meta::new(&rustix::fs::fstat(file)?);
    Ok((now.inode, now.size, now.mtime, now.ctime) == (meta.inode, meta.size, meta.mtime, meta.ctime))
}

fn digest_of(cursor: &mut Cursor<'_>, path: &[u8], meta: &Meta, buffer: &mut [u8]) -> Result<[u8; 32], Error> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let began = (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0));
    let mut file = match cursor.open(path) {
        Err(Errno::NOENT | Errno::INVAL | Errno::LOOP | Errno::NOTDIR) => return Err(Error::Changed(absolute(path))),
        file => file.map_err(Error::at("open", path))?,
    };
    let same = |file: &File| unchanged(file, meta).map_err(Error::at("stat", path));
    let fixed = !cursor.tree().may_change();
    if !fixed && !same(&file)? {
        return Err(Error::Changed(absolute(path)));
    }
    let mut hasher = Sha256::new();
    let mut size = 0;
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::at("read", path)(error)),
        }
        if size > meta.size {
            break;
        }
    }
    if size != meta.size || (!fixed && !same(&file)?) {
        return Err(Error::Changed(absolute(path)));
    }
    let digest: [u8; 32] = hasher.finalize().into();
    cursor.tree().learn_digest(meta, digest, began);
    Ok(digest)
}

/// The key of what an action takes: everything of it that [`select`] looks at.
#[must_use]
pub(super) fn key(action: &CopyAction) -> Digest {
    let text = format!("{:?}", (&action.source, action.parents, &action.exclude, action.allow_missing));
    Digest::of(text.as_bytes())
}
