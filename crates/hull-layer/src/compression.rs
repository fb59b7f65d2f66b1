//! Compressed streams: told by what they begin with, never by what a media type says; decoded strictly, in bounded
//! memory; written so that the same bytes always become the same bytes.
//!
//! Several members or frames after each other are one stream, as all of these formats define it. Anything else after the
//! last one, or an early end, is an error.

use std::fmt;
use std::io::{self, BufRead, Chain, Cursor, Read, Write};

use crate::{Error, Limits};

/// How many bytes [`Compression::detect`] needs at most.
pub const PREFIX: usize = 512;

/// A stream may always become this long, and longer only in this proportion. Deflate cannot exceed 1032; no archive of a
/// system's files comes near 200.
const RATIOS: [(u64, u64); 2] = [(1 << 30, 2000), (16 << 30, 200)];
/// Memory of the decoder of xz; its strongest preset needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// Largest window of zstd, base-2 logarithm: what its own tool takes.
const ZSTD_WINDOW: u32 = 27;

/// A format of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// None: a tar as it is.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
    /// xz; read only.
    Xz,
    /// bzip2; read only.
    Bzip2,
}

impl Compression {
    /// The format's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }

    /// What a stream is that begins so; `prefix` is its first [`PREFIX`] bytes, or all of it. Empty streams and zeros
    /// are tars.
    #[must_use]
    pub fn detect(prefix: &[u8]) -> Option<Self> {
        let skippable = |magic: &[u8]| (0x50..=0x5f).contains(&magic[0]) && magic[1..] == [0x2a, 0x4d, 0x18];
        match prefix {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            _ if prefix.get(..4).is_some_and(skippable) => Some(Self::Zstd),
            _ if is_tar(prefix) => Some(Self::None),
            _ => None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A header with the magic of POSIX or GNU, an older one with a true checksum, or the end of an empty archive.
fn is_tar(prefix: &[u8]) -> bool {
    if prefix.get(257..262) == Some(b"ustar") || prefix.iter().all(|byte| *byte == 0) {
        return true;
    }
    let (Some(header), Some(field)) = (prefix.get(..512), prefix.get(148..156)) else { return false };
    let digits = field.iter().skip_while(|byte| **byte == b' ').take_while(|byte| (b'0'..=b'7').contains(byte));
    let said = digits.fold(0u64, |sum, digit| sum * 8 + u64::from(digit - b'0'));
    let fields = header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    fields.map(u64::from).sum::<u64>() == said
}

/// An input whose beginning was looked at.
pub type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// Reads up to [`PREFIX`] bytes of an input, and gives the input back as if nothing had been read.
///
/// # Errors
/// [`Error::Read`].
pub fn peek<R: Read>(mut input: R) -> Result<(Vec<u8>, Peeked<R>), Error> {
    let mut prefix = Vec::with_capacity(PREFIX);
    input.by_ref().take(PREFIX as u64).read_to_end(&mut prefix).map_err(Error::Read)?;
    Ok((prefix.clone(), Cursor::new(prefix).chain(input)))
}

/// The input of a decoder: its bytes are counted, and its errors can be told from those of the decoder.
struct Input<R> {
    inner: R,
    taken: u64,
}

/// An error of the input, on its way through a decoder.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct InputError(io::Error);

impl<R: BufRead> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // Looked at twice, since a slice cannot be returned from within a loop that goes on.
        while let Err(error) = self.inner.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(io::Error::other(InputError(error)));
            }
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.taken += length as u64;
        self.inner.consume(length);
    }
}

enum Format<R: BufRead> {
    None(Input<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Input<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
    Xz(liblzma::bufread::XzDecoder<Input<R>>),
    Bzip2(bzip2::bufread::MultiBzDecoder<Input<R>>),
}

/// Decompresses a stream within [`Limits::bytes`].
pub struct Decoder<R: BufRead> {
    compression: Compression,
    format: Format<R>,
    given: u64,
    limit: u64,
}

impl<R: BufRead> fmt::Debug for Decoder<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Decoder").field("compression", &self.compression).field("given", &self.given).finish()
    }
}

impl<R: BufRead> Decoder<R> {
    /// A decoder of this format.
    ///
    /// # Errors
    /// If the decoder cannot be made.
    pub fn new(compression: Compression, input: R, limits: &Limits) -> Result<Self, Error> {
        let input = Input { inner: input, taken: 0 };
        let failed = |error: io::Error| refused(compression, &error);
        let format = match compression {
            Compression::None => Format::None(input),
            Compression::Gzip => Format::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
                decoder.window_log_max(ZSTD_WINDOW).map_err(failed)?;
                Format::Zstd(decoder)
            }
            Compression::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
                let stream = stream.map_err(|error| failed(error.into()))?;
                Format::Xz(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Compression::Bzip2 => Format::Bzip2(bzip2::bufread::MultiBzDecoder::new(input)),
        };
        Ok(Self { compression, format, given: 0, limit: limits.bytes })
    }

    /// What the stream is.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Compressed bytes taken so far.
    pub fn taken(&self) -> u64 {
        match &self.format {
            Format::None(input) => input.taken,
            Format::Gzip(decoder) => decoder.get_ref().taken,
            Format::Zstd(decoder) => decoder.get_ref().taken,
            Format::Xz(decoder) => decoder.get_ref().taken,
            Format::Bzip2(decoder) => decoder.get_ref().taken,
        }
    }

    /// Fills a buffer as far as the stream goes; less than its length is the end.
    ///
    /// # Errors
    /// If the input fails, the stream is damaged, or it is longer than allowed.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.decode(&mut buffer[filled..])? {
                0 => break,
                length => filled += length,
            }
        }
        Ok(filled)
    }

    fn at_end(&mut self) -> Result<bool, Error> {
        let rest = match &mut self.format {
            Format::None(input) => input.fill_buf(),
            Format::Gzip(decoder) => decoder.get_mut().fill_buf(),
            Format::Zstd(decoder) => decoder.get_mut().fill_buf(),
            Format::Xz(decoder) => decoder.get_mut().fill_buf(),
            Format::Bzip2(decoder) => decoder.get_mut().fill_buf(),
        };
        rest.map(<[u8]>::is_empty).map_err(Error::Read)
    }

    fn decode(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let decoded = loop {
            let result = match &mut self.format {
                Format::None(input) => input.read(buffer),
                Format::Gzip(decoder) => decoder.read(buffer),
                Format::Zstd(decoder) => decoder.read(buffer),
                Format::Xz(decoder) => decoder.read(buffer),
                Format::Bzip2(decoder) => decoder.read(buffer),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let length = decoded.map_err(|error| match error.downcast::<InputError>() {
            Ok(InputError(error)) => Error::Read(error),
            Err(error) => refused(self.compression, &error),
        })?;
        if length == 0 && !self.at_end()? {
            let reason = "there is something else after the end of the stream".into();
            return Err(Error::Compression { format: self.compression.as_str(), reason });
        }
        self.given += length as u64;
        if self.given > self.limit {
            return Err(Error::Limit { what: "bytes", limit: self.limit });
        }
        for (free, ratio) in RATIOS {
            if self.given > free && self.given / ratio > self.taken() {
                let reason = format!("it expands more than {ratio} times");
                return Err(Error::Compression { format: self.compression.as_str(), reason });
            }
        }
        Ok(length)
    }
}

fn refused(compression: Compression, error: &io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the stream is truncated".to_owned(),
        _ => hull_oci::spec::one_line(&error.to_string()).to_string(),
    };
    Error::Compression { format: compression.as_str(), reason }
}

/// For readers of archives; an error carries the [`Error`] of [`Decoder::fill`].
impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.decode(buffer).map_err(|error| match error {
            Error::Read(error) => error,
            other => io::Error::other(other),
        })
    }
}

enum Writing<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

/// Compresses what is written to it. The output depends on nothing but the input, the format and the level.
pub struct Encoder<W: Write>(Writing<W>);

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Encoder")
    }
}

impl<W: Write> Encoder<W> {
    /// An encoder; the level's default is 6 for gzip (0 to 9) and 3 for zstd (1 to 22).
    ///
    /// # Errors
    /// If Hull does not write the format, or has no such level.
    pub fn new(compression: Compression, level: Option<u32>, output: W) -> Result<Self, Error> {
        let refused = |reason: String| Error::Compression { format: compression.as_str(), reason };
        let level = |default: u32, levels: std::ops::RangeInclusive<u32>| {
            let level = level.unwrap_or(default);
            let reason = || refused(format!("level {level} is not one of {} to {}", levels.start(), levels.end()));
            levels.contains(&level).then_some(level).ok_or_else(reason)
        };
        Ok(Self(match compression {
            Compression::None => Writing::None(output),
            Compression::Gzip => {
                let level = flate2::Compression::new(level(6, 0..=9)?);
                Writing::Gzip(flate2::GzBuilder::new().mtime(0).write(output, level))
            }
            Compression::Zstd => {
                let level = i32::try_from(level(3, 1..=22)?).unwrap_or(3);
                let encoder = zstd::stream::write::Encoder::new(output, level).and_then(|mut encoder| {
                    encoder.include_checksum(true)?;
                    Ok(encoder)
                });
                Writing::Zstd(encoder.map_err(|error| refused(error.to_string()))?)
            }
            Compression::Xz | Compression::Bzip2 => return Err(refused("Hull writes gzip and zstd only".into())),
        }))
    }

    /// Ends the stream and gives the output back. Without it the stream is truncated.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Writing::None(output) => Ok(output),
            Writing::Gzip(encoder) => encoder.finish(),
            Writing::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Writing::None(output) => output.write(buffer),
            Writing::Gzip(encoder) => encoder.write(buffer),
            Writing::Zstd(encoder) => encoder.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Writing::None(output) => output.flush(),
            Writing::Gzip(encoder) => encoder.flush(),
            Writing::Zstd(encoder) => encoder.flush(),
        }
    }
}
