//! Builds over the Engine API: the first protocol, and BuildKit's by its own client where that is installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::server::Server;
use hull_testkit::{Finished, Value, finish, json, tier};

/// A context with these files, as a directory.
fn context(server: &Server, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let directory = server.home.path().join(name);
    for (path, text) in files {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        std::fs::write(path, text).expect("file");
    }
    directory
}

/// The same as an archive.
fn archive(directory: &Path) -> Vec<u8> {
    let output = Command::new("tar").arg("-c").arg("-C").arg(directory).arg(".").output().expect("tar");
    assert!(output.status.success());
    output.stdout
}

/// The lines of a build: everything in the stream, the ID, the error.
fn said(text: &str) -> (String, Option<String>, Option<Value>) {
    let (mut stream, mut id, mut error) = (String::new(), None, None);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        stream.push_str(line["stream"].as_str().unwrap_or_default());
        id = id.or_else(|| line["aux"]["ID"].as_str().map(str::to_owned));
        if line.get("error").is_some() {
            error = Some(line["errorDetail"].clone());
        }
    }
    (stream, id, error)
}

#[test]
fn root_api_build_takes_an_archive_and_says_its_steps() {
    let Some(server) = Server::with_image(&[]) else { return };
    let dockerfile =
        "FROM probe\nARG word=none\nCOPY f /f\nRUN [\"/probe\", \"echo\", \"from a step\"]\nLABEL word=$word\n";
    let directory = context(&server, "c", &[("Dockerfile", dockerfile), ("f", "hello"), (".dockerignore", "x")]);
    let target = format!(
        "/v1.51/build?t=made%3Av1&t=made%3Av2&rm=1&buildargs=%7B%22word%22%3A%22given%22%7D&cgroupparent={}",
        server.home.name()
    );
    let tar = [("Content-Type", "application/x-tar")];
    let answer = server.send("POST", &target, &tar, &archive(&directory)).is(200);
    let (stream, id, error) = said(&answer.text());
    assert_eq!(error, None, "{stream}");
    let id = id.expect("an ID");
    let steps: Vec<&str> = stream.lines().filter(|line| line.starts_with("Step ")).collect();
    assert_eq!(steps.len(), 3, "{stream}");
    assert!(steps[0].starts_with("Step 1/3 : FROM ") && steps[2].starts_with("Step 3/3 : RUN "), "{stream}");
    assert!(stream.contains("from a step\n"), "{stream}");
    assert!(stream.contains(&format!("Successfully built {}\nSuccessfully tagged made:v1\n", &id[7..19])), "{stream}");
    let document = server.get("/images/made:v2/json").is(200).json();
    assert_eq!((&document["Id"], &document["Config"]["Labels"]["word"]), (&json!(id), &json!("given")));

    // The same again is in the cache.
    let (stream, again, _) = said(&server.send("POST", &target, &tar, &archive(&directory)).is(200).text());
    assert!(stream.contains(" ---> Using cache\n") && again.as_ref() == Some(&id), "{stream}");
    let quiet = server.send("POST", &format!("{target}&q=1"), &[], &archive(&directory)).is(200);
    assert_eq!(said(&quiet.text()).0, format!("{id}\n"));
    let pruned = server.post("/build/prune?all=1", &Value::Null).is(200).json();
    assert!(pruned["CachesDeleted"].as_array().is_some_and(|list| !list.is_empty()), "{pruned}");
    server.finish();
}

#[test]
fn root_api_build_failures_have_statuses_and_codes() {
    let Some(server) = Server::with_image(&[]) else { return };
    let build = |name: &str, dockerfile: &str, query: &str| {
        let directory = context(&server, name, &[("Dockerfile", dockerfile)]);
        let target = format!("/build?cgroupparent={}&{query}", server.home.name());
        server.send("POST", &target, &[], &archive(&directory))
    };
    let answer = build("exit", "FROM probe\nRUN [\"/probe\", \"exit\", \"7\"]\n", "").is(200);
    let (_, id, error) = said(&answer.text());
    let error = error.expect("an error");
    assert_eq!((id, &error["code"]), (None, &json!(7)), "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("returned a non-zero code: 7")), "{error}");
    build("word", "FROM probe\nRUNN x\n", "").refused(400, "unknown instruction: RUNN");
    build("name", "FROM probe\n", "t=Bad").refused(500, "must be lowercase");
    build("args", "FROM probe\n", "buildargs=x").refused(400, "error reading build args");

    build("absent", "FROM probe\n", "dockerfile=nosuch").refused(500, "Cannot locate specified Dockerfile: nosuch");
    server.send("POST", "/build/cancel?id=nosuch", &[], b"").is(204);
    assert!(!server.home.path().join("data/contexts").read_dir().is_ok_and(|mut left| left.next().is_some()));
    server.finish();
}

#[test]
fn root_api_grpc_wants_http2() {
    let Some(server) = Server::new(&[]) else { return };
    server.send("POST", "/grpc", &[], b"").refused(500, "no upgrade proto in request");
    server
        .send("POST", "/session", &[("Connection", "Upgrade"), ("Upgrade", "tcp")], b"")
        .refused(400, "protocol tcp not supported");
    server
        .send("POST", "/session", &[("Connection", "Upgrade"), ("Upgrade", "h2c")], b"")
        .refused(400, "invalid session");
    let open = server.open("POST", "/grpc", &[("Connection", "Upgrade"), ("Upgrade", "h2c")], b"");
    assert_eq!((open.answer.status, open.answer.header("upgrade")), (101, Some("h2c")));
    drop(open);
    server.finish();
}

/// `docker buildx build`, with a configuration of its own.
struct Buildx<'s> {
    server: &'s Server,
    program: PathBuf,
}

impl<'s> Buildx<'s> {
    fn new(server: &'s Server) -> Option<Self> {
        let program = tier::tool("docker-buildx")?;
        Some(Self { server, program })
    }

    #[track_caller]
    fn build(&self, words: &[&str]) -> Finished {
        self.run(&[&["build", "--progress=plain", "--cgroup-parent", self.server.home.name()], words].concat())
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> Finished {
        let mut command = Command::new(&self.program);
        command.env("DOCKER_HOST", format!("unix://{}", self.server.socket().display()));
        command.env("BUILDX_CONFIG", self.server.home.path().join("buildx"));
        command.env("DOCKER_CONFIG", self.server.home.path().join("config"));
        finish(command.args(words).stdin(Stdio::null()).current_dir("/"))
    }
}

#[test]
fn root_api_buildx_builds_local_contexts() {
    let Some(server) = Server::with_image(&[]) else { return };
    let Some(buildx) = Buildx::new(&server) else { return };
    let dockerfile = "FROM probe AS base\nARG word=none\nCOPY . /c/\n\
                      RUN --mount=type=secret,id=token,required=true [\"/probe\", \"cat\", \"/run/secrets/token\"]\n\
                      LABEL word=$word\nFROM scratch AS out\nCOPY --from=base /c/kept /result\n\
                      FROM probe AS fails\nRUN [\"/probe\", \"exit\", \"7\"]\n";
    let files = [("Dockerfile", dockerfile), ("kept", "hello"), ("skipped", "no"), (".dockerignore", "skipped\n")];
    let directory = context(&server, "c", &files);
    let directory = directory.to_str().expect("UTF-8");
    let token = server.home.path().join("token");
    std::fs::write(&token, "very secret").expect("file");
    let secret = format!("id=token,src={}", token.display());
    let built = buildx
        .build(&["-t", "made", "--target", "base", "--build-arg", "word=given", "--secret", &secret, directory])
        .ok();
    assert!(built.stderr.contains("very secret"), "{}", built.stderr);
    let document = server.get("/images/made/json").is(200).json();
    assert_eq!(document["Config"]["Labels"]["word"], "given");
    let out = server.home.path().join("out");
    let output = format!("type=local,dest={}", out.display());
    buildx.build(&["--target", "out", "--secret", &secret, "-o", &output, directory]).ok();
    assert_eq!(std::fs::read_to_string(out.join("result")).expect("a file"), "hello");
    let failed = buildx.build(&["--target", "fails", directory]);
    assert!(failed.code != 0 && failed.stderr.contains("exit code: 7"), "{}", failed.stderr);
    let wrong = buildx.build(&["--target", "nosuch", directory]);
    assert!(wrong.code != 0 && wrong.stderr.contains("nosuch"), "{}", wrong.stderr);
    server.finish();
}

#[test]
fn root_api_buildx_bakes_from_other_targets_and_remembers() {
    let Some(server) = Server::with_image(&[]) else { return };
    let Some(buildx) = Buildx::new(&server) else { return };
    let bake = "target \"base\" {\n dockerfile-inline = \"FROM probe\\nCOPY given /given\\nENV of=base\\n\"\n\
                output = [\"type=cacheonly\"]\n}\n\
                target \"app\" {\n dockerfile-inline = \"FROM base\\nCOPY --from=base /given /copied\\n\"\n\
                contexts = { base = \"target:base\" }\n tags = [\"app\"]\n}\n";
    let directory = context(&server, "c", &[("docker-bake.hcl", bake), ("given", "hello")]);
    let path = directory.join("docker-bake.hcl");
    let (file, place) = (path.to_str().expect("UTF-8"), directory.to_str().expect("UTF-8"));
    let context = format!("*.context={place}");
    buildx.run(&["bake", "--progress=plain", "--allow=fs=*", "-f", file, "--set", &context, "app"]).ok();
    let document = server.get("/images/app/json").is(200).json();
    let env = document["Config"]["Env"].to_string();
    assert!(env.contains("of=base"), "the other target's configuration goes on: {env}");
    assert_eq!(document["RootFS"]["Layers"].as_array().map(Vec::len), Some(3), "{document}");
    let failed = context_of_failure(&server);
    assert!(buildx.build(&[&failed]).code != 0);
    let list = buildx.run(&["history", "ls", "--format", "{{.Status}}"]).ok().stdout;
    let mut states: Vec<&str> = list.lines().collect();
    states.sort_unstable();
    assert_eq!(states, ["Completed", "Completed", "Error"]);
    let logs = buildx.run(&["history", "logs", "--progress=plain"]).ok();
    assert!(logs.stderr.contains("exit code: 7"), "{}", logs.stderr);
    buildx.run(&["history", "rm", "--all"]).ok();
    assert_eq!(buildx.run(&["history", "ls", "--format", "{{.Status}}"]).ok().text(), "");
    server.finish();
}

fn context_of_failure(server: &Server) -> String {
    let directory = context(server, "failure", &[("Dockerfile", "FROM probe\nRUN [\"/probe\", \"exit\", \"7\"]\n")]);
    directory.to_str().expect("UTF-8").to_owned()
}

#[test]
fn root_api_buildx_caches_in_directories_of_the_client() {
    let (Some(first), Some(second)) = (Server::with_image(&[]), Server::with_image(&[])) else { return };
    let Some(buildx) = Buildx::new(&first) else { return };
    let dockerfile = "FROM scratch AS base\nCOPY probe f /\nRUN [\"/probe\", \"write\", \"/made\", \"x\"]\n";
    let directory = context(&first, "c", &[("Dockerfile", dockerfile), ("f", "hello")]);
    std::fs::copy(hull_testkit::probe(), directory.join("probe")).expect("copy the probe");
    let directory = directory.to_str().expect("UTF-8");
    let cache = first.home.path().join("cache");
    let to = format!("type=local,dest={},mode=max,tag=kept", cache.display());
    buildx.build(&["-t", "made", "--cache-to", &to, directory]).ok();
    let index: Value =
        serde_json::from_slice(&std::fs::read(cache.join("index.json")).expect("an index")).expect("JSON");
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "kept", "{index}");
    let blobs = std::fs::read_dir(cache.join("blobs/sha256")).expect("blobs").count();
    assert_eq!(blobs, 4, "manifest, records and two layers");
    // The same again has nothing to send, and the client's own copy is a layout like any other.
    buildx.build(&["-t", "made", "--cache-to", &to, directory]).ok();
    let from = format!("type=local,src={},tag=kept", cache.display());
    let other = Buildx::new(&second).expect("it was there");
    let again = other.build(&["-t", "made", "--cache-from", &from, directory]).ok();
    assert!(again.stderr.contains("importing cache manifest from client directory"), "{}", again.stderr);
    let cached = again.stderr.lines().filter(|line| line.ends_with(" CACHED")).count();
    assert_eq!(cached, 2, "COPY and RUN: {}", again.stderr);
    let id = |server: &Server| server.get("/images/made/json").is(200).json()["Id"].clone();
    assert_eq!(id(&first), id(&second));
    // Damage is found, and the steps are done.
    for entry in std::fs::read_dir(cache.join("blobs/sha256")).expect("blobs") {
        let path = entry.expect("an entry").path();
        let mut bytes = std::fs::read(&path).expect("a blob");
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            std::fs::write(&path, bytes).expect("a blob");
        }
    }
    second.post("/build/prune?all=1", &Value::Null).is(200);
    second.send("DELETE", "/images/made", &[], b"").is(200);
    second.post("/build/prune?all=1", &Value::Null).is(200);
    other.build(&["-t", "made", "--cache-from", &from, directory]).ok();
    assert_eq!(id(&first), id(&second));
    first.finish();
    second.finish();
}
