//! Requests as a server on the loopback device sees them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use hull_http::proxy::Proxies;
use hull_http::{Body, Client, ErrorKind, Tls};

/// Answers each connection's only request with these bytes, and hands over what it received.
fn server(answer: &'static [u8]) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut seen = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&seen) {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => seen.extend(&buffer[..count]),
                }
            }
            let _ = stream.write_all(answer);
            let _ = sender.send(String::from_utf8_lossy(&seen).into_owned());
        }
    });
    (port, receiver)
}

fn is_whole(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else { return false };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
    request.len() >= head + length.and_then(|length| length.parse::<usize>().ok()).unwrap_or(0)
}

fn client(proxies: Proxies) -> Client {
    Client::new("hull-test/1", proxies)
}

#[test]
fn answers_of_every_class_are_answers() {
    let answer =
        b"HTTP/1.1 307 Over there\r\nLocation: http://elsewhere.example/\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let (port, seen) = server(answer);
    let address = format!("http://127.0.0.1:{port}/v2/a?b=c");
    let response = client(Proxies::default())
        .send("GET", &address, &[("accept", "a/b"), ("accept", "c/d")], Body::None, &Tls::default())
        .expect("an answer");
    assert_eq!((response.status, response.header("location")), (307, Some("http://elsewhere.example/")));
    assert_eq!(response.read(10).expect("body"), b"hi");
    let seen = seen.recv().expect("request").to_ascii_lowercase();
    assert!(seen.starts_with("get /v2/a?b=c http/1.1\r\n"), "{seen}");
    for header in ["accept: a/b", "accept: c/d", "user-agent: hull-test/1", "accept-encoding: identity"] {
        assert!(seen.contains(header), "no {header:?} in {seen}");
    }
}

#[test]
fn bodies_have_a_length() {
    let (port, seen) = server(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let address = format!("http://127.0.0.1:{port}/upload");
    let body = Body::Reader(Box::new(&b"0123456789and more"[..]), 10);
    let response = client(Proxies::default()).send("PATCH", &address, &[], body, &Tls::default()).expect("an answer");
    assert_eq!(response.status, 201);
    let request = seen.recv().expect("request");
    assert!(request.ends_with("\r\n\r\n0123456789"), "{request}");
    assert!(!request.to_ascii_lowercase().contains("chunked"), "{request}");
    let response = client(Proxies::default()).send("POST", &address, &[], Body::None, &Tls::default());
    assert_eq!(response.expect("an answer").status, 201);
    assert!(seen.recv().expect("request").to_ascii_lowercase().contains("content-length: 0"));
}

#[test]
fn a_body_that_is_cut_off_is_an_error() {
    let (port, _seen) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nshort");
    let address = format!("http://127.0.0.1:{port}/");
    let mut response =
        client(Proxies::default()).send("GET", &address, &[], Body::None, &Tls::default()).expect("an answer");
    assert_eq!(response.length(), Some(10));
    let mut bytes = Vec::new();
    assert!(response.body.read_to_end(&mut bytes).is_err(), "{bytes:?}");
    assert_eq!(bytes, b"short");
}

#[test]
fn a_proxy_gets_the_whole_address() {
    let (port, seen) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let proxies = Proxies::from_variables(&|name| (name == "http_proxy").then(|| format!("127.0.0.1:{port}")));
    let body = Body::Reader(Box::new(&b"GET / is only content"[..]), 21);
    let address = "http://registry.invalid:5000/v2/";
    client(proxies).send("PUT", address, &[], body, &Tls::default()).expect("an answer");
    let request = seen.recv().expect("request");
    assert!(request.starts_with("PUT http://registry.invalid:5000/v2/ HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\nGET / is only content"), "{request}");
}

#[test]
fn failures_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    let kind = |address: &str| {
        let answer = client(Proxies::default()).send("GET", address, &[], Body::None, &Tls::default());
        answer.expect_err("no answer").kind
    };
    assert_eq!(kind(&format!("http://127.0.0.1:{free}/")), ErrorKind::Connect);
    assert_eq!(kind("ftp://127.0.0.1/"), ErrorKind::Request);
    assert_eq!(kind("http:///"), ErrorKind::Request);
    // A server of plain HTTP answers a handshake with text, or waits for the end of what looks like a request.
    let loopback = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = loopback.local_addr().expect("address").port();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = loopback.accept() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    assert_eq!(kind(&format!("https://127.0.0.1:{port}/")), ErrorKind::Tls);
    let tls = Tls { authorities: vec!["/nonexistent.pem".into()], ..Tls::default() };
    let answer = client(Proxies::default()).send("GET", "https://127.0.0.1:1/", &[], Body::None, &tls);
    assert!(answer.expect_err("no file").message.contains("/nonexistent.pem"));
}
