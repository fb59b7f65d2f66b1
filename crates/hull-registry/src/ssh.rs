//! Another machine's image store, spoken to through ssh(1).
//!
//! ```text
//! hull push ssh://user@host ──> ssh -T user@host hull registry serve --stdio
//!                                  └─ the distribution protocol, on standard input and output
//! ```
//!
//! ssh asks for passwords and unknown keys on the terminal, as always; what it writes on standard error is kept and told
//! when it fails. `HULL_SSH` names another command instead of `ssh`, with its arguments; `HULL_SSH_HULL` another one
//! instead of `hull` at the far end, such as `sudo hull`.

use std::fmt;
use std::io::{BufRead, BufReader, BufWriter, Read as _, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hull_http::pipe::{Pipe, Stream};
use hull_http::{Error, ErrorKind};
use hull_oci::spec::one_line;

/// What is kept of standard error: its end.
const MAX_SAID: usize = 4 << 10;

/// How long ssh may take to end once it is of no use.
const LEAVING: Duration = Duration::from_secs(5);

/// `ssh://[USER@]HOST[:PORT][/ROOT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    root: Option<String>,
}

/// The text is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address of a machine: {reason}; expected ssh://[USER@]HOST[:PORT][/ROOT]")]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = |reason| AddressError { text: text.to_owned(), reason };
        let rest = text.strip_prefix("ssh://").ok_or_else(|| bad("it does not begin with ssh://"))?;
        let (place, root) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(&rest[at..]).filter(|root| root.len() > 1)),
            None => (rest, None),
        };
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, place),
        };
        let (host, port) = if let Some(inner) = place.strip_prefix('[') {
            let (host, after) = inner.split_once(']').ok_or_else(|| bad("a ] is missing"))?;
            let port = after.strip_prefix(':');
            if port.is_none() && !after.is_empty() {
                return Err(bad("a port is missing after ]"));
            }
            (host, port)
        } else {
            place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)))
        };
        let port = port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or_else(|| bad("the port is wrong")));
        // What begins with a dash would be an option of ssh.
        let word = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:%+".contains(&byte))
        };
        if !word(host) {
            return Err(bad("the host is wrong"));
        }
        if user.is_some_and(|user| !word(user)) {
            return Err(bad("the user is wrong"));
        }
        if root.is_some_and(|root| root.chars().any(char::is_control)) {
            return Err(bad("the directory is wrong"));
        }
        Ok(Self {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port: port.transpose()?,
            root: root.map(str::to_owned),
        })
    }
}

impl Address {
    /// The host, with the port if there is one: what messages name.
    #[must_use]
    pub fn host(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }

    /// Program and arguments; `ssh` and `hull` are what the user has instead of the usual ones.
    fn command(&self, ssh: Option<&str>, hull: Option<&str>) -> (String, Vec<String>) {
        let mut words = ssh.unwrap_or("ssh").split_whitespace().map(str::to_owned);
        let program = words.next().unwrap_or_else(|| "ssh".to_owned());
        let mut args: Vec<String> = words.collect();
        args.push("-T".to_owned());
        // A machine that is gone is noticed within a minute.
        for option in ["ServerAliveInterval=15", "ServerAliveCountMax=4"] {
            args.extend(["-o".to_owned(), option.to_owned()]);
        }
        args.extend(self.port.into_iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        args.extend(["--".to_owned(), format!("{user}{}", self.host)]);
        let mut remote = hull.unwrap_or("hull").to_owned();
        if let Some(root) = &self.root {
            remote.push_str(&format!(" --root {}", quoted(root)));
        }
        remote.push_str(" registry serve --stdio");
        args.push(remote);
        (program, args)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        write!(formatter, "ssh://{user}{}{}", self.host(), self.root.as_deref().unwrap_or_default())
    }
}

/// One word for the shell at the far end.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Requests to the machine, over one ssh that is started with the first of them.
pub(crate) fn pipe(address: &Address) -> Pipe {
    let setting = |key: &str| hull_config::text(key).filter(|value| !value.trim().is_empty());
    let (ssh, hull) = (setting("ssh"), setting("ssh-hull"));
    let address = address.clone();
    Pipe::new(Box::new(move || {
        let (program, args) = address.command(ssh.as_deref(), hull.as_deref());
        Session::start(&program, &args, &address.host).map(|session| Box::new(session) as Box<dyn Stream>)
    }))
}

/// A running ssh.
#[derive(Debug)]
struct Session {
    host: String,
    program: String,
    child: Child,
    to: Option<BufWriter<ChildStdin>>,
    nowhere: std::io::Sink,
    from: BufReader<ChildStdout>,
    /// Gives what was said on standard error, once it is closed.
    said: mpsc::Receiver<String>,
}

impl Session {
    fn start(program: &str, args: &[String], host: &str) -> Result<Self, Error> {
        let fatal = |message: String| Error { kind: ErrorKind::Request, message };
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                fatal(format!("{program:?} is not installed: install an ssh client, or name one in HULL_SSH"))
            }
            _ => fatal(format!("run {program:?}: {error}")),
        })?;
        let (Some(to), Some(from), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(fatal(format!("run {program:?}: it has no streams")));
        };
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            let mut errors = errors;
            let mut kept: Vec<u8> = Vec::new();
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = errors.read(&mut buffer) {
                kept.extend_from_slice(&buffer[..count]);
                kept.drain(..kept.len().saturating_sub(MAX_SAID));
            }
            // Nobody may want to know.
            let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
        });
        Ok(Self {
            host: host.to_owned(),
            program: program.to_owned(),
            child,
            to: Some(BufWriter::with_capacity(64 << 10, to)),
            nowhere: std::io::sink(),
            from: BufReader::with_capacity(256 << 10, from),
            said,
        })
    }

    /// Lets ssh end, or ends it. Returns its exit code if it had one of its own.
    fn leave(&mut self) -> Option<i32> {
        // What a full buffer still holds concerns nobody any more.
        if let Some(to) = self.to.take() {
            drop(to.into_parts());
        }
        let begin = Instant::now();
        while begin.elapsed() < LEAVING {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.code(),
                Ok(None) => thread::sleep(Duration::from_millis(2)),
                Err(_) => return None,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

impl Stream for Session {
    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.to {
            Some(to) => to,
            // What goes nowhere is noticed by the answer that does not come.
            None => &mut self.nowhere,
        }
    }

    fn reader(&mut self) -> &mut dyn BufRead {
        &mut self.from
    }

    fn why(&mut self, answered: bool) -> Error {
        let code = self.leave();
        // Whoever inherited standard error may hold it open.
        let said = self.said.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        let message = explain(&self.program, &self.host, code, &said, answered);
        // What has worked may work again; what never did will not within seconds.
        Error { kind: if answered { ErrorKind::Transfer } else { ErrorKind::Request }, message }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

/// What an exit code and the last line of standard error mean.
fn explain(program: &str, host: &str, code: Option<i32>, said: &str, answered: bool) -> String {
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    let told = last.map(|line| format!(": {}", one_line(line))).unwrap_or_default();
    match code {
        Some(255) => format!("{program} to {host} failed{told}"),
        Some(126 | 127) if !answered => format!(
            "hull cannot be run on {host}{told}; install it there, or name its path or a wrapper in HULL_SSH_HULL"
        ),
        Some(125 | 2) if !answered => format!(
            "the hull on {host} does not serve its store: install version {} or later there{told}",
            env!("CARGO_PKG_VERSION")
        ),
        Some(0) if told.is_empty() => format!("{host} closed the connection"),
        Some(code) => format!("{program} to {host} ended with exit code {code}{told}"),
        None => format!("{program} to {host} was killed{told}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parsed: Address = "ssh://u.ser@host.example:2222/srv/hull store".parse().expect("address");
        assert_eq!(parsed.host(), "host.example:2222");
        assert_eq!(parsed.to_string(), "ssh://u.ser@host.example:2222/srv/hull store");
        let (program, args) = parsed.command(None, None);
        assert_eq!(program, "ssh");
        let options = "-T -o ServerAliveInterval=15 -o ServerAliveCountMax=4 -p 2222 -- u.ser@host.example";
        assert_eq!(args[..args.len() - 1].join(" "), options);
        assert_eq!(args[args.len() - 1], "hull --root '/srv/hull store' registry serve --stdio");
        let bare: Address = "ssh://[fe80::1%eth0]/".parse().expect("address");
        let (program, args) = bare.command(Some("ssh -F other"), Some("sudo hull"));
        assert_eq!((program.as_str(), &args[..2]), ("ssh", &["-F".to_owned(), "other".to_owned()][..]));
        assert_eq!(args[args.len() - 2..], ["fe80::1%eth0", "sudo hull registry serve --stdio"]);
        for bad in [
            "host",
            "ssh://",
            "ssh:///x",
            "ssh://-oProxyCommand=evil",
            "ssh://-l@host",
            "ssh://a b",
            "ssh://h:0",
            "ssh://h:99999",
            "ssh://h:x",
            "ssh://[::1",
            "ssh://[::1]x",
            "ssh://u@h/a\nb",
            "ssh://$(id)",
            "ssh://u@",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn ends_are_explained() {
        let text = explain("ssh", "h", Some(255), "banner\nssh: connect to host h port 22: refused\n\n", false);
        assert_eq!(text, "ssh to h failed: ssh: connect to host h port 22: refused");
        assert!(explain("ssh", "h", Some(127), "sh: hull: not found", false).contains("HULL_SSH_HULL"));
        assert!(explain("ssh", "h", Some(125), "hull: unexpected argument", false).contains("or later"));
        assert!(explain("ssh", "h", Some(127), "", true).contains("exit code 127"));
        assert!(explain("ssh", "h", None, "", true).contains("killed"));
    }
}
