//! `hull build` as a process, and what it says on its standard error: a document for each change, as BuildKit's clients
//! read it, and lines for people.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

use hull_engine::Engine;
use hull_oci::spec::null_default;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;

use crate::refusal::Refusal;

/// A line that is longer is cut.
const MAX_LINE: u64 = 8 << 20;

/// What of the process's last words is kept.
const MAX_WORDS: usize = 64 << 10;

/// What is asked of `hull build`.
#[derive(Debug, Default)]
pub(crate) struct Command {
    /// Behind `hull build`.
    pub(crate) words: Vec<OsString>,
    /// Variables beside those of this process.
    pub(crate) variables: Vec<(String, OsString)>,
    /// Standard input is written by [`Process::input`].
    pub(crate) piped: bool,
}

impl Command {
    /// Adds `--NAME VALUE`, if there is a value.
    pub(crate) fn flag(&mut self, name: &str, value: impl Into<OsString>) {
        let value = value.into();
        if !value.is_empty() {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            self.words.push(word);
        }
    }

    /// Adds a word.
    pub(crate) fn word(&mut self, word: impl Into<OsString>) {
        self.words.push(word.into());
    }

    /// Starts it.
    pub(crate) fn start(self, engine: &Engine) -> Result<Process, Refusal> {
        let mut command = crate::step::own(engine);
        command.args(["build", "--progress=rawjson"]).args(self.words).envs(self.variables);
        command.stdin(if self.piped { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: &std::io::Error| match error.kind() {
            // A null byte in one of the words.
            std::io::ErrorKind::InvalidInput => Refusal::bad(format!("start the build: {error}")),
            _ => Refusal::failed(format!("start the build: {error}")),
        };
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let handle = match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(handle)) => handle,
            other => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Refusal::failed(format!("start the build: {other:?}")));
            }
        };
        Ok(Process { child, handle })
    }
}

/// A build that runs.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    handle: OwnedFd,
}

/// What ends a build from elsewhere.
#[derive(Debug)]
pub(crate) struct Ender(OwnedFd);

impl Ender {
    /// Asks the build to end.
    pub(crate) fn end(&self) {
        // It may have ended.
        let _ = pidfd_send_signal(&self.0, Signal::TERM);
    }
}

/// What a build says.
#[derive(Debug)]
pub(crate) enum Said {
    /// Something has changed.
    Status(Box<Status>),
    /// A line for people.
    Line(String),
}

/// How a build ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// It made what was asked for.
    pub(crate) success: bool,
    /// Why not: its last words.
    pub(crate) reason: String,
    /// Lines of the Dockerfile that are to blame.
    pub(crate) lines: Vec<u32>,
}

impl Process {
    /// Where what the build reads is written to.
    pub(crate) fn input(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// What ends it from another thread.
    pub(crate) fn ender(&self) -> Result<Ender, Refusal> {
        let copy = rustix::io::fcntl_dupfd_cloexec(self.handle.as_fd(), 3);
        copy.map(Ender).map_err(|errno| Refusal::failed(format!("duplicate a descriptor: {errno}")))
    }

    /// Hears everything that it says, until it has ended.
    pub(crate) fn follow(mut self, each: &mut dyn FnMut(Said)) -> Ended {
        let mut words = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            read(stderr, &mut |said| {
                if let Said::Line(line) = &said
                    && words.len() < MAX_WORDS
                {
                    words.push_str(line);
                    words.push('\n');
                }
                each(said);
            });
        }
        let success = self.child.wait().is_ok_and(|status| status.success());
        Ended { success, reason: reason(&words), lines: lines(&words) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = pidfd_send_signal(&self.handle, Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn read(stderr: ChildStderr, each: &mut dyn FnMut(Said)) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let status = if line.first() == Some(&b'{') { serde_json::from_slice::<Status>(&line).ok() } else { None };
        match status {
            Some(status) => each(Said::Status(Box::new(status))),
            None => {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end();
                if !text.is_empty() {
                    each(Said::Line(text.to_owned()));
                }
            }
        }
    }
}

/// Why a build failed, without what the command line says before it.
fn reason(words: &str) -> String {
    let error = words.lines().rev().find_map(|line| line.strip_prefix("ERROR: "));
    let text = error.or_else(|| words.lines().next_back()).unwrap_or("the build ended without a word");
    let text = text.strip_prefix("failed to build: ").unwrap_or(text);
    let text = text.strip_prefix("hull: ").unwrap_or(text);
    text.strip_prefix("failed to solve: ").unwrap_or(text).to_owned()
}

/// The marked lines of the excerpt that the command line shows: `   7 | >>> RUN x`.
fn lines(words: &str) -> Vec<u32> {
    let marked = words.lines().filter_map(|line| line.split_once(" | >>> ").map(|(number, _)| number.trim()));
    marked.filter_map(|number| number.parse().ok()).collect()
}

/// A document of `--progress=rawjson`: BuildKit's `SolveStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    #[serde(deserialize_with = "null_default")]
    pub(crate) vertexes: Vec<Vertex>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) statuses: Vec<Progress>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) logs: Vec<Log>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) warnings: Vec<Warning>,
}

/// A step.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Vertex {
    pub(crate) digest: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) inputs: Vec<String>,
    pub(crate) name: String,
    pub(crate) started: Option<String>,
    pub(crate) completed: Option<String>,
    pub(crate) cached: bool,
    pub(crate) error: String,
}

/// A part of a step.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    pub(crate) id: String,
    pub(crate) vertex: String,
    pub(crate) name: String,
    pub(crate) total: i64,
    pub(crate) current: i64,
    pub(crate) timestamp: Option<String>,
    pub(crate) started: Option<String>,
    pub(crate) completed: Option<String>,
}

/// What a step printed, in base64.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    pub(crate) vertex: String,
    pub(crate) stream: i64,
    pub(crate) data: String,
    pub(crate) timestamp: Option<String>,
}

impl Log {
    /// What was printed.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        base64_bytes(&self.data)
    }
}

/// Something that should be said.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Warning {
    pub(crate) vertex: String,
    pub(crate) level: i64,
    pub(crate) short: String,
    #[serde(deserialize_with = "null_default")]
    pub(crate) detail: Vec<String>,
    pub(crate) url: String,
    #[serde(rename = "sourceInfo")]
    pub(crate) source: Option<Source>,
    #[serde(deserialize_with = "null_default")]
    pub(crate) range: Vec<Range>,
}

/// The file that a warning is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Source {
    pub(crate) filename: String,
    pub(crate) data: String,
}

/// Lines of it.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Range {
    pub(crate) start: Position,
    pub(crate) end: Position,
}

/// A line.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Position {
    pub(crate) line: i32,
    pub(crate) character: i32,
}

/// Bytes of base64; what is none is nothing.
pub(crate) fn base64_bytes(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_last_error() {
        let words = "Dockerfile:2\n   1 | FROM scratch\n>>> 2 | RUNN x\nERROR: failed to build: failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN\n";
        assert_eq!(reason(words), "dockerfile parse error on line 2: unknown instruction: RUNN");
        assert_eq!(lines("Dockerfile:2\n----\n   1 |     FROM x\n   2 | >>> RUN a \\\n   3 | >>>   b\n"), [2, 3]);
        assert_eq!(reason("hull: something else"), "something else");
        assert_eq!(reason(""), "the build ended without a word");
    }

    #[test]
    fn documents_may_lack_anything() {
        let text =
            r#"{"vertexes":[{"digest":"sha256:1","name":"[1/2] RUN x","started":"2026-01-01T00:00:00Z"}],"logs":null}"#;
        let status: Status = serde_json::from_str(text).expect("parses");
        assert_eq!(status.vertexes[0].name, "[1/2] RUN x");
        let log: Log = serde_json::from_str(r#"{"vertex":"v","data":"aGkK"}"#).expect("parses");
        assert_eq!(log.bytes(), b"hi\n");
    }
}
