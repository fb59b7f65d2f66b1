//! The writer: the same bytes for the same entries, on every machine.
//!
//! A header is ustar where ustar can say it; what it cannot goes into PAX records, sorted by key, in a header of their
//! own. No user or group names, no times but the modification time.

use std::io::{self, Read, Write};

use super::header::{BLOCK, padding, sum};
use super::name::text;
use super::{Entry, EntryKind};
use crate::tree::{Kind, Node, NodeId, Tree};

/// How much content is copied at once.
const BUFFER: usize = 128 << 10;

/// How a [`Writer`] writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriterOptions {
    /// Later modification times become this one (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<i64>,
    /// Modification times lose their nanoseconds, which cost a PAX header each.
    pub whole_seconds: bool,
}

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    options: WriterOptions,
    position: u64,
    /// What content passes through.
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// An archive into `output`, which should be buffered.
    pub fn new(output: W) -> Self {
        Self::with_options(output, WriterOptions::default())
    }

    /// An archive with other options than the defaults.
    pub fn with_options(output: W, options: WriterOptions) -> Self {
        Self { output, options, position: 0, buffer: Vec::new() }
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Adds an entry; `content` is read only for a file, and must give as many bytes as its size says. Returns where in
    /// the archive the content begins.
    ///
    /// # Errors
    /// If the output cannot be written or the content not be read.
    pub fn append(&mut self, entry: &Entry, content: impl Read) -> io::Result<u64> {
        self.header(entry)?;
        let at = self.position;
        if let EntryKind::File { size, .. } = entry.kind {
            let copied = self.copy(content.take(size))?;
            if copied != size {
                let path = text(&entry.path);
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("`{path}` has {copied} bytes of content, {size} were announced"),
                ));
            }
            self.write(&[0; BLOCK][..pad(size)])?;
        }
        Ok(at)
    }

    /// Adds the whiteout that hides `name` (a path) of the layers below.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn whiteout(&mut self, path: &[u8]) -> io::Result<()> {
        let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        self.mark(&path[..name], &[b".wh.", &path[name..]].concat())
    }

    /// Adds the mark that makes the directory at `path` hide what the layers below have in it.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn opaque(&mut self, path: &[u8]) -> io::Result<()> {
        let parent = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        self.mark(&parent, b".wh..wh..opq")
    }

    fn mark(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let kind = EntryKind::File { size: 0, extents: Vec::new() };
        self.append(&Entry::new([parent, name].concat(), kind, 0), io::empty()).map(drop)
    }

    /// Adds all names of a layer: directories before what is in them, whiteouts before their siblings, otherwise sorted;
    /// a file with several names under the first of them. Directories that the layer had no entry for have none here.
    /// `content` opens a file's content, holes included.
    ///
    /// # Errors
    /// If the output cannot be written or a content not be read.
    pub fn write_tree<C: Read>(
        &mut self,
        tree: &Tree,
        mut content: impl FnMut(NodeId, &Node) -> io::Result<C>,
    ) -> io::Result<()> {
        let mut first_names = std::collections::BTreeMap::<NodeId, Vec<u8>>::new();
        tree.visit(|path, id| {
            let node = tree.node(id);
            let kind = match &node.kind {
                Kind::Directory { opaque, implied, children } => {
                    // What is in it implies it again.
                    if !implied || (children.is_empty() && !opaque && id != 0) {
                        let entry = entry(path, node, EntryKind::Directory);
                        self.append(&entry, io::empty())?;
                    }
                    return if *opaque { self.opaque(path) } else { Ok(()) };
                }
                Kind::Whiteout => return self.whiteout(path),
                _ if node.links > 1 => match first_names.get(&id) {
                    Some(first) => EntryKind::HardLink(first.clone()),
                    None => {
                        first_names.insert(id, path.to_vec());
                        plain(&node.kind)
                    }
                },
                other => plain(other),
            };
            let entry = entry(path, node, kind);
            if let EntryKind::File { .. } = entry.kind {
                self.append(&entry, content(id, node)?).map(drop)
            } else {
                self.append(&entry, io::empty()).map(drop)
            }
        })
    }

    /// Writes the end of the archive and returns the output.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.write(&[0; 2 * BLOCK])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn copy(&mut self, mut content: impl Read) -> io::Result<u64> {
        self.buffer.resize(BUFFER, 0);
        let mut copied = 0;
        loop {
            match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(length) => {
                    self.output.write_all(&self.buffer[..length])?;
                    copied += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += copied;
        Ok(copied)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let mut records = Records::default();
        let mut block = [0_u8; BLOCK];
        let name = match (&entry.kind, entry.path.is_empty()) {
            (_, true) => b"./".to_vec(),
            (EntryKind::Directory, _) => [&entry.path[..], b"/"].concat(),
            _ => entry.path.clone(),
        };
        if let Some((prefix, rest)) = split(&name).filter(|_| name.is_ascii()) {
            block[..rest.len()].copy_from_slice(rest);
            block[345..345 + prefix.len()].copy_from_slice(prefix);
        } else {
            records.text("path", &name);
            fill(&mut block[..100], &name);
        }
        let (flag, size, device) = match &entry.kind {
            EntryKind::File { size, .. } => (b'0', *size, None),
            EntryKind::HardLink(_) => (b'1', 0, None),
            EntryKind::Symlink(_) => (b'2', 0, None),
            EntryKind::Character(major, minor) => (b'3', 0, Some((*major, *minor))),
            EntryKind::Block(major, minor) => (b'4', 0, Some((*major, *minor))),
            EntryKind::Directory => (b'5', 0, None),
            EntryKind::Fifo => (b'6', 0, None),
        };
        if let EntryKind::HardLink(target) | EntryKind::Symlink(target) = &entry.kind {
            if target.len() > 100 || !target.is_ascii() {
                records.text("linkpath", target);
            }
            fill(&mut block[157..257], target);
        }
        let number = |field: &mut [u8], key: &'static str, value: u64, records: &mut Records| {
            if !octal(field, value) {
                octal(field, 0);
                records.push(key, value.to_string().into_bytes());
            }
        };
        octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
        number(&mut block[108..116], "uid", entry.uid.into(), &mut records);
        number(&mut block[116..124], "gid", entry.gid.into(), &mut records);
        number(&mut block[124..136], "size", size, &mut records);
        let (mtime, nanoseconds) = self.mtime(entry);
        match u64::try_from(mtime) {
            Ok(seconds) if nanoseconds == 0 && octal(&mut block[136..148], seconds) => {}
            seconds => {
                if seconds.is_err() || !octal(&mut block[136..148], seconds.unwrap_or(0)) {
                    octal(&mut block[136..148], 0);
                }
                records.push("mtime", decimal_time(mtime, nanoseconds));
            }
        }
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        // Some readers want zeros here even where there is no device.
        let (major, minor) = device.unwrap_or((0, 0));
        octal(&mut block[329..337], major.into());
        octal(&mut block[337..345], minor.into());
        for (name, value) in &entry.xattrs {
            records.xattr(name, value);
        }
        if !records.0.is_empty() {
            self.records(&name, records)?;
        }
        seal(&mut block);
        self.write(&block)
    }

    fn mtime(&self, entry: &Entry) -> (i64, u32) {
        match self.options.clamp_mtime {
            Some(latest) if entry.mtime >= latest => (latest, 0),
            _ if self.options.whole_seconds => (entry.mtime, 0),
            _ => (entry.mtime, entry.mtime_nsec),
        }
    }

    fn records(&mut self, name: &[u8], records: Records) -> io::Result<()> {
        let body = records.encode();
        let mut block = [0_u8; BLOCK];
        // What a reader without PAX would call it.
        let last = name.trim_ascii_end().split(|byte| *byte == b'/').rfind(|part| !part.is_empty()).unwrap_or(b".");
        let last: Vec<u8> = last.iter().map(|byte| if byte.is_ascii_graphic() { *byte } else { b'_' }).collect();
        fill(&mut block[..100], &[b"PaxHeaders/", &last[..last.len().min(80)]].concat());
        octal(&mut block[100..108], 0o644);
        octal(&mut block[108..116], 0);
        octal(&mut block[116..124], 0);
        octal(&mut block[124..136], body.len() as u64);
        octal(&mut block[136..148], 0);
        block[156] = b'x';
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], 0);
        octal(&mut block[337..345], 0);
        seal(&mut block);
        self.write(&block)?;
        self.write(&body)?;
        self.write(&[0; BLOCK][..pad(body.len() as u64)])
    }
}

/// PAX records to be written.
#[derive(Debug, Default)]
struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    fn push(&mut self, key: &str, value: Vec<u8>) {
        self.0.push((key.as_bytes().to_vec(), value));
    }

    /// A name, which PAX takes for UTF-8 unless told otherwise.
    fn text(&mut self, key: &str, value: &[u8]) {
        if std::str::from_utf8(value).is_err() && !self.0.iter().any(|(key, _)| key == b"hdrcharset") {
            self.push("hdrcharset", b"BINARY".to_vec());
        }
        self.push(key, value.to_vec());
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) {
        let mut key = b"SCHILY.xattr.".to_vec();
        for byte in name {
            // As GNU tar does, since a key ends at the first equals sign.
            match byte {
                b'=' => key.extend_from_slice(b"%3D"),
                b'%' => key.extend_from_slice(b"%25"),
                other => key.push(*other),
            }
        }
        self.0.push((key, value.to_vec()));
    }

    fn encode(mut self) -> Vec<u8> {
        // The character set counts for what follows it.
        self.0.sort_by(|a, b| (a.0 != b"hdrcharset", &a.0).cmp(&(b.0 != b"hdrcharset", &b.0)));
        let mut body = Vec::new();
        for (key, value) in &self.0 {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits.
            let mut length = rest;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(length.to_string().as_bytes());
            body.push(b' ');
            body.extend_from_slice(key);
            body.push(b'=');
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        body
    }
}

fn entry(path: &[u8], node: &Node, kind: EntryKind) -> Entry {
    let xattrs = if matches!(kind, EntryKind::HardLink(_)) { Vec::new() } else { node.xattrs.clone() };
    let (mtime, mtime_nsec) = (node.mtime, node.mtime_nsec);
    Entry {
        offset: 0,
        path: path.to_vec(),
        kind,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime,
        mtime_nsec,
        xattrs,
    }
}

fn plain(kind: &Kind) -> EntryKind {
    match kind {
        Kind::File { size, .. } => EntryKind::File { size: *size, extents: Vec::new() },
        Kind::Symlink(target) => EntryKind::Symlink(target.to_vec()),
        Kind::Character(major, minor) => EntryKind::Character(*major, *minor),
        Kind::Block(major, minor) => EntryKind::Block(*major, *minor),
        Kind::Fifo => EntryKind::Fifo,
        Kind::Directory { .. } => EntryKind::Directory,
        Kind::Whiteout => EntryKind::Character(0, 0),
    }
}

/// Prefix and name as ustar has them, if the name can be split so.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    // The slash between them is not stored; the last byte may be a directory's.
    let slashes = name.iter().enumerate().filter(|(at, byte)| **byte == b'/' && *at + 1 < name.len());
    let slash = slashes.map(|(at, _)| at).find(|at| name.len() - at - 1 <= 100)?;
    (slash <= 155 && slash > 0).then(|| (&name[..slash], &name[slash + 1..]))
}

fn fill(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Writes octal digits and a NUL; false if the number has too many digits.
fn octal(field: &mut [u8], mut value: u64) -> bool {
    let digits = field.len() - 1;
    field[digits] = 0;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    value == 0
}

/// Writes the checksum.
fn seal(block: &mut [u8; BLOCK]) {
    block[148..156].copy_from_slice(b"        ");
    let sum = sum(&block[..]).unsigned_abs();
    octal(&mut block[148..155], sum);
}

fn decimal_time(seconds: i64, nanoseconds: u32) -> Vec<u8> {
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (true, 1..) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (false, _) => ("", seconds.unsigned_abs(), nanoseconds),
    };
    if nanoseconds == 0 {
        return format!("{sign}{seconds}").into_bytes();
    }
    format!("{sign}{seconds}.{nanoseconds:09}").trim_end_matches('0').as_bytes().to_vec()
}

fn pad(size: u64) -> usize {
    // Less than a block.
    usize::try_from(padding(size)).unwrap_or(0)
}
