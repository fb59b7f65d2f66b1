//! The members of an archive by name, wherever their bytes are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use hull_fs::Root;
use hull_oci::image::MAX_CONFIG_BYTES;
use rustix::fs::OFlags;

use super::names;
use super::resolve::{MAX_DOCUMENTS_BYTES, Members, refuse};
use crate::{Error, Layer};

/// Members of one archive: more is no image. Old archives have four for each layer.
const MAX_MEMBERS: usize = 100_000;

/// Links from link to link.
const MAX_LINKS: usize = 8;

/// What a name of a tar archive stands for.
#[derive(Debug)]
pub(super) enum Member {
    /// Content at a place of the archive's file.
    Data { offset: u64, size: u64 },
    /// A document of a stream, kept.
    Bytes(Vec<u8>),
    /// A layer of a stream, in the store since it passed by.
    Layer { size: u64, layer: Box<Layer> },
    /// What looked like a layer and could not be one; that matters only if an image names it.
    Refused { size: u64, reason: String },
    /// Another name, resolved within the archive.
    Link(String),
}

/// The members of a tar archive.
#[derive(Debug, Default)]
pub(super) struct Table {
    members: BTreeMap<String, Member>,
    /// Bytes of documents, names and links in memory.
    held: u64,
}

impl Table {
    /// Adds a member. A name that comes twice could mean one thing to Hull and another to other readers.
    pub(super) fn add(&mut self, name: String, member: Member) -> Result<(), Error> {
        self.held += match &member {
            Member::Bytes(text) => text.len() as u64,
            Member::Link(text) | Member::Refused { reason: text, .. } => text.len() as u64,
            Member::Data { .. } | Member::Layer { .. } => 0,
        };
        self.held += name.len() as u64;
        if self.members.len() == MAX_MEMBERS || self.held > MAX_DOCUMENTS_BYTES {
            return Err(refuse(format!(
                "it has more than {MAX_MEMBERS} members, or names and documents of more than {MAX_DOCUMENTS_BYTES} bytes"
            )));
        }
        if self.members.contains_key(&name) {
            return Err(refuse(format!("it has two members named {name:?}")));
        }
        self.members.insert(name, member);
        Ok(())
    }

    /// Finds a member, following links.
    pub(super) fn get(&self, name: &str) -> Result<Option<&Member>, Error> {
        let mut name = name;
        for _ in 0..MAX_LINKS {
            match self.members.get(name) {
                Some(Member::Link(target)) => name = target,
                other => return Ok(other),
            }
        }
        Err(refuse(format!("{name:?} is a link to a link more than {MAX_LINKS} times")))
    }
}

/// An archive that can be asked for its members.
#[derive(Debug)]
pub(super) enum Archive {
    /// An uncompressed tar archive that is a file: members are read from their places.
    File(File, Table),
    /// A stream that has passed by.
    Stream(Table),
    /// A directory.
    Directory(Root),
}

impl Archive {
    /// Opens a layer for reading. A stream's layers have been read already.
    pub(super) fn open(&self, name: &str) -> Result<Box<dyn Read + Send + '_>, Error> {
        let missing = || refuse(format!("{name} is missing"));
        match self {
            Self::File(file, table) => match table.get(name)?.ok_or_else(missing)? {
                Member::Data { offset, size } => Ok(Box::new(Range { file, at: *offset, end: offset + size })),
                Member::Refused { reason, .. } => Err(refuse(format!("{name}: {reason}"))),
                _ => Err(missing()),
            },
            Self::Stream(table) => match table.get(name)?.ok_or_else(missing)? {
                Member::Bytes(bytes) => Ok(Box::new(bytes.as_slice())),
                Member::Refused { reason, .. } => Err(refuse(format!("{name}: {reason}"))),
                _ => Err(missing()),
            },
            Self::Directory(root) => Ok(Box::new(regular(root, name)?.ok_or_else(missing)?.0)),
        }
    }

    /// The layer that a stream's member has become.
    pub(super) fn layer(&self, name: &str) -> Result<Option<&Layer>, Error> {
        match self {
            Self::Stream(table) => match table.get(name)? {
                Some(Member::Layer { layer, .. }) => Ok(Some(layer)),
                _ => Ok(None),
            },
            Self::File(..) | Self::Directory(_) => Ok(None),
        }
    }
}

/// Opens a regular file of a directory; links lead nowhere but inside it.
fn regular(root: &Root, name: &str) -> Result<Option<(File, u64)>, Error> {
    // O_NONBLOCK so that a FIFO cannot hang the reader.
    let file = match root.open_file(Path::new(name), OFlags::RDONLY | OFlags::NONBLOCK) {
        Err(error) if error.is_not_found() => return Ok(None),
        file => File::from(file?),
    };
    let metadata = file.metadata().map_err(Error::io("stat", name))?;
    if !metadata.is_file() {
        return Err(refuse(format!("{name} is not a regular file")));
    }
    Ok(Some((file, metadata.len())))
}

impl Members for Archive {
    fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        let table = match self {
            Self::File(_, table) | Self::Stream(table) => table,
            Self::Directory(root) => return Ok(regular(root, name)?.map(|(_, size)| size)),
        };
        Ok(table.get(name)?.map(|member| match member {
            Member::Data { size, .. } | Member::Layer { size, .. } | Member::Refused { size, .. } => *size,
            Member::Bytes(bytes) => bytes.len() as u64,
            Member::Link(_) => 0,
        }))
    }

    fn document(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(size) = self.size(name)? else { return Ok(None) };
        let max = max.min(MAX_CONFIG_BYTES);
        if size > max {
            return Err(refuse(format!("{name} has {size} bytes, more than the {max} that are read")));
        }
        let mut bytes = Vec::new();
        self.open(name)?.take(max).read_to_end(&mut bytes).map_err(Error::io("read", name))?;
        Ok(Some(bytes))
    }
}

/// A part of a file; several threads read theirs at once.
struct Range<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..left], self.at)?;
        if length == 0 && left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += length as u64;
        Ok(length)
    }
}

/// Reads the headers of an archive that is a file: content is passed over without being read.
#[derive(Debug)]
pub(super) struct Skimming<'f> {
    file: &'f File,
    at: u64,
    length: u64,
    /// What lies before this is not wanted.
    wanted: u64,
}

impl<'f> Skimming<'f> {
    pub(super) fn new(file: &'f File, length: u64) -> Self {
        Self { file, at: 0, length, wanted: 0 }
    }

    /// Nothing before this offset is looked at.
    pub(super) fn pass(&mut self, offset: u64) {
        self.wanted = offset.min(self.length);
    }
}

impl Read for Skimming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = if self.at < self.wanted {
            usize::try_from(self.wanted - self.at).unwrap_or(usize::MAX).min(buffer.len())
        } else {
            self.file.read_at(buffer, self.at)?
        };
        self.at += length as u64;
        Ok(length)
    }
}

/// The name that a link of a tar archive leads to.
pub(super) fn link(at: &str, target: &[u8], symbolic: bool) -> Member {
    let text = std::str::from_utf8(target).ok();
    let found = text.and_then(|text| if symbolic { names::follow(at, text) } else { names::clean(text) });
    // Archives of other things have such links, and are to be called what they are.
    found
        .map_or_else(|| Member::Refused { size: 0, reason: "it is a link out of the archive".to_owned() }, Member::Link)
}
