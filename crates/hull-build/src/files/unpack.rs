//! `ADD` of archives: what is in them, put onto a base as if it were extracted in a directory that is its root.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _, Write as _};
use std::sync::Arc;

use hull_layer::compression::{Compression, Decoder, peek};
use hull_layer::{Limits, tar};

use super::error::{Error, absolute};
use super::onto::{Attributes, Content, Entry, Onto, Other, Seen, What};
use super::owner::Owner;
use super::settings::Settings;
use super::tree::{join, split};

const BUFFER: usize = 256 << 10;

/// Whether a file is a tar, compressed or not, by what it begins with.
///
/// # Errors
/// When it cannot be read.
pub(super) fn is_archive(file: File) -> Result<bool, Error> {
    let (prefix, input) = peek(file)?;
    let Some(compression) = Compression::detect(&prefix).filter(|_| !prefix.is_empty()) else { return Ok(false) };
    if compression == Compression::None {
        return Ok(prefix.iter().any(|byte| *byte != 0));
    }
    let input = BufReader::with_capacity(BUFFER, input);
    let Ok(mut decoder) = Decoder::new(compression, input, &Limits::default()) else { return Ok(false) };
    let mut block = Vec::new();
    // What cannot be decompressed is a file like any other.
    if decoder.by_ref().take(512).read_to_end(&mut block).is_err() {
        return Ok(false);
    }
    Ok(Compression::detect(&block) == Some(Compression::None) && block.iter().any(|byte| *byte != 0))
}

/// Puts what is in an archive below `top`.
///
/// # Errors
/// When the archive is refused, or cannot be kept.
pub(super) fn unpack(
    onto: &mut Onto<'_>,
    top: &[Vec<u8>],
    input: impl Read,
    owner: Option<Owner>,
    settings: &Settings<'_>,
) -> Result<(), Error> {
    let limits = Limits::default();
    let (prefix, input) = peek(input)?;
    let unknown = || Error::Refused("neither a tar nor compressed in a known way".to_owned());
    let compression = Compression::detect(&prefix).ok_or_else(unknown)?;
    let mut decoder = Decoder::new(compression, BufReader::with_capacity(BUFFER, input), &limits)?;
    let mut spool = settings.spool.file()?;
    let mut buffer = vec![0; BUFFER];
    let mut total = 0_u64;
    loop {
        let count = decoder.fill(&mut buffer)?;
        if count == 0 {
            break;
        }
        total += count as u64;
        if total > limits.bytes {
            return Err(Error::Layer(hull_layer::Error::Limit { what: "bytes", limit: limits.bytes }));
        }
        spool.write_all(&buffer[..count]).map_err(Error::io("write", "archive"))?;
    }
    spool.rewind().map_err(Error::io("read", "archive"))?;
    let spool = Arc::new(spool);
    let mut reader = tar::Reader::new(BufReader::with_capacity(BUFFER, spool.as_ref()), limits).end_optional();
    let mut files: HashMap<Vec<Vec<u8>>, u64> = HashMap::new();
    let parents = Attributes { mode: 0o755, mtime: (settings.time, 0), ..Attributes::default() };
    while let Some(entry) = reader.next()? {
        if entry.path.is_empty() {
            continue;
        }
        let place = place(onto, top, &entry.path)?;
        if let Some((_, parent)) = place.split_last() {
            onto.make_directories(parent, &parents)?;
        }
        let owner = owner.unwrap_or(Owner { uid: entry.uid, gid: entry.gid });
        let attributes = Attributes {
            mode: entry.mode,
            uid: owner.uid,
            gid: owner.gid,
            mtime: (entry.mtime, entry.mtime_nsec),
            xattrs: entry
                .xattrs
                .iter()
                .filter(|(name, _)| &name[..] == b"security.capability")
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
        };
        let what = match entry.kind {
            tar::EntryKind::Directory => {
                match onto.see(&place)? {
                    Seen::Directory | Seen::Nothing => onto.put_directory(&place, attributes)?,
                    _ => onto.insert(&place, Entry::Directory(super::onto::new_directory(attributes)))?,
                }
                continue;
            }
            tar::EntryKind::HardLink(target) => {
                let found = self::place(onto, top, &target)?;
                link(onto, &place, &found, &mut files)?;
                continue;
            }
            tar::EntryKind::File { size, extents } => {
                let content = Content::Archive { file: Arc::clone(&spool), extents: extents.into() };
                What::File { size, content }
            }
            tar::EntryKind::Symlink(target) => What::Symlink(target),
            tar::EntryKind::Character(major, minor) => What::Character(major, minor),
            tar::EntryKind::Block(major, minor) => What::Block(major, minor),
            tar::EntryKind::Fifo => What::Fifo,
        };
        files.remove(&place);
        onto.insert(&place, Entry::Other(Other { attributes, what, file: None }))?;
    }
    Ok(())
}

/// Where a name of the archive is: links of its directories are followed inside `top`, its own name is not.
fn place(onto: &mut Onto<'_>, top: &[Vec<u8>], path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let (parent, name) = split(path);
    let mut place = onto.resolve(top, parent)?;
    place.push(name.to_vec());
    Ok(place)
}

/// Makes a name another one of a file that came with the archive.
fn link(
    onto: &mut Onto<'_>,
    place: &[Vec<u8>],
    target: &[Vec<u8>],
    files: &mut HashMap<Vec<Vec<u8>>, u64>,
) -> Result<(), Error> {
    if place == target {
        return Ok(());
    }
    let number = match files.get(target) {
        Some(number) => *number,
        None => onto.file(),
    };
    let missing = || {
        let (name, target) = (absolute(&join(place)), absolute(&join(target)));
        Error::Refused(format!("hard link {name}: {target} did not come with the archive"))
    };
    let Some((name, parent)) = target.split_last() else { return Err(missing()) };
    let found = onto.directory(parent)?.and_then(|directory| directory.children.get_mut(name));
    let Some(Entry::Other(other)) = found else { return Err(missing()) };
    other.file = Some(number);
    let twin = other.clone();
    files.insert(target.to_vec(), number);
    files.insert(place.to_vec(), number);
    onto.insert(place, Entry::Other(twin))
}
