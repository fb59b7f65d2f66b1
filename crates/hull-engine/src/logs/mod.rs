//! Logs: what a monitor does with its container's output, and what `logs` shows of it.
//!
//! Output is cut into lines ([`Pending`]), each with the time at which it was whole; a line longer than [`MAX_LINE`] is
//! several entries. Times never go back and are never the same twice, so that a time says where in a log a reader is.
//! The drivers `json-file` and `local` write files ([`files`], [`entry`]) that [`read()`] reads without asking the
//! monitor; `journald` and `syslog` send records ([`remote`]). Nothing here ever makes the program wait: what a full disk
//! or a dead socket does not take is lost.

mod entry;
mod files;
mod options;
mod read;
mod remote;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::monitor::protocol;
use crate::records::{Container, now};
use crate::time::SECOND;

pub(crate) use options::{Plan, check};
pub use read::{Options, Take, driver, put, read, show};

use files::Files;
use options::Driver;
use remote::Remote;

/// Bytes of text in one entry.
pub const MAX_LINE: usize = 16 << 10;

/// Name of the log in a container's directory.
pub(crate) const FILE: &str = "container.log";

/// One entry that is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    error: bool,
    /// Nanoseconds since 1970.
    time: u64,
    text: &'a [u8],
    /// It ended with a line feed, which `text` does not have.
    whole: bool,
    /// Nothing of the same line was an entry before.
    first: bool,
}

/// One entry that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `STDOUT` or `STDERR` of the monitor's protocol.
    pub stream: u8,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// What the driver's options added.
    pub attributes: BTreeMap<String, String>,
    /// The text, with its line feed if it had one.
    pub text: Vec<u8>,
}

/// What a stream has written since its last entry.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// It goes on with what is an entry already.
    split: bool,
}

impl Pending {
    /// Adds output, and calls `each` for what is an entry now: text, whether its line ends, whether it begins it.
    fn add(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8], bool, bool)) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.bytes.len();
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let take = end.unwrap_or(bytes.len().min(room));
            if self.bytes.is_empty() && (end.is_some() || take == MAX_LINE) {
                // Most lines come whole.
                each(&bytes[..take], end.is_some(), !self.split);
            } else {
                self.bytes.extend_from_slice(&bytes[..take]);
                if end.is_none() && self.bytes.len() < MAX_LINE {
                    return;
                }
                each(&self.bytes, end.is_some(), !self.split);
                self.bytes.clear();
            }
            self.split = end.is_none();
            bytes = &bytes[take + usize::from(end.is_some())..];
        }
    }

    fn finish(&mut self, each: impl FnOnce(&[u8], bool, bool)) {
        if !self.bytes.is_empty() {
            each(&self.bytes, false, !self.split);
        }
        *self = Self::default();
    }
}

#[derive(Debug)]
enum Sink {
    None,
    Files(Files),
    Remote(Remote),
}

/// The log that a monitor writes.
#[derive(Debug)]
pub(crate) struct Log {
    plan: Plan,
    /// Of json-file, as they are written.
    attributes: Vec<u8>,
    sink: Sink,
    pending: [Pending; 2],
    last: u64,
}

impl Log {
    /// The log in a container's directory. One that cannot be opened loses its output, and the container goes on.
    pub(crate) fn open(directory: &Path, container: &Container) -> Self {
        Self::with(directory, Plan::new(container))
    }

    /// The log that another process image had.
    pub(crate) fn with(directory: &Path, plan: Plan) -> Self {
        let sink = match (plan.driver, &plan.address) {
            (Driver::Json | Driver::Local, _) => Sink::Files(Files::open(directory.join(FILE), &plan)),
            (Driver::Journald | Driver::Syslog, Some(address)) => {
                Sink::Remote(Remote::new(address.clone(), plan.buffer))
            }
            _ => Sink::None,
        };
        let attributes = match plan.attributes.is_empty() {
            true => Vec::new(),
            false => serde_json::to_vec(&plan.attributes).unwrap_or_default(),
        };
        Self { plan, attributes, sink, pending: Default::default(), last: 0 }
    }

    /// For [`Log::with`].
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Adds output of a stream.
    pub(crate) fn add(&mut self, stream: u8, bytes: &[u8]) {
        self.work(stream, Some(bytes));
    }

    /// Writes what has no line feed yet.
    pub(crate) fn finish(&mut self) {
        self.work(protocol::STDOUT, None);
        self.work(protocol::STDERR, None);
        self.tend();
    }

    /// Adds output, or ends it.
    fn work(&mut self, stream: u8, bytes: Option<&[u8]>) {
        if matches!(self.sink, Sink::None) {
            return;
        }
        let error = stream == protocol::STDERR;
        let Self { plan, attributes, sink, pending, last } = self;
        // A file is written in parts of whole entries: a reader meets no other, and no part is much larger than a file.
        let step = usize::try_from(plan.max_size).unwrap_or(usize::MAX).min(MAX_LINE);
        let mut written = Vec::new();
        let each = |text: &[u8], whole: bool, first: bool| {
            *last = following(*last, now());
            let line = Line { error, time: *last, text, whole, first };
            match (plan.driver, &mut *sink) {
                (Driver::Json, _) => entry::json(&mut written, &line, attributes),
                (Driver::Local, _) => entry::local(&mut written, &line),
                (_, Sink::Remote(remote)) => remote.give(remote::record(plan, &line)),
                _ => {}
            }
            if let Sink::Files(files) = sink
                && written.len() >= step
            {
                files.write(&written);
                written.clear();
            }
        };
        let pending = &mut pending[usize::from(error)];
        match bytes {
            Some(bytes) => pending.add(bytes, each),
            None => pending.finish(each),
        }
        if let Sink::Files(files) = sink
            && !written.is_empty()
        {
            files.write(&written);
        }
    }

    /// The socket, while what was written waits for it.
    pub(crate) fn behind(&self) -> Option<BorrowedFd<'_>> {
        match &self.sink {
            Sink::Remote(remote) => remote.behind(),
            _ => None,
        }
    }

    /// Goes on with what runs beside; cheap when there is nothing.
    pub(crate) fn tend(&mut self) {
        match &mut self.sink {
            Sink::Remote(remote) => remote.flush(),
            Sink::Files(files) => files.tend(),
            Sink::None => {}
        }
    }

    /// Whether another process image can go on with it.
    pub(crate) fn is_settled(&self) -> bool {
        match &self.sink {
            Sink::Files(files) => files.is_settled(),
            Sink::Remote(remote) => remote.behind().is_none(),
            Sink::None => true,
        }
    }

    /// What has no line feed yet, by stream, and whether a part of its line is written.
    pub(crate) fn partial(&self) -> BTreeMap<u8, (Vec<u8>, bool)> {
        let streams = [protocol::STDOUT, protocol::STDERR];
        let both = self.pending.iter().map(|pending| (pending.bytes.clone(), pending.split));
        streams.into_iter().zip(both).filter(|(_, (bytes, split))| *split || !bytes.is_empty()).collect()
    }

    /// Goes on after what another process image had.
    pub(crate) fn continue_with(&mut self, partial: BTreeMap<u8, (Vec<u8>, bool)>) {
        for (stream, (bytes, split)) in partial {
            self.pending[usize::from(stream == protocol::STDERR)] = Pending { bytes, split };
        }
    }
}

/// The time of an entry after one of `last`. A clock that was set back far is believed.
fn following(last: u64, now: u64) -> u64 {
    if now <= last && last - now < SECOND { last + 1 } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&[u8]]) -> Vec<(String, bool, bool)> {
        let mut pending = Pending::default();
        let mut found = Vec::new();
        let mut each = |text: &[u8], whole, first| {
            found.push((String::from_utf8_lossy(text).into_owned(), whole, first));
        };
        for part in parts {
            pending.add(part, &mut each);
        }
        pending.finish(each);
        found
    }

    #[test]
    fn lines_are_entries_however_they_arrive() {
        let found = cut(&[b"one\ntw", b"o\n", b"\n", b"th"]);
        let texts: Vec<_> = found.iter().map(|(text, whole, _)| (text.as_str(), *whole)).collect();
        assert_eq!(texts, [("one", true), ("two", true), ("", true), ("th", false)]);
        assert!(found.iter().all(|(.., first)| *first));
    }

    #[test]
    fn long_lines_are_split() {
        for parts in [&[&[b'x'; MAX_LINE + 5][..], b"\nyy\n"][..], &[&[b'x'; 7], &[b'x'; MAX_LINE - 2], b"\nyy\n"]] {
            let found = cut(parts);
            let shape: Vec<_> = found.iter().map(|(text, whole, first)| (text.len(), *whole, *first)).collect();
            assert_eq!(shape, [(MAX_LINE, false, true), (5, true, false), (2, true, true)]);
        }
        // As long as an entry, and then its line feed.
        let shape: Vec<_> =
            cut(&[&[b'x'; MAX_LINE], b"\n"]).iter().map(|(text, whole, _)| (text.len(), *whole)).collect();
        assert_eq!(shape, [(MAX_LINE, false), (0, true)]);
    }

    #[test]
    fn times_only_go_forward() {
        assert_eq!(following(5, 9), 9);
        assert_eq!(following(9, 9), 10);
        assert_eq!(following(9, 5), 10);
        assert_eq!(following(5 * SECOND, SECOND), SECOND);
    }
}
