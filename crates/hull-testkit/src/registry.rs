//! Registries for tests: Debian's `docker-registry`, and one that fails as it is told to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Debian's `docker-registry` on a port of the loopback device, with storage of its own; gone when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    /// The port on 127.0.0.1.
    pub port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts one, with more lines for its configuration; `None`, and a printed skip, where it is not installed.
    ///
    /// # Panics
    /// When it is installed and does not come up.
    #[must_use]
    pub fn start(more: &str) -> Option<Self> {
        let places = ["/usr/bin/docker-registry", "/usr/local/bin/docker-registry"];
        let Some(program) = places.iter().find(|path| Path::new(path).exists()) else {
            crate::tier::skip("docker-registry", "docker-registry is not installed");
            return None;
        };
        let directory = tempfile::tempdir().expect("temporary directory");
        let config = directory.path().join("config.yml");
        let data = directory.path().join("data");
        // Between choosing a port and taking it, another test may have it: then there is another.
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            let port = listener.local_addr().expect("address").port();
            drop(listener);
            let text = format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  \
                 filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{more}",
                data.display()
            );
            std::fs::write(&config, text).expect("write");
            let mut command = Command::new(program);
            command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().expect("start docker-registry");
            for _ in 0..400 {
                if child.try_wait().expect("wait").is_some() {
                    break;
                }
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(Self { child, port, _directory: directory });
                }
                thread::sleep(Duration::from_millis(25));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not come up");
    }
}

/// What a faulty registry does to one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends before an answer.
    Hangup,
    /// So many bytes of the body, then the connection ends.
    Cut(usize),
    /// This status with these headers, each with its line end, and a body in the protocol's form.
    Status(u16, &'static str),
    /// The body with one bit changed.
    Flip,
    /// The body a few bytes at a time.
    Drip,
    /// All of the body, whatever range was asked for.
    NoRange,
    /// A redirect to this registry under another name of the loopback device.
    Redirect,
    /// This status, these headers, each with its line end, and this body, whatever was asked for.
    Answer(u16, String, Vec<u8>),
    /// So many bytes of the request's body are taken, then the connection ends.
    CutRequest(usize),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method and target.
    pub line: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }
}

/// A path's part, what happens to the next answer for a path that contains it, and whether it happens every time.
type Plan = Vec<(String, Fault, bool)>;

/// A registry that serves what it is given, and fails as planned.
#[derive(Debug)]
pub struct Faulty {
    /// The port on 127.0.0.1.
    pub port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Target, type and content.
    content: Mutex<Vec<(String, String, Vec<u8>)>>,
    plan: Mutex<Plan>,
    seen: Mutex<Vec<Seen>>,
    /// Bytes of uploads, by their number.
    uploads: Mutex<Vec<Vec<u8>>>,
}

impl Faulty {
    /// Starts one that has nothing.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let state = Arc::new(State::default());
        let served = state.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let served = served.clone();
                thread::spawn(move || {
                    // The test sees what the client makes of a broken connection.
                    let _ = serve(stream, port, &served);
                });
            }
        });
        Self { port, state }
    }

    /// Serves these bytes at a target such as `/v2/team/app/manifests/1`.
    pub fn put(&self, target: &str, kind: &str, bytes: &[u8]) {
        let mut content = self.state.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.retain(|(known, _, _)| known != target);
        content.push((target.to_owned(), kind.to_owned(), bytes.to_vec()));
    }

    /// Plans a fault for the next answer whose target contains this text. Faults for one text happen in their order.
    pub fn fail(&self, text: &str, fault: Fault) {
        self.state.plan.lock().unwrap_or_else(PoisonError::into_inner).push((text.to_owned(), fault, false));
    }

    /// Plans a fault for every answer whose target contains this text.
    pub fn always(&self, text: &str, fault: Fault) {
        self.state.plan.lock().unwrap_or_else(PoisonError::into_inner).push((text.to_owned(), fault, true));
    }

    /// Forgets all faults.
    pub fn mend(&self) {
        self.state.plan.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What is served at a target.
    #[must_use]
    pub fn content(&self, target: &str) -> Option<Vec<u8>> {
        let content = self.state.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.iter().find(|(known, _, _)| known == target).map(|(_, _, bytes)| bytes.clone())
    }

    /// Takes what has been asked so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Faults that have not happened.
    #[must_use]
    pub fn left(&self) -> usize {
        self.state.plan.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

pub(crate) fn request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<(Seen, u64)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let seen = Seen { line: line.trim_end().trim_end_matches(" HTTP/1.1").to_owned(), headers };
    let length = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    Ok(Some((seen, length)))
}

/// Takes a part of an upload, or the whole of it, or a manifest. What is answered, if it is one of these.
fn take(state: &State, method: &str, target: &str, kind: &str, body: &[u8]) -> Option<(u16, String)> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut uploads = state.uploads.lock().unwrap_or_else(PoisonError::into_inner);
    let put = |target: String, bytes: &[u8]| {
        let mut content = state.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.retain(|(known, _, _)| *known != target);
        content.push((target, kind.to_owned(), bytes.to_vec()));
    };
    if let Some((repository, number)) = path.split_once("/blobs/uploads/") {
        let place = |number: usize, length: usize| {
            let last = length.saturating_sub(1);
            format!("Location: {repository}/blobs/uploads/{number}\r\nRange: 0-{last}\r\n")
        };
        if method == "POST" {
            uploads.push(Vec::new());
            return Some((202, place(uploads.len() - 1, 0)));
        }
        let number: usize = number.parse().ok()?;
        let upload = uploads.get_mut(number)?;
        upload.extend_from_slice(body);
        let digest =
            query.split('&').find_map(|pair| pair.strip_prefix("digest=")).map(|text| text.replace("%3A", ":"));
        return match (method, digest) {
            ("PUT", Some(digest)) => {
                put(format!("{repository}/blobs/{digest}"), upload);
                Some((201, String::new()))
            }
            ("GET", _) => Some((204, place(number, upload.len()))),
            ("PATCH", _) => Some((202, place(number, upload.len()))),
            _ => None,
        };
    }
    if method == "PUT" && path.contains("/manifests/") {
        put(path.to_owned(), body);
        return Some((201, String::new()));
    }
    None
}

fn serve(stream: TcpStream, port: u16, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some((seen, length)) = request(&mut reader)? {
        let (method, target) = seen.line.split_once(' ').unwrap_or((&seen.line, ""));
        let (method, target) = (method.to_owned(), target.to_owned());
        // As a proxy is asked.
        let target = target
            .strip_prefix("http://")
            .and_then(|rest| rest.find('/').map(|at| rest[at..].to_owned()))
            .unwrap_or(target);
        let range = seen.header("range").map(str::to_owned);
        let kind = seen.header("content-type").unwrap_or_default().to_owned();
        state.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        let fault = {
            let mut plan = state.plan.lock().unwrap_or_else(PoisonError::into_inner);
            let at = plan.iter().position(|(text, _, _)| target.contains(text.as_str()));
            at.map(|at| if plan[at].2 { plan[at].1.clone() } else { plan.remove(at).1 })
        };
        let mut body = Vec::new();
        if let Some(Fault::CutRequest(most)) = fault {
            reader.take(length.min(most as u64)).read_to_end(&mut body)?;
            take(state, "PATCH", &target, &kind, &body);
            return Ok(());
        }
        reader.by_ref().take(length).read_to_end(&mut body)?;
        let path = target.split('?').next().unwrap_or_default();
        let found = {
            let content = state.content.lock().unwrap_or_else(PoisonError::into_inner);
            content.iter().find(|(known, _, _)| known == path).map(|(_, kind, bytes)| (kind.clone(), bytes.clone()))
        };
        match &fault {
            Some(Fault::Hangup) => return Ok(()),
            Some(Fault::Status(status, headers)) => {
                let body = r#"{"errors":[{"code":"PLANNED","message":"this was planned"}]}"#;
                write!(
                    writer,
                    "HTTP/1.1 {status} Planned\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )?;
                continue;
            }
            Some(Fault::Answer(status, headers, body)) => {
                write!(writer, "HTTP/1.1 {status} Planned\r\n{headers}Content-Length: {}\r\n\r\n", body.len())?;
                if method != "HEAD" {
                    writer.write_all(body)?;
                }
                continue;
            }
            Some(Fault::Redirect) => {
                write!(
                    writer,
                    "HTTP/1.1 307 Elsewhere\r\nLocation: http://localhost:{port}{target}\r\nContent-Length: 0\r\n\r\n"
                )?;
                continue;
            }
            _ => {}
        }
        if let Some((status, headers)) = take(state, &method, &target, &kind, &body) {
            let length = if status == 204 { "" } else { "Content-Length: 0\r\n" };
            write!(writer, "HTTP/1.1 {status} Taken\r\n{headers}{length}\r\n")?;
            continue;
        }
        let Some((kind, mut bytes)) = found else {
            let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not known"}]}"#;
            let body = if method == "HEAD" { "" } else { body };
            write!(writer, "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
            continue;
        };
        let whole = bytes.len();
        let range = range.filter(|_| fault != Some(Fault::NoRange));
        let wanted = range.as_deref().and_then(|range| range.strip_prefix("bytes=")).and_then(|r| r.split_once('-'));
        let mut head = String::from("HTTP/1.1 200 OK\r\n");
        if let Some((first, last)) = wanted {
            let first: usize = first.parse().unwrap_or(0);
            let last = last.parse().unwrap_or(whole.saturating_sub(1)).min(whole.saturating_sub(1));
            bytes = bytes.get(first..=last).unwrap_or_default().to_vec();
            head = format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{whole}\r\n");
        }
        if fault == Some(Fault::Flip)
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
        }
        write!(writer, "{head}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
        if method == "HEAD" {
            continue;
        }
        match fault {
            Some(Fault::Cut(length)) => {
                writer.write_all(&bytes[..length.min(bytes.len())])?;
                return Ok(());
            }
            Some(Fault::Drip) => {
                for piece in bytes.chunks(bytes.len().div_ceil(20).max(1)) {
                    writer.write_all(piece)?;
                    thread::sleep(Duration::from_millis(5));
                }
            }
            _ => writer.write_all(&bytes)?,
        }
    }
    Ok(())
}
