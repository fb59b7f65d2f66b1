//! The runtime's log: where callers read why a command failed.
//!
//! containerd reads the last JSON line of `--log`; people read standard error. Without `--log` both are the same
//! place and get one line. Formats are logrus's:
//!
//! ```text
//! time="2026-11-21T10:00:00Z" level=error msg="container does not exist: c1"
//! {"level":"error","msg":"container does not exist: c1","time":"2026-11-21T10:00:00Z"}
//! ```

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::SystemTime;

use hull_oci::time::rfc3339_whole;

/// Severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// The command failed.
    Error,
    /// Something was left undone.
    Warning,
    /// For people looking for a fault.
    Debug,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Debug => "debug",
        }
    }

    fn syslog(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Debug => 7,
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// `key=value`.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

#[derive(Debug)]
enum Target {
    Stderr,
    File(File),
    /// Datagram socket and identifier; `true` for journald's protocol.
    System(UnixDatagram, String, bool),
}

/// The log of one command.
#[derive(Debug)]
pub(crate) struct Log {
    target: Target,
    format: Format,
    /// Least severe level that is written.
    threshold: Level,
}

impl Default for Log {
    fn default() -> Self {
        Self { target: Target::Stderr, format: Format::Text, threshold: Level::Warning }
    }
}

impl Log {
    /// Opens the log: a path, or crun's `file:PATH`, `journald:ID` and `syslog:ID`.
    pub(crate) fn open(target: Option<&OsStr>, format: Format, threshold: Level) -> Result<Self, String> {
        let target = match target {
            None => Target::Stderr,
            Some(name) if name.is_empty() => Target::Stderr,
            Some(name) => open_target(name).map_err(|error| format!("open log {}: {error}", name.to_string_lossy()))?,
        };
        Ok(Self { target, format, threshold })
    }

    /// Reports the error that ends the command: one line in the log and one on standard error.
    pub(crate) fn failure(&self, message: &str) {
        self.write(Level::Error, message);
        if !matches!(self.target, Target::Stderr) {
            let line = format!("{}\n", one_line(message));
            // Nothing is left to report to when standard error is gone.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    /// Reports something that did not end the command.
    pub(crate) fn warning(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    /// Notes a step, with `--debug`.
    pub(crate) fn debug(&self, message: &str) {
        self.write(Level::Debug, message);
    }

    fn write(&self, level: Level, message: &str) {
        if level > self.threshold {
            return;
        }
        let line = line(self.format, level, message, SystemTime::now());
        // One write per line, so that lines of several commands do not mix; a full disk must not fail the command.
        let _ = match &self.target {
            Target::Stderr => std::io::stderr().write_all(line.as_bytes()),
            Target::File(file) => (&*file).write_all(line.as_bytes()),
            Target::System(socket, identifier, true) => {
                let text = one_line(message);
                let record = format!("PRIORITY={}\nSYSLOG_IDENTIFIER={identifier}\nMESSAGE={text}\n", level.syslog());
                socket.send(record.as_bytes()).map(drop)
            }
            Target::System(socket, identifier, false) => {
                // Facility 3 is "daemon".
                let record = format!("<{}>{identifier}: {}", 3 * 8 + level.syslog(), one_line(message));
                socket.send(record.as_bytes()).map(drop)
            }
        };
    }
}

fn open_target(name: &OsStr) -> std::io::Result<Target> {
    let bytes = name.as_bytes();
    for (prefix, path, journal) in [("journald:", "/run/systemd/journal/socket", true), ("syslog:", "/dev/log", false)]
    {
        if let Some(identifier) = bytes.strip_prefix(prefix.as_bytes()) {
            let identifier = one_line(&String::from_utf8_lossy(identifier));
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            return Ok(Target::System(socket, identifier, journal));
        }
    }
    let path = bytes.strip_prefix(b"file:").map_or(name, OsStr::from_bytes);
    let file = File::options().append(true).create(true).mode(0o644).open(path)?;
    Ok(Target::File(file))
}

/// The message on one line, whatever it quotes.
pub(crate) fn one_line(message: &str) -> String {
    hull_oci::spec::one_line(&message.trim_end().replace(['\n', '\r'], " "))
}

fn line(format: Format, level: Level, message: &str, now: SystemTime) -> String {
    let time = rfc3339_whole(now);
    let level = level.as_str();
    match format {
        Format::Json => {
            let message = serde_json::Value::from(message);
            format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n")
        }
        Format::Text => format!("time=\"{time}\" level={level} msg={}\n", quote(message)),
    }
}

/// Quotes as Go's `%q` does.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn text_line() {
        let line = line(Format::Text, Level::Error, "mount \"proc\"\nfailed", UNIX_EPOCH);
        assert_eq!(line, "time=\"1970-01-01T00:00:00Z\" level=error msg=\"mount \\\"proc\\\"\\nfailed\"\n");
    }

    #[test]
    fn json_line() {
        let line = line(Format::Json, Level::Warning, "a \"b\"\n", UNIX_EPOCH);
        assert_eq!(line, "{\"level\":\"warning\",\"msg\":\"a \\\"b\\\"\\n\",\"time\":\"1970-01-01T00:00:00Z\"}\n");
    }

    #[test]
    fn log_file_gets_lines_appended() {
        let path = std::env::temp_dir().join(format!("hull-log-test-{}", std::process::id()));
        let log = Log::open(Some(path.as_os_str()), Format::Json, Level::Warning).unwrap();
        log.warning("one");
        log.debug("not written");
        log.warning("two");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let messages: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["msg"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(messages, ["one", "two"]);
    }
}
