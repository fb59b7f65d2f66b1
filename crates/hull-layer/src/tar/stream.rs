//! The bytes of an archive: how far they are read, and what of an entry's content is left.

use std::io::{self, BufRead, BufReader, Read};

use super::header::{BLOCK, padding};
use crate::Error;

/// What is read from the input at once when content is skipped.
const BUFFER: usize = 128 << 10;

/// An input that knows its position and the content it is in.
#[derive(Debug)]
pub(super) struct Stream<R> {
    input: BufReader<R>,
    limit: u64,
    /// Bytes of the archive consumed so far.
    position: u64,
    /// Bytes of the current content that are still to be read.
    stored: u64,
    /// Bytes behind it that fill its last block.
    padding: u64,
}

impl<R: Read> Stream<R> {
    /// At most `limit` bytes of `input`.
    pub(super) fn new(input: R, limit: u64) -> Self {
        Self { input: BufReader::with_capacity(BUFFER, input), limit, position: 0, stored: 0, padding: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn get_mut(&mut self) -> &mut R {
        self.input.get_mut()
    }

    /// How much of the current content is left.
    pub(super) fn left(&self) -> u64 {
        self.stored
    }

    /// Notes that what follows is content of this length, which is refused now if it would end beyond the limit.
    pub(super) fn begin_content(&mut self, length: u64) -> Result<(), Error> {
        self.stored = length;
        self.padding = padding(length);
        if self.position.checked_add(length).is_none_or(|end| end > self.limit) {
            return Err(self.too_long());
        }
        Ok(())
    }

    /// The next block; `None` at the end of the input.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                break;
            }
            let length = bytes.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&bytes[..length]);
            self.consume(length)?;
            filled += length;
        }
        match filled {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(self.truncated()),
        }
    }

    /// Skips what is left of the current content.
    pub(super) fn skip_content(&mut self) -> Result<(), Error> {
        while self.stored > 0 || self.padding > 0 {
            let left = self.stored.saturating_add(self.padding);
            let length = self.fill()?.len();
            if length == 0 {
                return Err(self.truncated());
            }
            let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
            let content = self.stored.min(length as u64);
            self.stored -= content;
            self.padding -= length as u64 - content;
            self.consume(length)?;
        }
        Ok(())
    }

    /// Reads to the end of the input.
    pub(super) fn skip_all(&mut self) -> Result<(), Error> {
        loop {
            let length = self.fill()?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length)?;
        }
    }

    /// Appends `length` bytes of the current content, which has as many.
    pub(super) fn take_content(&mut self, buffer: &mut Vec<u8>, mut length: u64) -> Result<(), Error> {
        while length > 0 {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Err(self.truncated());
            }
            let taken = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            buffer.extend_from_slice(&bytes[..taken]);
            self.consume(taken)?;
            length -= taken as u64;
            self.stored -= taken as u64;
        }
        Ok(())
    }

    /// `read(2)` of the current content.
    pub(super) fn read_content(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.stored).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let length = self.input.read(&mut buffer[..wanted])?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is truncated"));
        }
        self.stored -= length as u64;
        self.position += length as u64;
        Ok(length)
    }

    pub(super) fn too_long(&self) -> Error {
        Error::Limit { what: "bytes", limit: self.limit }
    }

    pub(super) fn truncated(&self) -> Error {
        Error::archive(self.position, "the archive is truncated")
    }

    fn fill(&mut self) -> Result<&[u8], Error> {
        while let Err(error) = self.input.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(Error::Read(error));
            }
        }
        Ok(self.input.buffer())
    }

    fn consume(&mut self, length: usize) -> Result<(), Error> {
        self.input.consume(length);
        self.position += length as u64;
        if self.position > self.limit { Err(self.too_long()) } else { Ok(()) }
    }
}
