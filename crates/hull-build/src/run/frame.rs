//! What a build and a step's process say to each other: a kind, a length of four bytes (little-endian), and so many bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

/// A longer frame is refused.
const MAX: u32 = 64 << 20;

/// How much of a layer one frame holds.
const PIECE: usize = 128 << 10;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What is to be done: JSON.
    Order,
    /// A line for the user.
    Warning,
    /// The step cannot be done: one line. Nothing of it is left.
    Failed,
    /// The program has ended: its exit code, and whether for want of memory.
    Ended,
    /// A piece of the layer.
    Layer,
    /// The layer is whole, and what was normalised in it: JSON, or nothing. Without a piece before there is none.
    End,
    /// Nothing of the step is left.
    Finished,
}

const KINDS: [(u8, Kind); 7] = [
    (b'O', Kind::Order),
    (b'W', Kind::Warning),
    (b'E', Kind::Failed),
    (b'X', Kind::Ended),
    (b'D', Kind::Layer),
    (b'N', Kind::End),
    (b'F', Kind::Finished),
];

/// A frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
}

fn borrow(socket: &OwnedFd) -> io::Result<File> {
    Ok(File::from(socket.try_clone()?))
}

pub(super) fn write(socket: &OwnedFd, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let letter = KINDS.iter().find(|one| one.1 == kind).map_or(b'?', |one| one.0);
    let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
    let length = u32::try_from(payload.len()).ok().filter(|length| *length <= MAX).ok_or_else(too_long)?;
    let mut frame = Vec::with_capacity(payload.len() + 5);
    frame.push(letter);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    borrow(socket)?.write_all(&frame)
}

pub(super) fn read(socket: &OwnedFd) -> io::Result<Frame> {
    let mut file = borrow(socket)?;
    let mut head = [0; 5];
    file.read_exact(&mut head)?;
    let [letter, length @ ..] = head;
    let length = u32::from_le_bytes(length);
    let kind = KINDS.iter().find(|one| one.0 == letter).map(|one| one.1);
    let Some(kind) = kind.filter(|_| length <= MAX) else { return Err(io::ErrorKind::InvalidData.into()) };
    let mut payload = vec![0; length as usize];
    file.read_exact(&mut payload)?;
    Ok(Frame { kind, payload })
}

pub(super) fn end(code: i32, out_of_memory: bool) -> Vec<u8> {
    let mut payload = code.to_le_bytes().to_vec();
    payload.push(u8::from(out_of_memory));
    payload
}

pub(super) fn ended(payload: &[u8]) -> Option<(i32, bool)> {
    let (code, rest) = payload.split_first_chunk::<4>()?;
    Some((i32::from_le_bytes(*code), rest == [1]))
}

/// Writes a layer as frames.
pub(super) struct Pieces {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Pieces {
    pub(super) fn new(socket: &OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: socket.try_clone()?, buffer: Vec::with_capacity(PIECE) })
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            write(&self.socket, Kind::Layer, &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_as_they_went() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (one, other) = (OwnedFd::from(one), OwnedFd::from(other));
        write(&one, Kind::Ended, &end(-3, true)).unwrap();
        let mut pieces = Pieces::new(&one).unwrap();
        let thread = std::thread::spawn(move || {
            pieces.write_all(&vec![7; PIECE + 10]).unwrap();
            pieces.flush().unwrap();
        });
        let frame = read(&other).unwrap();
        assert_eq!((frame.kind, ended(&frame.payload)), (Kind::Ended, Some((-3, true))));
        assert_eq!(read(&other).unwrap().payload.len(), PIECE);
        assert_eq!(read(&other).unwrap().payload, [7; 10]);
        thread.join().unwrap();
        drop(one);
        assert_eq!(read(&other).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn nonsense_is_refused() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (one, other) = (OwnedFd::from(one), OwnedFd::from(other));
        File::from(one).write_all(b"D\xff\xff\xff\xff").unwrap();
        assert_eq!(read(&other).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
