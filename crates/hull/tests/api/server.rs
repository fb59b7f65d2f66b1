//! A server of the Engine API over a home of its own, and a client that speaks HTTP itself.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_testkit::{Home, finish, home};
use serde_json::{Value, json};

/// A server; dropping it ends it.
pub(crate) struct Server {
    pub(crate) home: Home,
    flags: Vec<String>,
    child: Child,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Asserts the status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Asserts a refusal in the one shape that they have.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        let document = self.json();
        let message = document["message"].as_str().unwrap_or_else(|| panic!("no message: {document}"));
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

/// Puts the test, and the server that it starts, into a network namespace of its own: bridges and rules are nobody else's.
/// Whether that was possible; it is said if not.
pub(crate) fn own_network() -> bool {
    if !hull_testkit::tier::root() {
        return false;
    }
    hull_sys::clone::unshare(hull_sys::clone::CloneFlags::NEWNET).expect("unshare");
    hull_netlink::loopback_up().expect("loopback");
    true
}

/// A connection, after the head of an answer.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) answer: Answer,
    pub(crate) reader: BufReader<UnixStream>,
}

impl Open {
    /// Everything until the other side ends.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.reader.read_to_end(&mut bytes);
        bytes
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("write");
    }

    pub(crate) fn shut(&self) {
        self.reader.get_ref().shutdown(std::net::Shutdown::Write).expect("shut");
    }
}

/// Output and error output of a multiplexed stream.
pub(crate) fn demultiplex(mut bytes: &[u8]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        if header[0] == 2 {
            err.extend_from_slice(payload);
        } else {
            out.extend_from_slice(payload);
        }
        bytes = rest;
    }
    (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
}

fn socket(home: &Home) -> PathBuf {
    home.path().join("api.sock")
}

fn start(home: &Home, flags: &[String]) -> Child {
    let address = format!("unix://{}", socket(home).display());
    let mut command = home.hull(&["serve", "-H", &address]);
    command.args(flags).env("HULL_DEFAULT_NETWORK", "none").env_remove("HULL_SECURITY");
    let mut child = command.stdout(Stdio::piped()).spawn().expect("start the server");
    let mut line = String::new();
    // It says so when it can be reached.
    BufReader::new(child.stdout.take().expect("output")).read_line(&mut line).expect("a line");
    assert!(line.contains("unix://"), "{line}");
    child
}

impl Server {
    /// A server, or `None` with a printed skip.
    pub(crate) fn new(flags: &[&str]) -> Option<Self> {
        let home = home!()?;
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let child = start(&home, &flags);
        Some(Self { home, flags, child })
    }

    /// With an image `probe` that runs the probe.
    pub(crate) fn with_image(flags: &[&str]) -> Option<Self> {
        let server = Self::new(flags)?;
        let archive = server.home.path().join("rootfs.tar");
        let rootfs = server.home.path().join("rootfs");
        let status =
            Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&rootfs).arg(".").status().expect("tar");
        assert!(status.success());
        let change = "--change=ENTRYPOINT [\"/probe\"]";
        server.home.run(&["import", change, archive.to_str().expect("UTF-8"), "probe"]).ok();
        Some(server)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket(&self.home)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the server and starts it again.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
        self.child = start(&self.home, &self.flags);
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
        self.child.wait().expect("wait").code()
    }

    /// Ends the server, and asserts that nothing is left.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        assert_eq!(self.end(), Some(0));
        self.home.assert_clean();
    }

    /// Sends a request, whose headers end with an empty line, and reads the head of the answer.
    #[track_caller]
    pub(crate) fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Open {
        let mut stream = UnixStream::connect(self.socket()).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("send");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).expect("status");
        let mut words = line.trim_end().splitn(3, ' ');
        let status = words.nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("status line: {line:?}"));
        let reason = words.next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("header");
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => break,
            }
        }
        Open { answer: Answer { status, reason, headers, body: Vec::new() }, reader }
    }

    /// A whole request and its whole answer.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let Open { mut answer, mut reader } = self.open(method, path, headers, body);
        if method == "HEAD" || matches!(answer.status, 204 | 304) {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("chunk");
                let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
                let mut chunk = vec![0; length + 2];
                reader.read_exact(&mut chunk).expect("chunk");
                chunk.truncate(length);
                answer.body.extend(chunk);
                if length == 0 {
                    return answer;
                }
            }
        }
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        answer.body = vec![0; length];
        reader.read_exact(&mut answer.body).expect("body");
        answer
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.send("POST", path, &[("Content-Type", "application/json")], text.as_bytes())
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"")
    }

    /// Makes a container of the probe; returns its ID.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, words: &[&str], more: Value) -> String {
        let mut body = json!({ "Image": "probe", "Cmd": words, "HostConfig": { "CgroupParent": self.home.name() } });
        merge(&mut body, more);
        self.post(&format!("/containers/create?name={name}"), &body).is(201).json()["Id"]
            .as_str()
            .expect("ID")
            .to_owned()
    }

    /// A connection that is not HTTP any more.
    #[track_caller]
    pub(crate) fn upgrade(&self, path: &str, body: &Value) -> Open {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("Connection", "Upgrade"), ("Upgrade", "tcp"), ("Content-Type", "application/json")];
        self.open("POST", path, &headers, text.as_bytes())
    }
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, more) => *into = more,
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Containers that a test has left go with its home; nothing of them may keep its files.
        if std::thread::panicking() {
            let list = finish(&mut self.home.hull(&["ps", "-aq"])).stdout;
            for id in list.lines() {
                let _ = finish(&mut self.home.hull(&["rm", "-f", id]));
            }
        }
    }
}
