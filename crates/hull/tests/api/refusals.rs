//! What dockerd 28.5 refuses, in its words: `refusals.txt` has a request and dockerd's answer in each line.

use serde_json::{Value, json};

use crate::server::Server;

#[test]
fn root_api_every_endpoint_refuses_as_dockerd_does() {
    if !crate::server::own_network() {
        return;
    }
    let Some(server) = Server::with_image(&[]) else { return };
    server.home.run(&["tag", "probe", "busybox"]).ok();
    let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "NetworkMode": "none" } });
    server.post("/containers/create?name=cc", &body).is(201);
    server
        .post("/networks/create", &json!({ "Name": "net", "IPAM": { "Config": [{ "Subnet": "10.79.0.0/24" }] } }))
        .is(201);
    server.post("/volumes/create", &json!({ "Name": "vv" })).is(201);
    let id = |text: &str| {
        let is_id = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let words = text.split([' ', '"']).filter(|word| is_id(word));
        words.fold(text.replace('\n', "\\n"), |text, word| text.replace(word, "ID"))
    };
    let (mut wrong, mut count) = (Vec::new(), 0);
    for line in include_str!("refusals.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [method, path, body, status, message, known @ ..] = &fields[..] else { panic!("{line}") };
        let kind = [("Content-Type", "application/json")];
        let answer = match *body {
            "-" => server.send(method, path, &[("Content-Length", "0")], b""),
            body => server.send(method, path, &kind, body.as_bytes()),
        };
        count += 1;
        let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said = id(document["message"].as_str().unwrap_or_default());
        // Hull may say more: what to do.
        let is_same = answer.status.to_string() == *status && said.starts_with(message);
        let has_words = *method == "HEAD" || !said.is_empty();
        let is_known = !known.is_empty() && answer.status >= 400;
        if !has_words || !is_same && !is_known {
            wrong.push(format!(
                "{method} {path} {body}\n  dockerd {status} {message}\n  hull    {} {said}",
                answer.status
            ));
        }
    }
    assert!(count > 300, "{count}");
    assert_eq!(server.get("/_ping").text(), "OK");
    server.delete("/containers/cc").is(204);
    server.delete("/networks/net").is(204);
    server.delete("/volumes/vv").is(204);
    server.finish();
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
