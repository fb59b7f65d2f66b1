//! Waiting for changes of a directory's files, with inotify where the user has one left, and by looking otherwise.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::fs::inotify::{CreateFlags, WatchFlags};

/// Without inotify, and at most so long with it.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_ANYWAY: Duration = Duration::from_secs(1);

/// One watched directory.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: Option<OwnedFd>,
}

impl Watch {
    pub(crate) fn new(directory: &Path) -> Self {
        let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        // Users have few of them: without one it looks now and then.
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::MOVE_SELF;
        let inotify = made.filter(|fd| inotify::add_watch(fd, directory, flags).is_ok());
        Self { inotify }
    }

    /// Returns when something may have changed, or at `until`.
    pub(crate) fn wait(&self, until: Option<Instant>) {
        let most = if self.inotify.is_some() { LOOK_ANYWAY } else { LOOK };
        let most = until.map_or(most, |until| most.min(until.saturating_duration_since(Instant::now())));
        let Some(inotify) = &self.inotify else {
            std::thread::sleep(most);
            return;
        };
        let timeout = Timespec::try_from(most).ok();
        let _ = poll(&mut [PollFd::new(inotify, PollFlags::IN)], timeout.as_ref());
        // What changed is found by looking.
        let mut buffer = [0; 4096];
        while rustix::io::read(inotify.as_fd(), &mut buffer).is_ok_and(|count| count > 0) {}
    }
}
