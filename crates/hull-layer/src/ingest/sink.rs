//! A file that is written from front to back.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use crate::Error;

/// Bytes after which the disk is told to begin.
const STEP: u64 = 8 << 20;

/// One of the files of a layer.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    file: &'a File,
    name: &'static str,
    /// The file will be brought to the disk: begin while the stream is still coming.
    eager: bool,
    written: u64,
    begun: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(file: &'a File, name: &'static str, eager: bool) -> Self {
        Self { file, name, eager, written: 0, begun: 0 }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::file("write", self.name))?;
        self.written += bytes.len() as u64;
        if self.eager && self.written - self.begun >= STEP {
            // Only to be early: an error will be one of fdatasync too.
            let _ = hull_sys::file::start_writing(self.file.as_fd(), self.begun, self.written - self.begun);
            self.begun = self.written;
        }
        Ok(())
    }
}
