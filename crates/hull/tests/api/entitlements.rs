//! What a client of BuildKit's protocol may not have done unless it is allowed (CVE-2024-23653): asked for by plain gRPC,
//! as a frontend of a stranger's would.

use std::future::poll_fn;

use hull_testkit::registry::Faulty;

use crate::server::Server;

/// A field of a protocol buffers message that has a length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 127 {
        all.push(u8::try_from(length & 127).expect("seven bits") | 128);
        length >>= 7;
    }
    all.push(u8::try_from(length).expect("seven bits"));
    all.extend_from_slice(bytes);
    all
}

/// A gRPC call: its status and message.
async fn call(server: &Server, method: &str, message: &[u8]) -> (String, String) {
    let open = server.open("POST", "/grpc", &[("Connection", "Upgrade"), ("Upgrade", "h2c")], b"");
    assert_eq!(open.answer.status, 101);
    let stream = open.reader.into_inner();
    stream.set_nonblocking(true).expect("a socket");
    let stream = tokio::net::UnixStream::from_std(stream).expect("a socket");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    poll_fn(|context| client.poll_ready(context)).await.expect("ready");
    let request = http_request(method);
    let (response, mut body) = client.send_request(request, false).expect("a call");
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(message);
    body.send_data(frame.into(), true).expect("a message");
    let (head, mut answer) = response.await.expect("an answer").into_parts();
    while let Some(data) = answer.data().await {
        let data = data.expect("data");
        answer.flow_control().release_capacity(data.len()).expect("window");
    }
    let trailers = answer.trailers().await.expect("trailers").unwrap_or(head.headers);
    let text = |name: &str| trailers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    (text("grpc-status").unwrap_or_default(), text("grpc-message").unwrap_or_default().replace("%20", " "))
}

fn http_request(method: &str) -> hyper::Request<()> {
    let request = hyper::Request::post(format!("http://hull{method}"));
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).expect("a request")
}

/// A session of a client that has nothing.
fn session(server: &Server, id: &str) {
    let words = [("Connection", "Upgrade"), ("Upgrade", "h2c"), ("X-Docker-Expose-Session-Uuid", id)];
    let open = server.open("POST", "/session", &words, b"");
    assert_eq!(open.answer.status, 101);
    let stream = open.reader.into_inner();
    stream.set_nonblocking(true).expect("a socket");
    let stream = tokio::net::UnixStream::from_std(stream).expect("a socket");
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let refused =
                hyper::Response::builder().header("content-type", "application/grpc").header("grpc-status", "12");
            let _ = respond.send_response(refused.body(()).expect("an answer"), true);
        }
    });
}

#[test]
fn root_api_grpc_gives_no_rights_that_are_not_allowed() {
    let Some(server) = Server::with_image(&[]) else { return };
    let files = Faulty::start();
    let directory = server.home.path().join("context");
    std::fs::create_dir(&directory).expect("directory");
    let build = |step: &str, allowed: &[&str], frontend: (&str, &[(&str, &str)])| {
        std::fs::write(directory.join("Dockerfile"), format!("FROM probe\nRUN {step}\n")).expect("file");
        let tar = std::process::Command::new("tar").arg("-c").arg("-C").arg(&directory).arg(".").output().expect("tar");
        let target = format!("/{}.tar", step.len());
        files.put(&target, "application/x-tar", &tar.stdout);
        let context = format!("http://127.0.0.1:{}{target}", files.port);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let id = format!("session-{}-{}", step.len(), allowed.len());
            session(&server, &id);
            let mut message = field(1, id.as_bytes());
            message.extend(field(5, id.as_bytes()));
            message.extend(field(6, frontend.0.as_bytes()));
            let own = [("context", context.as_str()), ("no-cache", ""), ("cgroup-parent", server.home.name())];
            for (key, value) in own.iter().chain(frontend.1) {
                let entry = [field(1, key.as_bytes()), field(2, value.as_bytes())].concat();
                message.extend(field(7, &entry));
            }
            allowed.iter().for_each(|what| message.extend(field(9, what.as_bytes())));
            call(&server, "/moby.buildkit.v1.Control/Solve", &message).await
        })
    };
    let dockerfile = ("dockerfile.v0", &[][..]);
    let insecure = "--security=insecure [\"/probe\", \"echo\", \"x\"]";
    let host = "--network=host [\"/probe\", \"echo\", \"x\"]";
    // A build as any other, so that what is refused is refused for its rights.
    assert_eq!(build("[\"/probe\", \"echo\", \"x\"]", &[], dockerfile).0, "0");
    for (step, right) in [(insecure, "security.insecure"), (host, "network.host")] {
        let (status, message) = build(step, &[], dockerfile);
        assert!(status != "0" && message.contains(right) && message.contains("not allowed"), "{status}: {message}");
        // A right for something else is none for this, and neither is what a frontend's options say.
        let options = [("entitlements", right), ("allow", right), ("build-arg:BUILDKIT_ENTITLEMENTS", right)];
        let (status, message) = build(step, &["device"], ("dockerfile.v0", &options));
        assert!(status != "0" && message.contains(right), "{status}: {message}");
        assert_eq!(build(step, &[right], dockerfile).0, "0");
    }
    // Frontends of strangers are not run, and nobody gets a container by asking for one.
    let foreign = ("gateway.v0", &[("source", "127.0.0.1:1/evil/frontend")][..]);
    let (status, message) = build(insecure, &["security.insecure"], foreign);
    assert!(status == "12" && message.contains("only dockerfile.v0 is"), "{status}: {message}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for method in ["NewContainer", "ExecProcess"] {
        let method = format!("/moby.buildkit.v1.frontend.LLBBridge/{method}");
        let (status, message) = runtime.block_on(call(&server, &method, &field(1, b"x")));
        assert_ne!(status, "0", "{method}: {message}");
    }
    server.finish();
}
