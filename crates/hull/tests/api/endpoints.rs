//! Every endpoint of the published API, with everything about a request wrong in turn: parameters and fields that are
//! missing, too many, null, of another type and too large, and versions that do not exist. Whatever comes, it is answered,
//! in the one shape of refusals, and never as an error of the server's own.

use std::io::Read as _;

use serde_json::{Value, json};

use crate::server::Server;

/// An endpoint: how it is asked for, and the names and types of its parameters and fields.
struct Endpoint {
    method: &'static str,
    path: &'static str,
    query: Vec<(&'static str, &'static str)>,
    body: Vec<(&'static str, &'static str)>,
}

fn pairs(text: &'static str) -> Vec<(&'static str, &'static str)> {
    text.split(',').filter_map(|one| one.split_once(':')).collect()
}

fn endpoints() -> Vec<Endpoint> {
    let lines = include_str!("endpoints.txt").lines().filter(|line| !line.starts_with('#'));
    let endpoint = |line: &'static str| {
        let mut words = line.split(' ');
        let (method, path) = (words.next().expect("method"), words.next().expect("path"));
        let query = pairs(words.next().unwrap_or_default().trim_start_matches(['?', '-']));
        Endpoint { method, path, query, body: pairs(words.next().unwrap_or_default()) }
    };
    lines.map(endpoint).collect()
}

/// Refusals that dockerd 28.5 gave this status too when it was asked the same: its errors have no status of their own there,
/// or are the kernel's, of an archive, or of another machine. Of what is here it takes three: a list of devices without a
/// driver, which it refuses at the start; a time of -1 for the kernel's real-time scheduler; and an image's archive that
/// does not say where it ends, which may be cut off.
const OF_DOCKERD: &[&str] = &[
    "strconv.",
    "invalid syntax",
    "could not select device driver",
    "no upgrade proto in request",
    "json: cannot unmarshal",
    "is not paused",
    "is not connected to the network",
    "Connection refused",
    "layer archive at byte",
    "unexpected EOF",
    "decompress layer",
    "config field `linux.resources",
    "Cannot locate specified Dockerfile",
    "invalid reference format",
];

fn is_dockerd_s(status: u16, message: &str) -> bool {
    match status {
        500 => OF_DOCKERD.iter().any(|part| message.contains(part)),
        // What is not there: swarms, plugins.
        501 | 503 => true,
        status => status < 500,
    }
}

/// Parameters whose values name other machines: nothing must be asked of those.
const REMOTE: &[(&str, &str)] = &[
    ("/images/create", "fromImage"),
    ("/images/create", "fromSrc"),
    ("/images/search", "term"),
    ("/build", "remote"),
    ("/auth", "serveraddress"),
];

/// Whether an endpoint asks another machine, or starts a build, for each request that is right: it gets fewer.
fn is_slow(path: &str) -> bool {
    ["/build", "/images/create", "/images/search", "/images/{name}/push", "/auth"].contains(&path)
        || path.starts_with("/distribution")
}

/// What an endpoint needs to be answered soon and by this machine.
fn usual(path: &str) -> &'static str {
    match path {
        "/events" => "since=1&until=2",
        "/images/create" => "fromSrc=-&repo=127.0.0.1:1/made",
        "/images/search" => "term=127.0.0.1:1/nosuch",
        "/containers/{id}/stats" => "stream=0&one-shot=1",
        "/containers/{id}/archive" => "path=/",
        "/containers/{id}/stop" | "/containers/{id}/restart" => "t=0",
        "/containers/{id}/rename" => "name=cc2",
        _ => "",
    }
}

fn usual_body(path: &str) -> Value {
    match path {
        "/containers/create" => json!({ "Image": "probe", "HostConfig": { "NetworkMode": "none" } }),
        "/containers/{id}/exec" => json!({ "Cmd": ["/probe", "exit", "0"] }),
        "/networks/create" => json!({ "Name": "made", "IPAM": { "Config": [{ "Subnet": "10.97.8.0/24" }] } }),
        "/networks/{id}/connect" | "/networks/{id}/disconnect" => json!({ "Container": "made" }),
        "/volumes/create" => json!({ "Name": "made" }),
        "/auth" => json!({ "username": "u", "password": "p", "serveraddress": "127.0.0.1:1" }),
        _ => json!({}),
    }
}

/// Puts a value where a path such as `HostConfig.Mounts.0.Type` leads.
fn put(document: &mut Value, path: &str, value: Value) {
    let mut at = document;
    for name in path.split('.') {
        at = match name.parse::<usize>() {
            Ok(_) => {
                if !at.is_array() {
                    *at = json!([{}]);
                }
                &mut at[0]
            }
            Err(_) => {
                if !at.is_object() {
                    *at = json!({});
                }
                &mut at[name]
            }
        };
    }
    *at = value;
}

/// Values of other types than this.
fn others(kind: &str) -> Vec<Value> {
    let all =
        [("s", json!("x")), ("i", json!(5)), ("b", json!(true)), ("[]", json!([[7]])), ("{}", json!({ "x": [7] }))];
    let same = |other: &str| kind == other || kind == "@" && other == "{}" || kind == "n" && other == "i";
    // Docker takes one word for a list of words in some places.
    let loose = |other: &str| kind == "[]" && other == "s";
    all.into_iter().filter(|(other, _)| !same(other) && !loose(other)).map(|(_, value)| value).collect()
}

fn too_large(kind: &str) -> Vec<Value> {
    match kind {
        "s" => vec![json!("x".repeat(70_000))],
        "i" | "n" => vec![json!(1e300), json!(-1), json!(u64::MAX)],
        "[]" => vec![json!(vec!["x"; 20_000])],
        "{}" | "@" => {
            vec![(0..5000).map(|number| (format!("k{number}"), json!("x"))).collect::<serde_json::Map<_, _>>().into()]
        }
        _ => Vec::new(),
    }
}

struct Asked {
    server: Server,
    count: usize,
    wrong: Vec<String>,
    exec: String,
}

impl Asked {
    /// Makes what the requests are about, as far as it has gone.
    fn refill(&mut self) {
        let server = &self.server;
        let limits = json!({ "NetworkMode": "none", "CgroupParent": server.home.name() });
        let state = server.get("/containers/cc/json");
        if state.status != 200 || state.json()["State"]["Running"] != true {
            server.delete("/containers/cc?force=1");
            let body =
                json!({ "Image": "probe", "Cmd": ["sleep", "1000"], "StopSignal": "SIGKILL", "HostConfig": limits });
            server.post("/containers/create?name=cc", &body).is(201);
            server.post("/containers/cc/start", &Value::Null).is(204);
        } else if state.json()["State"]["Paused"] == true {
            server.post("/containers/cc/unpause", &Value::Null).is(204);
        }
        let body = json!({ "Image": "probe", "Cmd": ["sleep", "1000"], "HostConfig": limits });
        server.post("/containers/create?name=made", &body);
        server
            .post("/networks/create", &json!({ "Name": "net", "IPAM": { "Config": [{ "Subnet": "10.97.7.0/24" }] } }));
        server.post("/volumes/create", &json!({ "Name": "vol" }));
        server.post("/images/probe/tag?repo=127.0.0.1:1/x&tag=1", &Value::Null).is(201);
        let exec = server.post("/containers/cc/exec", &json!({ "Cmd": ["/probe", "exit", "0"] })).is(201).json();
        self.exec = exec["Id"].as_str().expect("an ID").to_owned();
    }

    fn path(&self, endpoint: &Endpoint) -> String {
        let place = endpoint.path.split('/').nth(1).unwrap_or_default();
        let name = match (place, endpoint.path) {
            // One that runs would be waited for.
            ("containers", "/containers/{id}/wait") => "made",
            ("containers", _) => "cc",
            ("exec", _) => self.exec.as_str(),
            ("networks", _) => "net",
            ("volumes", _) => "vol",
            ("images" | "distribution", _) => "127.0.0.1:1/x:1",
            _ => "nosuch",
        };
        endpoint.path.replace("{id}", name).replace("{name}", name)
    }

    /// Asks, and says what the answer was.
    fn ask(&mut self, method: &str, address: &str, body: Option<&[u8]>) -> (u16, String) {
        self.count += 1;
        let shown = || {
            let body = String::from_utf8_lossy(body.unwrap_or_default()).chars().take(200).collect::<String>();
            format!("{method} {} {body}", address.chars().take(200).collect::<String>())
        };
        let headers: &[(&str, &str)] = match body {
            Some(b"") | None => &[("Content-Length", "0")],
            Some(_) => &[("Content-Type", "application/json")],
        };
        let mut open = self.server.open(method, address, headers, body.unwrap_or_default());
        let status = open.answer.status;
        if status < 400 || method == "HEAD" {
            // A stream may go on for ever: whoever asks goes.
            if !is_dockerd_s(status, "") {
                self.wrong.push(format!("{}: {status}", shown()));
            }
            let length = open.answer.header("content-length").and_then(|length| length.parse().ok());
            let mut bytes = vec![0; length.filter(|_| status == 201).unwrap_or(0)];
            open.reader.read_exact(&mut bytes).expect("a body");
            return (status, String::from_utf8_lossy(&bytes).into_owned());
        }
        let length = open.answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut bytes = vec![0; length];
        open.reader.read_exact(&mut bytes).expect("a body");
        let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = document["message"].as_str().unwrap_or_default().to_owned();
        let is_one = document.as_object().is_some_and(|fields| fields.len() == 1);
        if message.is_empty() || !is_one || message == "page not found" || !is_dockerd_s(status, &message) {
            let text: String = String::from_utf8_lossy(&bytes).chars().take(300).collect();
            self.wrong.push(format!("{}: {status} {text}", shown()));
        }
        (status, message)
    }

    /// What a request has made goes again.
    fn clear(&self, endpoint: &Endpoint, status: u16, text: &str) {
        if status != 201 {
            return;
        }
        let made: Value = serde_json::from_str(text).unwrap_or_default();
        let name = |field: &str| made[field].as_str().unwrap_or("nosuch").to_owned();
        match endpoint.path {
            "/containers/create" => drop(self.server.delete(&format!("/containers/{}?v=1", name("Id"))).is(204)),
            "/networks/create" => drop(self.server.delete(&format!("/networks/{}", name("Id"))).is(204)),
            "/volumes/create" => drop(self.server.delete(&format!("/volumes/{}", name("Name"))).is(204)),
            "/commit" => drop(self.server.delete(&format!("/images/{}", name("Id"))).is(200)),
            _ => {}
        }
    }

    fn body(&mut self, endpoint: &Endpoint, address: &str, body: &[u8]) -> u16 {
        let (status, text) = self.ask(endpoint.method, address, Some(body));
        self.clear(endpoint, status, &text);
        status
    }

    fn versions(&mut self, endpoint: &Endpoint) {
        let path = self.path(endpoint);
        for (version, status) in [("v1.23", 400), ("v1.99", 400), ("v99.1", 400), ("v0.0", 400)] {
            let (said, message) = self.ask(endpoint.method, &format!("/{version}{path}"), None);
            let has_words = endpoint.method == "HEAD" || message.contains("client version ");
            if said != status || !has_words {
                self.wrong.push(format!("{} /{version}{path}: {said} {message}", endpoint.method));
            }
        }
    }

    fn parameters(&mut self, endpoint: &Endpoint) {
        let (path, usual) = (self.path(endpoint), usual(endpoint.path));
        let body = usual_body(endpoint.path).to_string();
        let body = if endpoint.body.is_empty() { Vec::new() } else { body.into_bytes() };
        let address = |more: &str| format!("{path}?{usual}&{more}");
        self.body(endpoint, &address("nosuch=1&nosuch=%FF&=&&x"), &body);
        let long = "x".repeat(40_000);
        for (name, kind) in &endpoint.query {
            if REMOTE.contains(&(endpoint.path, name)) {
                continue;
            }
            let mut values = vec!["%00%FF%0A", "", "null", "[]", "%7B%22", long.as_str()];
            if is_slow(endpoint.path) {
                values.truncate(1);
            }
            if matches!(*kind, "i" | "n") {
                values.extend(["-1", "99999999999999999999", "1.5", "x"]);
            }
            for value in values {
                // A signal or a time of none would be waited for.
                if matches!(
                    (endpoint.path, *name, value),
                    ("/containers/{id}/stop" | "/containers/{id}/restart", "t", "" | "-1" | "99999999999999999999")
                ) {
                    continue;
                }
                self.body(endpoint, &address(&format!("{name}={value}")), &body);
                if !usual.is_empty() {
                    self.body(endpoint, &format!("{path}?{name}={value}&{usual}"), &body);
                }
            }
        }
    }

    fn fields(&mut self, endpoint: &Endpoint) {
        let (path, usual) = (self.path(endpoint), usual(endpoint.path));
        let address = format!("{path}?{usual}");
        for body in ["", "null", "{", "{}", "[]", "\"x\"", "7", "{} {}", "{\"a\":}", "\u{0}"] {
            self.body(endpoint, &address, body.as_bytes());
        }
        let mut more = usual_body(endpoint.path);
        more["NoSuchField"] = json!({ "x": [null] });
        self.body(endpoint, &address, more.to_string().as_bytes());
        let is_read = ["/containers", "/exec", "/networks", "/volumes/create", "/auth"]
            .iter()
            .any(|one| endpoint.path.starts_with(one));
        for (name, kind) in &endpoint.body {
            let remote = REMOTE.contains(&(endpoint.path, name));
            for value in [Value::Null].into_iter().chain(too_large(kind)).filter(|_| !remote && !is_slow(endpoint.path))
            {
                let mut body = usual_body(endpoint.path);
                put(&mut body, name, value);
                self.body(endpoint, &address, body.to_string().as_bytes());
            }
            for value in others(kind) {
                let mut body = usual_body(endpoint.path);
                put(&mut body, name, value);
                let status = self.body(endpoint, &address, body.to_string().as_bytes());
                if is_read && status < 400 {
                    self.wrong.push(format!("{} {path} {name} is no {kind}: {status} for {body}", endpoint.method));
                }
            }
        }
    }
}

/// Asks those endpoints that are wanted, of which there are some.
fn check(is_wanted: fn(&str) -> bool) {
    if !crate::server::own_network() {
        return;
    }
    let Some(server) = Server::with_image(&[]) else { return };
    let pid = server.pid();
    let mut asked = Asked { server, count: 0, wrong: Vec::new(), exec: String::new() };
    for endpoint in endpoints().into_iter().filter(|endpoint| is_wanted(endpoint.path)) {
        asked.refill();
        asked.versions(&endpoint);
        asked.parameters(&endpoint);
        asked.refill();
        if matches!(endpoint.method, "POST" | "PUT") && !endpoint.path.ends_with("/wait") {
            asked.fields(&endpoint);
        }
    }
    let Asked { server, count, wrong, .. } = asked;
    assert!(count > 300, "{count}");
    assert_eq!((server.get("/_ping").text().as_str(), server.pid()), ("OK", pid));
    for path in [
        "/containers/cc?force=1",
        "/containers/cc2?force=1",
        "/containers/made?force=1",
        "/networks/net",
        "/volumes/vol",
    ] {
        server.delete(path);
    }
    server.finish();
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

fn is_of_containers(path: &str) -> bool {
    path.starts_with("/containers/") && !path.ends_with("/create")
}

fn is_of_images(path: &str) -> bool {
    ["/images", "/build", "/commit", "/distribution"].iter().any(|one| path.starts_with(one))
}

#[test]
fn root_api_every_endpoint_of_containers_answers_whatever_is_asked() {
    check(is_of_containers);
}

#[test]
fn root_api_making_containers_answers_whatever_is_asked() {
    check(|path| path == "/containers/create");
}

#[test]
fn root_api_every_endpoint_of_images_answers_whatever_is_asked() {
    check(is_of_images);
}

#[test]
fn root_api_every_other_endpoint_answers_whatever_is_asked() {
    check(|path| !is_of_containers(path) && !is_of_images(path) && path != "/containers/create");
}
