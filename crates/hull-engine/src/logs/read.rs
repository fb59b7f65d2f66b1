//! Reading log files: all of them in order, the last lines, and what is written meanwhile.
//!
//! The files are opened newest first, so that a rotation in between makes a reader meet one twice, which it notices by
//! its inode, but never miss one. While it follows, a reader goes on with the file that it has open to its end, and only
//! then looks whether another one has its name. Where it was is known by the time of the last entry: after a flood that
//! rotated everything away it goes on with what is newer.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hull_fs::lock::Lock;

use super::files::older;
use super::options::Driver;
use super::{Entry, FILE, MAX_LINE, entry};
use crate::changes::Watch;
use crate::error::Error;
use crate::monitor::protocol;
use crate::records::{Container, Engine, Phase, State, Stopping, now};
use crate::time;

/// An entry is never longer: text whose every byte is escaped, and what options added.
const MAX_ENTRY: u64 = 6 * MAX_LINE as u64 + (1 << 20);

/// How long a container may be stopped in the middle of `restart`.
const RESTART: Duration = Duration::from_secs(20);

/// What `logs` shows.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only this many of the last entries at first.
    pub tail: Option<usize>,
    /// Put each entry's time before it.
    pub timestamps: bool,
    /// Put what the driver's options added before it.
    pub details: bool,
    /// Not before this moment, in nanoseconds since 1970.
    pub since: Option<u64>,
    /// Not after this moment.
    pub until: Option<u64>,
    /// Of output.
    pub stdout: bool,
    /// Of error output.
    pub stderr: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            follow: false,
            tail: None,
            timestamps: false,
            details: false,
            since: None,
            until: None,
            stdout: true,
            stderr: true,
        }
    }
}

/// The driver of a container's log, as Docker calls it.
#[must_use]
pub fn driver(container: &Container) -> &'static str {
    Driver::of(&container.config.log).map_or("json-file", Driver::name)
}

/// One file of a log, open.
struct Opened {
    /// Plain or compressed.
    reader: Box<dyn BufRead>,
    /// For what is not compressed.
    file: Option<File>,
    inode: u64,
}

/// Entries of a file, one after the other.
struct Entries {
    local: bool,
    reader: Box<dyn BufRead>,
    /// An entry that is not whole yet.
    begun: Vec<u8>,
    inode: u64,
}

enum Next {
    Entry(Entry),
    /// Something that is none.
    Damage,
    End,
}

impl Entries {
    /// The next whole entry. What is not whole is kept: the rest of it may come.
    fn next(&mut self) -> std::io::Result<Next> {
        if self.local { self.next_local() } else { self.next_json() }
    }

    fn next_json(&mut self) -> std::io::Result<Next> {
        let room = MAX_ENTRY.saturating_sub(self.begun.len() as u64);
        (&mut self.reader).take(room).read_until(b'\n', &mut self.begun)?;
        if self.begun.last() != Some(&b'\n') && (self.begun.len() as u64) < MAX_ENTRY {
            return Ok(Next::End);
        }
        let found = entry::read_json(&self.begun);
        self.begun.clear();
        Ok(found.map_or(Next::Damage, Next::Entry))
    }

    fn fill(&mut self, length: usize) -> std::io::Result<bool> {
        let missing = length.saturating_sub(self.begun.len()) as u64;
        (&mut self.reader).take(missing).read_to_end(&mut self.begun)?;
        Ok(self.begun.len() >= length)
    }

    fn next_local(&mut self) -> std::io::Result<Next> {
        if !self.fill(4)? {
            return Ok(Next::End);
        }
        let length = u32::from_be_bytes([self.begun[0], self.begun[1], self.begun[2], self.begun[3]]);
        if u64::from(length) > MAX_ENTRY {
            // Nothing after it can be found again.
            std::io::copy(&mut self.reader, &mut std::io::sink())?;
            self.begun.clear();
            return Ok(Next::End);
        }
        let length = length as usize;
        if !self.fill(length + 8)? {
            return Ok(Next::End);
        }
        let found = entry::read_local(&self.begun[4..length + 4]);
        self.begun.clear();
        Ok(found.map_or(Next::Damage, Next::Entry))
    }
}

fn open(path: &Path, compressed: bool) -> std::io::Result<Opened> {
    let file = File::open(path)?;
    let inode = file.metadata()?.ino();
    if compressed {
        let reader = BufReader::with_capacity(64 << 10, flate2::read::MultiGzDecoder::new(BufReader::new(file)));
        return Ok(Opened { reader: Box::new(reader), file: None, inode });
    }
    let again = file.try_clone()?;
    Ok(Opened { reader: Box::new(BufReader::with_capacity(64 << 10, file)), file: Some(again), inode })
}

/// All files, oldest first.
fn open_all(path: &Path) -> std::io::Result<Vec<Opened>> {
    let mut list: Vec<Opened> = Vec::new();
    for attempt in 0.. {
        list.clear();
        match open(path, false) {
            Ok(opened) => list.push(opened),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut missing = 0;
        for number in 1.. {
            // It may be compressed just now.
            let found = open(&older(path, number, false), false)
                .or_else(|_| open(&older(path, number, true), true))
                .or_else(|_| open(&older(path, number, false), false));
            let Ok(opened) = found else {
                // A rotation under way leaves one number without a file for a moment, two may leave two.
                missing += 1;
                if missing > 2 {
                    break;
                }
                continue;
            };
            missing = 0;
            if list.iter().all(|one| one.inode != opened.inode) {
                list.push(opened);
            }
        }
        let current = std::fs::metadata(path).map(|meta| meta.ino()).ok();
        if attempt == 10 || current == list.first().map(|opened| opened.inode) {
            break;
        }
    }
    list.reverse();
    Ok(list)
}

/// How many entries a file has, up to `most`, and where they begin.
fn last_entries(file: &File, local: bool, most: usize) -> std::io::Result<(usize, u64)> {
    use std::os::unix::fs::FileExt as _;
    let end = file.metadata()?.len();
    let mut position = end;
    let mut count = 0;
    if local {
        while count < most && position >= 8 {
            let mut length = [0; 4];
            file.read_exact_at(&mut length, position - 4)?;
            let Some(before) = position.checked_sub(u64::from(u32::from_be_bytes(length)) + 8) else { break };
            position = before;
            count += 1;
        }
        return Ok((count, position));
    }
    // Backwards, block by block; the line feed that ends the file begins no entry.
    let mut block = vec![0; 64 << 10];
    let mut start = 0;
    'blocks: while position > 0 {
        let length = position.min(block.len() as u64);
        position -= length;
        let part = &mut block[..usize::try_from(length).unwrap_or(0)];
        file.read_exact_at(part, position)?;
        for (index, byte) in part.iter().enumerate().rev() {
            let at = position + index as u64;
            if *byte == b'\n' && at + 1 < end {
                count += 1;
                if count == most {
                    start = at + 1;
                    break 'blocks;
                }
            }
        }
    }
    if count < most && end > 0 {
        count += 1;
    }
    Ok((count, start))
}

/// Leaves of the files the last entries.
fn cut_to_tail(list: &mut Vec<Opened>, local: bool, tail: usize) -> std::io::Result<()> {
    let mut left = tail;
    let mut kept = Vec::new();
    while let Some(mut opened) = list.pop() {
        if left == 0 && !kept.is_empty() {
            break;
        }
        if let Some(mut file) = opened.file.take() {
            let (count, start) =
                if left == 0 { (0, file.metadata()?.len()) } else { last_entries(&file, local, left)? };
            file.seek(SeekFrom::Start(start))?;
            opened.reader = Box::new(BufReader::with_capacity(64 << 10, file));
            left -= count;
        } else {
            let (count, reader) = last_compressed(opened.reader, local, left)?;
            opened.reader = reader;
            left -= count;
        }
        kept.push(opened);
    }
    kept.reverse();
    *list = kept;
    Ok(())
}

/// The last entries of a file that can only be read forwards, and how many they are.
fn last_compressed(reader: Box<dyn BufRead>, local: bool, most: usize) -> std::io::Result<(usize, Box<dyn BufRead>)> {
    let mut last = VecDeque::new();
    let mut entries = Entries { local, reader, begun: Vec::new(), inode: 0 };
    loop {
        match entries.next() {
            Ok(Next::Entry(entry)) => last.push_back(entry),
            Ok(Next::Damage) => {}
            Ok(Next::End) => break,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        if last.len() > most {
            last.pop_front();
        }
    }
    let count = last.len();
    let mut bytes = Vec::new();
    for Entry { stream, time, attributes, text } in last {
        let whole = text.ends_with(b"\n");
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let line = super::Line { error: stream == protocol::STDERR, time, text, whole, first: true };
        if local {
            entry::local(&mut bytes, &line);
        } else {
            let attributes = if attributes.is_empty() { None } else { serde_json::to_vec(&attributes).ok() };
            entry::json(&mut bytes, &line, &attributes.unwrap_or_default());
        }
    }
    Ok((count, Box::new(std::io::Cursor::new(bytes))))
}

/// Whether more may be written.
fn goes_on(engine: &Engine, container: &Container, stopped: &mut Option<Instant>) -> bool {
    let Ok(state) = engine.state(&container.id) else { return false };
    if matches!(state.phase, Phase::Running | Phase::Restarting) {
        *stopped = None;
        return true;
    }
    // In the middle of `restart`: between its halves the marker is there, and then it holds the container's lock.
    if engine.starting(&container.id) {
        return true;
    }
    let between = engine.stopping(&container.id) == Some(Stopping::Restart)
        && stopped.get_or_insert_with(Instant::now).elapsed() < RESTART;
    let locked = matches!(Lock::try_shared(&engine.directory(&container.id).join("lock")), Ok(None));
    // Asked again: all of that may have passed since the state was read.
    let runs = |state: State| matches!(state.phase, Phase::Running | Phase::Restarting);
    between || locked || engine.state(&container.id).is_ok_and(runs)
}

/// Takes the entries of a log.
pub trait Take {
    /// One entry; `false` when no more are wanted.
    fn entry(&mut self, entry: &Entry) -> bool;

    /// All that is there was given, and the next may be long in coming; `false` when it is not wanted.
    fn idle(&mut self) -> bool;
}

/// Gives the entries of a container's log.
///
/// # Errors
/// When the driver keeps nothing, or the log cannot be read.
pub fn read(engine: &Engine, container: &Container, options: Options, taker: &mut dyn Take) -> Result<(), Error> {
    let driver = Driver::of(&container.config.log).map_err(|reason| Error::flag("--log-driver", reason))?;
    if !matches!(driver, Driver::Json | Driver::Local) {
        return Err(Error::Unreadable);
    }
    let directory = engine.directory(&container.id);
    let path = directory.join(FILE);
    let mut reader = Reader { local: driver == Driver::Local, options, last: 0, taker };
    reader.all(engine, container, &directory, &path).map_err(Error::io("read", &path))
}

struct Reader<'t> {
    local: bool,
    options: Options,
    /// The time of the newest entry that was met.
    last: u64,
    taker: &'t mut dyn Take,
}

impl Reader<'_> {
    fn all(&mut self, engine: &Engine, container: &Container, directory: &Path, path: &Path) -> std::io::Result<()> {
        // The watch is there before anything is read, and the container is asked before that: nothing falls in between.
        let watch = self.options.follow.then(|| Watch::new(directory));
        let mut stopped = None;
        let mut running = self.options.follow && goes_on(engine, container, &mut stopped);
        let mut list = open_all(path)?;
        if let Some(tail) = self.options.tail {
            cut_to_tail(&mut list, self.local, tail)?;
        }
        let mut current = None;
        if !self.drain_all(list, false, &mut current)? {
            return Ok(());
        }
        while running {
            let left = self.options.until.map(|until| Duration::from_nanos(until.saturating_sub(now())));
            if !self.taker.idle() || left == Some(Duration::ZERO) {
                return Ok(());
            }
            if let Some(watch) = &watch {
                watch.wait(left.map(|left| Instant::now() + left + Duration::from_millis(1)));
            }
            running = goes_on(engine, container, &mut stopped);
            let inode = std::fs::metadata(path).map(|meta| meta.ino()).ok();
            // Read after the question: if it was renamed, this is all of it.
            if let Some(entries) = &mut current
                && !self.drain(entries, &mut false)?
            {
                return Ok(());
            }
            let known = current.as_ref().map(|entries| entries.inode);
            if inode.is_none() || inode == known {
                continue;
            }
            let mut list = open_all(path)?;
            let place = list.iter().position(|opened| Some(opened.inode) == known);
            if let Some(place) = place {
                list.drain(..=place);
            }
            // One that is compressed by now has another inode.
            if !self.drain_all(list, place.is_none(), &mut current)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives what several files have; with `skip`, only what is newer than what was met.
    fn drain_all(&mut self, list: Vec<Opened>, mut skip: bool, current: &mut Option<Entries>) -> std::io::Result<bool> {
        for opened in list {
            let mut entries =
                Entries { local: self.local, reader: opened.reader, begun: Vec::new(), inode: opened.inode };
            if !self.drain(&mut entries, &mut skip)? {
                return Ok(false);
            }
            *current = Some(entries);
        }
        Ok(true)
    }

    /// Gives what a file has now; `false` when nothing more is wanted.
    fn drain(&mut self, entries: &mut Entries, skip: &mut bool) -> std::io::Result<bool> {
        loop {
            let entry = match entries.next() {
                Ok(Next::Entry(entry)) => entry,
                // The rest of the log is worth more than an error.
                Ok(Next::Damage) => continue,
                Ok(Next::End) => return Ok(true),
                // A compressed file that was cut off.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(true),
                Err(error) => return Err(error),
            };
            *skip = *skip && entry.time <= self.last;
            if *skip {
                continue;
            }
            self.last = entry.time;
            let Options { since, until, stdout, stderr, .. } = self.options;
            if since.is_some_and(|since| entry.time < since) {
                continue;
            }
            if until.is_some_and(|until| entry.time > until) {
                return Ok(false);
            }
            let wanted = if entry.stream == protocol::STDERR { stderr } else { stdout };
            if wanted && !self.taker.entry(&entry) {
                return Ok(false);
            }
        }
    }
}

/// `a=1,b=2 `: attributes as Docker shows them.
fn details(entry: &Entry) -> String {
    let escape = |text: &str| {
        text.bytes().fold(String::new(), |mut escaped, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
                b' ' => escaped.push('+'),
                _ => escaped.push_str(&format!("%{byte:02X}")),
            }
            escaped
        })
    };
    let pairs: Vec<String> =
        entry.attributes.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    format!("{} ", pairs.join(","))
}

/// Adds an entry as `logs` shows it.
pub fn put(into: &mut Vec<u8>, entry: &Entry, options: Options) {
    if options.timestamps {
        into.extend_from_slice(time::fixed(entry.time).as_bytes());
        into.push(b' ');
    }
    if options.details {
        into.extend_from_slice(details(entry).as_bytes());
    }
    into.extend_from_slice(&entry.text);
}

/// Output and error output of a command.
struct Shown<'a, O, E> {
    options: Options,
    out: &'a mut O,
    err: &'a mut E,
    /// What is waiting is error output.
    error: bool,
    waiting: Vec<u8>,
    failed: Option<std::io::Error>,
}

impl<O: Write, E: Write> Shown<'_, O, E> {
    fn flush(&mut self) -> bool {
        fn write(to: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
            to.write_all(bytes)?;
            to.flush()
        }
        if self.waiting.is_empty() || self.failed.is_some() {
            return self.failed.is_none();
        }
        let written = if self.error { write(self.err, &self.waiting) } else { write(self.out, &self.waiting) };
        self.waiting.clear();
        self.failed = written.err();
        self.failed.is_none()
    }
}

impl<O: Write, E: Write> Take for Shown<'_, O, E> {
    fn entry(&mut self, entry: &Entry) -> bool {
        let error = entry.stream == protocol::STDERR;
        // Both may end in the same terminal or file: their order is the log's.
        let going = if error != self.error || self.waiting.len() > (32 << 10) { self.flush() } else { true };
        self.error = error;
        put(&mut self.waiting, entry, self.options);
        going
    }

    fn idle(&mut self) -> bool {
        self.flush()
    }
}

/// Writes a container's log to these streams.
///
/// # Errors
/// As [`read()`], and when it cannot be written; a reader that has gone away has seen enough.
pub fn show(
    engine: &Engine,
    container: &Container,
    options: Options,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), Error> {
    let mut shown = Shown { options, out, err, error: false, waiting: Vec::new(), failed: None };
    read(engine, container, options, &mut shown)?;
    shown.flush();
    match shown.failed {
        Some(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("write", "output")(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
