//! Which further programs run in a container.
//!
//! ```text
//! containers/ID/execs/EXEC    process ID and start time of the program
//! ```
//!
//! A record is made once the program runs and removed by whoever waits for its end. Programs that nobody waits for leave
//! theirs behind: it speaks of a process that is gone, and the next program that is started removes it.

use std::fs;
use std::path::{Path, PathBuf};

use hull_runtime::state::process_start_time;

use crate::records::Engine;

impl Engine {
    fn exec_directory(&self, container: &str) -> PathBuf {
        self.directory(container).join("execs")
    }

    /// A program runs. That it is not listed is no reason to end it.
    pub(crate) fn note_exec(&self, container: &str, exec: &str, pid: i32) {
        let directory = self.exec_directory(container);
        for path in entries(&directory).filter(|path| !runs(path)) {
            let _ = fs::remove_file(path);
        }
        if let Some(start) = process_start_time(pid) {
            let _ = fs::create_dir(&directory);
            let _ = fs::write(directory.join(exec), format!("{pid} {start}"));
        }
    }

    /// A program has ended.
    pub(crate) fn forget_exec(&self, container: &str, exec: &str) {
        let _ = fs::remove_file(self.exec_directory(container).join(exec));
    }

    /// The programs that run in a container beside its own, sorted.
    #[must_use]
    pub fn exec_ids(&self, container: &str) -> Vec<String> {
        let directory = self.exec_directory(container);
        let running = entries(&directory).filter(|path| runs(path));
        let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut ids: Vec<String> = running.filter_map(name).collect();
        ids.sort();
        ids
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Whether the process of a record is still the one that it was made for.
fn runs(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut words = text.split(' ');
    let pid = words.next().and_then(|word| word.parse().ok());
    let start = words.next().and_then(|word| word.parse::<u64>().ok());
    pid.is_some_and(|pid| start.is_some() && process_start_time(pid) == start)
}
