//! Waiting until a container is gone: its record is out of sight, and with it all that anybody could see of it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use super::Engine;

/// The removal of a container that somebody else removes.
#[derive(Debug)]
pub struct Removal {
    directory: PathBuf,
    watch: Option<OwnedFd>,
}

impl Removal {
    /// Whether the container is gone.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.directory.exists()
    }

    /// Can be read when something has happened to it. Without one it has to be looked at now and then.
    #[must_use]
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(|watch| watch.as_fd())
    }
}

impl Engine {
    /// To wait for a container's removal.
    #[must_use]
    pub fn removal(&self, id: &str) -> Removal {
        let directory = self.directory(id);
        let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        let flags = WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
        let watch = watch.filter(|watch| add_watch(watch, &directory, flags).is_ok());
        Removal { directory, watch }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn a_removal_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::new(dir.path().join("data"), dir.path().join("state"));
        let id = "a".repeat(64);
        fs::create_dir_all(engine.directory(&id)).unwrap();
        let removal = engine.removal(&id);
        let ready = |seconds| {
            let watch = removal.watch().unwrap();
            let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
            poll(&mut [PollFd::from_borrowed_fd(watch, PollFlags::IN)], Some(&limit)).unwrap() == 1
        };
        assert!(!ready(0) && !removal.is_done());
        fs::rename(engine.directory(&id), engine.leaving(&id)).unwrap();
        assert!(ready(10) && removal.is_done());
        let late = engine.removal(&id);
        assert!(late.is_done() && late.watch().is_none());
    }
}
