//! The log's files: one that is written to, and older ones that it becomes when it is full.
//!
//! ```text
//! container.log        what is written to
//! container.log.1      the one before
//! container.log.2.gz   older ones, compressed
//! ```
//!
//! A full file is renamed, never copied or cut, so that a reader that has it open loses nothing. Compressing is a process
//! of its own: the program never waits for it. One that is still at work when the next file is full is given up, and its
//! file stays as it is.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hull_sys::clone::{CloneFlags, Cloned, clone3, close_others, exit_now};
use hull_sys::signal::pidfd_send_signal;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::options::Plan;

#[derive(Debug)]
pub(crate) struct Files {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_size: u64,
    max_files: u32,
    compress: bool,
    compressor: Option<(i32, OwnedFd)>,
}

/// `container.log.3`, `container.log.3.gz`.
pub(super) fn older(path: &Path, number: u32, compressed: bool) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{}", if compressed { ".gz" } else { "" }));
    PathBuf::from(name)
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz.partial");
    PathBuf::from(name)
}

fn open(path: &Path) -> Option<File> {
    File::options().append(true).create(true).mode(0o600).open(path).ok()
}

impl Files {
    /// A file that cannot be opened is tried again with each line.
    pub(super) fn open(path: PathBuf, plan: &Plan) -> Self {
        let Plan { max_size, max_files, compress, .. } = *plan;
        let file = open(&path);
        let size = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        // What a killed monitor left.
        let _ = fs::remove_file(partial(&older(&path, 1, false)));
        Self { path, file, size, max_size, max_files, compress, compressor: None }
    }

    /// Adds whole entries, or none of them: a torn one would be read as damage.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.tend();
        if self.size >= self.max_size {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = open(&self.path);
        }
        let Some(file) = &mut self.file else { return };
        match file.write_all(bytes) {
            Ok(()) => self.size += bytes.len() as u64,
            // The disk is full: what was written of it goes again.
            Err(_) => drop(file.set_len(self.size)),
        }
    }

    fn rotate(&mut self) {
        self.give_up();
        let last = self.max_files.saturating_sub(1);
        for compressed in [false, true] {
            let _ = fs::remove_file(older(&self.path, last, compressed));
        }
        // At no time is more than one number without a file, which readers know.
        for number in (1..last).rev() {
            for compressed in [false, true] {
                let _ = fs::rename(older(&self.path, number, compressed), older(&self.path, number + 1, compressed));
            }
        }
        let first = older(&self.path, 1, false);
        let moved = if self.max_files < 2 { fs::remove_file(&self.path) } else { fs::rename(&self.path, &first) };
        if moved.is_err() && self.path.exists() {
            // It grows until there is room to rename it: better than to lose output.
            return;
        }
        self.file = open(&self.path);
        self.size = 0;
        if self.compress && self.max_files > 1 {
            self.compressor = compress_aside(&first);
        }
    }

    /// Takes notice of a compressor that is done.
    pub(super) fn tend(&mut self) {
        if let Some((pid, _)) = &self.compressor
            && !matches!(Pid::from_raw(*pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG)), Some(Ok(None)))
        {
            self.compressor = None;
        }
    }

    /// Whether nothing is at work beside.
    pub(super) fn is_settled(&self) -> bool {
        self.compressor.is_none()
    }

    fn give_up(&mut self) {
        self.tend();
        if let Some((pid, pidfd)) = self.compressor.take() {
            let _ = pidfd_send_signal(pidfd.as_fd(), 9);
            let _ = Pid::from_raw(pid).map(|pid| waitpid(Some(pid), WaitOptions::empty()));
            let _ = fs::remove_file(partial(&older(&self.path, 1, false)));
        }
    }
}

/// Compresses a file that nobody writes to any more, in another process.
fn compress_aside(path: &Path) -> Option<(i32, OwnedFd)> {
    let source = File::open(path).ok()?;
    let partial = partial(path);
    let target = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial).ok()?;
    match clone3(CloneFlags::empty(), None).ok()? {
        Cloned::Child => {
            let keep = [source.as_raw_fd(), target.as_raw_fd()].map(|fd| u32::try_from(fd).unwrap_or(u32::MAX));
            let _ = close_others(3, &mut keep.clone());
            // Another monitor may have renamed it meanwhile.
            let inode = source.metadata().map(|meta| meta.ino()).ok();
            let same = || fs::metadata(path).map(|meta| meta.ino()).ok() == inode;
            let done =
                compress(source, target).is_ok() && same() && fs::rename(&partial, compressed(path)).is_ok() && same();
            // Once it is there, the other is not needed; if it is not, what there is of it is not.
            let _ = fs::remove_file(if done { path } else { &partial });
            exit_now(0);
        }
        Cloned::Parent(pid, pidfd) => Some((pid, pidfd)),
    }
}

fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    PathBuf::from(name)
}

fn compress(mut source: File, target: File) -> std::io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::fast());
    std::io::copy(&mut source, &mut encoder)?;
    encoder.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(max_size: u64, max_files: u32) -> Plan {
        Plan { max_size, max_files, ..Plan::default() }
    }

    #[test]
    fn full_files_are_renamed_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let mut files = Files::open(path.clone(), &plan(10, 3));
        for number in 0..6 {
            files.write(format!("entry {number}...\n").as_bytes());
        }
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(text(&path), "entry 5...\n");
        assert_eq!(text(&older(&path, 1, false)), "entry 4...\n");
        assert_eq!(text(&older(&path, 2, false)), "entry 3...\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_single_file_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let mut files = Files::open(path.clone(), &plan(10, 1));
        for number in 0..3 {
            files.write(format!("entry {number}...\n").as_bytes());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "entry 2...\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_compressed_can_be_read() {
        use std::io::Read as _;
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("a.gz"));
        fs::write(&from, "text\n".repeat(1000)).unwrap();
        compress(File::open(&from).unwrap(), File::create(&to).unwrap()).unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(File::open(&to).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "text\n".repeat(1000));
    }
}
