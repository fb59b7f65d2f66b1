//! One blob on its way: a file that grows, and a reader that follows it.
//!
//! [`Download`] yields the blob from its first byte: what a former attempt left in the file, then what the network
//! brings, which is appended to the file before it is passed on. A broken connection is made anew where the file ends,
//! as long as each attempt brings something. Large blobs come in several ranges at once, still passed on in order.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use hull_fs::lock::Lock;
use hull_oci::image::Descriptor;
use hull_registry::Remote;

use super::{Event, Progress};
use crate::{Error, Store};

/// Attempts in a row that bring nothing.
const ATTEMPTS: u32 = 5;

/// A blob from this length on comes in ranges at once.
const LARGE: u64 = 32 << 20;

/// Bytes of one such range, and how many are on their way at once. Together they are what a download holds in memory.
const RANGE: u64 = 4 << 20;
const AT_ONCE: usize = 4;

/// Bytes after which the disk is told to begin.
const WRITE: u64 = 8 << 20;

/// Bytes between two reports.
const REPORT: u64 = 256 << 10;

/// A blob's place below `partial/`, locked.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    _lock: Lock,
}

impl Partial {
    /// Opens or makes the file, after whoever else fetches the same blob is done.
    pub(super) fn open(store: &Store, blob: &Descriptor) -> Result<Self, Error> {
        let directory = store.root().join("partial");
        crate::disk::create_private(&directory)?;
        let path = directory.join(format!("{}-{}", blob.digest.algorithm().as_str(), blob.digest.hex()));
        loop {
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&path)
                .map_err(Error::io("open", &path))?;
            let lock = Lock::exclusive_on(file.try_clone().map_err(Error::io("open", &path))?.into(), &path)?;
            // The one who had it may have moved it into the store meanwhile.
            if is_at(&file, &path) {
                return Ok(Self { path, file, _lock: lock });
            }
        }
    }

    /// The file, for whoever takes it over.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Throws away what is there: it is not what it should be.
    pub(super) fn discard(self) -> Result<(), Error> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &self.path)(error)),
            _ => Ok(()),
        }
    }

    /// Bytes that have come so far.
    pub(super) fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Reads a blob, from the file first and from the network then.
pub(super) struct Download<'a> {
    remote: &'a Remote,
    blob: &'a Descriptor,
    partial: &'a Partial,
    progress: &'a dyn Progress,
    /// Reads what is there from a former attempt; `None` once that is done.
    old: Option<File>,
    network: Option<Box<dyn Read + Send>>,
    /// Bytes passed on.
    done: u64,
    reported: u64,
    /// Bytes that the disk was told to write.
    begun: u64,
    fruitless: u32,
}

impl<'a> Download<'a> {
    pub(super) fn new(
        remote: &'a Remote,
        blob: &'a Descriptor,
        partial: &'a Partial,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let old = File::open(&partial.path).map_err(Error::io("open", &partial.path))?;
        // More than the whole cannot be a part of it.
        let length = old.metadata().map_err(Error::io("read", &partial.path))?.len();
        if length > blob.size {
            partial.file.set_len(0).map_err(Error::io("truncate", &partial.path))?;
        }
        Ok(Self {
            remote,
            blob,
            partial,
            progress,
            old: Some(old),
            network: None,
            done: 0,
            reported: 0,
            begun: 0,
            fruitless: 0,
        })
    }

    fn report(&mut self) {
        if self.done - self.reported >= REPORT || self.done == self.blob.size {
            self.reported = self.done;
            self.progress.layer(&self.blob.digest, Event::Downloading(self.done, self.blob.size));
        }
    }

    fn connect(&mut self) -> Result<(), hull_registry::Error> {
        let rest = self.blob.size - self.done;
        if rest >= LARGE {
            self.network = Some(Ranges::start(self.remote, self.blob, self.done)?);
            return Ok(());
        }
        let blob = self.remote.blob(self.blob, self.done)?;
        self.network = Some(skip_to(blob, self.done, self.blob, self.remote)?);
        Ok(())
    }

    /// Waits after a failure, or gives up.
    fn failed(&mut self, reason: String) -> io::Result<()> {
        self.network = None;
        self.fruitless += 1;
        if self.fruitless >= ATTEMPTS {
            let kept = self.done;
            let text = format!("{reason}; {kept} of {} bytes are kept for the next attempt", self.blob.size);
            return Err(io::Error::other(text));
        }
        self.progress.layer(&self.blob.digest, Event::Retrying(reason));
        std::thread::sleep(Duration::from_millis(200 << self.fruitless.min(5)));
        Ok(())
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(old) = &mut self.old {
            let count = old.read(buffer)?;
            if count > 0 {
                self.done += count as u64;
                self.report();
                return Ok(count);
            }
            self.old = None;
        }
        while self.done < self.blob.size {
            if self.progress.gone() {
                let (kept, size) = (self.done, self.blob.size);
                return Err(io::Error::other(format!(
                    "whoever asked has gone; {kept} of {size} bytes are kept for the next attempt"
                )));
            }
            let Some(network) = &mut self.network else {
                match self.connect() {
                    Ok(()) => {}
                    Err(error) if error.is_transient() => self.failed(error.to_string())?,
                    Err(error) => return Err(io::Error::other(error)),
                }
                continue;
            };
            let wanted = usize::try_from(self.blob.size - self.done).unwrap_or(usize::MAX).min(buffer.len());
            match network.read(&mut buffer[..wanted]) {
                Ok(0) => self.failed("the connection ended".to_owned())?,
                Ok(count) => {
                    (&self.partial.file).write_all(&buffer[..count])?;
                    if self.done + count as u64 - self.begun >= WRITE {
                        // Only to be early: an error will be one of fdatasync too.
                        let _ = hull_sys::file::start_writing(self.partial.file.as_fd(), self.begun, WRITE);
                        self.begun += WRITE;
                    }
                    self.done += count as u64;
                    self.fruitless = 0;
                    self.report();
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failed(error.to_string())?,
            }
        }
        Ok(0)
    }
}

/// Several ranges of a blob at once, passed on in order.
struct Ranges {
    remote: Remote,
    blob: Descriptor,
    /// One for each range that is on its way, the next one first.
    pieces: VecDeque<mpsc::Receiver<io::Result<Vec<u8>>>>,
    /// Where the range after these begins.
    next: u64,
    current: io::Cursor<Vec<u8>>,
}

impl Ranges {
    /// Begins at an offset. A server that ignores ranges is noticed by its first answer, which is then read alone.
    fn start(remote: &Remote, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, hull_registry::Error> {
        let first = remote.blob_part(blob, offset, Some(RANGE.min(blob.size - offset)))?;
        if first.start != offset {
            return skip_to(first, offset, blob, remote);
        }
        let mut ranges = Self {
            remote: remote.clone(),
            blob: blob.clone(),
            pieces: VecDeque::new(),
            next: offset + RANGE,
            current: io::Cursor::new(Vec::new()),
        };
        for _ in 1..AT_ONCE {
            ranges.ask(Vec::new());
        }
        Ok(Box::new(first.reader.take(RANGE).chain(ranges)))
    }

    /// Sends for the next range, which comes in this buffer: new memory costs as much as reading into it.
    fn ask(&mut self, buffer: Vec<u8>) {
        if self.next >= self.blob.size {
            return;
        }
        let (offset, length) = (self.next, RANGE.min(self.blob.size - self.next));
        self.next += length;
        let (sender, receiver) = mpsc::sync_channel(1);
        let (remote, blob) = (self.remote.clone(), self.blob.clone());
        std::thread::spawn(move || {
            // Whoever waited for it may have gone.
            let _ = sender.send(fetch(&remote, &blob, offset, length, buffer));
        });
        self.pieces.push_back(receiver);
    }
}

fn fetch(remote: &Remote, blob: &Descriptor, offset: u64, length: u64, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let part = remote.blob_part(blob, offset, Some(length)).map_err(io::Error::other)?;
    if part.start != offset {
        return Err(io::Error::other("the registry sent another range than it was asked for"));
    }
    bytes.clear();
    bytes.reserve_exact(usize::try_from(length).unwrap_or_default() + 1);
    part.reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended"));
    }
    Ok(bytes)
}

impl Read for Ranges {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.current.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(piece) = self.pieces.pop_front() else { return Ok(0) };
            let read = std::mem::take(&mut self.current).into_inner();
            self.ask(read);
            let bytes = piece.recv().map_err(|_| io::Error::other("a range was lost"))?;
            self.current = io::Cursor::new(bytes?);
        }
    }
}

/// Reads past what is known, where a server sends everything.
fn skip_to(
    mut from: hull_registry::client::Blob,
    offset: u64,
    blob: &Descriptor,
    remote: &Remote,
) -> Result<Box<dyn Read + Send>, hull_registry::Error> {
    let skip = offset - from.start;
    let skipped = io::copy(&mut from.reader.by_ref().take(skip), &mut io::sink());
    if skipped.as_ref().ok() != Some(&skip) {
        let reason = skipped.err().map_or_else(|| "the connection ended".to_owned(), |error| error.to_string());
        let what = format!("blob {} of {}", blob.digest, remote.name());
        return Err(hull_registry::Error::Interrupted { what, reason });
    }
    Ok(from.reader)
}
