//! Binary packages (deb(5)): an `ar` archive of three members, of which two are compressed tar archives.
//!
//! Sizes are bounded before anything is read, decoders included; what they yield is read by the caller as a stream.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use crate::control::paragraphs;
use crate::error::Error;

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: u64 = 60;

/// Members looked at; a package has three, and may have some that are to be ignored.
const MAX_MEMBERS: usize = 16;

/// Bytes of an unpacked `control.tar`.
const MAX_CONTROL: u64 = 64 << 20;

/// Bytes of an unpacked `data.tar`.
const MAX_DATA: u64 = 32 << 30;

/// Memory of a decoder, as dpkg's own packages need.
const MAX_DECODER: u64 = 256 << 20;

/// A package file.
#[derive(Debug)]
pub struct Deb {
    file: fs::File,
    object: String,
    /// When it was built, in seconds since 1970.
    pub time: u64,
    control: Member,
    data: Member,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    compression: Compression,
    offset: u64,
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

impl Deb {
    /// Reads the table of members. `object` is for errors.
    ///
    /// # Errors
    /// [`Error::Format`] when it is no package, is cut short, or is compressed in a way that dpkg does not use.
    pub fn open(file: fs::File, object: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::format(object, format!("it is no Debian package: {reason}"));
        let length = file.metadata().map_err(Error::io("read", object))?.len();
        let mut magic = [0; 8];
        let read = file.read_exact_at(&mut magic, 0);
        if read.is_err() || magic != MAGIC {
            return Err(wrong("it does not start as an ar archive"));
        }
        let mut offset = MAGIC.len() as u64;
        let (mut time, mut control, mut data) = (None, None, None);
        for _ in 0..MAX_MEMBERS {
            if offset >= length || data.is_some() {
                break;
            }
            let mut header = [0; HEADER as usize];
            file.read_exact_at(&mut header, offset).map_err(|_| wrong("it is cut short"))?;
            let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).unwrap_or("").trim_end();
            let number = |range| text(range).parse::<u64>().ok();
            if &header[58..] != b"`\n" {
                return Err(wrong("a member's header is damaged"));
            }
            let size = number(48..58).ok_or_else(|| wrong("a member's size is no number"))?;
            offset += HEADER;
            if length - offset.min(length) < size {
                return Err(wrong("it is cut short"));
            }
            let name = text(0..16).trim_end_matches('/');
            match (name, time) {
                ("debian-binary", None) => {
                    let mut version = [0; 4];
                    let read = file.read_exact_at(&mut version, offset);
                    if read.is_err() || size < 4 || &version[..2] != b"2." {
                        return Err(wrong("its format has an unknown version"));
                    }
                    time = Some(number(16..28).ok_or_else(|| wrong("its time is no number"))?);
                }
                (_, None) => return Err(wrong("its first member is not debian-binary")),
                _ if name.starts_with('_') => {}
                _ => {
                    let (place, suffix) = match (name.strip_prefix("control.tar"), name.strip_prefix("data.tar")) {
                        (Some(suffix), _) if control.is_none() => (&mut control, suffix),
                        (_, Some(suffix)) if control.is_some() => (&mut data, suffix),
                        _ => return Err(wrong("its members are not in their order")),
                    };
                    let compression = match suffix {
                        "" => Compression::None,
                        ".gz" => Compression::Gzip,
                        ".xz" => Compression::Xz,
                        ".zst" => Compression::Zstd,
                        _ => return Err(wrong("a member is compressed by neither gzip, xz nor zstd")),
                    };
                    *place = Some(Member { compression, offset, size });
                }
            }
            offset += size + size % 2;
        }
        match (time, control, data) {
            (Some(time), Some(control), Some(data)) => {
                Ok(Self { file, object: object.to_owned(), time, control, data })
            }
            _ => Err(wrong("it lacks a member")),
        }
    }

    /// The package's control file.
    ///
    /// # Errors
    /// [`Error::Format`] when there is none.
    pub fn control(&self) -> Result<String, Error> {
        let wrong = |reason: String| Error::format(&self.object, reason);
        let mut reader = self.reader(self.control, MAX_CONTROL)?;
        loop {
            let mut header = [0; 512];
            reader.read_exact(&mut header).map_err(|error| wrong(format!("control.tar: {error}")))?;
            let size = octal(&header[124..136]).ok_or_else(|| wrong("it has no control file".to_owned()))?;
            let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
            let padded = size.div_ceil(512) * 512;
            if matches!(name, b"./control" | b"control") && matches!(header[156], b'0' | 0) {
                if size > 1 << 20 {
                    return Err(wrong("its control file is too long".to_owned()));
                }
                let mut text = String::new();
                (&mut reader)
                    .take(size)
                    .read_to_string(&mut text)
                    .map_err(|error| wrong(format!("control: {error}")))?;
                return Ok(text);
            }
            let passed = io::copy(&mut (&mut reader).take(padded), &mut io::sink());
            if passed.map_err(|error| wrong(format!("control.tar: {error}")))? < padded {
                return Err(wrong("control.tar is cut short".to_owned()));
            }
        }
    }

    /// Refuses a package that is not what an index or lock file said.
    ///
    /// # Errors
    /// [`Error::Format`].
    pub fn check(&self, name: &str, version: &str, architecture: &str) -> Result<(), Error> {
        let text = self.control()?;
        let paragraph = paragraphs(&text).next().unwrap_or_default();
        for (field, wanted) in [("Package", name), ("Version", version), ("Architecture", architecture)] {
            let found = paragraph.get(field).unwrap_or_default();
            if found != wanted {
                return Err(Error::format(&self.object, format!("its {field} is {found:?}, not {wanted:?}")));
            }
        }
        Ok(())
    }

    /// The tar archive of its files, unpacked.
    ///
    /// # Errors
    /// When the decoder cannot be made.
    pub fn data(&self) -> Result<Box<dyn Read + '_>, Error> {
        self.reader(self.data, MAX_DATA)
    }

    fn reader(&self, member: Member, max: u64) -> Result<Box<dyn Read + '_>, Error> {
        let section = io::BufReader::with_capacity(
            64 << 10,
            Section { file: &self.file, offset: member.offset, left: member.size },
        );
        let wrong = |error: io::Error| Error::format(&self.object, error);
        let reader: Box<dyn Read + '_> = match member.compression {
            Compression::None => Box::new(section),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(section)),
            Compression::Xz => Box::new(xz(section).map_err(wrong)?),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(section).map_err(wrong)?;
                decoder.window_log_max(28).map_err(wrong)?;
                Box::new(decoder)
            }
        };
        Ok(Box::new(Bounded { reader, left: max }))
    }
}

/// A decoder for xz with bounded memory.
pub(crate) fn xz<R: io::BufRead>(reader: R) -> io::Result<liblzma::bufread::XzDecoder<R>> {
    let stream = liblzma::stream::Stream::new_stream_decoder(MAX_DECODER, liblzma::stream::CONCATENATED)
        .map_err(io::Error::other)?;
    Ok(liblzma::bufread::XzDecoder::new_stream(reader, stream))
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(|one| one == '\0' || one == ' '), 8).ok()
}

struct Section<'f> {
    file: &'f fs::File,
    offset: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..want], self.offset)?;
        if read == 0 && want > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the package is cut short"));
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Fails where a decoder yields more than is allowed.
pub(crate) struct Bounded<R> {
    pub(crate) reader: R,
    pub(crate) left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it unpacks to more than is allowed"))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
