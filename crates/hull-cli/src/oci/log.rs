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
use std::time::{SystemTime, UNIX_EPOCH};

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
    let time = rfc3339(now);
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

/// UTC, to the second.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Howard Hinnant's civil-from-days, for dates from 1970 on: eras of 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times() {
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(951_827_696)), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(at(1_709_164_800)), "2024-02-29T00:00:00Z");
        assert_eq!(rfc3339(at(4_102_444_799)), "2099-12-31T23:59:59Z");
    }

    #[test]
    fn text_line() {
        let line = line(Format::Text, Level::Error, "mount \"proc\"\nfailed", at(0));
        assert_eq!(line, "time=\"1970-01-01T00:00:00Z\" level=error msg=\"mount \\\"proc\\\"\\nfailed\"\n");
    }

    #[test]
    fn json_line() {
        let line = line(Format::Json, Level::Warning, "a \"b\"\n", at(0));
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
