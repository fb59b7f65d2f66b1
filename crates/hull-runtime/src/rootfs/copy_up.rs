//! `tmpcopyup`: fills a new tmpfs with what the directory under it holds, by descriptors only.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// At most this much content is copied: an image must not fill the machine's memory at start.
const MAX_BYTES: u64 = 512 << 20;
/// At most this many files.
const MAX_ENTRIES: u64 = 1 << 18;
/// At most this many directories deep; each costs descriptors.
const MAX_DEPTH: u32 = 128;

struct Budget {
    bytes: u64,
    entries: u64,
}

/// Copies everything below `from` (an `O_PATH` directory) into the root of `to`.
///
/// # Errors
/// `EFBIG` beyond the limits of this module; otherwise as the system calls.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut budget = Budget { bytes: MAX_BYTES, entries: MAX_ENTRIES };
    copy_directory(from, to, &mut budget, MAX_DEPTH)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, budget: &mut Budget, depth: u32) -> Result<(), Errno> {
    if depth == 0 {
        return Err(Errno::FBIG);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(from, c".", flags, Mode::empty())?;
    let mut directory = Dir::read_from(&readable)?;
    while let Some(entry) = directory.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        budget.entries = budget.entries.checked_sub(1).ok_or(Errno::FBIG)?;
        copy_entry(readable.as_fd(), to, name, budget, depth)?;
    }
    Ok(())
}

fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    budget: &mut Budget,
    depth: u32,
) -> Result<(), Errno> {
    // Looked at once; what is opened then is checked to be the same.
    let file = rustix::fs::openat(from, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let below = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(to, name, below, Mode::empty())?;
            copy_directory(file.as_fd(), made.as_fd(), budget, depth - 1)?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&file, c"", Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
        }
        FileType::RegularFile => {
            let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, open, Mode::empty())?;
            let opened = rustix::fs::fstat(&source)?;
            if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
                return Err(Errno::STALE);
            }
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(to, name, create, Mode::RUSR | Mode::WUSR)?;
            copy_content(&source, &made, budget)?;
        }
        FileType::Socket => return Ok(()),
        _ => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    set_metadata(to, name, &stat, mode, kind)
}

/// Owner, permission bits (which a change of owner clears) and times.
fn set_metadata(to: BorrowedFd<'_>, name: &CStr, stat: &Stat, mode: Mode, kind: FileType) -> Result<(), Errno> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), nofollow)?;
    if kind != FileType::Symlink {
        // The new tmpfs is nowhere attached: nobody can have exchanged the name.
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    #[expect(clippy::cast_possible_wrap, reason = "nanoseconds are below 10^9")]
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as i64 },
        last_modification: rustix::fs::Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 },
    };
    rustix::fs::utimensat(to, name, &times, nofollow)
}

fn copy_content(from: &OwnedFd, to: &OwnedFd, budget: &mut Budget) -> Result<(), Errno> {
    loop {
        // One byte more than the budget tells a file that is too long from one that just fits.
        let wish = usize::try_from((budget.bytes + 1).min(1 << 20)).unwrap_or(1 << 20);
        let count = rustix::io::retry_on_intr(|| rustix::fs::sendfile(to, from, None, wish))? as u64;
        if count == 0 {
            return Ok(());
        }
        budget.bytes = budget.bytes.checked_sub(count).ok_or(Errno::FBIG)?;
    }
}
