//! The server is killed again and again while a client works, which tries again what was cut off.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::Server;

/// So often something is tried.
const ATTEMPTS: usize = 400;

/// A client that tries again.
struct Client {
    socket: PathBuf,
}

/// One whole exchange; nothing when it was cut off anywhere.
fn exchange(socket: &Path, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let document = if head.to_ascii_lowercase().contains("transfer-encoding") {
        let end = body.find("\r\n0\r\n")?;
        body[..end].split_once("\r\n")?.1.to_owned()
    } else {
        body.to_owned()
    };
    Some((status, serde_json::from_str(&document).unwrap_or_default()))
}

impl Client {
    /// Until there is an answer with one of these statuses.
    #[track_caller]
    fn until(&self, method: &str, path: &str, body: &Value, wanted: &[u16]) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match exchange(&self.socket, method, path, &body) {
                Some(answer) if wanted.contains(&answer.0) => return answer,
                Some(answer) => last = Some(answer),
                None => {}
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{method} {path}: never one of {wanted:?}; last {last:?}");
    }

    fn life(&self, server: &str, number: usize) {
        let name = format!("kept-{number}");
        let body = json!({ "Image": "probe", "Cmd": ["sleep", "1000"], "HostConfig": { "CgroupParent": server } });
        // 409: it was made, and the answer was lost.
        self.until("POST", &format!("/containers/create?name={name}"), &body, &[201, 409]);
        self.until("POST", &format!("/containers/{name}/start"), &Value::Null, &[204, 304]);
        let running = self.until("GET", &format!("/containers/{name}/json"), &Value::Null, &[200]).1;
        assert_eq!(running["State"]["Running"], true, "{name}: {}", running["State"]);
        let exec = json!({ "Cmd": ["/probe", "exit", "3"] });
        let (_, made) = self.until("POST", &format!("/containers/{name}/exec"), &exec, &[201]);
        let id = made["Id"].as_str().expect("ID");
        // 409: it ran, and the answer was lost.
        self.until("POST", &format!("/exec/{id}/start"), &json!({ "Detach": true }), &[200, 409]);
        let ended = (0..ATTEMPTS).find_map(|_| {
            let (_, state) = self.until("GET", &format!("/exec/{id}/json"), &Value::Null, &[200]);
            std::thread::sleep(Duration::from_millis(20));
            (state["Running"] == false && !state["ExitCode"].is_null()).then(|| state["ExitCode"].clone())
        });
        assert_eq!(ended, Some(json!(3)), "{name}");
        self.until("POST", &format!("/containers/{name}/stop?t=0"), &Value::Null, &[204, 304]);
        let ended = self.until("GET", &format!("/containers/{name}/json"), &Value::Null, &[200]).1;
        assert_eq!((&ended["State"]["Status"], &ended["State"]["ExitCode"]), (&json!("exited"), &json!(137)), "{name}");
        if number.is_multiple_of(2) {
            self.until("DELETE", &format!("/containers/{name}"), &Value::Null, &[404]);
        }
    }
}

#[test]
fn root_api_clients_that_try_again_end_up_right_while_the_server_is_killed() {
    let Some(mut server) = Server::with_image(&[]) else { return };
    let client = Client { socket: server.socket() };
    let name = server.home.name().to_owned();
    let (is_over, mut kills) = (AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                // Not in step with what the client does.
                std::thread::sleep(Duration::from_millis(60 + 37 * (kills % 7)));
                server.kill();
                kills += 1;
            }
        });
        let work = |first: usize| {
            let (client, name) = (&client, &name);
            scope.spawn(move || (0..3).for_each(|number| client.life(name, first * 3 + number)))
        };
        let works: Vec<_> = (0..3).map(work).collect();
        let done: Vec<_> = works.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::SeqCst);
        killer.join().expect("the killer");
        assert!(done.iter().all(Result::is_ok), "a client has not got what it wanted");
    });
    assert!(kills > 2, "killed {kills} times");
    let list = server.get("/containers/json?all=1").is(200).json();
    let mut names: Vec<&str> =
        list.as_array().into_iter().flatten().filter_map(|one| one["Names"][0].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["/kept-1", "/kept-3", "/kept-5", "/kept-7"]);
    for name in names {
        server.delete(&format!("/containers{name}")).is(204);
    }
    server.finish();
}

#[test]
fn root_api_a_program_that_a_killed_server_did_not_start_is_started_by_the_next() {
    let Some(server) = Server::with_image(&[]) else { return };
    let container = server.create("kept", &["sleep", "1000"], json!({}));
    server.post(&format!("/containers/{container}/start"), &Value::Null).is(204);
    let make = |taken: bool| {
        let body = json!({ "Cmd": ["/probe", "exit", "3"] });
        let made = server.post(&format!("/containers/{container}/exec"), &body).is(201).json();
        let id = made["Id"].as_str().expect("ID").to_owned();
        // As a server leaves it that is killed behind its first word, or whose process for the program is.
        let path = format!("run/exec/{id}.json");
        let mut record: Value =
            serde_json::from_slice(&std::fs::read(server.home.at(&path)).expect("read")).expect("a record");
        (record["started"], record["taken"], record["owner"]) = (json!(true), json!(taken), json!([i32::MAX, 1]));
        server.home.write(&path, record.to_string());
        id
    };
    let id = make(false);
    let before = server.get(&format!("/exec/{id}/json")).is(200).json();
    assert_eq!((&before["Running"], &before["ExitCode"]), (&json!(false), &Value::Null));
    server.post(&format!("/exec/{id}/start"), &json!({ "Detach": true })).is(200);
    let ended = || server.get(&format!("/exec/{id}/json")).is(200).json();
    server.home.until("its end", || ended()["ExitCode"] == 3);
    server.post(&format!("/exec/{id}/start"), &json!({ "Detach": true })).refused(409, "has already run");
    let id = make(true);
    server.post(&format!("/exec/{id}/start"), &json!({ "Detach": true })).refused(409, "is already running");
    assert_eq!(server.get(&format!("/exec/{id}/json")).is(200).json()["ExitCode"], 137);
    server.delete("/containers/kept?force=1").is(204);
    server.finish();
}
