//! The stages of an ingest and the threads they run in.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::BorrowedFd;
use std::thread::{self, ScopedJoinHandle};

use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};

use super::queue::{BUFFER, Gone, Pool, Queue, Sender, Shared, queue};
use super::sink::Sink;
use super::{BLOB, Ingested, Options, TAR};
use crate::compression::{Compression, Decoder, PREFIX};
use crate::{Error, Limits};

/// Bytes after which the free space is looked at.
const CHECK: usize = 16 << 20;

/// Why a stage ended early.
enum Stop {
    /// A neighbour ended first, and knows why.
    Neighbour,
    Error(Error),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Neighbour
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

pub(super) fn run<T: Send>(
    input: impl Read,
    directory: BorrowedFd<'_>,
    [blob, data]: [Option<&File>; 2],
    options: &Options,
    limits: &Limits,
    consume: impl FnOnce(&mut Stream<'_>) -> Result<T, Error> + Send,
) -> Result<(Ingested, T), Error> {
    let pool = Pool::default();
    // What is received is looked at before the threads start, so that the decoder is known.
    let mut source = Source { input, ended: false };
    let first = source.next(&pool)?;
    let prefix = first.as_deref().unwrap_or_default();
    let compression = Compression::detect(&prefix[..prefix.len().min(PREFIX)]).ok_or_else(|| Error::Compression {
        format: "unknown",
        reason: "the stream is neither a tar nor compressed with gzip, zstd, xz or bzip2".into(),
    })?;
    let algorithm = |digest: &Option<Digest>| digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    // Without compression both digests are of the same bytes, and one is computed.
    let same = compression == Compression::None && algorithm(&options.blob) == algorithm(&options.diff_id);
    let receive = Receive {
        blob: blob.map(|file| Sink::new(file, BLOB, options.sync)),
        hasher: (!same).then(|| Hasher::new(algorithm(&options.blob))),
        size: options.size,
        // A wrong digest says more than what its bytes look like further on.
        drain: !same && options.blob.is_some() && options.size.is_some(),
    };
    let hasher = Hasher::new(algorithm(&options.diff_id));
    let data = data.map(|file| Sink::new(file, TAR, options.sync));

    let (received, packed) = queue();
    let (to_hash, hashed) = queue();
    let (to_consume, consumed) = queue();
    let (read, decoded, diff_id, output) = thread::scope(|scope| {
        let decoder_pool = pool.clone();
        let decode = scope.spawn(move || decode(compression, packed, [to_hash, to_consume], &decoder_pool, limits));
        let hash = scope.spawn(move || hash(hashed, hasher));
        let consume = scope.spawn(move || Stream::new(consumed, data, Some(directory)).run(consume));
        let read = receive.run(source, first, &pool, received);
        (read, join(decode), join(hash), join(consume))
    });

    // In the order of the stream: what a stage says is about bytes that those before it have passed.
    let read = kept(read)?;
    if let Some((_, Some(digest))) = &read {
        expect("blob", options.blob.as_ref(), digest)?;
    }
    let decoded = kept(decoded)?;
    let output = kept(output)?;
    let (Some((size, digest)), Some(tar_size), Some(output), Some(diff_id)) = (read, decoded, output, kept(diff_id)?)
    else {
        return Err(Error::Read(io::Error::other("a stage ended before the stream")));
    };
    let blob = digest.unwrap_or_else(|| diff_id.clone());
    expect("blob", options.blob.as_ref(), &blob)?;
    expect("layer", options.diff_id.as_ref(), &diff_id)?;
    Ok((Ingested { blob, size, compression, diff_id, tar_size }, output))
}

fn join<T>(handle: ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The stage's own error, or `None` if a neighbour has one.
fn kept<T>(result: Result<T, Stop>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Neighbour) => Ok(None),
        Err(Stop::Error(error)) => Err(error),
    }
}

fn expect(what: &'static str, expected: Option<&Digest>, found: &Digest) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != found => {
            Err(Error::Digest { what, expected: expected.clone(), found: found.clone() })
        }
        _ => Ok(()),
    }
}

/// The input, in buffers.
struct Source<R> {
    input: R,
    ended: bool,
}

impl<R: Read> Source<R> {
    /// A buffer that is full unless the input ends with it.
    fn next(&mut self, pool: &Pool) -> Result<Option<Shared>, Error> {
        let mut buffer = pool.take();
        let mut length = 0;
        while !self.ended && length < BUFFER {
            match self.input.read(&mut buffer[length..]) {
                Ok(0) => self.ended = true,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        Ok((length > 0).then(|| pool.share(buffer, length)))
    }
}

/// The first stage: reads, keeps the bytes as received, and computes their digest.
struct Receive<'a> {
    blob: Option<Sink<'a>>,
    hasher: Option<Hasher>,
    size: Option<u64>,
    /// Read to the end even if nobody wants to decode it.
    drain: bool,
}

impl Receive<'_> {
    fn run(
        mut self,
        mut source: Source<impl Read>,
        first: Option<Shared>,
        pool: &Pool,
        sender: Sender,
    ) -> Result<(u64, Option<Digest>), Stop> {
        let mut sender = Some(sender);
        let (mut size, mut next) = (0, first);
        while let Some(buffer) = next {
            size += buffer.len() as u64;
            if let Some(expected) = self.size.filter(|expected| *expected < size) {
                return Err(wrong_size(&format!("it is longer than the {expected} bytes that were expected")).into());
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer);
            }
            if let Some(blob) = &mut self.blob {
                blob.write(&buffer)?;
            }
            if let Some(open) = &sender
                && let Err(gone) = open.send(buffer)
            {
                if !self.drain {
                    return Err(gone.into());
                }
                sender = None;
            }
            next = source.next(pool)?;
        }
        if let Some(expected) = self.size.filter(|expected| *expected > size) {
            return Err(wrong_size(&format!("it ends after {size} of {expected} bytes")).into());
        }
        if let Some(Err(gone)) = sender.map(Sender::end)
            && !self.drain
        {
            return Err(gone.into());
        }
        Ok((size, self.hasher.map(Hasher::finish)))
    }
}

fn wrong_size(reason: &str) -> Error {
    Error::Read(io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// The second stage: gives the uncompressed archive to the others; its length.
fn decode(
    compression: Compression,
    mut packed: Queue,
    to: [Sender; 2],
    pool: &Pool,
    limits: &Limits,
) -> Result<u64, Stop> {
    let send = |buffer: Shared| to.iter().try_for_each(|sender| sender.send(buffer.clone()));
    let mut size = 0;
    if compression == Compression::None {
        while let Some(buffer) = packed.next()? {
            size += buffer.len() as u64;
            if size > limits.bytes {
                return Err(Error::Limit { what: "bytes", limit: limits.bytes }.into());
            }
            send(buffer)?;
        }
    } else {
        let input = Stream::new(packed, None, None);
        let mut decoder = Decoder::new(compression, input, limits)?;
        loop {
            let mut buffer = pool.take();
            let length = decoder.fill(&mut buffer).map_err(|error| match error {
                // The queue's only error.
                Error::Read(_) => Stop::Neighbour,
                other => Stop::Error(other),
            })?;
            if length == 0 {
                break;
            }
            size += length as u64;
            send(pool.share(buffer, length))?;
        }
    }
    to.into_iter().try_for_each(Sender::end)?;
    Ok(size)
}

/// The third stage: the digest of the uncompressed archive.
fn hash(mut queue: Queue, mut hasher: Hasher) -> Result<Digest, Stop> {
    while let Some(buffer) = queue.next()? {
        hasher.update(&buffer);
    }
    Ok(hasher.finish())
}

/// The uncompressed archive as it passes. It reports the end only if the stream is complete.
#[derive(Debug)]
pub struct Stream<'a> {
    queue: Queue,
    /// Where the archive is kept.
    data: Option<Sink<'a>>,
    /// On the file system that what comes of the archive is on.
    directory: Option<BorrowedFd<'a>>,
    /// Bytes that came since the disk was looked at.
    unchecked: usize,
    current: Option<Shared>,
    /// What of the current buffer was taken.
    at: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    Ended,
    /// An earlier stage ended before the stream.
    Broken,
    /// The archive could not be kept.
    Unwritten(Error),
}

impl<'a> Stream<'a> {
    fn new(queue: Queue, data: Option<Sink<'a>>, directory: Option<BorrowedFd<'a>>) -> Self {
        Self { queue, data, directory, unchecked: 0, current: None, at: 0, state: State::Open }
    }

    /// The fourth stage: lets `consume` read, and reads what it leaves.
    fn run<T>(mut self, consume: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Stop> {
        let mut result = consume(&mut self);
        while result.is_ok() {
            match self.fill_buf().map(<[u8]>::len) {
                Ok(0) => break,
                Ok(length) => self.consume(length),
                Err(error) => result = Err(Error::Read(error)),
            }
        }
        match (result, self.state) {
            (_, State::Unwritten(error)) => Err(error.into()),
            (_, State::Broken) => Err(Stop::Neighbour),
            (result, State::Open | State::Ended) => result.map_err(Stop::Error),
        }
    }

    /// A small stream can expand to anything: it ends before the disk is full.
    fn room(&mut self, length: usize) -> Result<(), Error> {
        self.unchecked += length;
        match self.directory {
            Some(directory) if self.unchecked >= CHECK => {
                self.unchecked = 0;
                super::check_reserve(directory)
            }
            _ => Ok(()),
        }
    }

    fn advance(&mut self) {
        (self.current, self.at) = (None, 0);
        match self.queue.next() {
            Ok(Some(buffer)) => {
                let kept = self.room(buffer.len()).and_then(|()| match &mut self.data {
                    Some(data) => data.write(&buffer),
                    None => Ok(()),
                });
                if let Err(error) = kept {
                    self.state = State::Unwritten(error);
                } else {
                    self.current = Some(buffer);
                }
            }
            Ok(None) => self.state = State::Ended,
            Err(Gone) => self.state = State::Broken,
        }
    }
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let taken = self.current.as_ref().is_none_or(|buffer| self.at >= buffer.len());
        if taken && matches!(self.state, State::Open) {
            self.advance();
        }
        match (&self.state, &self.current) {
            (State::Open, Some(buffer)) => Ok(&buffer[self.at..]),
            (State::Open | State::Ended, _) => Ok(&[]),
            (State::Broken, _) => Err(io::Error::other("the stream broke off")),
            (State::Unwritten(_), _) => Err(io::Error::other("the archive could not be written")),
        }
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}
