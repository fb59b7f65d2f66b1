//! What goes over a connection that is not HTTP any more, and answers that go on.

use std::io::{BufRead as _, Read as _};

use crate::server::{Open, Server, demultiplex};
use serde_json::{Value, json};

/// The documents of the chunks of an answer, as they come.
fn chunk(open: &mut Open) -> Vec<u8> {
    let mut line = String::new();
    open.reader.read_line(&mut line).expect("a chunk");
    let mut bytes = vec![0; usize::from_str_radix(line.trim(), 16).expect("a length") + 2];
    open.reader.read_exact(&mut bytes).expect("a chunk");
    bytes.truncate(bytes.len() - 2);
    bytes
}

#[test]
fn root_api_run_as_the_command_line_does_it() {
    let Some(server) = Server::with_image(&[]) else { return };
    let more = json!({ "AttachStdout": true, "AttachStderr": true, "HostConfig": { "AutoRemove": true } });
    let id = server.create("run", &["-c", "echo out"], more);
    let attach = server.upgrade(&format!("/v1.51/containers/{id}/attach?stream=1&stdout=1&stderr=1"), &Value::Null);
    assert_eq!((attach.answer.status, attach.answer.reason.as_str()), (101, "UPGRADED"));
    assert_eq!(attach.answer.header("content-type"), Some("application/vnd.docker.multiplexed-stream"));
    assert_eq!(attach.answer.header("upgrade"), Some("tcp"));
    // Its head comes before the container has even been started.
    let mut wait = server.open("POST", &format!("/containers/{id}/wait?condition=removed"), &[], b"");
    assert_eq!(wait.answer.status, 200);
    server.post(&format!("/containers/{id}/start"), &Value::Null).is(204);
    assert_eq!(demultiplex(&attach.rest()), ("out\n".to_owned(), String::new()));
    let exit: Value = serde_json::from_slice(&chunk(&mut wait)).expect("JSON");
    assert_eq!(exit, json!({ "StatusCode": 0 }));
    server.get(&format!("/containers/{id}/json")).refused(404, "No such container");
    server.finish();
}

#[test]
fn root_api_input_and_both_outputs_of_an_attachment() {
    let Some(server) = Server::with_image(&[]) else { return };
    let more = json!({ "OpenStdin": true, "StdinOnce": true, "AttachStdin": true, "AttachStdout": true });
    server.create("cat", &["stdin"], more);
    let mut attach = server.upgrade("/containers/cat/attach?stream=1&stdin=1&stdout=1&stderr=1", &Value::Null);
    server.post("/containers/cat/start", &Value::Null).is(204);
    attach.write(b"some input");
    // The end of the input is not the end of the connection.
    attach.shut();
    assert_eq!(demultiplex(&attach.rest()).0.trim_end(), "some input");
    let ended = server.post("/containers/cat/wait", &Value::Null).is(200).json();
    assert_eq!(ended["StatusCode"], 0);
    server.create("err", &["err", "wrong"], Value::Null);
    let attach = server.upgrade("/containers/err/attach?stream=1&stdout=1&stderr=1", &Value::Null);
    server.post("/containers/err/start", &Value::Null).is(204);
    assert_eq!(demultiplex(&attach.rest()).1.trim_end(), "wrong");
    // A request with a body of its own form is HTTP to its end: the output is the answer's body.
    server.create("plain", &["echo", "plain"], Value::Null);
    let pieces = [("Transfer-Encoding", "chunked")];
    let mut open = server.open("POST", "/containers/plain/attach?stream=1&stdout=1", &pieces, b"");
    open.write(b"0\r\n\r\n");
    assert_eq!(open.answer.status, 200);
    server.post("/containers/plain/start", &Value::Null).is(204);
    assert_eq!(demultiplex(&chunk(&mut open)).0.trim_end(), "plain");
    // Without another protocol nothing is HTTP after the head, as with dockerd.
    server.create("raw", &["stdin"], json!({ "OpenStdin": true, "StdinOnce": true }));
    let mut open = server.open("POST", "/containers/raw/attach?stream=1&stdin=1&stdout=1", &[], b"");
    assert_eq!((open.answer.status, open.answer.reason.as_str()), (200, "OK"));
    assert_eq!(open.answer.headers, [("content-type".to_owned(), "application/vnd.docker.raw-stream".to_owned())]);
    server.post("/containers/raw/start", &Value::Null).is(204);
    open.write(b"typed");
    open.shut();
    assert_eq!(demultiplex(&open.rest()).0.trim_end(), "typed");
    server.post("/containers/raw/wait", &Value::Null).is(200);
    let missing = server.open("POST", "/containers/nosuch/attach?stream=1", &[], b"");
    assert_eq!(missing.answer.status, 404);
    for name in ["cat", "err", "plain", "raw"] {
        server.delete(&format!("/containers/{name}?force=1")).is(204);
    }
    server.finish();
}

#[test]
fn root_api_terminals_are_raw_and_have_a_size() {
    let Some(server) = Server::with_image(&[]) else { return };
    server.create("tty", &["wait-file", "/tmp/go"], json!({ "Tty": true, "OpenStdin": true }));
    let attach = server.upgrade("/containers/tty/attach?stream=1&stdin=1&stdout=1", &Value::Null);
    assert_eq!(attach.answer.header("content-type"), Some("application/vnd.docker.raw-stream"));
    server.post("/containers/tty/start", &Value::Null).is(204);
    server.post("/containers/tty/resize?h=33&w=77", &Value::Null).is(200);
    server.post("/containers/tty/resize?h=x&w=77", &Value::Null).refused(400, "invalid resize height");
    let exec = json!({ "Cmd": ["/probe", "winsize"], "Tty": true, "AttachStdout": true, "ConsoleSize": [20, 60] });
    let id = server.post("/containers/tty/exec", &exec).is(201).json()["Id"].as_str().expect("ID").to_owned();
    let open = server.upgrade(&format!("/exec/{id}/start"), &json!({ "Tty": true }));
    assert_eq!(open.answer.header("content-type"), Some("application/vnd.docker.raw-stream"));
    assert_eq!(String::from_utf8_lossy(&open.rest()).trim_end(), "20x60");
    // A terminal's client may go, and come again: the program does not notice.
    drop(attach);
    server.create("shell", &["stdin"], json!({ "Tty": true, "OpenStdin": true, "StdinOnce": true }));
    let mut attach = server.upgrade("/containers/shell/attach?stream=1&stdin=1&stdout=1", &Value::Null);
    server.post("/containers/shell/start", &Value::Null).is(204);
    attach.write(b"one\n");
    attach.shut();
    drop(attach);
    let mut attach = server.upgrade("/containers/shell/attach?stream=1&stdin=1&stdout=1", &Value::Null);
    attach.write(b"two\n\x10\x11");
    let seen = String::from_utf8_lossy(&attach.rest()).into_owned();
    assert!(!seen.contains('\x11'), "{seen:?}");
    assert_eq!(server.get("/containers/shell/json").json()["State"]["Running"], true);
    server.delete("/containers/shell?force=1").is(204);
    server.delete("/containers/tty?force=1").is(204);
    server.finish();
}

#[test]
fn root_api_exec_streams_codes_and_records() {
    let Some(mut server) = Server::with_image(&[]) else { return };
    server.create("box", &["sleep", "100"], Value::Null);
    server.post("/containers/box/exec", &json!({ "Cmd": ["x"] })).refused(409, "is not running");
    server.post("/containers/box/start", &Value::Null).is(204);
    server.post("/containers/box/exec", &json!({ "Cmd": [] })).refused(400, "No exec command specified");
    let exec = |server: &Server, words: &[&str]| {
        let body =
            json!({ "Cmd": words, "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Env": null });
        server.post("/containers/box/exec", &body).is(201).json()["Id"].as_str().expect("ID").to_owned()
    };
    let id = exec(&server, &["/probe", "exit", "7"]);
    assert_eq!(server.get(&format!("/exec/{id}/json")).is(200).json()["ExitCode"], Value::Null);
    let open = server.upgrade(&format!("/exec/{id}/start"), &json!({ "Detach": false }));
    assert_eq!((open.answer.status, open.answer.reason.as_str()), (101, "UPGRADED"));
    assert!(open.rest().is_empty());
    let ended = server.get(&format!("/exec/{id}/json")).is(200).json();
    assert_eq!((&ended["ExitCode"], &ended["Running"]), (&json!(7), &json!(false)));
    server.upgrade(&format!("/exec/{id}/start"), &json!({})).answer.is(409);
    // The connection outlives the server that has answered it.
    let id = exec(&server, &["/probe", "stdin"]);
    let mut open = server.upgrade(&format!("/exec/{id}/start"), &json!({}));
    open.write(b"before ");
    server.home.until("it runs", || server.get(&format!("/exec/{id}/json")).json()["Running"] == true);
    server.kill();
    open.write(b"after");
    open.shut();
    assert_eq!(demultiplex(&open.rest()).0.trim_end(), "before after");
    assert_eq!(server.get(&format!("/exec/{id}/json")).json()["ExitCode"], 0);
    // What cannot be started is told over the connection, and by the code.
    let id = exec(&server, &["/nothing"]);
    let told = server.upgrade(&format!("/exec/{id}/start"), &json!({})).rest();
    assert!(demultiplex(&told).0.contains("no such file or directory"), "{:?}", demultiplex(&told));
    assert_eq!(server.get(&format!("/exec/{id}/json")).json()["ExitCode"], 127);
    let id = exec(&server, &["/nothing"]);
    server.post(&format!("/exec/{id}/start"), &json!({ "Detach": true })).refused(400, "no such file or directory");
    let id = exec(&server, &["/probe", "write", "/tmp/done", "x"]);
    server.post(&format!("/exec/{id}/start"), &json!({ "Detach": true })).is(200);
    server.home.until("it has ended", || server.get(&format!("/exec/{id}/json")).json()["ExitCode"] == 0);
    // Some clients ask for no other protocol.
    let id = exec(&server, &["/probe", "echo", "plain"]);
    let open = server.open("POST", &format!("/exec/{id}/start"), &[("Content-Type", "application/json")], b"{}");
    assert_eq!(open.answer.status, 200);
    assert_eq!(demultiplex(&open.rest()).0.trim_end(), "plain");
    server.delete("/containers/box?force=1").is(204);
    server.get(&format!("/exec/{id}/json")).refused(404, "No such exec instance");
    server.finish();
}

#[test]
fn root_api_logs_follow_and_end_with_the_container() {
    let Some(server) = Server::with_image(&[]) else { return };
    server.create("talk", &["-c", "wait-file /tmp/go"], Value::Null);
    server.post("/containers/talk/start", &Value::Null).is(204);
    let mut follow = server.open("GET", "/containers/talk/logs?follow=1&stdout=1&stderr=1&timestamps=1", &[], b"");
    assert_eq!(follow.answer.status, 200);
    server.post("/containers/talk/kill", &Value::Null).is(204);
    assert_eq!(chunk_length(&mut follow), 0, "it ends with the container");
    server.delete("/containers/talk").is(204);
    server.create("lines", &["lines", "5"], Value::Null);
    server.post("/containers/lines/start", &Value::Null).is(204);
    server.post("/containers/lines/wait", &Value::Null).is(200);
    let last = server.get("/containers/lines/logs?stdout=true&tail=3").is(200);
    assert_eq!(last.header("content-type"), Some("application/vnd.docker.multiplexed-stream"));
    let text = demultiplex(&last.body).0;
    assert_eq!(text, "line 2\nline 3\nline 4\n");
    let old = server.get("/v1.41/containers/lines/logs?stdout=true").is(200);
    assert_eq!(old.header("content-type"), Some("application/vnd.docker.raw-stream"));
    server.delete("/containers/lines").is(204);
    server.finish();
}

fn chunk_length(open: &mut Open) -> usize {
    let mut line = String::new();
    open.reader.read_line(&mut line).expect("a chunk");
    usize::from_str_radix(line.trim(), 16).expect("a length")
}

#[test]
fn root_api_events_come_as_they_happen() {
    let Some(server) = Server::with_image(&[]) else { return };
    let filters = "%7B%22type%22%3A%5B%22container%22%5D%7D";
    let mut events = server.open("GET", &format!("/events?filters={filters}"), &[], b"");
    assert_eq!(events.answer.status, 200);
    server.create("eventful", &["echo"], Value::Null);
    let event: Value = serde_json::from_slice(&chunk(&mut events)).expect("JSON");
    assert_eq!((&event["Action"], &event["status"]), (&json!("create"), &json!("create")));
    server.delete("/containers/eventful").is(204);
    // What was until then, and no more.
    assert_eq!(server.get("/events?since=1&until=1.5").is(200).text(), "");
    server.finish();
}

#[test]
fn root_api_a_client_that_goes_leaves_nothing_behind() {
    let Some(server) = Server::with_image(&[]) else { return };
    server.create("long", &["sleep", "100"], json!({ "OpenStdin": true }));
    server.post("/containers/long/start", &Value::Null).is(204);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).map_or(0, Iterator::count);
    server.get("/_ping").is(200);
    let before = open();
    for _ in 0..5 {
        let paths = ["attach?stream=1&stdout=1", "logs?follow=1&stdout=1", "stats", "wait", "attach?stream=1&stdin=1"];
        for (number, path) in paths.into_iter().enumerate() {
            let method = if number == 1 || number == 2 { "GET" } else { "POST" };
            drop(server.open(method, &format!("/containers/long/{path}"), &[], b""));
        }
        drop(server.upgrade("/containers/long/attach?stream=1&stdout=1", &Value::Null));
        drop(server.open("GET", "/events", &[], b""));
        drop(server.open("GET", "/_ping", &[], b""));
    }
    server.home.until("descriptors are given back", || open() <= before);
    assert_eq!(server.get("/containers/long/json").json()["State"]["Running"], true);
    server.delete("/containers/long?force=1").is(204);
    server.finish();
}

#[test]
fn root_api_attaches_by_websocket() {
    let Some(server) = Server::with_image(&[]) else { return };
    server.create("socket", &["stdin"], json!({ "OpenStdin": true, "StdinOnce": true }));
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let path = "/containers/socket/attach/ws?stream=1&stdin=1&stdout=1";
    let mut open = server.open("GET", path, &headers, b"");
    assert_eq!(open.answer.status, 101);
    assert_eq!(open.answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    server.post("/containers/socket/start", &Value::Null).is(204);
    // "Hello", masked, and that there is no more.
    open.write(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    open.shut();
    let mut frame = [0; 8];
    open.reader.read_exact(&mut frame).expect("a frame");
    assert_eq!(frame, *b"\x82\x06Hello\n");
    server.delete("/containers/socket?force=1").is(204);
    server.finish();
}
