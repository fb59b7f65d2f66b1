//! The log of a detached container, in Docker's json-file format: a JSON object per line,
//! `{"log":"TEXT\n","stream":"stdout","time":"RFC 3339"}`. A line longer than [`MAX_LINE`] is split into several objects
//! of which only the last has the line feed. Bytes that are no UTF-8 become U+FFFD, as in every JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::config::LogConfig;
use crate::error::Error;
use crate::monitor::protocol;
use crate::records::{Container, Engine, Phase};

/// Bytes of text in one object.
pub const MAX_LINE: usize = 16 << 10;

/// Name of the log in a container's directory.
pub(crate) const FILE: &str = "container.log";

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    log: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    time: std::borrow::Cow<'a, str>,
}

/// Writes one stream's output as entries.
#[derive(Debug)]
pub(crate) struct Writer {
    stream: &'static str,
    pending: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(stream: &'static str) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Adds output; whole lines are written.
    pub(crate) fn add(&mut self, file: &mut impl Write, mut bytes: &[u8]) -> std::io::Result<()> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            let room = MAX_LINE - self.pending.len();
            let end = bytes.iter().take(room).position(|byte| *byte == b'\n').map(|position| position + 1);
            let take = end.unwrap_or(bytes.len().min(room));
            self.pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if end.is_some() || self.pending.len() == MAX_LINE {
                self.entry(&mut lines)?;
            }
        }
        // One write, so that a reader meets whole objects.
        file.write_all(&lines)
    }

    /// Writes what has no line feed yet.
    pub(crate) fn finish(&mut self, file: &mut impl Write) -> std::io::Result<()> {
        let mut lines = Vec::new();
        if !self.pending.is_empty() {
            self.entry(&mut lines)?;
        }
        file.write_all(&lines)
    }

    fn entry(&mut self, lines: &mut Vec<u8>) -> std::io::Result<()> {
        let entry = Entry {
            log: String::from_utf8_lossy(&self.pending),
            stream: self.stream.into(),
            time: hull_runtime::state::rfc3339(SystemTime::now()).into(),
        };
        serde_json::to_writer(&mut *lines, &entry)?;
        lines.push(b'\n');
        self.pending.clear();
        Ok(())
    }
}

/// The log that a monitor writes.
#[derive(Debug)]
pub(crate) struct Log {
    config: LogConfig,
    file: Option<File>,
    writers: [Writer; 2],
}

impl Log {
    /// The log of a container's directory. One that cannot be opened loses its output, and the container goes on.
    pub(crate) fn open(directory: &Path, config: &LogConfig) -> Self {
        use std::os::unix::fs::OpenOptionsExt as _;
        let open = || File::options().append(true).create(true).mode(0o600).open(directory.join(FILE)).ok();
        let file = if config.driver == "none" { None } else { open() };
        Self { config: config.clone(), file, writers: [Writer::new("stdout"), Writer::new("stderr")] }
    }

    /// As it was opened with.
    pub(crate) fn config(&self) -> &LogConfig {
        &self.config
    }

    fn writer(&mut self, stream: u8) -> &mut Writer {
        &mut self.writers[usize::from(stream == protocol::STDERR)]
    }

    /// Adds output of a stream.
    pub(crate) fn add(&mut self, stream: u8, bytes: &[u8]) {
        let writer = &mut self.writers[usize::from(stream == protocol::STDERR)];
        if let Some(file) = &mut self.file {
            let _ = writer.add(file, bytes);
        }
    }

    /// Writes what has no line feed yet.
    pub(crate) fn finish(&mut self) {
        if let Some(file) = &mut self.file {
            for writer in &mut self.writers {
                let _ = writer.finish(file);
            }
        }
    }

    /// What has no line feed yet, by stream.
    pub(crate) fn partial(&self) -> BTreeMap<u8, Vec<u8>> {
        let streams = [protocol::STDOUT, protocol::STDERR];
        let both = streams.into_iter().zip(self.writers.iter().map(|writer| writer.pending.clone()));
        both.filter(|(_, pending)| !pending.is_empty()).collect()
    }

    /// Goes on after what another process image had.
    pub(crate) fn continue_with(&mut self, partial: BTreeMap<u8, Vec<u8>>) {
        for (stream, pending) in partial {
            self.writer(stream).pending = pending;
        }
    }
}

/// What `logs` shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only this many of the last lines at first.
    pub tail: Option<usize>,
    /// Put each line's time before it.
    pub timestamps: bool,
}

/// Writes a container's log to these streams.
///
/// # Errors
/// When the container has no log, or it cannot be read or written.
pub fn show(
    engine: &Engine,
    container: &Container,
    options: Options,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), Error> {
    let path = engine.directory(&container.id).join(FILE);
    let mut reader = BufReader::new(File::open(&path).map_err(Error::io("open", &path))?);
    if let Some(count) = options.tail {
        skip_to_tail(&mut reader, count, &path)?;
    }
    let mut line = String::new();
    loop {
        // Asked before reading: what was written before the end is read after it.
        let running = options.follow
            && engine.state(&container.id).is_ok_and(|state| matches!(state.phase, Phase::Running | Phase::Restarting));
        loop {
            let read = reader.read_line(&mut line).map_err(Error::io("read", &path))?;
            if read == 0 || !line.ends_with('\n') {
                break;
            }
            let shown = show_line(&line, options, out, err);
            line.clear();
            match shown {
                // Whoever reads has seen enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                other => other.map_err(Error::io("write", Path::new("output")))?,
            }
        }
        if !running {
            return Ok(());
        }
        let _ = out.flush();
        let _ = err.flush();
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn show_line(line: &str, options: Options, out: &mut impl Write, err: &mut impl Write) -> std::io::Result<()> {
    // A damaged line is passed over: the rest of the log is worth more than an error.
    let Ok(entry) = serde_json::from_str::<Entry<'_>>(line) else { return Ok(()) };
    let mut text = String::new();
    if options.timestamps {
        text.push_str(&entry.time);
        text.push(' ');
    }
    text.push_str(&entry.log);
    if entry.stream == "stderr" {
        // Both may end in the same terminal or file: their order is the log's.
        out.flush()?;
        err.write_all(text.as_bytes())
    } else {
        out.write_all(text.as_bytes())
    }
}

fn skip_to_tail(reader: &mut BufReader<File>, count: usize, path: &Path) -> Result<(), Error> {
    use std::io::{Seek as _, SeekFrom};
    let fail = || Error::io("read", path);
    let mut starts = std::collections::VecDeque::new();
    let (mut position, mut line) = (0_u64, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(fail())?;
        if read == 0 || line.last() != Some(&b'\n') {
            break;
        }
        starts.push_back(position);
        position += read as u64;
        if starts.len() > count {
            starts.pop_front();
        }
    }
    reader.seek(SeekFrom::Start(starts.front().copied().unwrap_or(position))).map_err(fail())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(lines: &[u8]) -> Vec<String> {
        lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn lines_are_entries_however_they_arrive() {
        let mut file = Vec::new();
        let mut writer = Writer::new("stdout");
        for part in ["one\ntw", "o\n", "\n", "th"] {
            writer.add(&mut file, part.as_bytes()).unwrap();
        }
        assert_eq!(logs(&file), ["one\n", "two\n", "\n"]);
        writer.finish(&mut file).unwrap();
        assert_eq!(logs(&file).last().unwrap(), "th");
        let first: serde_json::Value =
            serde_json::from_slice(file.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
        assert_eq!(first["stream"], "stdout");
        assert!(first["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn long_lines_are_split() {
        let mut file = Vec::new();
        let mut writer = Writer::new("stderr");
        writer.add(&mut file, &[b'x'; MAX_LINE + 5]).unwrap();
        writer.add(&mut file, b"\n").unwrap();
        let parts = logs(&file);
        assert_eq!((parts.len(), parts[0].len(), parts[1].as_str()), (2, MAX_LINE, "xxxxx\n"));
    }

    #[test]
    fn streams_are_told_apart_and_times_shown() {
        let line = "{\"log\":\"a\\n\",\"stream\":\"stderr\",\"time\":\"T\"}\n";
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let options = Options { timestamps: true, ..Options::default() };
        show_line(line, options, &mut out, &mut err).unwrap();
        show_line("broken\n", options, &mut out, &mut err).unwrap();
        assert_eq!((out.as_slice(), err.as_slice()), (b"".as_slice(), b"T a\n".as_slice()));
    }
}
