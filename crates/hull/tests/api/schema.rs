//! Answers against the published schema of the Engine API, and against what dockerd sends of it: every field that
//! dockerd always sends is there, every field has its type, and nothing is there that clients do not know.

use std::collections::BTreeMap;

use crate::server::Server;
use serde_json::{Value, json};

/// Fields of Hull's own, which clients pass over.
const OWN: &[&str] = &[];

struct Field {
    always: bool,
    kind: String,
    nullable: bool,
}

struct Schema {
    answers: BTreeMap<String, String>,
    definitions: BTreeMap<String, BTreeMap<String, Field>>,
}

impl Schema {
    fn read() -> Self {
        let (mut answers, mut definitions) = (BTreeMap::new(), BTreeMap::<String, BTreeMap<String, Field>>::new());
        let mut name = String::new();
        for line in include_str!("schema.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            if let Some(field) = line.strip_prefix("  ") {
                let (field, kind) = field[1..].split_once(' ').expect("name and type");
                let (kind, nullable) = kind.strip_suffix('?').map_or((kind, false), |kind| (kind, true));
                let described = Field { always: line.starts_with("  !"), kind: kind.to_owned(), nullable };
                definitions.entry(name.clone()).or_default().insert(field.to_owned(), described);
            } else if let Some((answer, kind)) = line.rsplit_once(' ') {
                answers.insert(answer.to_owned(), kind.to_owned());
            } else {
                line.clone_into(&mut name);
            }
        }
        Self { answers, definitions }
    }

    fn check(&self, place: &str, kind: &str, value: &Value, wrong: &mut Vec<String>) {
        let fits = match kind.as_bytes()[0] {
            b's' => value.is_string(),
            b'i' => value.is_i64() || value.is_u64(),
            b'n' => value.is_number(),
            b'b' => value.is_boolean(),
            b'[' => value.is_array(),
            b'{' | b'@' => value.is_object(),
            _ => true,
        };
        if !fits {
            wrong.push(format!("{place}: expected {kind}, found {value}"));
            return;
        }
        match kind.as_bytes()[0] {
            b'[' => value
                .as_array()
                .into_iter()
                .flatten()
                .for_each(|one| self.check(&format!("{place}[]"), &kind[1..kind.len() - 1], one, wrong)),
            b'{' => value
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(_, one)| !one.is_null())
                .for_each(|(_, one)| self.check(&format!("{place}{{}}"), &kind[1..kind.len() - 1], one, wrong)),
            b'@' => self.fields(place, &self.definitions[&kind[1..]], value, wrong),
            _ => {}
        }
    }

    fn fields(&self, place: &str, fields: &BTreeMap<String, Field>, value: &Value, wrong: &mut Vec<String>) {
        for (name, field) in fields.iter().filter(|(name, field)| field.always && value.get(name.as_str()).is_none()) {
            wrong.push(format!("{place}: no {name}, which is {}", field.kind));
        }
        for (name, one) in value.as_object().into_iter().flatten() {
            let at = format!("{place}.{name}");
            match fields.get(name) {
                None if OWN.contains(&name.as_str()) => {}
                None => wrong.push(format!("{at}: not in the schema: {one}")),
                Some(field) if one.is_null() && (field.nullable || !field.always) => {}
                Some(field) => self.check(&at, &field.kind, one, wrong),
            }
        }
    }
}

/// A server, and what was found wrong with its answers.
struct Checked {
    server: Server,
    schema: Schema,
    wrong: Vec<String>,
    seen: Vec<String>,
}

impl Checked {
    fn ask(&mut self, method: &str, path: &str, of: &str, body: &Value) -> Value {
        let answer = match method {
            "GET" => self.server.get(path),
            "DELETE" => self.server.delete(path),
            _ => self.server.post(path, body),
        };
        assert!(answer.status < 300, "{method} {path}: {}", answer.text());
        let document = answer.json();
        let of = format!("{method} {of}");
        let kind = self.schema.answers.get(&of).unwrap_or_else(|| panic!("no {of} in the schema")).clone();
        if !document.is_null() {
            self.schema.check(&of, &kind, &document, &mut self.wrong);
        }
        self.seen.push(of);
        document
    }

    fn get(&mut self, path: &str, of: &str) -> Value {
        self.ask("GET", path, of, &Value::Null)
    }
}

#[test]
fn root_api_answers_have_the_published_fields_and_types() {
    if !crate::server::own_network() {
        return;
    }
    let Some(server) = Server::with_image(&[]) else { return };
    let mut api = Checked { server, schema: Schema::read(), wrong: Vec::new(), seen: Vec::new() };
    api.get("/version", "/version");
    api.get("/info", "/info");
    let network =
        json!({ "Name": "net", "Labels": { "a": "b" }, "IPAM": { "Config": [{ "Subnet": "10.98.7.0/24" }] } });
    api.ask("POST", "/networks/create", "/networks/create", &network);
    api.ask("POST", "/volumes/create", "/volumes/create", &json!({ "Name": "vol", "Labels": { "a": "b" } }));
    let parent = api.server.home.name().to_owned();
    let container = |network: &str| {
        json!({
            "Image": "probe", "Cmd": ["sleep", "300"], "Labels": { "a": "b" }, "Env": ["A=b"],
            "ExposedPorts": { "80/tcp": {} }, "Healthcheck": { "Test": ["CMD", "/probe", "exit", "0"] },
            "HostConfig": {
                "CgroupParent": parent,
                "Memory": 64 << 20, "Binds": ["vol:/data"], "NetworkMode": network,
                "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "0" }] },
                "Mounts": [{ "Type": "tmpfs", "Target": "/t" }],
                "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 2 },
            },
        })
    };
    api.ask("POST", "/containers/create?name=one", "/containers/create", &container("net"));
    api.get("/containers/one/json", "/containers/{id}/json");
    let mut other = container("none");
    other["HostConfig"]["PortBindings"] = json!({});
    api.ask("POST", "/containers/create?name=two", "/containers/create", &other);
    api.get("/containers/json?all=1&size=1", "/containers/json");
    api.server.post("/containers/two/start", &Value::Null).is(204);
    api.get("/containers/two/json?size=1", "/containers/{id}/json");
    for (path, of) in [
        ("/containers/json", "/containers/json"),
        ("/containers/two/top", "/containers/{id}/top"),
        ("/containers/two/stats?stream=0", "/containers/{id}/stats"),
        ("/containers/two/changes", "/containers/{id}/changes"),
    ] {
        api.get(path, of);
    }
    let exec = json!({ "Cmd": ["/probe", "exit", "0"], "AttachStdout": true, "Env": ["B=c"] });
    let exec = api.ask("POST", "/containers/two/exec", "/containers/{id}/exec", &exec);
    api.get(&format!("/exec/{}/json", exec["Id"].as_str().expect("an ID")), "/exec/{id}/json");
    let update = json!({ "Memory": 65 << 20, "MemorySwap": -1 });
    api.ask("POST", "/containers/two/update", "/containers/{id}/update", &update);
    for (path, of) in [
        ("/networks", "/networks"),
        ("/networks/net", "/networks/{id}"),
        ("/volumes", "/volumes"),
        ("/volumes/vol", "/volumes/{name}"),
        ("/images/json", "/images/json"),
        ("/images/json?shared-size=1&manifests=1", "/images/json"),
        ("/images/probe/json", "/images/{name}/json"),
        ("/images/probe/history", "/images/{name}/history"),
        ("/system/df", "/system/df"),
    ] {
        api.get(path, of);
    }
    api.ask("POST", "/commit?container=two&repo=made", "/commit", &json!({}));
    api.ask("DELETE", "/images/made", "/images/{name}", &Value::Null);
    api.server.post("/containers/two/kill", &Value::Null).is(204);
    api.ask("POST", "/containers/two/wait", "/containers/{id}/wait", &Value::Null);
    api.get("/containers/two/json", "/containers/{id}/json");
    for kind in ["containers", "networks", "volumes", "images", "build"] {
        let path = format!(
            "/{kind}/prune?filters=%7B%22{}%22%3A%5B%22zz%22%5D%7D",
            if kind == "build" { "id" } else { "label" }
        );
        api.ask("POST", &path, &format!("/{kind}/prune"), &Value::Null);
    }
    for path in ["/containers/one", "/containers/two", "/networks/net", "/volumes/vol"] {
        api.server.delete(path).is(204);
    }
    let missed: Vec<&String> = api.schema.answers.keys().filter(|answer| !api.seen.contains(answer)).collect();
    assert!(missed.is_empty(), "never asked for: {missed:?}");
    api.wrong.sort();
    api.wrong.dedup();
    assert!(api.wrong.is_empty(), "{}", api.wrong.join("\n"));
}
