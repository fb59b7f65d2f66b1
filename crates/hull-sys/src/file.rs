//! `sync_file_range(2)`: writing that begins before `fdatasync(2)` waits for it.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::check;

/// Starts to write a range of a file to its disk and does not wait (`sync_file_range(2)`, Linux 2.6.17). It promises
/// nothing: only `fdatasync(2)` does.
///
/// # Errors
/// `EINVAL` for an impossible range, `ESPIPE` for what is no file, `EIO`, `ENOSPC`.
pub fn start_writing(file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<(), Errno> {
    let range = i64::try_from(offset).ok().zip(i64::try_from(length).ok());
    let (offset, length) = range.ok_or(Errno::INVAL)?;
    // SAFETY: the call takes numbers and a descriptor that is open as long as the borrow.
    let returned = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
    check(returned.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn files_are_taken_and_impossible_ranges_are_not() {
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(std::env::temp_dir(), flags, rustix::fs::Mode::RUSR).unwrap();
        rustix::io::write(&file, b"content").unwrap();
        assert_eq!(start_writing(file.as_fd(), 0, 7), Ok(()));
        assert_eq!(start_writing(file.as_fd(), u64::MAX, 1), Err(Errno::INVAL));
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert_eq!(start_writing(pipe.as_fd(), 0, 1), Err(Errno::SPIPE));
    }
}
