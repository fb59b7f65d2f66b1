//! Threads that change files under a running command: the attacker's half of a check/use race.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{CWD, RenameFlags};

/// A thread that repeats an action until it is dropped.
#[derive(Debug)]
pub struct Race {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Race {
    /// Repeats `action` as fast as it goes.
    pub fn repeat(mut action: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut turns = 0;
            while !seen.load(Ordering::Relaxed) {
                action();
                turns += 1;
            }
            turns
        });
        Self { stop, thread: Some(thread) }
    }

    /// Exchanges two names atomically, over and over.
    pub fn exchange(a: impl Into<PathBuf>, b: impl Into<PathBuf>) -> Self {
        let (a, b) = (a.into(), b.into());
        Self::repeat(move || {
            let _ = rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
        })
    }

    /// Lets `name` alternate between an empty regular file and a symlink to `target`.
    pub fn file_or_link(name: &Path, target: &str) -> Self {
        let (name, target) = (name.to_owned(), target.to_owned());
        Self::repeat(move || {
            let _ = std::fs::remove_file(&name);
            let _ = std::os::unix::fs::symlink(&target, &name);
            let _ = std::fs::remove_file(&name);
            let _ = std::fs::write(&name, "");
        })
    }
}

impl Drop for Race {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let turns = thread.join().unwrap_or(0);
            assert!(turns > 0 || std::thread::panicking(), "the racing thread never ran");
        }
    }
}
