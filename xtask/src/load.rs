//! `cargo xtask load`: many clients at once that mix all calls, against `hull serve` or another engine.
//!
//! Each client goes through scenarios in an order of its own, makes what it needs under names of its own, and expects the
//! statuses that dockerd answers with. What else comes is an error and is listed. Of Hull, memory and descriptors are
//! read while it goes on, and descriptors again once it is idle. It needs root and busybox.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::http::{Answer, Client};
use crate::served::{Server, import, rootfs};

const USAGE: &str = "usage: cargo xtask load [--hull PROGRAM | --docker unix://SOCKET] [--clients N] [--seconds N]";

/// Longer waits are errors.
const PATIENCE: Duration = Duration::from_secs(90);

/// So many different errors are listed.
const LISTED: usize = 20;

struct Options {
    hull: Option<PathBuf>,
    docker: Option<String>,
    clients: u64,
    seconds: u64,
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options { hull: None, docker: None, clients: 200, seconds: 300 };
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let value = rest.next().ok_or(USAGE)?;
        match word.as_str() {
            "--hull" => options.hull = Some(PathBuf::from(value).canonicalize()?),
            "--docker" => options.docker = Some(value.clone()),
            "--clients" => options.clients = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

/// What all clients share.
#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    is_over: AtomicBool,
    slowest: Mutex<BTreeMap<String, Duration>>,
}

impl Shared {
    fn wrong(&self, text: String) {
        *self.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(text).or_default() += 1;
    }
}

/// One of the clients.
struct One<'s> {
    shared: &'s Shared,
    socket: &'s Path,
    client: Option<Client>,
    number: u64,
    random: u64,
}

impl One<'_> {
    fn random(&mut self, below: u64) -> u64 {
        // xorshift: each client's own order, the same in each run.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// A call whose answer has one of these statuses; nothing, and an error, otherwise.
    fn call(&mut self, method: &str, path: &str, body: &Value, expected: &[u16]) -> Option<Answer> {
        self.raw(
            method,
            path,
            "application/json",
            &if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
            expected,
        )
    }

    fn raw(&mut self, method: &str, path: &str, kind: &str, body: &[u8], expected: &[u16]) -> Option<Answer> {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let begin = Instant::now();
        let answer = self.exchange(method, path, kind, body);
        let place = shape(method, path);
        {
            let mut slowest = self.shared.slowest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let entry = slowest.entry(place.clone()).or_default();
            *entry = (*entry).max(begin.elapsed());
        }
        match answer {
            Ok(answer) if expected.contains(&answer.status) => Some(answer),
            Ok(answer) => {
                let text = answer.text("message");
                self.shared.wrong(format!("{place}: {} {}", answer.status, crate::clients::without_ids(&text)));
                None
            }
            Err(error) => {
                self.client = None;
                self.shared.wrong(format!("{place}: {error}"));
                None
            }
        }
    }

    fn exchange(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Answer> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::new(self.socket, PATIENCE)?,
        };
        client.send(method, path, kind, body)?;
        let answer = client.answer(method)?;
        self.client = Some(client);
        Ok(answer)
    }

    fn get(&mut self, path: &str) -> Option<Answer> {
        self.call("GET", path, &Value::Null, &[200])
    }

    fn post(&mut self, path: &str, expected: &[u16]) -> Option<Answer> {
        self.call("POST", path, &Value::Null, expected)
    }

    fn delete(&mut self, path: &str, expected: &[u16]) -> Option<Answer> {
        self.call("DELETE", path, &Value::Null, expected)
    }

    fn scenario(&mut self) {
        match self.random(12) {
            0 => self.system(),
            1 => self.images(),
            2 => self.network(),
            3 => self.volume(),
            4..=6 => self.short(),
            7 => self.long(),
            8 => self.wrong(),
            9 => self.files(),
            10 => self.events(),
            _ => self.attached(),
        }
    }

    fn system(&mut self) {
        for path in [
            "/_ping",
            "/version",
            "/info",
            "/containers/json?all=1",
            "/containers/json?size=1&limit=5",
            "/system/df",
            "/plugins",
        ] {
            self.get(path);
        }
    }

    fn images(&mut self) {
        for path in [
            "/images/json",
            "/images/busybox/json",
            "/images/busybox/history",
            "/images/json?filters=%7B%22label%22%3A%5B%22x%22%5D%7D",
        ] {
            self.get(path);
        }
        let tag = format!("load-{}", self.number);
        if self.post(&format!("/images/busybox/tag?repo={tag}&tag=one"), &[201]).is_some() {
            self.delete(&format!("/images/{tag}:one"), &[200]);
        }
        if self.random(8) == 0 {
            self.get("/images/get?names=busybox");
        }
    }

    fn network(&mut self) {
        let name = format!("net-{}", self.number);
        // Pools are finite, for dockerd as well.
        let subnet = format!("10.{}.{}.0/24", 100 + self.number / 250, self.number % 250);
        let body = json!({ "Name": name, "IPAM": { "Config": [{ "Subnet": subnet }] } });
        if self.call("POST", "/networks/create", &body, &[201]).is_none() {
            return;
        }
        self.get(&format!("/networks/{name}"));
        self.get("/networks");
        if let Some(id) = self.create(&json!({ "Image": "busybox", "Cmd": ["sleep", "100"] })) {
            self.call("POST", &format!("/networks/{name}/connect"), &json!({ "Container": id }), &[200]);
            self.post(&format!("/containers/{id}/start"), &[204]);
            self.call("POST", &format!("/networks/{name}/disconnect"), &json!({ "Container": id }), &[200]);
            self.delete(&format!("/containers/{id}?force=1"), &[204]);
        }
        self.delete(&format!("/networks/{name}"), &[204]);
    }

    fn volume(&mut self) {
        let name = format!("vol-{}", self.number);
        if self.call("POST", "/volumes/create", &json!({ "Name": name }), &[201]).is_some() {
            self.get(&format!("/volumes/{name}"));
            self.get("/volumes");
            let mounts = json!([{ "Type": "volume", "Source": name, "Target": "/v" }]);
            let body = json!({ "Image": "busybox", "Cmd": ["touch", "/v/x"], "HostConfig": { "Mounts": mounts, "NetworkMode": "none" } });
            if let Some(id) = self.create(&body) {
                self.run(&id, 0);
                self.delete(&format!("/containers/{id}"), &[204]);
            }
            self.delete(&format!("/volumes/{name}"), &[204]);
        }
    }

    fn create(&mut self, body: &Value) -> Option<String> {
        self.call("POST", "/containers/create", body, &[201]).map(|answer| answer.text("Id"))
    }

    /// Starts it and waits for its end.
    fn run(&mut self, id: &str, code: i64) {
        self.post(&format!("/containers/{id}/start"), &[204]);
        if let Some(answer) = self.post(&format!("/containers/{id}/wait"), &[200]) {
            let got = answer.json()["StatusCode"].clone();
            if got != code {
                self.shared.wrong(format!("a container that ends with {code} ended with {got}"));
            }
        }
    }

    /// What is run and goes.
    fn short(&mut self) {
        let network = if self.random(2) == 0 { "none" } else { "bridge" };
        let body = json!({ "Image": "busybox", "Cmd": ["sh", "-c", "echo out; exit 3"], "HostConfig": { "NetworkMode": network } });
        let Some(id) = self.create(&body) else { return };
        self.get(&format!("/containers/{id}/json"));
        self.run(&id, 3);
        if let Some(answer) = self.get(&format!("/containers/{id}/logs?stdout=1&stderr=1"))
            && !answer.body.ends_with(b"out\n")
        {
            self.shared.wrong(format!("logs without what was printed: {:?}", String::from_utf8_lossy(&answer.body)));
        }
        self.get(&format!("/containers/{id}/changes"));
        self.delete(&format!("/containers/{id}"), &[204]);
        self.call("GET", &format!("/containers/{id}/json"), &Value::Null, &[404]);
    }

    /// What stays for a while and is acted on.
    fn long(&mut self) {
        let name = format!("long-{}", self.number);
        let body = json!({ "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": { "Init": true } });
        let Some(id) =
            self.call("POST", &format!("/containers/create?name={name}"), &body, &[201]).map(|one| one.text("Id"))
        else {
            return;
        };
        self.post(&format!("/containers/{id}/start"), &[204]);
        self.post(&format!("/containers/{id}/start"), &[304]);
        self.get(&format!("/containers/{name}/top"));
        self.get(&format!("/containers/{id}/stats?stream=0&one-shot=1"));
        let exec = json!({ "Cmd": ["sh", "-c", "echo x; exit 4"], "AttachStdout": true });
        if let Some(answer) = self.call("POST", &format!("/containers/{id}/exec"), &exec, &[201]) {
            let exec = answer.text("Id");
            self.call("POST", &format!("/exec/{exec}/start"), &json!({ "Detach": true }), &[200]);
            self.get(&format!("/exec/{exec}/json"));
        }
        self.post(&format!("/containers/{id}/pause"), &[204]);
        self.post(&format!("/containers/{id}/unpause"), &[204]);
        self.call("POST", &format!("/containers/{id}/update"), &json!({ "PidsLimit": 100 }), &[200]);
        self.post(&format!("/containers/{id}/rename?name={name}-renamed"), &[204]);
        self.delete(&format!("/containers/{id}"), &[409]);
        match self.random(3) {
            0 => drop(self.post(&format!("/containers/{id}/stop?t=5"), &[204])),
            1 => drop(self.post(&format!("/containers/{id}/kill"), &[204])),
            _ => drop(self.post(&format!("/containers/{id}/restart?t=5"), &[204])),
        }
        self.delete(&format!("/containers/{id}?force=1&v=1"), &[204]);
    }

    /// What is refused.
    fn wrong(&mut self) {
        let none = Value::Null;
        for (method, path, body, status) in [
            ("GET", "/containers/nosuch/json", &none, 404),
            ("GET", "/images/nosuch:x/json", &none, 404),
            ("POST", "/containers/create", &json!({ "Image": "nosuch:x" }), 404),
            ("POST", "/containers/create", &json!({ "Image": 4 }), 400),
            ("GET", "/containers/json?filters=x", &none, 400),
            ("DELETE", "/networks/nosuch", &none, 404),
            ("DELETE", "/networks/bridge", &none, 403),
            ("GET", "/volumes/nosuch", &none, 404),
            ("GET", "/nosuch", &none, 404),
            ("POST", "/exec/nosuch/start", &json!({}), 404),
            ("GET", "/services", &none, 503),
        ] {
            self.call(method, path, body, &[status]);
        }
        // Who leaves in the middle of a request leaves nothing.
        if let Ok(mut client) = Client::new(self.socket, PATIENCE) {
            let _ = client.send("GET", "/events", "application/json", b"");
        }
    }

    fn files(&mut self) {
        let Some(id) =
            self.create(&json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "NetworkMode": "none" } }))
        else {
            return;
        };
        let archive = self.get(&format!("/containers/{id}/archive?path=/etc/passwd")).map(|answer| answer.body);
        if let Some(archive) = archive {
            self.raw("PUT", &format!("/containers/{id}/archive?path=/tmp"), "text/plain", &archive, &[200]);
        }
        self.call("HEAD", &format!("/containers/{id}/archive?path=/tmp/passwd"), &Value::Null, &[200]);
        if self.random(4) == 0 {
            self.get(&format!("/containers/{id}/export"));
            if let Some(answer) = self.post(&format!("/commit?container={id}&repo=made-{}", self.number), &[201]) {
                let _ = answer;
                self.delete(&format!("/images/made-{}", self.number), &[200]);
            }
        }
        self.delete(&format!("/containers/{id}"), &[204]);
    }

    fn events(&mut self) {
        self.get("/events?since=1&until=2");
        self.get("/events?since=1&until=2&filters=%7B%22type%22%3A%5B%22container%22%5D%7D");
        let filter = format!("%7B%22label%22%3A%5B%22of%3D{}%22%5D%7D", self.number);
        self.post(&format!("/containers/prune?filters={filter}"), &[200, 409]);
        self.post(&format!("/volumes/prune?filters={filter}"), &[200, 409]);
        self.post(&format!("/networks/prune?filters={filter}"), &[200, 409]);
    }

    /// What Docker's command line does for a container in the foreground.
    fn attached(&mut self) {
        let body = json!({ "Image": "busybox", "Cmd": ["cat"], "OpenStdin": true, "StdinOnce": true, "AttachStdin": true,
            "HostConfig": { "NetworkMode": "none" } });
        let Some(id) = self.create(&body) else { return };
        let work = || -> Result<()> {
            let mut attached = Client::new(self.socket, PATIENCE)?;
            attached.send("POST", &format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1"), "upgrade", b"")?;
            let (status, _) = attached.head()?;
            if status != 101 {
                return Err(format!("attach: {status}").into());
            }
            let mut other = Client::new(self.socket, PATIENCE)?;
            let started = other.call("POST", &format!("/containers/{id}/start"), &Value::Null)?;
            if started.status != 204 {
                return Err(format!("start: {}: {}", started.status, started.text("message")).into());
            }
            attached.write(b"typed")?;
            let bytes = attached.rest()?;
            if !bytes.ends_with(b"typed") {
                return Err(format!("attach: {:?} came back", String::from_utf8_lossy(&bytes)).into());
            }
            Ok(())
        };
        self.shared.requests.fetch_add(2, Ordering::Relaxed);
        if let Err(error) = work() {
            self.shared.wrong(format!("attached: {error}"));
        }
        self.delete(&format!("/containers/{id}?force=1"), &[204]);
    }
}

/// A path without what is each client's own.
fn shape(method: &str, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path
        .split('/')
        .map(|part| {
            if part.len() == 64 || part.contains('-') && part.contains(|one: char| one.is_ascii_digit()) {
                "X"
            } else {
                part
            }
        })
        .collect();
    format!("{method} {}", parts.join("/"))
}

/// Anonymous memory, all memory and descriptors of a process; KiB.
fn figures(pid: u32) -> Result<[u64; 3]> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok([field("RssAnon:"), field("VmRSS:"), descriptors as u64])
}

/// Runs it.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = options(arguments)?;
    let base = std::env::temp_dir().join(format!("hull-load-{}", std::process::id()));
    std::fs::create_dir_all(&base)?;
    let done = measure(&options, &base);
    std::fs::remove_dir_all(&base)?;
    done
}

fn measure(options: &Options, base: &Path) -> Result<()> {
    let archive = rootfs(base)?;
    let server = match &options.docker {
        Some(_) => None,
        None => {
            hull_sys::clone::unshare(hull_sys::clone::CloneFlags::NEWNET)?;
            crate::check(std::process::Command::new("ip").args(["link", "set", "lo", "up"]))?;
            let hull = options.hull.clone().map_or_else(crate::release::built, Ok)?;
            Some(Server::start(&hull, base)?)
        }
    };
    let address = options.docker.clone().or_else(|| Some(server.as_ref()?.address.clone())).ok_or(USAGE)?;
    import(&address, &archive)?;
    let socket = PathBuf::from(address.trim_start_matches("unix://"));
    let before = server.as_ref().map(|server| figures(server.id())).transpose()?.unwrap_or_default();
    let shared = Shared::default();
    let mut most = [0; 3];
    std::thread::scope(|scope| -> Result<()> {
        for number in 0..options.clients {
            let (shared, socket) = (&shared, &socket);
            scope.spawn(move || {
                let random = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let mut one = One { shared, socket, client: None, number, random };
                while !shared.is_over.load(Ordering::Relaxed) {
                    one.scenario();
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(options.seconds);
        let mut watched = Ok(());
        while Instant::now() < until && watched.is_ok() {
            std::thread::sleep(Duration::from_millis(500));
            if let Some(server) = &server {
                watched = figures(server.id()).map(|now| most = std::array::from_fn(|at| now[at].max(most[at])));
            }
        }
        shared.is_over.store(true, Ordering::Relaxed);
        watched
    })?;
    let requests = shared.requests.load(Ordering::Relaxed);
    let errors = shared.errors.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let count: u64 = errors.values().sum();
    println!("{} clients, {} s: {requests} requests, {count} errors", options.clients, options.seconds);
    for (text, times) in errors.iter().take(LISTED) {
        println!("  {times} x {text}");
    }
    let slowest = shared.slowest.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut slowest: Vec<_> = slowest.into_iter().collect();
    slowest.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    for (place, took) in slowest.iter().take(5) {
        println!("  at most {:.1} s: {place}", took.as_secs_f64());
    }
    let mut leaked = 0;
    if let Some(server) = &server {
        println!("at most {} KiB anonymous, {} KiB in all, {} descriptors", most[0], most[1], most[2]);
        std::thread::sleep(Duration::from_secs(6));
        let after = figures(server.id())?;
        println!("idle before {before:?}, after {after:?}");
        leaked = after[2].saturating_sub(before[2]);
    }
    server.map_or(Ok(()), Server::clean)?;
    match (count, leaked) {
        (0, 0) => Ok(()),
        (0, leaked) => Err(format!("{leaked} descriptors are left").into()),
        (count, _) => Err(format!("{count} errors").into()),
    }
}
