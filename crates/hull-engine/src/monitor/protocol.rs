//! What a monitor and its clients say to each other over a Unix stream socket.
//!
//! ```text
//! frame   kind (1 byte), three zero bytes, length (4 bytes, big endian), payload
//! ```
//!
//! The form is that of Docker's multiplexed streams, so that output can be passed on as it is. A client that connects
//! says [`HELLO`] first. Payloads are at most [`MAX_PAYLOAD`] bytes; a longer one ends the connection.

/// Bytes before each payload.
pub const HEADER: usize = 8;

/// Bytes of a payload.
pub const MAX_PAYLOAD: usize = 32 << 10;

/// To the monitor: input of the program.
pub const STDIN: u8 = 0;
/// From the monitor: output of the program.
pub const STDOUT: u8 = 1;
/// From the monitor: error output of the program.
pub const STDERR: u8 = 2;
/// To the monitor, first: one byte of [`WANTS_STDIN`], [`WANTS_STDOUT`], [`WANTS_STDERR`]; none of them only waits.
pub const HELLO: u8 = 16;
/// To the monitor: the client's input has ended.
pub const STDIN_END: u8 = 17;
/// To the monitor: rows and columns of the client's terminal, two bytes each, big endian.
pub const RESIZE: u8 = 18;
/// To the monitor: the client goes, and its input stays open.
pub const DETACH: u8 = 19;
/// To the monitor: nobody reads the client's output any more. If the container was started for this client, its program
/// finds its output closed, as in any pipeline.
pub const OUTPUT_END: u8 = 20;
/// From the monitor: the program runs; its process ID, four bytes, big endian.
pub const STARTED: u8 = 32;
/// From the monitor: a line for the user.
pub const WARNING: u8 = 33;
/// From the monitor: the program could not be started; the exit code of the command, whether it is because the image is
/// not there (0 or 1), then a line.
pub const FAILED: u8 = 34;
/// From the monitor, last: the program has ended and everything was cleaned up; the exit code, four bytes, big endian.
pub const EXITED: u8 = 35;

/// The client gives input.
pub const WANTS_STDIN: u8 = 1;
/// The client takes output.
pub const WANTS_STDOUT: u8 = 2;
/// The client takes error output.
pub const WANTS_STDERR: u8 = 4;

/// Adds a frame.
///
/// # Panics
/// When the payload is longer than [`MAX_PAYLOAD`].
pub fn put(into: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    assert!(payload.len() <= MAX_PAYLOAD, "a frame of {} bytes", payload.len());
    into.extend_from_slice(&[kind, 0, 0, 0]);
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    into.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    into.extend_from_slice(payload);
}

/// Bytes that arrive, cut into frames.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    start: usize,
}

/// The peer does not speak this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Frames {
    /// Bytes as they were received.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// [`Malformed`], for ever after.
    #[expect(clippy::should_implement_trait, reason = "the frame borrows from the buffer")]
    pub fn next(&mut self) -> Result<Option<(u8, &[u8])>, Malformed> {
        let rest = &self.bytes[self.start..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else {
            if self.start == self.bytes.len() {
                // Nothing is kept while nothing is said.
                self.bytes = Vec::new();
                self.start = 0;
            }
            return Ok(None);
        };
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > MAX_PAYLOAD || header[1..4] != [0, 0, 0] {
            return Err(Malformed);
        }
        if rest.len() < length {
            return Ok(None);
        }
        let begin = self.start + HEADER;
        self.start = begin + length;
        Ok(Some((self.bytes[begin - HEADER], &self.bytes[begin..begin + length])))
    }

    /// What has arrived of a frame that is not whole.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            cut in 1_usize..64,
        ) {
            let mut bytes = Vec::new();
            for (kind, payload) in &frames {
                put(&mut bytes, *kind, payload);
            }
            let mut reader = Frames::default();
            let mut found = Vec::new();
            for part in bytes.chunks(cut) {
                reader.push(part);
                while let Some((kind, payload)) = reader.next().unwrap() {
                    found.push((kind, payload.to_vec()));
                }
            }
            prop_assert_eq!(found, frames);
            prop_assert!(reader.rest().is_empty());
        }

        #[test]
        fn nothing_that_arrives_is_kept_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Frames::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next() {}
            prop_assert!(reader.rest().len() <= bytes.len());
        }
    }

    #[test]
    fn a_long_frame_is_refused() {
        let mut reader = Frames::default();
        reader.push(&[1, 0, 0, 0, 0xff, 0, 0, 0]);
        assert_eq!(reader.next(), Err(Malformed));
    }
}
