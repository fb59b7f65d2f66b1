//! Where a saved layout goes: one tar stream, or a directory.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use hull_layer::tar;
use rustix::fs::{Mode, OFlags};

use crate::Error;

/// Takes a layout's files in the order in which they are to be read.
pub(super) trait Sink {
    /// A directory; its parent has been given before.
    fn directory(&mut self, name: &str) -> Result<(), Error>;

    /// A file of exactly `size` bytes.
    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), Error>;

    /// Nothing follows.
    fn finish(self: Box<Self>) -> Result<(), Error>;
}

/// A tar stream. Headers are the same on every machine: root's, mode 0644, time 0.
pub(super) struct Tar<W: Write>(tar::Writer<BufWriter<W>>);

impl<W: Write> Tar<W> {
    pub(super) fn new(output: W) -> Self {
        Self(tar::Writer::new(BufWriter::with_capacity(256 << 10, output)))
    }
}

impl<W: Write> Sink for Tar<W> {
    fn directory(&mut self, name: &str) -> Result<(), Error> {
        let entry = tar::Entry::new(name, tar::EntryKind::Directory, 0o755);
        self.0.append(&entry, io::empty()).map(drop).map_err(Error::io("write", "archive"))
    }

    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let entry = tar::Entry::new(name, tar::EntryKind::File { size, extents: Vec::new() }, 0o644);
        self.0.append(&entry, content).map(drop).map_err(Error::io("write archive:", name))
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        self.0.finish().map(drop).map_err(Error::io("write", "archive"))
    }
}

/// A directory that was empty or did not exist. `index.json` is written last: without it, nothing is an image.
pub(super) struct Directory {
    directory: hull_fs::Root,
    index: Option<Vec<u8>>,
}

impl Directory {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(Error::io("create directory", path))?;
        let mut names = std::fs::read_dir(path).map_err(Error::io("read directory", path))?;
        if names.next().is_some() {
            return Err(super::resolve::refuse(format!("{} is not empty: name another directory", path.display())));
        }
        Ok(Self { directory: hull_fs::Root::open(path)?, index: None })
    }

    fn write(&self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::openat(&self.directory, name, flags, mode).map_err(Error::io("create", name))?;
        let mut file = File::from(file);
        copy(name, size, content, &mut file)?;
        file.sync_all().map_err(Error::io("write", name))
    }
}

impl Sink for Directory {
    fn directory(&mut self, name: &str) -> Result<(), Error> {
        self.directory.create_dir_all(Path::new(name), 0o755)?;
        Ok(())
    }

    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        if name != "index.json" {
            return self.write(name, size, content);
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(Error::io("read", name))?;
        self.index = Some(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        if let Some(index) = &self.index {
            self.write("index.json", index.len() as u64, &mut index.as_slice())?;
        }
        Ok(())
    }
}

/// Copies exactly `size` bytes: a file of the store that changed its length would break the archive's structure.
fn copy(name: &str, size: u64, content: &mut dyn Read, output: &mut dyn Write) -> Result<(), Error> {
    let mut buffer = vec![0; 256 << 10];
    let mut left = size;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = match content.read(&mut buffer[..want]) {
            Ok(0) => return Err(Error::io("read", name)(io::Error::from(io::ErrorKind::UnexpectedEof))),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", name)(error)),
        };
        output.write_all(&buffer[..length]).map_err(Error::io("write", name))?;
        left -= length as u64;
    }
    Ok(())
}
