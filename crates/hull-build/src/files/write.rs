//! Changes onto a base as a layer: a tar that is written while the store takes it in.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use hull_image::{Layer, LayerSource, Transfer};
use hull_layer::tar::{self, EntryKind, Writer, WriterOptions};
use hull_layer::tree::Extent;
use rustix::io::Errno;

use super::cursor::Cursor;
use super::error::{Error, absolute};
use super::onto::{Attributes, Content, Directory, Entry, Onto, Other, What};
use super::select::unchanged;
use super::tree::{FileTree, Meta, below};

/// What passes from the writer to the store at once, and how many of them may wait.
const CHUNK: usize = 256 << 10;
const WAITING: usize = 4;

/// Writes the layer; `trees` are those of the actions. `None` when nothing changes.
///
/// # Errors
/// When a file cannot be read or is not what was selected any more; when the store cannot take the layer in.
pub(super) fn layer(
    onto: &Onto<'_>,
    trees: &[Option<&dyn FileTree>],
    epoch: Option<i64>,
    transfer: &Transfer,
    canceled: &(dyn Fn() -> bool + Sync),
) -> Result<Option<Layer>, Error> {
    if !onto.root.is_needed() {
        return Ok(None);
    }
    stream(transfer, epoch, |writer| write(&onto.root, trees, writer, canceled)).map(Some)
}

/// A layer from whatever `write` writes.
///
/// # Errors
/// Those of `write`, and of the store.
pub(super) fn stream(
    transfer: &Transfer,
    epoch: Option<i64>,
    write: impl FnOnce(&mut Writer<Output>) -> Result<(), Error> + Send,
) -> Result<Layer, Error> {
    let (sender, receiver) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let output = Output { sender, chunk: Vec::with_capacity(CHUNK), lost: false };
            let options = WriterOptions { clamp_mtime: epoch, whole_seconds: true };
            let mut writer = Writer::with_options(output, options);
            write(&mut writer)?;
            let output = writer.finish().map_err(Error::io("write", "layer"))?;
            output.end().map_err(Error::io("write", "layer"))
        });
        let input = Input { receiver, chunk: Vec::new(), at: 0, ended: false };
        let taken = transfer.layer(input, LayerSource::default());
        match (writing.join(), taken) {
            (Ok(Ok(())), taken) => Ok(taken?),
            (Ok(Err(error)), Err(refused)) if is_lost(&error) => Err(refused.into()),
            (Ok(Err(error)), _) => Err(error),
            (Err(panic), _) => std::panic::resume_unwind(panic),
        }
    })
}

fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}

/// The writer's end; without [`Output::end`] the reader fails.
#[derive(Debug)]
pub(super) struct Output {
    sender: SyncSender<Option<Vec<u8>>>,
    chunk: Vec<u8>,
    lost: bool,
}

impl Output {
    fn pass(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        if chunk.is_empty() {
            return Ok(());
        }
        self.sender.send(Some(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    fn end(mut self) -> io::Result<()> {
        self.pass()?;
        self.sender.send(None).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lost {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK {
            self.pass().inspect_err(|_| self.lost = true)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The store's end.
#[derive(Debug)]
struct Input {
    receiver: Receiver<Option<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() && !self.ended {
            match self.receiver.recv() {
                Ok(Some(chunk)) => (self.chunk, self.at) = (chunk, 0),
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the layer was not finished")),
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Where entries go.
pub(super) trait Sink {
    /// Takes the next one.
    ///
    /// # Errors
    /// When it cannot be written, or its content not be read.
    fn append(&mut self, entry: &tar::Entry, content: &mut dyn Read) -> Result<(), Error>;
}

impl<W: Write> Sink for Writer<W> {
    fn append(&mut self, entry: &tar::Entry, content: &mut dyn Read) -> Result<(), Error> {
        Self::append(self, entry, content).map(drop).map_err(Error::at("write to the layer", &entry.path))
    }
}

/// Writes directories before what is in them, otherwise sorted.
pub(super) fn write(
    root: &Directory,
    trees: &[Option<&dyn FileTree>],
    writer: &mut dyn Sink,
    canceled: &(dyn Fn() -> bool + Sync),
) -> Result<(), Error> {
    let mut cursors: Vec<Option<Cursor<'_>>> = Vec::new();
    for tree in trees {
        cursors.push(tree.map(Cursor::new).transpose()?);
    }
    let mut names: HashMap<u64, Vec<u8>> = HashMap::new();
    // A stack of our own: directories may be nested deeply.
    let mut open = vec![(Vec::new(), root.children.iter())];
    while let Some((path, children)) = open.last_mut() {
        let Some((name, child)) = children.next() else {
            open.pop();
            continue;
        };
        let path = below(path, name);
        match child {
            Entry::Directory(directory) => {
                if directory.is_needed() {
                    append(writer, &path, EntryKind::Directory, &directory.attributes, io::empty())?;
                    open.push((path, directory.children.iter()));
                }
            }
            Entry::Other(other) => {
                if canceled() {
                    return Err(Error::Canceled);
                }
                one(writer, path, other, &mut cursors, &mut names)?;
            }
        }
    }
    Ok(())
}

fn one(
    writer: &mut dyn Sink,
    path: Vec<u8>,
    other: &Other,
    cursors: &mut [Option<Cursor<'_>>],
    names: &mut HashMap<u64, Vec<u8>>,
) -> Result<(), Error> {
    if let Some(number) = other.file {
        if let Some(first) = names.get(&number) {
            let bare = Attributes { xattrs: Vec::new(), ..other.attributes.clone() };
            return append(writer, &path, EntryKind::HardLink(first.clone()), &bare, io::empty());
        }
        names.insert(number, path.clone());
    }
    let kind = match &other.what {
        What::File { size, content } => return file(writer, &path, *size, content, &other.attributes, cursors),
        What::Symlink(target) => EntryKind::Symlink(target.clone()),
        What::Character(major, minor) => EntryKind::Character(*major, *minor),
        What::Block(major, minor) => EntryKind::Block(*major, *minor),
        What::Fifo => EntryKind::Fifo,
    };
    append(writer, &path, kind, &other.attributes, io::empty())
}

fn file(
    writer: &mut dyn Sink,
    path: &[u8],
    size: u64,
    content: &Content,
    attributes: &Attributes,
    cursors: &mut [Option<Cursor<'_>>],
) -> Result<(), Error> {
    let kind = EntryKind::File { size, extents: Vec::new() };
    match content {
        Content::Bytes(bytes) => append(writer, path, kind, attributes, &bytes[..]),
        Content::Archive { file, extents } => {
            append(writer, path, kind, attributes, Extents { file, extents, offset: 0, size })
        }
        Content::Tree { action, path: from, meta } => {
            let Some(cursor) = cursors.get_mut(*action).and_then(Option::as_mut) else {
                return Err(Error::Changed(absolute(from)));
            };
            let fixed = !cursor.tree().may_change();
            let opened = match cursor.open(from) {
                Err(Errno::NOENT | Errno::INVAL | Errno::LOOP | Errno::NOTDIR) => {
                    return Err(Error::Changed(absolute(from)));
                }
                opened => opened.map_err(Error::at("open", from))?,
            };
            let same = |meta: &Meta| unchanged(&opened, meta).map_err(Error::at("stat", from));
            if !fixed && !same(meta)? {
                return Err(Error::Changed(absolute(from)));
            }
            append(writer, path, kind, attributes, &opened)?;
            if fixed || same(meta)? { Ok(()) } else { Err(Error::Changed(absolute(from))) }
        }
    }
}

fn append(
    writer: &mut dyn Sink,
    path: &[u8],
    kind: EntryKind,
    attributes: &Attributes,
    mut content: impl Read,
) -> Result<(), Error> {
    let boxed =
        |(name, value): &(Vec<u8>, Vec<u8>)| (name.clone().into_boxed_slice(), value.clone().into_boxed_slice());
    let entry = tar::Entry {
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: attributes.mtime.0,
        mtime_nsec: attributes.mtime.1,
        xattrs: attributes.xattrs.iter().map(boxed).collect(),
        ..tar::Entry::new(path, kind, attributes.mode)
    };
    writer.append(&entry, &mut content)
}

/// A file's content within a tar, with zeros where it has holes.
struct Extents<'e> {
    file: &'e File,
    extents: &'e [Extent],
    offset: u64,
    size: u64,
}

impl Read for Extents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let left = length(self.size - self.offset).min(buffer.len());
        if left == 0 {
            return Ok(0);
        }
        while self.extents.first().is_some_and(|extent| extent.offset + extent.length <= self.offset) {
            self.extents = &self.extents[1..];
        }
        let count = match self.extents.first() {
            Some(extent) if extent.offset <= self.offset => {
                let within = self.offset - extent.offset;
                let count = left.min(length(extent.length - within));
                self.file.read_exact_at(&mut buffer[..count], extent.tar + within)?;
                count
            }
            next => {
                let hole = next.map_or(left, |extent| left.min(length(extent.offset - self.offset)));
                buffer[..hole].fill(0);
                hole
            }
        };
        self.offset += count as u64;
        Ok(count)
    }
}
