//! Images, networks and volumes over the Engine API.

use crate::server::Server;
use hull_testkit::registry::Faulty;
use hull_testkit::{Value, json};

/// The lines of an answer.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn root_api_images_have_names_histories_and_documents() {
    let Some(server) = Server::with_image(&[]) else { return };
    let document = server.get("/images/probe/json").is(200).json();
    let id = document["Id"].as_str().expect("ID").to_owned();
    assert_eq!(document["RepoTags"], json!(["probe:latest"]));
    assert_eq!(document["Config"]["Entrypoint"], json!(["/probe"]));
    assert_eq!(server.get(&format!("/v1.30/images/{}/json", &id[7..19])).is(200).json()["Id"], id.as_str());
    server.get("/images/nosuch/json").refused(404, "No such image: nosuch:latest");

    server.post("/images/probe/tag?repo=r.example%2Fteam%2Fapp&tag=v1", &Value::Null).is(201);
    server.post("/images/probe/tag?repo=Bad&tag=v1", &Value::Null).refused(400, "must be lowercase");
    server.post("/images/probe/tag", &Value::Null).refused(400, "invalid reference format");
    let all = server.get("/images/json").is(200).json();
    assert_eq!(all[0]["RepoTags"], json!(["probe:latest", "r.example/team/app:v1"]));
    assert!(all[0]["Size"].as_u64().is_some_and(|size| size > 100_000), "{all}");
    let of = |filters: &str| server.get(&format!("/images/json?filters={}", escape(filters))).is(200).json();
    assert_eq!(of(r#"{"reference":{"r.example/*/app":true}}"#)[0]["RepoTags"], json!(["r.example/team/app:v1"]));
    assert_eq!(of(r#"{"reference":["other"]}"#), json!([]));
    assert_eq!(of(r#"{"dangling":["true"]}"#), json!([]));
    server.get("/images/json?filters=%7B%22zz%22%3A%5B%22a%22%5D%7D").refused(400, "invalid filter 'zz'");
    let history = server.get("/images/r.example/team/app:v1/history").is(200).json();
    assert_eq!((&history[0]["Id"], &history[0]["Tags"][0]), (&json!(id), &json!("probe:latest")));

    server.create("holder", &["true"], json!({}));
    server.delete("/images/probe?noprune=0").is(200);
    server.delete("/images/r.example/team/app:v1").refused(409, "container");
    server.delete(&format!("/images/{id}")).refused(409, "image is being used by stopped container");
    server.delete("/containers/holder").is(204);
    let removed = server.delete("/images/r.example/team/app:v1").is(200).json();
    assert_eq!(removed, json!([{ "Untagged": "r.example/team/app:v1" }, { "Deleted": id }]));
    server.delete("/images/probe").refused(404, "No such image: probe:latest");
    server.finish();
}

#[test]
fn root_api_images_go_out_and_come_in() {
    let Some(server) = Server::with_image(&[]) else { return };
    let id = server.get("/images/probe/json").is(200).json()["Id"].clone();
    let archive = server.get("/images/get?names=probe").is(200);
    assert_eq!(archive.header("content-type"), Some("application/x-tar"));
    server.get("/images/get?names=probe&names=nosuch").refused(404, "No such image: nosuch");
    server.delete("/images/probe").is(200);
    // The command line says that it sends text.
    let loaded = server.send("POST", "/images/load?quiet=1", &[("Content-Type", "text/plain")], &archive.body).is(200);
    assert_eq!(lines(&loaded.text()), [json!({ "stream": "Loaded image: probe:latest\n" })]);
    assert_eq!(server.get("/images/probe/json").is(200).json()["Id"], id);
    // What is wrong with it comes when the answer has begun.
    let damaged = server.send("POST", "/images/load", &[], b"no archive").is(200);
    assert!(lines(&damaged.text())[0]["errorDetail"]["message"].is_string(), "{}", damaged.text());

    let layer = std::fs::read(server.home.path().join("rootfs.tar")).expect("archive");
    let changes = escape("CMD [\"/probe\"]\nUSER 1000");
    let target = format!("/images/create?fromSrc=-&repo=made&tag=v1&message=by+hand&changes={changes}");
    let made = server.send("POST", &target, &[], &layer).is(200);
    let made = lines(&made.text()).last().expect("a line")["status"].clone();
    let document = server.get("/images/made:v1/json").is(200).json();
    assert_eq!((&document["Id"], &document["Config"]["User"]), (&made, &json!("1000")));

    let container = server.create("changed", &["true"], json!({}));
    let body = json!({ "Env": ["A=b"], "Cmd": ["x"], "Labels": { "k": "v" } });
    let target =
        format!("/commit?container={container}&repo=committed&comment=c&author=a&changes={}", escape("USER 7"));
    let committed = server.post(&target, &body).is(201).json()["Id"].clone();
    let document = server.get("/images/committed/json").is(200).json();
    assert_eq!((&document["Id"], &document["Author"], &document["Comment"]), (&committed, &json!("a"), &json!("c")));
    let config = &document["Config"];
    assert_eq!((&config["User"], &config["Env"], &config["Labels"]["k"]), (&json!("7"), &json!(["A=b"]), &json!("v")));
    server.post("/commit?container=nosuch", &Value::Null).refused(404, "No such container: nosuch");
    server.delete("/containers/changed").is(204);
    // Names keep them; what has none goes.
    assert_eq!(server.post("/images/prune", &Value::Null).is(200).json()["ImagesDeleted"], Value::Null);
    let filters = escape(r#"{"dangling":{"false":true}}"#);
    let pruned = server.post(&format!("/images/prune?filters={filters}"), &Value::Null).is(200).json();
    assert!(pruned["SpaceReclaimed"].as_u64().is_some_and(|bytes| bytes > 0), "{pruned}");
    assert_eq!(server.get("/images/json").is(200).json(), json!([]));
    server.finish();
}

#[test]
fn root_api_images_are_pushed_and_pulled_with_progress() {
    let Some(server) = Server::with_image(&[]) else { return };
    let registry = Faulty::start();
    let name = format!("127.0.0.1:{}/team/app", registry.port);
    server.post(&format!("/images/probe/tag?repo={}&tag=v1", escape(&name)), &Value::Null).is(201);
    let pushed = lines(&server.post(&format!("/images/{name}/push?tag=v1"), &Value::Null).is(200).text());
    assert_eq!(pushed[0]["status"], format!("The push refers to repository [{name}]"));
    let aux = pushed.iter().find_map(|line| line.get("aux")).expect("a digest");
    assert_eq!(aux["Tag"], "v1");
    let digest = aux["Digest"].as_str().expect("digest").to_owned();
    server.delete(&format!("/images/{name}:v1")).is(200);

    let target = format!("/images/create?fromImage={}&tag=v1", escape(&name));
    let pulled = lines(&server.post(&target, &Value::Null).is(200).text());
    assert_eq!(pulled[0], json!({ "status": format!("Pulling from {name}"), "id": "v1" }));
    let last = pulled.last().expect("lines")["status"].clone();
    assert_eq!(last, format!("Status: Downloaded newer image for {name}:v1"));
    assert!(pulled.iter().any(|line| line["status"] == format!("Digest: {digest}")), "{pulled:?}");
    assert_eq!(
        server.get(&format!("/images/{name}:v1/json")).is(200).json()["RepoDigests"],
        json!([format!("{name}@{digest}")])
    );
    let looked = server.get(&format!("/distribution/{name}:v1/json")).is(200).json();
    assert_eq!((&looked["Descriptor"]["digest"], &looked["Platforms"][0]["os"]), (&json!(digest), &json!("linux")));

    // What fails before the first line has a status, what fails later is the last line.
    let absent = format!("/images/create?fromImage={}&tag=nosuch", escape(&name));
    server.post(&absent, &Value::Null).refused(404, "not found");
    server.post("/images/create?fromImage=Bad", &Value::Null).refused(400, "must be lowercase");
    let nothing = lines(&server.post(&format!("/images/{name}/push?tag=v9"), &Value::Null).is(200).text());
    let error = nothing.last().expect("lines");
    assert_eq!(error["error"], format!("An image does not exist locally with the tag: {name}"));
    assert_eq!(error["errorDetail"]["message"], error["error"]);
    server.finish();
}

#[test]
fn root_api_volumes_live_and_die() {
    let Some(server) = Server::with_image(&[]) else { return };
    let body = json!({ "Name": "data", "Labels": { "a": "b" }, "DriverOpts": null, "Driver": "local" });
    let volume = server.post("/volumes/create", &body).is(201).json();
    assert_eq!(
        (&volume["Name"], &volume["Labels"]["a"], &volume["Scope"]),
        (&json!("data"), &json!("b"), &json!("local"))
    );
    assert_eq!(server.post("/volumes/create", &json!({ "Name": "data" })).is(201).json(), volume);
    assert_eq!(server.get("/volumes/data").is(200).json(), volume);
    let anonymous =
        server.post("/volumes/create", &json!({})).is(201).json()["Name"].as_str().expect("name").to_owned();
    assert_eq!(anonymous.len(), 64);
    server.post("/volumes/create", &json!({ "Name": "../x" })).refused(400, "volume name");
    server.post("/volumes/create", &json!({ "Name": "y", "Driver": "nfs" })).refused(404, "plugin");
    server.post("/volumes/create", &json!({ "Name": 7 })).refused(400, "invalid JSON");
    server.get("/volumes/nosuch").refused(404, "get nosuch: no such volume");
    let names = |filters: &str| {
        let found = server.get(&format!("/volumes?filters={}", escape(filters))).is(200).json();
        found["Volumes"].as_array().expect("a list").iter().map(|one| one["Name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(r#"{"label":{"a=b":true}}"#), ["data"]);
    assert_eq!(names(r#"{"name":["dat"]}"#), ["data"]);
    server.create("user", &["true"], json!({ "HostConfig": { "Binds": ["data:/data"] } }));
    assert_eq!(names(r#"{"dangling":["false"]}"#), ["data"]);
    server.delete("/volumes/data").refused(409, "volume is in use - [");
    let pruned = server.post("/volumes/prune", &Value::Null).is(200).json();
    assert_eq!(pruned["VolumesDeleted"], json!([anonymous]));
    server.delete("/containers/user").is(204);
    server.delete("/volumes/data").is(204);
    server.delete("/volumes/data").refused(404, "no such volume");
    server.delete("/volumes/data?force=1").is(204);
    server
        .send("PUT", "/volumes/data", &[("Content-Type", "application/json")], b"{}")
        .refused(503, "swarm is unavailable");
    server.finish();
}

#[test]
fn root_api_networks_are_made_joined_and_left() {
    if !crate::server::own_network() {
        return;
    }
    let Some(server) = Server::with_image(&[]) else { return };
    let body = json!({
        "Name": "back", "Driver": "bridge", "EnableIPv6": false, "Labels": { "a": "b" }, "CheckDuplicate": true,
        "IPAM": { "Driver": "default", "Config": [{ "Subnet": "10.71.0.0/24", "Gateway": "10.71.0.1" }] },
    });
    let id = server.post("/networks/create", &body).is(201).json()["Id"].as_str().expect("ID").to_owned();
    server.post("/networks/create", &body).refused(409, "network with name back already exists");
    let mut other = body.clone();
    other["Name"] = "other".into();
    server.post("/networks/create", &other).refused(403, "Pool overlaps with other one on this address space");
    server.post("/networks/create", &json!({ "Name": "bridge" })).refused(403, "predefined bridge network");
    server.post("/networks/create", &json!({ "Name": "" })).refused(400, "name");
    server
        .post("/networks/create", &json!({ "Name": "x", "Driver": "nosuch" }))
        .refused(404, "plugin \"nosuch\" not found");
    server.post("/networks/create", &json!({ "Name": "x", "Driver": "overlay" })).refused(403, "swarm manager");
    let network = server.get("/networks/back").is(200).json();
    assert_eq!((&network["Id"], &network["IPAM"]["Config"][0]["Subnet"]), (&json!(id), &json!("10.71.0.0/24")));
    let names = |filters: &str| {
        let found = server.get(&format!("/networks?filters={}", escape(filters))).is(200).json();
        found.as_array().expect("a list").iter().map(|one| one["Name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("{}"), ["back", "bridge", "host", "none"]);
    assert_eq!(names(r#"{"name":["^back$"]}"#), ["back"]);
    assert_eq!(names(r#"{"type":{"custom":true}}"#), ["back"]);
    assert_eq!(names(r#"{"label":["a=b"],"driver":["bridge"]}"#), ["back"]);

    let container = server.create("web", &["sleep", "100"], json!({}));
    let join = json!({
        "Container": "web",
        "EndpointConfig": { "IPAMConfig": { "IPv4Address": "10.71.0.9" }, "Aliases": ["www"], "Links": null },
    });
    let outside = json!({ "Container": "web", "EndpointConfig": { "IPAMConfig": { "IPv4Address": "10.72.0.9" } } });
    server.post("/networks/back/connect", &outside).refused(400, "no configured subnet");
    server.post("/networks/host/connect", &json!({ "Container": "web" })).refused(400, "host network");
    server.post("/networks/back/connect", &join).is(200);
    server.post("/networks/back/connect", &join).refused(403, "already exists in network back");
    server.post("/networks/back/connect", &json!({ "Container": "nosuch" })).refused(404, "No such container: nosuch");
    server.post("/containers/web/start", &Value::Null).is(204);
    let network = server.get(&format!("/networks/{}", &id[..12])).is(200).json();
    assert_eq!(network["Containers"][&container]["IPv4Address"], "10.71.0.9/24");
    server.delete("/networks/back").refused(403, "has active endpoints");
    server.post("/networks/back/disconnect", &json!({ "Container": container })).is(200);
    server
        .post("/networks/back/disconnect", &json!({ "Container": container }))
        .refused(500, "is not connected to the network back");
    let gone = json!({ "Container": "nosuch", "Force": true });
    server.post("/networks/back/disconnect", &gone).refused(404, "endpoint nosuch not found");
    server.delete("/containers/web?force=1").is(204);
    let pruned = server.post("/networks/prune", &Value::Null).is(200).json();
    assert_eq!(pruned["NetworksDeleted"], json!(["back"]));
    server.get("/networks/back").refused(404, "network back not found");
    server.delete("/networks/none").refused(403, "pre-defined network");
    server.finish();
}

#[test]
fn root_api_a_socket_with_labels_sees_only_its_own() {
    let Some(server) = Server::new(&["--label", "team=x"]) else { return };
    server.home.run(&["volume", "create", "foreign"]).ok();
    assert_eq!(server.get("/volumes").is(200).json()["Volumes"], json!([]));
    server.get("/volumes/foreign").refused(404, "no such volume");
    server.delete("/volumes/foreign").refused(404, "no such volume");
    let own = server.post("/volumes/create", &json!({ "Name": "own" })).is(201).json();
    assert_eq!(own["Labels"]["team"], "x");
    assert_eq!(server.get("/volumes").is(200).json()["Volumes"], json!([own]));
    server.get("/images/hello/json").refused(404, "No such image: hello:latest");
    server.finish();
}

#[test]
fn root_api_a_container_that_has_removed_itself_can_still_be_waited_for() {
    let Some(server) = Server::with_image(&[]) else { return };
    let id = server.create("gone", &["exit", "3"], json!({ "HostConfig": { "AutoRemove": true } }));
    server.post("/containers/gone/start", &Value::Null).is(204);
    server.home.until("it is gone", || server.get("/containers/gone/json").status == 404);
    let waited = server.post(&format!("/containers/{id}/wait"), &Value::Null).is(200).json();
    assert_eq!(waited["StatusCode"], 3);
    server.post("/containers/nosuch/wait", &Value::Null).refused(404, "No such container: nosuch");
    server.finish();
}
