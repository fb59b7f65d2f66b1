//! The reader: one pass, no seeking, every byte accounted for.

use std::io::{self, Read};

use super::header::{self, BLOCK, Dialect, Header};
use super::pax::{self, Records};
use super::stream::Stream;
use super::{Entry, EntryKind, name, sparse};
use crate::tree::{Extent, Xattrs};
use crate::{Error, Limits};

/// Reads an uncompressed archive entry by entry.
///
/// The content of the entry returned last can be read from the reader itself ([`Read`]: what is stored, the entry's
/// extents one after the other) or through [`Reader::content`] (with holes); what is not read is skipped. At the end of
/// the archive the input is read to its end, since a layer's diff ID is over all of its bytes.
#[derive(Debug)]
pub struct Reader<R> {
    stream: Stream<R>,
    limits: Limits,
    end_required: bool,
    state: State,
    /// Headers of any kind so far.
    headers: u64,
    /// The lengths of all files, holes included.
    sizes: u64,
    global: Records,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Refused,
}

/// Extended headers that wait for their entry.
#[derive(Debug, Default)]
struct Pending {
    records: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// A reader of `input`, which need not be buffered.
    pub fn new(input: R, limits: Limits) -> Self {
        Self {
            stream: Stream::new(input, limits.bytes),
            limits,
            end_required: true,
            state: State::Reading,
            headers: 0,
            sizes: 0,
            global: Records::default(),
        }
    }

    /// Accepts an archive without the zero block that ends it, as Docker does. Only for input whose digest is verified:
    /// such an archive cannot be told from a truncated one.
    #[must_use]
    pub fn end_optional(mut self) -> Self {
        self.end_required = false;
        self
    }

    /// Bytes of the archive consumed so far; after the last entry, its length.
    pub fn position(&self) -> u64 {
        self.stream.position()
    }

    /// The input. Reading from it loses the reader's place.
    pub fn get_mut(&mut self) -> &mut R {
        self.stream.get_mut()
    }

    /// The next entry, or `None` at the end of the archive. After an error every further call fails.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not be read from between its items")]
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        match self.state {
            State::Reading => {}
            State::Ended => return Ok(None),
            State::Refused => return Err(Error::archive(self.stream.position(), "the archive was refused before")),
        }
        let found = self.advance();
        match &found {
            Ok(Some(_)) => {}
            Ok(None) => self.state = State::Ended,
            Err(_) => self.state = State::Refused,
        }
        found
    }

    /// The content of the entry that [`Reader::next`] returned last, with zeros where it has holes. Read it from its
    /// beginning: nothing of it may have been read before.
    pub fn content<'r>(&'r mut self, entry: &'r Entry) -> Content<'r, R> {
        let (size, extents) = match &entry.kind {
            EntryKind::File { size, extents } => (*size, extents.as_slice()),
            _ => (0, &[][..]),
        };
        Content { reader: self, extents, offset: 0, size }
    }

    fn advance(&mut self) -> Result<Option<Entry>, Error> {
        self.stream.skip_content()?;
        let mut pending = Pending::default();
        let mut start = None;
        loop {
            let at = self.stream.position();
            let Some(block) = self.stream.block()? else {
                if self.end_required {
                    return Err(Error::archive(at, "the archive ends without an end marker: it is truncated"));
                }
                return self.end(at, start);
            };
            if block == [0; BLOCK] {
                match self.stream.block()? {
                    Some(block) if block != [0; BLOCK] => {
                        return Err(Error::archive(at, "a single zero block lies between two entries"));
                    }
                    _ => return self.end(at, start),
                }
            }
            self.headers += 1;
            if self.headers > self.limits.entries {
                return Err(Error::Limit { what: "entries", limit: self.limits.entries });
            }
            let refuse = |reason| Error::Archive { offset: at, reason };
            let header = Header::new(&block).map_err(refuse)?;
            match header.kind() {
                b'x' | b'X' => {
                    let text = self.extension(at, header)?;
                    let mut records = Records::default();
                    records.parse(&text, false).map_err(refuse)?;
                    if pending.records.replace(records).is_some() {
                        return Err(Error::archive(at, "one entry has two extended headers"));
                    }
                }
                b'g' => {
                    let text = self.extension(at, header)?;
                    self.global.parse(&text, true).map_err(refuse)?;
                    // It belongs to no entry.
                    continue;
                }
                kind @ (b'L' | b'K') => {
                    let mut text = self.extension(at, header)?;
                    text.truncate(header::cut(&text).len());
                    let slot = if kind == b'L' { &mut pending.name } else { &mut pending.link };
                    if slot.replace(text).is_some() {
                        return Err(Error::archive(at, "one entry has two long names"));
                    }
                }
                b'V' => {
                    if start.is_some() {
                        return Err(Error::archive(at, "an extended header stands before a volume label"));
                    }
                    self.stream.begin_content(header.size().map_err(refuse)?)?;
                    self.stream.skip_content()?;
                    continue;
                }
                _ => return self.entry(start.unwrap_or(at), at, header, pending).map(Some),
            }
            start.get_or_insert(at);
        }
    }

    /// Reads what follows the end marker.
    fn end(&mut self, at: u64, start: Option<u64>) -> Result<Option<Entry>, Error> {
        if start.is_some() {
            return Err(Error::archive(at, "the archive ends after an extended header"));
        }
        self.stream.skip_all()?;
        Ok(None)
    }

    /// The body of an extended header. Its size is in its own header, whatever PAX records wait for their entry.
    fn extension(&mut self, at: u64, header: Header<'_>) -> Result<Vec<u8>, Error> {
        let size = header.size().map_err(|reason| Error::archive(at, reason))?;
        if size > self.limits.header {
            return Err(Error::Limit { what: "bytes in an extended header", limit: self.limits.header });
        }
        let mut body = Vec::new();
        self.stream.begin_content(size)?;
        self.stream.take_content(&mut body, size)?;
        self.stream.skip_content()?;
        Ok(body)
    }

    fn entry(&mut self, start: u64, at: u64, header: Header<'_>, pending: Pending) -> Result<Entry, Error> {
        let refuse = |reason: String| Error::Archive { offset: at, reason };
        let mut records = pending.records.unwrap_or_default();
        let size = match records.size {
            Some(size) => size,
            None => header.size().map_err(refuse)?,
        };
        let title = one("names", pending.name, records.sparse.name.take().or(records.path.take())).map_err(refuse)?;
        let title = title.unwrap_or_else(|| header.name());
        let link = one("link targets", pending.link, records.link.take()).map_err(refuse)?;
        let link = || link.unwrap_or_else(|| header.link().to_vec());
        let path = name::clean(&title).map_err(refuse)?;
        let slash = title.ends_with(b"/");

        let plain = matches!(header.kind(), b'0' | 0 | b'7');
        if records.sparse.present && !plain {
            return Err(refuse(format!("`{}` has a sparse map but is no file", name::text(&path))));
        }
        let mut stored = 0;
        let kind = match header.kind() {
            // The oldest writers mark a directory by a slash only.
            b'0' | 0 | b'7' if slash => EntryKind::Directory,
            b'0' | 0 | b'7' => {
                stored = size;
                EntryKind::File { size, extents: Vec::new() }
            }
            b'S' => {
                stored = size;
                EntryKind::File { size, extents: Vec::new() }
            }
            b'1' => {
                let target = name::clean(&link()).map_err(refuse)?;
                if target.is_empty() {
                    return Err(refuse(format!("`{}` is a hard link to the root directory", name::text(&path))));
                }
                EntryKind::HardLink(target)
            }
            b'2' => {
                let target = link();
                name::symlink(&target).map_err(refuse)?;
                EntryKind::Symlink(target)
            }
            b'3' => header.device().map(|(major, minor)| EntryKind::Character(major, minor)).map_err(refuse)?,
            b'4' => header.device().map(|(major, minor)| EntryKind::Block(major, minor)).map_err(refuse)?,
            b'5' => EntryKind::Directory,
            // A list of the directory's names for incremental backups.
            b'D' => {
                stored = size;
                EntryKind::Directory
            }
            b'6' => EntryKind::Fifo,
            b'M' => return Err(refuse("the archive is a part of several".to_owned())),
            other => {
                let kind = other.escape_ascii();
                return Err(refuse(format!("`{}` is of unknown type `{kind}`", name::text(&path))));
            }
        };
        if stored != size {
            // Readers disagree whether such content is there.
            return Err(refuse(format!("`{}` has content but is no file", name::text(&path))));
        }
        let (mtime, mtime_nsec) = match records.mtime.or(self.global.mtime) {
            Some(time) => time,
            None => (header.mtime().map_err(refuse)?, 0),
        };
        let uid = id("user ID", records.uid.or(self.global.uid), || header.uid()).map_err(refuse)?;
        let gid = id("group ID", records.gid.or(self.global.gid), || header.gid()).map_err(refuse)?;
        let mode = header.mode().map_err(refuse)?;
        let mut xattrs = std::mem::take(&mut records.xattrs);
        unique(&mut xattrs);
        self.check_xattrs(at, &xattrs)?;

        let kind = match kind {
            EntryKind::File { .. } => self.file(at, header, stored, &records.sparse)?,
            other => {
                self.stream.begin_content(stored)?;
                other
            }
        };
        Ok(Entry { offset: start, path, kind, mode, uid, gid, mtime, mtime_nsec, xattrs })
    }

    /// Size and extents of a file whose stored bytes are next, after a map that may precede them.
    fn file(&mut self, at: u64, header: Header<'_>, stored: u64, records: &pax::Sparse) -> Result<EntryKind, Error> {
        let refuse = |reason: &str| Error::archive(at, reason);
        self.stream.begin_content(stored)?;
        let (size, map) = if header.kind() == b'S' {
            if header.dialect() != Dialect::Gnu {
                return Err(refuse("a sparse file of an unknown kind"));
            }
            let (mut map, mut more, size) = header.sparse().map_err(|reason| Error::archive(at, reason))?;
            let mut blocks = 0;
            while more {
                blocks += BLOCK as u64;
                if blocks > self.limits.header {
                    return Err(Error::Limit { what: "bytes in an extended header", limit: self.limits.header });
                }
                let block = self.stream.block()?.ok_or_else(|| self.stream.truncated())?;
                more = header::sparse_continuation(&block, &mut map).map_err(|reason| Error::archive(at, reason))?;
            }
            (size, map)
        } else if records.present {
            let size = records.size.ok_or_else(|| refuse("a sparse file without its size"))?;
            let map = match (records.major, records.minor, &records.map) {
                (Some(1), Some(0), None) => self.leading_map(at)?,
                (None | Some(0), _, Some(map)) => map.clone(),
                _ => return Err(refuse("a sparse file without a map, or of an unknown version")),
            };
            (size, map)
        } else {
            let extent = Extent { offset: 0, tar: self.stream.position(), length: stored };
            self.add_size(stored)?;
            return Ok(EntryKind::File { size: stored, extents: if stored == 0 { Vec::new() } else { vec![extent] } });
        };
        self.add_size(size)?;
        let extents = sparse::extents(&map, size, self.stream.position(), self.stream.left());
        Ok(EntryKind::File { size, extents: extents.map_err(|reason| Error::archive(at, reason))? })
    }

    /// The map of a sparse file of version 1.0: numbers in lines, padded to a block, before the content.
    fn leading_map(&mut self, at: u64) -> Result<Vec<(u64, u64)>, Error> {
        let refuse = |reason| Error::archive(at, reason);
        let mut text: Vec<u8> = Vec::new();
        let mut read = 0_usize;
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = 1_u64;
        while (numbers.len() as u64) < wanted {
            let Some(length) = text[read..].iter().position(|byte| *byte == b'\n') else {
                if text.len() - read > 20 {
                    return Err(refuse("the map of a sparse file is malformed"));
                }
                if text.len() as u64 >= self.limits.header {
                    return Err(Error::Limit { what: "bytes in the map of a sparse file", limit: self.limits.header });
                }
                if self.stream.left() < BLOCK as u64 {
                    return Err(refuse("the map of a sparse file is longer than its content"));
                }
                self.stream.take_content(&mut text, BLOCK as u64)?;
                continue;
            };
            let number = pax::digits(&text[read..read + length]);
            let number = number.ok_or_else(|| refuse("the map of a sparse file is malformed"))?;
            if numbers.is_empty() {
                wanted = number.checked_mul(2).and_then(|count| count.checked_add(1)).unwrap_or(u64::MAX);
            }
            numbers.push(number);
            read += length + 1;
        }
        Ok(numbers[1..].as_chunks::<2>().0.iter().map(|[offset, length]| (*offset, *length)).collect())
    }

    fn check_xattrs(&self, at: u64, xattrs: &Xattrs) -> Result<(), Error> {
        let bytes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes as u64 > self.limits.xattrs {
            let limit = self.limits.xattrs;
            return Err(Error::archive(
                at,
                format!("the extended attributes of an entry have more than {limit} bytes"),
            ));
        }
        Ok(())
    }

    /// Counts a file's length, so that holes cannot make more of an archive than its bytes may.
    fn add_size(&mut self, size: u64) -> Result<(), Error> {
        self.sizes = self.sizes.saturating_add(size);
        if self.sizes > self.limits.bytes {
            return Err(self.stream.too_long());
        }
        Ok(())
    }
}

/// What is stored of the current entry: the extents of a file one after the other.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read_content(buffer)
    }
}

/// A file's content with its holes; made by [`Reader::content`].
#[derive(Debug)]
pub struct Content<'r, R> {
    reader: &'r mut Reader<R>,
    /// What has not been read to its end.
    extents: &'r [Extent],
    offset: u64,
    size: u64,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let within = |end: u64| buffer.len().min(usize::try_from(end - self.offset).unwrap_or(usize::MAX));
        let (length, data) = match self.extents.first() {
            Some(extent) if extent.offset <= self.offset => (within(extent.offset + extent.length), true),
            Some(extent) => (within(extent.offset), false),
            None => (within(self.size), false),
        };
        let length = if data {
            self.reader.read(&mut buffer[..length])?
        } else {
            buffer[..length].fill(0);
            length
        };
        self.offset += length as u64;
        if self.extents.first().is_some_and(|extent| extent.offset + extent.length <= self.offset) {
            self.extents = &self.extents[1..];
        }
        Ok(length)
    }
}

/// The GNU and the PAX way to give an entry the same thing; both only if they agree.
fn one(what: &str, gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, String> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(format!("an entry has two {what}")),
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

fn id(what: &str, record: Option<u64>, header: impl FnOnce() -> Result<u64, String>) -> Result<u32, String> {
    let id = match record {
        Some(id) => id,
        None => header()?,
    };
    // The last one means "none" to the kernel.
    u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| format!("the {what} {id} is out of range"))
}

/// Sorts attributes by name and keeps the last of each name.
fn unique(xattrs: &mut Xattrs) {
    if xattrs.len() > 1 {
        xattrs.reverse();
        xattrs.sort_by(|a, b| a.0.cmp(&b.0));
        xattrs.dedup_by(|next, kept| next.0 == kept.0);
    }
}
