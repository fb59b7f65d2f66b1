//! Running commands to their end, with a time limit.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Finished {
    /// Asserts exit code 0.
    #[track_caller]
    #[expect(clippy::must_use_candidate, reason = "the assertion is often all that is wanted")]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Asserts an exit code other than 0, and exactly one line on standard error that contains `text`.
    #[track_caller]
    pub fn fails(&self, text: &str) -> &Self {
        assert_ne!(self.code, 0, "succeeded; stdout: {}", self.stdout);
        assert!(self.code < 128 || self.code == 255, "died: code {}, stderr: {}", self.code, self.stderr);
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "one line of error, not: {}", self.stderr);
        assert!(self.stderr.contains(text), "no {text:?} in: {}", self.stderr);
        self
    }

    /// Standard output's lines.
    #[must_use]
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// Standard output without the final newline.
    #[must_use]
    pub fn text(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }
}

/// Runs a command for at most 30 seconds. See [`finish_within`].
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    finish_within(command, Duration::from_secs(30))
}

/// Runs a command to its end. Output goes through files, because a container that lives on keeps its streams open.
///
/// # Panics
/// If it cannot be started, or is not done in time (it is killed then).
#[track_caller]
pub fn finish_within(command: &mut Command, limit: Duration) -> Finished {
    let mut stdout = tempfile::tempfile().expect("temporary file");
    let mut stderr = tempfile::tempfile().expect("temporary file");
    let clone = |file: &File| file.try_clone().expect("duplicate descriptor");
    let begin = Instant::now();
    let mut child =
        command.stdout(clone(&stdout)).stderr(clone(&stderr)).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut pause = Duration::from_micros(200);
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            break status;
        }
        if begin.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            let mut text = String::new();
            let _ = stderr.rewind().and_then(|()| stderr.read_to_string(&mut text));
            panic!("{command:?} is not done after {limit:?}; stderr: {text}");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    };
    let took = begin.elapsed();
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("read output");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Finished {
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        stdout: read(&mut stdout),
        stderr: read(&mut stderr),
        took,
    }
}
