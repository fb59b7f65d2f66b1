//! `--storage-opt size=`: a limit of what a container may write to its layer, by a project quota of the file system.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::io::Errno;

use super::transfer;
use crate::error::Error;

/// Projects of containers; others on the machine are usually numbered from 1.
const FIRST: u32 = 0x4000_0000;

fn project(id: &str) -> u32 {
    FIRST | (u32::from_str_radix(id.get(..8).unwrap_or_default(), 16).unwrap_or(1) & (FIRST - 1))
}

/// Limits what the directories of a container may hold together; no size ends a limit.
pub(crate) fn limit(id: &str, directories: [&Path; 2], size: Option<u64>) -> Result<(), Error> {
    let project = project(id);
    let unsupported = |errno: Errno| match errno {
        Errno::NOSYS | Errno::NOTTY | Errno::OPNOTSUPP | Errno::SRCH | Errno::INVAL | Errno::PERM => Error::flag(
            "--storage-opt",
            format!(
                "size needs project quotas, which the file system of the containers has not: use ext4 or xfs mounted with \
                 prjquota (at {}: {})",
                directories[0].display(),
                std::io::Error::from(errno)
            ),
        ),
        errno => Error::io("set quota of", directories[0])(errno),
    };
    let opened = [transfer::open(directories[0])?, transfer::open(directories[1])?];
    if size.is_some() {
        for directory in &opened {
            hull_sys::quota::set_project(directory.as_fd(), project).map_err(unsupported)?;
        }
    }
    hull_sys::quota::limit_project(opened[0].as_fd(), project, size.unwrap_or(0)).map_err(unsupported)
}
