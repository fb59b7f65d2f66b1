//! `cargo xtask bench api`: Docker's command line and plain requests, through `hull serve` and through dockerd.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Bench;
use super::engines::{self, Engines, Server};
use super::images::command;
use super::report::{Row, Table};
use super::stage::{Place, alternately, has, micros, show};
use crate::Result;
use crate::http::Client;

/// Containers that lists are of.
const LISTED: usize = 50;

/// Requests of a measurement.
const CALLS: usize = 300;

const PATIENCE: Duration = Duration::from_secs(60);

/// The Engine API, beside dockerd.
pub(super) const BENCH: Bench = Bench {
    word: "api",
    fill: engines::fill,
    measure,
    apart: true,
    table: Table { programs: &["hull", "docker", "podman"], rows: ROWS },
    section: Some("api"),
};

const ROWS: &[Row] = &[
    ("hull-cli-run", "`docker run --rm` through `hull serve`", "hull-cli-run", ""),
    ("docker-cli-run", "through dockerd", "hull-cli-run", "ratio 5"),
    ("hull-cli-run-none", "`docker run --rm --network none` through `hull serve`", "hull-cli-run-none", ""),
    ("docker-cli-run-none", "through dockerd", "hull-cli-run-none", "ratio 5"),
    ("hull-cli-exec", "`docker exec` through `hull serve`", "hull-cli-exec", ""),
    ("docker-cli-exec", "through dockerd", "hull-cli-exec", ""),
    ("hull-cli-ps", "`docker ps -a` through `hull serve`", "hull-cli-ps", ""),
    ("docker-cli-ps", "through dockerd", "hull-cli-ps", ""),
    ("hull-api-run", "requests to create, start, wait for and remove a container: `hull serve`", "hull-api-run", ""),
    ("docker-api-run", "dockerd", "hull-api-run", "ratio 5"),
    ("hull-api-ping", "`GET /_ping`: `hull serve`", "hull-api-ping", ""),
    ("docker-api-ping", "dockerd", "hull-api-ping", ""),
    ("hull-api-list", "`GET /containers/json?all=1` of 50: `hull serve`", "hull-api-list", ""),
    ("docker-api-list", "dockerd", "hull-api-list", ""),
    ("hull-api-inspect", "`GET /containers/ID/json`: `hull serve`", "hull-api-inspect", ""),
    ("docker-api-inspect", "dockerd", "hull-api-inspect", ""),
    ("hull-api-image", "`GET /images/NAME/json`: `hull serve`", "hull-api-image", ""),
    ("docker-api-image", "dockerd", "hull-api-image", ""),
    ("hull-serve-idle", "anonymous memory of `hull serve` before the first request", "", ""),
    ("hull-serve", "after all of them", "hull-serve", ""),
    ("docker-dockerd", "of dockerd", "hull-serve", ""),
    ("docker-containerd", "of its containerd", "hull-serve", ""),
];

fn socket(engine: &str) -> PathBuf {
    match engine {
        "docker" => PathBuf::from("/run/bench/docker.sock"),
        name => PathBuf::from(format!("/run/bench/{name}.sock")),
    }
}

fn measure(place: &Place) -> Result<()> {
    let mut engines = Engines::enter(place)?;
    if !has("docker") {
        return Err("the client `docker` is not here: --peers-root names a root that has it".into());
    }
    let stage = place.stage.display();
    let words =
        format!("{stage}/hull --root {stage}/data --state /run/bench/engine serve -H unix:///run/bench/hull.sock");
    let listens = |_| UnixStream::connect("/run/bench/hull.sock").is_ok();
    let server = Server::start(&words, Path::new("serve.log"), &listens)?;
    show("hull-serve-idle", "KiB", &[private(server.id())?]);
    engines.peers()?;
    let names: Vec<&str> = engines.names().into_iter().filter(|name| *name != "podman").collect();
    docker(&names, place)?;
    for name in &names {
        requests(name, place)?;
    }
    std::thread::sleep(Duration::from_secs(5));
    show("hull-serve", "KiB", &[private(server.id())?]);
    for program in ["dockerd", "containerd"] {
        for pid in of_name(program) {
            show(&format!("docker-{program}"), "KiB", &[private(pid)?]);
        }
    }
    engines.versions()
}

/// Memory of a process that is no file's, in KiB.
fn private(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("status without RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Processes of a name that see this network namespace.
fn of_name(name: &str) -> Vec<u32> {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let all = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse::<u32>().ok()?;
        let is_it = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|text| text.trim() == name);
        (is_it && fs::read_link(format!("/proc/{pid}/ns/net")).ok() == own).then_some(pid)
    });
    all.collect()
}

/// Docker's command line, alternately.
fn docker(names: &[&str], place: &Place) -> Result<()> {
    let works = [
        ("run", "run --rm app:1 true"),
        ("run-none", "run --rm --network none app:1 true"),
        ("exec", "exec one true"),
        ("ps", "ps -a"),
    ];
    let said = |engine: &str, words: &str| -> Result<Duration> {
        let mut command = command(&format!("docker -H unix://{} {words}", socket(engine).display()));
        command.stdout(fs::File::create("stdout")?).stderr(fs::File::create("stderr")?);
        let begin = Instant::now();
        let status = command.status()?;
        let took = begin.elapsed();
        if status.success() {
            return Ok(took);
        }
        // What goes wrong in a container comes as its output.
        let text = fs::read_to_string("stderr")? + &fs::read_to_string("stdout")?;
        Err(format!("docker {words} through {engine}: {status}: {}", text.trim()).into())
    };
    for name in names {
        said(name, "run -d --name one app:1 sleep 100000")?;
    }
    let took = alternately(works.len() * names.len(), place.runs, place.pause, |index| {
        said(names[index % names.len()], works[index / names.len()].1)
    })?;
    for (index, took) in took.iter().enumerate() {
        show(&format!("{}-cli-{}", names[index % names.len()], works[index / names.len()].0), "us", took);
    }
    for name in names {
        said(name, "rm -f one")?;
    }
    Ok(())
}

/// Requests without a program in between.
fn requests(engine: &str, place: &Place) -> Result<()> {
    let socket = socket(engine);
    let mut client = Client::new(&socket, PATIENCE)?;
    let mut took = Vec::new();
    for _ in 0..=place.runs {
        std::thread::sleep(place.pause);
        took.push(micros(one_run(&mut client)?));
    }
    show(&format!("{engine}-api-run"), "us", &took[1..]);
    for number in 0..LISTED {
        let body = json!({ "Image": "app:1", "Cmd": ["true"], "Labels": { "listed": "yes" } });
        expect(&mut client, "POST", &format!("/containers/create?name=listed-{number}"), &body, 201)?;
    }
    let calls = [
        ("ping", "/_ping"),
        ("list", "/containers/json?all=1"),
        ("inspect", "/containers/listed-1/json"),
        ("image", "/images/app:1/json"),
    ];
    for (name, path) in calls {
        let mut took = Vec::new();
        for _ in 0..CALLS {
            let begin = Instant::now();
            expect(&mut client, "GET", path, &Value::Null, 200)?;
            took.push(micros(begin.elapsed()));
        }
        show(&format!("{engine}-api-{name}"), "us", &took);
    }
    for number in 0..LISTED {
        expect(&mut client, "DELETE", &format!("/containers/listed-{number}"), &Value::Null, 204)?;
    }
    Ok(())
}

fn expect(client: &mut Client, method: &str, path: &str, body: &Value, status: u16) -> Result<Vec<u8>> {
    let answer = client.call(method, path, body)?;
    if answer.status != status {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        return Err(format!("{method} {path}: {} {}", answer.status, text.trim()).into());
    }
    Ok(answer.body)
}

/// Create, start, wait, remove.
fn one_run(client: &mut Client) -> Result<Duration> {
    let begin = Instant::now();
    let made = expect(client, "POST", "/containers/create", &json!({ "Image": "app:1", "Cmd": ["true"] }), 201)?;
    let made: Value = serde_json::from_slice(&made)?;
    let id = made["Id"].as_str().ok_or("created without an ID")?;
    expect(client, "POST", &format!("/containers/{id}/start"), &Value::Null, 204)?;
    let ended = expect(client, "POST", &format!("/containers/{id}/wait"), &Value::Null, 200)?;
    expect(client, "DELETE", &format!("/containers/{id}"), &Value::Null, 204)?;
    let code = serde_json::from_slice::<Value>(&ended)?["StatusCode"].clone();
    if code == 0 { Ok(begin.elapsed()) } else { Err(format!("a container ended with {code}").into()) }
}
