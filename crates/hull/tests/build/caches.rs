//! Builds that share: caches in registries, layouts and images.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hull_testkit::actions::Actions;
use hull_testkit::{Finished, Value};

use super::machine::Machine;

/// A registry; killed when dropped.
pub(super) struct Registry {
    child: Child,
    port: String,
    _directory: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        command.arg("--root").arg(directory.path().join("data")).args(["registry", "serve", "--listen", "127.0.0.1:0"]);
        command.args(["--storage", "registry"]).current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("hull starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let port = line.trim().rsplit(':').next().unwrap_or_default().to_owned();
        Self { child, port, _directory: directory }
    }

    pub(super) fn name(&self, path: &str) -> String {
        format!("127.0.0.1:{}/{path}", self.port)
    }

    /// What it answers to `GET`.
    pub(super) fn get(&self, path: &str, accept: &str) -> String {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{}", self.port)).expect("connect");
        let request = format!("GET {path} HTTP/1.0\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("send");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("read");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }
}

/// An image's ID.
#[track_caller]
fn id_of(machine: &Machine, image: &str) -> String {
    machine.text(&["image", "inspect", "--format", "{{.Id}}", image])
}

/// A stage of which one file is taken, and a step that changes nothing.
const FILE: &str = r#"FROM scratch AS builder
COPY probe /probe
COPY f /f
RUN ["/probe", "write", "/made", "by the builder"]
FROM scratch
COPY probe /probe
RUN ["/probe", "echo", "nothing"]
COPY --from=builder /made /
RUN ["/probe", "write", "/last", "x"]
"#;

/// The steps that were done, by the beginning of their commands.
fn done(finished: &Finished) -> Vec<String> {
    let mut names: std::collections::BTreeMap<&str, &str> = std::collections::BTreeMap::new();
    let mut done = Vec::new();
    for line in finished.stderr.lines() {
        let Some((number, rest)) = line.split_once(' ') else { continue };
        if rest.starts_with('[') && !rest.starts_with("[internal]") {
            names.insert(number, rest);
        } else if let Some(name) = names.get(number).filter(|_| rest.starts_with("DONE")) {
            done.push((*name).to_owned());
        }
    }
    done
}

/// Every digest below a layout's `blobs`.
fn blobs(layout: &Path) -> usize {
    std::fs::read_dir(layout.join("blobs/sha256")).expect("read directory").count()
}

#[test]
fn root_build_cache_in_a_layout() {
    let (Some(first), Some(second)) = (Machine::with("one"), Machine::with("one")) else { return };
    let layout = first.path("cache");
    let to = |mode: &str| format!("--cache-to=type=local,dest={},mode={mode}", layout.display());
    let from = format!("--cache-from=type=local,src={}", layout.display());
    let made = first.build(FILE, &["-t", "made", &to("min")]).ok();
    assert!(made.stderr.contains("exporting cache to client directory"), "{}", made.stderr);
    // Manifest, document, and the layers of the result: probe, made, last.
    assert_eq!(blobs(&layout), 5);
    // Another machine does nothing, and has the same image.
    let again = second.build(FILE, &["-t", "made", &from]).ok();
    assert_eq!(done(&again), Vec::<String>::new(), "{}", again.stderr);
    assert!(again.stderr.contains("importing cache manifest from"), "{}", again.stderr);
    assert_eq!(id_of(&second, "made"), id_of(&first, "made"));
    // From then on it has the results itself.
    std::fs::rename(&layout, first.path("away")).expect("rename");
    let local = second.build(FILE, &["-t", "made", &from]).ok();
    assert!(!local.stderr.contains("importing"), "{}", local.stderr);
    std::fs::rename(first.path("away"), &layout).expect("rename");

    // The builder's file changed: with the steps of the result alone, its step is done again; what it makes is the same,
    // so that nothing else is.
    let Some(third) = Machine::with("one") else { return };
    third.write("f", "two");
    let changed = third.build(FILE, &["-t", "made", &from]).ok();
    let steps = done(&changed);
    assert!(steps.iter().any(|name| name.contains("by the builder")), "{steps:?}");
    assert!(!steps.iter().any(|name| name.contains("/last") || name.contains("nothing")), "{steps:?}");
    assert_eq!(id_of(&third, "made"), id_of(&first, "made"));

    // With all steps, a machine that has nothing only does what is after the change.
    let everything = first.build(FILE, &["-t", "made", &to("max")]).ok();
    assert_eq!(done(&everything), Vec::<String>::new());
    let Some(fourth) = Machine::with("one") else { return };
    let other = FILE.replace("by the builder", "by another");
    let rest = fourth.build(&other, &["-t", "made", &from]).ok();
    let steps = done(&rest);
    assert_eq!(steps.len(), 3, "the builder's RUN, the COPY of it and the last RUN: {steps:?}\n{}", rest.stderr);
    for machine in [first, second, third, fourth] {
        machine.home.assert_clean();
    }
}

#[test]
fn root_build_cache_in_a_registry() {
    let (Some(first), Some(second), Some(third)) = (Machine::with("one"), Machine::with("one"), Machine::with("one"))
    else {
        return;
    };
    let registry = Registry::start();
    let name = registry.name("team/cache:main");
    let to = format!("--cache-to=type=registry,ref={name},mode=max,compression=zstd");
    first.build(FILE, &["-t", "made", &to]).ok();
    let manifest = registry.get("/v2/team/cache/manifests/main", "application/vnd.oci.image.manifest.v1+json");
    let manifest: Value = serde_json::from_str(&manifest).unwrap_or_else(|error| panic!("{manifest}: {error}"));
    assert_eq!(manifest["artifactType"], "application/vnd.hull.buildcache.config.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    let again = second.build(FILE, &["-t", "made", &format!("--cache-from={name}")]).ok();
    assert_eq!(done(&again), Vec::<String>::new(), "{}", again.stderr);
    assert_eq!(id_of(&second, "made"), id_of(&first, "made"));
    // Files alone need the layers too.
    let out = format!("--output={}", third.path("out").display());
    third.build(FILE, &[&out, &format!("--cache-from=type=registry,ref={name}")]).ok();
    assert_eq!(std::fs::read_to_string(third.path("out/made")).expect("read"), "by the builder");
    for machine in [first, second, third] {
        machine.home.assert_clean();
    }
}

#[test]
fn root_build_cache_in_the_image() {
    let (Some(first), Some(second), Some(third)) = (Machine::with("one"), Machine::with("one"), Machine::with("one"))
    else {
        return;
    };
    let registry = Registry::start();
    let name = registry.name("app:1");
    let argument = "--build-arg=BUILDKIT_INLINE_CACHE=1";
    first.build(FILE, &["-t", &name, "--push", argument]).ok();
    // The same image comes of the same steps, with or without a cache.
    let id = id_of(&first, &name);
    let again = second.build(FILE, &["-t", &name, "--cache-to=type=inline", "--cache-from", &name]).ok();
    assert_eq!(done(&again), Vec::<String>::new(), "{}", again.stderr);
    assert_eq!(id_of(&second, &name), id);
    // Without records it is another one, which no cache is taken from; that is said, and the build goes on.
    let plain = registry.name("app:plain");
    first.build(FILE, &["-t", &plain, "--push"]).ok();
    assert_ne!(id_of(&first, &plain), id);
    let done_again = third.build(FILE, &["-t", "made", "--cache-from", &plain]).ok();
    assert!(done_again.stderr.contains("the image has no records"), "{}", done_again.stderr);
    assert!(!done(&done_again).is_empty());
    assert_eq!(id_of(&third, "made"), id_of(&first, &plain));
    // An image of the store is a cache without its registry.
    drop(registry);
    second.home.run(&["builder", "prune", "-af"]).ok();
    let kept = second.build(FILE, &["-t", "again", "--cache-to=type=inline", "--cache-from", &name]).ok();
    assert_eq!(done(&kept), Vec::<String>::new(), "{}", kept.stderr);
    assert_eq!(id_of(&second, "again"), id);
    for machine in [first, second, third] {
        machine.home.assert_clean();
    }
}

/// Nine megabytes that cannot be compressed much.
fn noise() -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", state >> 3)
    };
    (0..1_200_000).map(|_| next()).collect()
}

/// A build in a job of GitHub Actions.
fn in_job(machine: &Machine, service: &Actions, token: &str, words: &[&str]) -> Finished {
    let mut command = machine.command(FILE, words);
    command.env("ACTIONS_RUNTIME_TOKEN", token);
    command.env("ACTIONS_RESULTS_URL", format!("http://127.0.0.1:{}/", service.port));
    hull_testkit::finish(&mut command)
}

#[test]
fn root_build_cache_of_a_job() {
    let (Some(first), Some(second), Some(third)) = (Machine::with("one"), Machine::with("one"), Machine::with("one"))
    else {
        return;
    };
    let service = Actions::start("token");
    for machine in [&first, &second, &third] {
        machine.write("f", &noise());
    }
    let to = ["-t", "made", "--cache-to=type=gha,mode=max,scope=main"];
    let from = ["-t", "made", "--cache-from=type=gha,scope=main"];
    // A server that fails for a moment is asked again.
    service.fail("PUT /storage/", 503);
    service.fail("CreateCacheEntry", 500);
    let made = in_job(&first, &service, "token", &to).ok();
    assert!(made.stderr.contains("exporting to GitHub Actions Cache"), "{}", made.stderr);
    let names: Vec<String> = service.entries().into_iter().map(|(name, _)| name).collect();
    let begin = |text: &str| names.iter().filter(|name| name.starts_with(text)).count();
    // Layers of all steps: probe, f and made of the builder, probe, made and last of the result.
    assert_eq!((begin("hull-index-1-main#"), names.len()), (1, 1 + begin("hull-blob-1-sha256:")), "{names:?}");
    assert!(begin("hull-blob-") >= 4, "{names:?}");
    let seen = service.seen();
    assert!(seen.iter().any(|line| line.contains("comp=blocklist")), "a file is longer than a block: {seen:?}");
    let again = in_job(&second, &service, "token", &from).ok();
    assert_eq!(done(&again), Vec::<String>::new(), "{}", again.stderr);
    assert!(again.stderr.contains("importing cache manifest from gha:main"), "{}", again.stderr);
    assert_eq!(id_of(&second, "made"), id_of(&first, "made"));
    // What is there is not sent again.
    assert!(service.seen().iter().all(|line| !line.starts_with("PUT")));
    in_job(&first, &service, "token", &to).ok();
    assert!(service.seen().iter().all(|line| !line.starts_with("PUT")));
    // A scope is a cache of its own.
    let other = in_job(&third, &service, "token", &["--cache-from=type=gha,scope=mai"]).ok();
    assert!(!done(&other).is_empty(), "{}", other.stderr);
    assert!(!other.stderr.contains("is not used"), "{}", other.stderr);

    // Layers with other bytes, and records that are none: the steps are done instead.
    let Some(fourth) = Machine::with(&noise()) else { return };
    service.change("hull-blob-", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
    });
    let finished = in_job(&fourth, &service, "token", &from).ok();
    assert!(finished.stderr.contains("cache of gha:main is not used for"), "{}", finished.stderr);
    assert_eq!(id_of(&fourth, "made"), id_of(&first, "made"));
    service.change("hull-index-", |bytes| bytes.truncate(100));
    let finished = in_job(&fourth, &service, "token", &["--no-cache", from[2]]).ok();
    assert!(!finished.stderr.contains("importing"), "nothing is asked for without need: {}", finished.stderr);
    fourth.write("f", "two");
    let finished = in_job(&fourth, &service, "token", &from).ok();
    assert!(finished.stderr.contains("cache of gha:main is not used: cache service: read"), "{}", finished.stderr);
    // Whoever is not let in is told so; no message has the token or a signed address.
    let refused = in_job(&fourth, &service, "wrong-token", &to);
    assert!(refused.code == 1 && refused.stderr.contains("status 401: unauthenticated"), "{refused:?}");
    let lenient = in_job(&fourth, &service, "wrong-token", &[&format!("{},ignore-error=true", to[2])]).ok();
    assert!(lenient.stderr.contains("cache is not exported to gha:main"), "{}", lenient.stderr);
    for finished in [refused, lenient, finished] {
        assert!(!finished.stderr.contains("token\"") && !finished.stderr.contains("wrong-token"), "{finished:?}");
        assert!(!finished.stderr.contains("sig="), "{finished:?}");
    }
    for machine in [first, second, third, fourth] {
        machine.home.assert_clean();
    }
}

#[test]
fn root_build_caches_that_lie_or_fail() {
    let (Some(first), Some(second)) = (Machine::with("one"), Machine::with("one")) else { return };
    let layout = first.path("cache");
    let from = format!("--cache-from=type=local,src={}", layout.display());
    first.build(FILE, &["-t", "made", &format!("--cache-to=type=local,dest={},mode=max", layout.display())]).ok();
    let id = id_of(&first, "made");
    // A layer with other bytes than its digest says: the steps are done instead.
    let blobs: Vec<PathBuf> = std::fs::read_dir(layout.join("blobs/sha256"))
        .expect("read directory")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(&[0x1f, 0x8b])))
        .collect();
    assert!(blobs.len() >= 4, "probe, f, made, last: {blobs:?}");
    for blob in &blobs {
        let mut bytes = std::fs::read(blob).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        std::fs::write(blob, bytes).expect("write");
    }
    let finished = second.build(FILE, &["-t", "made", &from]).ok();
    assert!(finished.stderr.contains("is not used for"), "{}", finished.stderr);
    assert_eq!(id_of(&second, "made"), id);
    // Caches that are not there, of another kind, or no caches.
    let Some(third) = Machine::with("one") else { return };
    let registry = Registry::start();
    for (from, reason) in [
        (format!("type=local,src={}", third.path("nowhere").display()), "No such file or directory"),
        (format!("type=registry,ref={}", registry.name("nothing")), "nothing"),
        ("type=s3".to_owned(), "cache import of type \"s3\" is not supported"),
    ] {
        let finished =
            third.build("FROM scratch\nCOPY f /\n", &["-t", "made", "--no-cache", "--cache-from", &from]).ok();
        let _ = reason;
        assert!(!finished.stderr.contains("importing"), "nothing is asked for without need: {}", finished.stderr);
        let finished = third.build(&format!("FROM scratch\nCOPY f /{}\n", from.len()), &["--cache-from", &from]).ok();
        assert!(finished.stderr.contains(reason), "{from}: {}", finished.stderr);
    }
    let refused = third.build("FROM scratch\nCOPY f /\n", &["--cache-to=type=s3"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("cache export of type \"s3\" is not supported"),
        "{refused:?}"
    );
    // What is meant for a job works outside of it, without its cache.
    let outside = third.build("FROM scratch\nCOPY f /\n", &["--cache-to=type=gha", "--cache-from=type=gha"]).ok();
    assert_eq!(outside.stderr.matches("cache of type gha is not used: token= is not set").count(), 2, "{outside:?}");
    // BuildKit's own caches have other keys.
    let foreign = third.path("foreign");
    std::fs::create_dir_all(foreign.join("blobs/sha256")).expect("create directory");
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}]}"#;
    let digest = hull_oci::Digest::of(index.as_bytes());
    std::fs::write(foreign.join("blobs/sha256").join(digest.hex()), index).expect("write");
    let top = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{digest}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}]}}"#,
        index.len()
    );
    std::fs::write(foreign.join("index.json"), top).expect("write");
    let from = format!("--cache-from=type=local,src={}", foreign.display());
    let finished = third.build("FROM scratch\nCOPY f /foreign\n", &[&from]).ok();
    assert!(finished.stderr.contains("it is a cache of BuildKit"), "{}", finished.stderr);
    // A failed export fails the build, unless that is asked for.
    let to = format!("--cache-to=type=registry,ref={}", "127.0.0.1:1/x");
    assert_ne!(third.build("FROM scratch\nCOPY f /\n", &[&to]).code, 0);
    let lenient = third.build("FROM scratch\nCOPY f /\n", &[&format!("{to},ignore-error=true")]).ok();
    assert!(lenient.stderr.contains("cache is not exported to"), "{}", lenient.stderr);
    for machine in [first, second, third] {
        machine.home.assert_clean();
    }
}

#[test]
fn root_build_cache_is_pruned_with_the_rest() {
    let Some(machine) = Machine::with("one") else { return };
    // Digests of files that changed within a tick of the clock before they were read are not kept: another change in
    // that tick would not be seen. Nobody can set a file's time of change, so this waits for one.
    std::thread::sleep(std::time::Duration::from_millis(100));
    machine.build(FILE, &["-t", "made"]).ok();
    let df = |row: &str| {
        let text = machine.home.run(&["system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Size}}"]).ok().stdout;
        text.lines().find(|line| line.starts_with(row)).map(str::to_owned).unwrap_or_default()
    };
    let before = df("Build Cache");
    let count: u32 = before.split('|').nth(1).and_then(|count| count.parse().ok()).unwrap_or_default();
    assert!(count > 6, "results and the digests of the context: {before}");
    let verbose = machine.home.run(&["system", "df", "-v"]).ok().stdout;
    assert!(verbose.contains("Build cache usage: ") && verbose.contains("source.local"), "{verbose}");
    // What the image has stays, and with it what its build needs.
    let pruned = machine.home.run(&["system", "prune", "-f"]).ok().stdout;
    assert!(pruned.contains("Deleted build cache objects:\n") && pruned.contains("context-"), "{pruned}");
    assert_eq!(done(&machine.build(FILE, &["-t", "made"]).ok()), Vec::<String>::new());
    machine.home.run(&["system", "prune", "-af"]).ok();
    assert!(df("Build Cache").contains("|0|0B"), "{}", df("Build Cache"));
    machine.home.assert_clean();
}

#[test]
fn root_build_cache_directories_go_to_another_machine() {
    let (Some(first), Some(second)) = (Machine::with("one"), Machine::with("one")) else { return };
    let step = |words: &str| {
        format!("FROM scratch\nCOPY probe /\nRUN --mount=type=cache,id=kept,target=/kept,uid=7,mode=0750 {words}\n")
    };
    first.build(&step(r#"["/probe", "write", "/kept/made", "of the first"]"#), &[]).ok();
    let other = "FROM scratch\nCOPY probe /\nRUN --mount=type=cache,target=/other [\"/probe\", \"write\", \"/other/x\", \"y\"]\n";
    first.build(other, &[]).ok();
    let link = first.path("data/build/mounts");
    let data = std::fs::read_dir(&link).expect("read").map(|entry| entry.expect("entry").path().join("data"));
    let data = data.into_iter().find(|path| path.join("made").exists()).expect("the directory");
    std::fs::write(first.path("outside"), "kept").expect("write");
    // Links that lead out are links there too.
    std::os::unix::fs::symlink(first.path("outside"), data.join("link")).expect("link");
    let archive = first.path("caches.tar").display().to_string();
    assert_eq!(first.text(&["builder", "cache", "export", "kept", "-o", &archive]), "kept");
    let listed = hull_testkit::finish(Command::new("tar").arg("tvf").arg(&archive)).ok();
    assert!(listed.stdout.contains("0/link -> ") && !listed.stdout.contains("0/x"), "{}", listed.stdout);
    assert_eq!(first.text(&["builder", "cache", "export", "-a", "-o", &archive]).lines().count(), 2);
    first.home.run(&["builder", "cache", "export", "nothing", "-o", &archive]).fails("no cache directory \"nothing\"");
    // There it takes the place of what there was.
    second.build(&step(r#"["/probe", "write", "/kept/own", "of the second"]"#), &[]).ok();
    second.text(&["builder", "cache", "import", &archive]);
    let out = format!("--output={}", second.path("out").display());
    let read = step(r#"["/probe", "cat", "/kept/made"]"#);
    let shown = second.build(&read, &[&out]).ok();
    assert!(shown.stderr.contains("of the first"), "{}", shown.stderr);
    let gone = second.build(&step(r#"["/probe", "cat", "/kept/own"]"#), &[]);
    assert!(!gone.stderr.contains("of the second"), "{}", gone.stderr);
    let usage = second.text(&["builder", "du", "--filter", "type=exec.cachemount", "--format", "json"]);
    assert_eq!(usage.lines().count(), 2, "{usage}");

    // What is none, or leads out, is refused and replaces nothing.
    let hostile = second.path("hostile");
    std::fs::create_dir(&hostile).expect("create directory");
    let entry = |directory: &str| {
        format!(r#"[{{"directory":"{directory}","name":"kept","slot":0,"mode":488,"uid":0,"gid":0}}]"#)
    };
    let refuse = |list: Option<String>, reason: &str| {
        if let Some(list) = list {
            std::fs::write(hostile.join("cache-mounts.json"), list).expect("write");
        }
        let tar = second.path("hostile.tar").display().to_string();
        assert!(
            Command::new("tar").arg("-C").arg(&hostile).arg("-cf").arg(&tar).arg(".").status().expect("tar").success()
        );
        second.home.run(&["builder", "cache", "import", &tar]).fails(reason);
    };
    refuse(None, "this is no archive of 'hull builder cache export'");
    refuse(Some(entry("../..")), "a directory that cannot be one");
    refuse(Some(entry("01")), "a directory that cannot be one");
    std::os::unix::fs::symlink("/etc", hostile.join("0")).expect("link");
    refuse(Some(entry("0")), "its \"0\" is no directory");
    std::fs::remove_file(hostile.join("0")).expect("remove");
    std::os::unix::fs::symlink("/etc/hostname", hostile.join("cache-mounts.json.new")).expect("link");
    std::fs::rename(hostile.join("cache-mounts.json.new"), hostile.join("cache-mounts.json")).expect("rename");
    refuse(None, "this is no archive");
    let still = second.build(&read, &["--no-cache"]).ok();
    assert!(still.stderr.contains("of the first"), "{}", still.stderr);
    for machine in [first, second] {
        machine.home.assert_clean();
    }
}
