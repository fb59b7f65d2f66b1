//! A small blocking D-Bus client: as much as transient units of systemd need.
//!
//! The common D-Bus crates start threads, and the start path of a container must have one thread only when it clones.
//! The client authenticates with `EXTERNAL`, calls methods and waits for one kind of signal. It speaks to systemd's own
//! socket (`/run/systemd/private`, no bus in between) or to a message bus. Every wait has a limit.

pub(crate) mod wire;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::Error;
use wire::Message;

const TIMEOUT: Duration = Duration::from_secs(25);

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    serial: u32,
    /// Name of the peer on a bus; `None` when it is connected directly.
    destination: Option<&'static str>,
    /// Signals that arrived while waiting for a reply.
    signals: Vec<Message>,
}

const SYSTEMD: &str = "org.freedesktop.systemd1";
const BUS: &str = "org.freedesktop.DBus";

impl Connection {
    /// Connects to systemd: its own socket for root, the user's bus when rootless.
    pub(crate) fn systemd(rootless: bool) -> Result<Self, Error> {
        let uid = rustix::process::geteuid().as_raw();
        let (private, bus) = if rootless {
            let runtime = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| format!("/run/user/{uid}"));
            (format!("{runtime}/systemd/private"), format!("{runtime}/bus"))
        } else {
            ("/run/systemd/private".to_owned(), "/run/dbus/system_bus_socket".to_owned())
        };
        if let Ok(stream) = UnixStream::connect(Path::new(&private)) {
            return Self::start(stream, uid, true);
        }
        let stream = UnixStream::connect(Path::new(&bus))
            .map_err(|error| failed("connect", &format!("neither {private} nor {bus} can be reached: {error}")))?;
        Self::start(stream, uid, false)
    }

    /// Authenticates on a connected socket.
    pub(crate) fn start(stream: UnixStream, uid: u32, direct: bool) -> Result<Self, Error> {
        let io = |error: std::io::Error| failed("authenticate", &error.to_string());
        stream.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(io)?;
        let mut connection = Self { stream, serial: 0, destination: (!direct).then_some(SYSTEMD), signals: Vec::new() };
        let identity: String = uid.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        connection.stream.write_all(format!("\0AUTH EXTERNAL {identity}\r\n").as_bytes()).map_err(io)?;
        // One byte at a time: what follows the line belongs to the message stream.
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            connection.stream.read_exact(&mut byte).map_err(io)?;
            line.push(byte[0]);
            if line.len() > 1024 {
                return Err(failed("authenticate", "the answer is too long"));
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(failed("authenticate", &format!("refused: {}", String::from_utf8_lossy(&line).trim())));
        }
        let begin = connection.begin(direct);
        connection.stream.write_all(&begin).map_err(io)?;
        if !direct {
            let object = ("/org/freedesktop/DBus", BUS);
            connection.call_to(Some(BUS), (object.0, object.1, "Hello"), "", &[])?;
            let mut rule = wire::Encoder::default();
            rule.text("type='signal',sender='org.freedesktop.systemd1',member='JobRemoved'");
            connection.call_to(Some(BUS), (object.0, object.1, "AddMatch"), "s", &rule.bytes)?;
        }
        Ok(connection)
    }

    /// The end of authentication, in one piece with what must follow it.
    ///
    /// systemd reads at most 256 bytes of authentication at once, and does not look at a whole message among them until
    /// more arrives: the first call would wait for its time limit. So a direct connection begins with a message too long
    /// for that, which asks for no answer.
    fn begin(&mut self, direct: bool) -> Vec<u8> {
        const NO_REPLY_EXPECTED: u8 = 1;
        let mut bytes = b"BEGIN\r\n".to_vec();
        if direct {
            self.serial += 1;
            let mut body = wire::Encoder::default();
            body.text(&" ".repeat(256));
            let target = ("/org/freedesktop/systemd1", "org.freedesktop.DBus.Peer", "Ping");
            let mut ping = wire::call(self.serial, None, target, "s", &body.bytes);
            ping[2] |= NO_REPLY_EXPECTED;
            bytes.append(&mut ping);
        }
        bytes
    }

    /// Calls a method of systemd's manager.
    pub(crate) fn call(&mut self, member: &str, signature: &str, body: &[u8]) -> Result<Message, Error> {
        let target = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", member);
        self.call_to(self.destination, target, signature, body)
    }

    fn call_to(
        &mut self,
        destination: Option<&str>,
        target: (&str, &str, &str),
        signature: &str,
        body: &[u8],
    ) -> Result<Message, Error> {
        self.serial += 1;
        let bytes = wire::call(self.serial, destination, target, signature, body);
        self.stream.write_all(&bytes).map_err(|error| failed(target.2, &error.to_string()))?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let message = self.receive(target.2, deadline)?;
            match message.kind {
                wire::METHOD_RETURN if message.reply_to == self.serial => return Ok(message),
                wire::ERROR if message.reply_to == self.serial => {
                    let text = message.decoder().text().filter(|_| message.signature.starts_with('s'));
                    return Err(failed(target.2, &format!("{}: {}", message.error, text.unwrap_or("no reason given"))));
                }
                // Bounded: a chatty peer must not fill the memory.
                wire::SIGNAL if message.member == "JobRemoved" && self.signals.len() < 1024 => {
                    self.signals.push(message);
                }
                _ => {}
            }
        }
    }

    /// Waits for the end of a job (an object path); the result is `done` when it succeeded.
    pub(crate) fn wait_for_job(&mut self, job: &str) -> Result<String, Error> {
        let deadline = Instant::now() + TIMEOUT;
        let mut waiting = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match waiting.next() {
                Some(message) => message,
                None => self.receive("JobRemoved", deadline)?,
            };
            if message.kind != wire::SIGNAL || message.member != "JobRemoved" || message.signature != "uoss" {
                continue;
            }
            let mut body = message.decoder();
            let fields = (body.u32(), body.text(), body.text(), body.text());
            if let (Some(_), Some(path), Some(_), Some(result)) = fields
                && path == job
            {
                return Ok(result.to_owned());
            }
        }
    }

    fn receive(&mut self, operation: &str, deadline: Instant) -> Result<Message, Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(failed(operation, "no answer in time"));
        }
        let io = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::WouldBlock => failed(operation, "no answer in time"),
            _ => failed(operation, &error.to_string()),
        };
        self.stream.set_read_timeout(Some(left)).map_err(io)?;
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).map_err(io)?;
        let wrong = || failed(operation, "the answer is not a D-Bus message");
        let size = wire::message_size(&header).ok_or_else(wrong)?;
        let mut bytes = header.to_vec();
        bytes.resize(size, 0);
        self.stream.read_exact(&mut bytes[16..]).map_err(io)?;
        wire::parse(&bytes).ok_or_else(wrong)
    }
}

pub(crate) fn failed(operation: &str, reason: &str) -> Error {
    Error::Systemd { operation: operation.to_owned(), reason: reason.to_owned() }
}
