//! `hull build` as users and scripts know it: flags, outputs, messages, exit codes. Messages and histories were looked at
//! in what BuildKit (docker 28.5) says of the same.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hull_testkit::{Finished, Home, Value, finish, home, tier};

use super::machine::alone;

/// A home with a context.
struct Build {
    home: Home,
}

impl Build {
    fn new() -> Option<Self> {
        let home = home!()?;
        let build = Self { home };
        build.write("f", "hi\n");
        Some(build)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("context").join(name)
    }

    /// A file of the context.
    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("create directory");
        std::fs::write(path, text).expect("write");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.home.hull(&["build"]);
        alone(&mut command).args(words).current_dir(self.path(""));
        command
    }

    /// Builds a Dockerfile.
    #[track_caller]
    fn build(&self, dockerfile: &str, words: &[&str]) -> Finished {
        self.write("Dockerfile", dockerfile);
        finish(self.command(words).arg("."))
    }

    /// Builds it as the image `made`, and gives the ID.
    #[track_caller]
    fn id(&self, dockerfile: &str, words: &[&str]) -> String {
        let mut all = vec!["-q", "-t", "made"];
        all.extend(words);
        let id = self.build(dockerfile, &all).ok().text().to_owned();
        assert!(id.starts_with("sha256:"), "{id}");
        id
    }

    /// The image's configuration.
    #[track_caller]
    fn config(&self, template: &str) -> Value {
        let text = self.home.run(&["image", "inspect", "--format", template, "made"]).ok().text().to_owned();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Files that a build gives, by name.
    #[track_caller]
    fn files(&self, dockerfile: &str, words: &[&str]) -> BTreeMap<String, String> {
        let out = self.home.path().join("out");
        let _ = std::fs::remove_dir_all(&out);
        let output = format!("--output={}", out.display());
        let mut all = vec![output.as_str()];
        all.extend(words);
        self.build(dockerfile, &all).ok();
        let mut files = BTreeMap::new();
        read(&out, &out, &mut files);
        files
    }
}

fn read(root: &Path, directory: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(directory).expect("read directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            read(root, &path, files);
        } else {
            let name = path.strip_prefix(root).expect("below").display().to_string();
            files.insert(name, std::fs::read_to_string(&path).expect("read"));
        }
    }
}

/// Gives a command its standard input.
#[track_caller]
fn finish_with(command: &mut Command, input: &[u8]) -> Finished {
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(input).expect("write");
    std::io::Seek::rewind(&mut file).expect("rewind");
    finish(command.stdin(Stdio::from(file)))
}

#[test]
fn root_build_an_image() {
    let Some(build) = Build::new() else { return };
    let text = "ARG G=glob\nFROM scratch\nARG A=1 B\nARG G\nENV E1=x E2=\"$A y\"\nENV E1=new E3=$E1\nLABEL l1=v1 \
                \"l 2\"=\"v $E1\"\nCOPY f /dst/\nCOPY <<EOT /doc\ncontent $E1\nEOT\nEXPOSE 80 53/udp\nVOLUME /v1 /v2\n\
                STOPSIGNAL SIGTERM\nHEALTHCHECK --interval=90s --retries=3 CMD curl -f \"http://x\"\nUSER 1:1\nCMD run me\n";
    let id = build.id(text, &["--build-arg", "B=bee", "--label", "ext=1"]);
    let config = build.config("{{json .Config}}");
    assert_eq!(config["Env"][1], "E1=new", "{config}");
    assert_eq!(config["Env"][2], "E2=1 y");
    assert_eq!(config["Env"][3], "E3=x");
    assert_eq!(config["Labels"]["ext"], "1");
    assert_eq!(config["Labels"]["l 2"], "v new");
    assert_eq!(config["Cmd"], serde_json::json!(["/bin/sh", "-c", "run me"]));
    assert_eq!(config["User"], "1:1");
    let history = build.home.run(&["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "made"]).ok();
    let expected = [
        "CMD [\"/bin/sh\" \"-c\" \"run me\"]",
        "USER 1:1",
        "HEALTHCHECK &{[\"CMD-SHELL\" \"curl -f \\\"http://x\\\"\"] \"1m30s\" \"0s\" \"0s\" \"0s\" '\\x03'}",
        "STOPSIGNAL SIGTERM",
        "VOLUME [/v1 /v2]",
        "EXPOSE [53/udp 80/tcp]",
        "COPY <<EOT /doc # buildkit",
        "COPY f /dst/ # buildkit",
        "LABEL l1=v1 l 2=v new",
        "ENV E1=new E3=x",
        "ENV E1=x E2=1 y",
        "ARG G=glob",
        "ARG A=1 B=bee",
    ];
    let expected: Vec<String> = expected.iter().map(|row| format!("{row}|buildkit.dockerfile.v0")).collect();
    assert_eq!(history.lines(), expected);
    // The same again comes from the cache, and is the same.
    let again =
        build.build(text, &["-t", "other", "--build-arg", "B=bee", "--label", "ext=1", "--progress=plain"]).ok();
    assert!(again.stderr.contains("COPY f /dst/") && again.stderr.contains(" CACHED"), "{}", again.stderr);
    assert_eq!(again.stdout, "");
    let other = build.home.run(&["image", "inspect", "--format", "{{.Id}}", "other"]).ok();
    assert_eq!(other.text(), id);
    // Another machine makes the same of it.
    let Some(twin) = Build::new() else { return };
    assert_eq!(twin.id(text, &["--build-arg", "B=bee", "--label", "ext=1"]), id);
    build.home.assert_clean();
}

#[test]
fn root_build_outputs() {
    let Some(build) = Build::new() else { return };
    let text = "FROM scratch\nCOPY f /a/\nCOPY <<EOT /a/b\nthere\nEOT\n";
    let expected = [("a/b", "there\n"), ("a/f", "hi\n")];
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    assert_eq!(build.files(text, &[]), expected);
    // Files alone make no image.
    assert_eq!(build.home.run(&["images", "-qa"]).ok().text(), "");
    let tar = build.build(text, &["--output=-"]).ok();
    assert!(tar.stdout.contains("a/f") && tar.stdout.contains("ustar"), "{}", tar.stdout);
    for (kind, name) in [("docker", "d.tar"), ("oci", "o.tar")] {
        let path = build.home.path().join(name);
        let output = format!("--output=type={kind},dest={}", path.display());
        build.build(text, &[&output, "-t", "made:of"]).ok();
        assert_eq!(build.home.run(&["images", "-qa"]).ok().text(), "", "an archive is no image");
        let loaded = build.home.run(&["load", "-i", path.to_str().expect("UTF-8")]).ok();
        assert_eq!(loaded.text(), "Loaded image: made:of");
        build.home.run(&["rmi", "made:of"]).ok();
    }
    let (iid, metadata) = (build.home.path().join("iid"), build.home.path().join("metadata"));
    let files = [format!("--iidfile={}", iid.display()), format!("--metadata-file={}", metadata.display())];
    build.build(text, &["-t", "made", "-t", "made:too", &files[0], &files[1]]).ok();
    let id = std::fs::read_to_string(iid).expect("read");
    let told: Value = serde_json::from_str(&std::fs::read_to_string(metadata).expect("read")).expect("JSON");
    assert_eq!(told["containerimage.config.digest"], id);
    assert_eq!(told["image.name"], "docker.io/library/made:latest,docker.io/library/made:too");
    for name in ["made", "made:too"] {
        assert_eq!(build.home.run(&["image", "inspect", "--format", "{{.Id}}", name]).ok().text(), id);
    }
    // Nothing but the cache.
    build.build("FROM scratch\nCOPY f /other\n", &["--output=type=cacheonly"]).ok();
    assert_eq!(build.home.run(&["images", "-q"]).ok().lines().len(), 2);
    build.home.assert_clean();
}

#[test]
fn root_build_contexts() {
    let Some(build) = Build::new() else { return };
    // The Dockerfile on standard input: there is no context, or the one that is named.
    let text = "FROM scratch\nCOPY <<EOT /f\nalone\nEOT\n";
    finish_with(build.command(&["-q", "-"]).current_dir("/"), text.as_bytes()).ok();
    let finished =
        finish_with(build.command(&["-q", "-f", "-", "."]).arg("-t").arg("made"), b"FROM scratch\nCOPY f /\n");
    finished.ok();
    // An archive on standard input is the context.
    build.write("Dockerfile", "FROM scratch\nCOPY f /g\n");
    let archive = Command::new("tar").arg("-czf-").arg("-C").arg(build.path("")).arg(".").output().expect("tar");
    let out = build.home.path().join("out");
    let output = format!("--output={}", out.display());
    finish_with(build.command(&[&output, "-"]).current_dir("/"), &archive.stdout).ok();
    assert_eq!(std::fs::read_to_string(out.join("g")).expect("read"), "hi\n");
    // Another file, and an ignore file of its own.
    build.write("sub/other.Dockerfile", "FROM scratch\nCOPY . /\n");
    build.write("sub/other.Dockerfile.dockerignore", "*\n!keep\n");
    build.write(".dockerignore", "keep\n");
    build.write("keep", "kept\n");
    let files = build.files("FROM scratch\n", &["-f", "sub/other.Dockerfile"]);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["keep"]);
    let files = build.files("FROM scratch\nCOPY . /\n", &[]);
    assert!(files.contains_key("f") && !files.contains_key("keep"), "{files:?}");
    // Named contexts: a directory, an image, a stage.
    build.write("named/n", "named\n");
    build.id("FROM scratch\nCOPY f /of-image\n", &[]);
    let text = "FROM base AS one\nFROM scratch\nCOPY --from=dir n /\nCOPY --from=img of-image /\n";
    let words = [
        "--build-context=dir=named",
        "--build-context=img=docker-image://made",
        "--build-context=base=docker-image://made",
    ];
    let files = build.files(text, &words);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["n", "of-image"]);
    build.home.assert_clean();
}

#[test]
fn root_build_failures_have_the_words_of_docker() {
    let Some(build) = Build::new() else { return };
    let last = |finished: &Finished| finished.stderr.trim_end().lines().last().unwrap_or_default().to_owned();
    let cases: [(&str, &[&str], &str); 8] = [
        ("RUNN x\n", &[], "dockerfile parse error on line 1: unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM scratch\nCOPY --from=5 f /x\n", &[], "invalid stage index 5"),
        ("FROM scratch\nSTOPSIGNAL SIGFOO\n", &[], "invalid signal: SIGFOO"),
        ("FROM scratch AS a\nCOPY --from=a f /x\n", &[], "circular dependency detected on stage: a"),
        ("FROM scratch\nCOPY f /\n", &["--target", "b"], "target stage \"b\" could not be found"),
        ("", &[], "the Dockerfile cannot be empty"),
        ("ARG X\n", &[], "dockerfile contains no stages to build"),
        (
            "FROM scratch\nCOPY f /\n",
            &["-f", "none"],
            "failed to read dockerfile: open none: no such file or directory",
        ),
    ];
    for (text, words, message) in cases {
        let finished = build.build(text, words);
        assert_eq!(finished.code, 1, "{text}");
        assert_eq!(last(&finished), format!("ERROR: failed to build: failed to solve: {message}"), "{text}");
    }
    let finished = build.build("FROM scratch\nCOPY nope /x\n", &["--progress=plain"]);
    assert!(last(&finished).ends_with("\"/nope\": not found"), "{}", finished.stderr);
    let excerpt = "Dockerfile:2\n--------------------\n   1 |     FROM scratch\n   2 | >>> COPY nope /x\n   3 |     \n--------------------\n";
    assert!(finished.stderr.contains(excerpt), "{}", finished.stderr);
    assert!(finished.stderr.contains("------\n > [1/1] COPY nope /x:\n------\n"), "{}", finished.stderr);
    let finished = finish(build.command(&["/nowhere"]).current_dir("/"));
    assert_eq!(last(&finished), "ERROR: failed to build: unable to prepare context: path \"/nowhere\" not found");
    let finished = build.build("FROM scratch\nCOPY f /\n", &["-t", "UPPER"]);
    assert!(last(&finished).starts_with("ERROR: failed to build: invalid tag \"UPPER\": invalid reference format"));
    build.home.assert_clean();
}

#[test]
fn root_build_is_recorded() {
    let Some(build) = Build::new() else { return };
    assert_eq!(build.home.run(&["builder", "ls", "-q"]).ok().text(), "");
    build.build("FROM scratch\nCOPY f /\n", &["-t", "made", "--build-arg", "A=1"]).ok();
    assert_eq!(build.build("FROM scratch\nCOPY nope /\n", &[]).code, 1);
    let ids = build.home.run(&["builder", "ls", "-q"]).ok();
    assert_eq!(ids.lines().len(), 2);
    let inspect = |id: &str| -> Value {
        let text = build.home.run(&["builder", "inspect", id]).ok().stdout;
        serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{text}: {error}"))[0].clone()
    };
    let (failed, made) = (inspect(ids.lines()[0]), inspect(ids.lines()[1]));
    assert_eq!((&failed["Status"], &made["Status"]), (&"error".into(), &"completed".into()));
    assert!(failed["Error"].as_str().is_some_and(|error| error.contains("/nope")), "{failed}");
    assert_eq!((&made["Name"], &made["BuildArgs"]["A"]), (&"made:latest".into(), &"1".into()));
    let id = build.home.run(&["image", "inspect", "--format", "{{.Id}}", "made"]).ok();
    assert_eq!(made["Images"][0], id.text());
    // What the cache holds is shown, and goes.
    let used = build.home.run(&["builder", "du"]).ok();
    assert!(used.stdout.contains("Total:") && used.lines().len() > 2, "{}", used.stdout);
    build.home.run(&["rmi", "made"]).ok();
    let pruned = build.home.run(&["builder", "prune", "-f"]).ok();
    assert!(pruned.lines().last().is_some_and(|line| line.starts_with("Total:")), "{}", pruned.stdout);
    let again = build.build("FROM scratch\nCOPY f /\n", &["--progress=plain"]).ok();
    assert!(!again.stderr.contains("CACHED"), "{}", again.stderr);
    build.home.run(&["builder", "rm", "--all"]).ok();
    assert_eq!(build.home.run(&["builder", "ls", "-q"]).ok().text(), "");
    let last = build.home.run(&["builder", "logs"]);
    last.fails("nothing was built yet");
    build.home.assert_clean();
}

#[test]
fn root_build_progress_for_programs() {
    let Some(build) = Build::new() else { return };
    let finished = build.build("FROM scratch\nCOPY f /\nEXPOSE 80/TCP\n", &["--progress=rawjson", "-t", "made"]).ok();
    let mut names = Vec::new();
    let mut warned = 0;
    for line in finished.stderr.lines() {
        let status: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for vertex in status["vertexes"].as_array().into_iter().flatten() {
            assert!(vertex["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{line}");
            if vertex.get("completed").is_some() {
                names.push(vertex["name"].as_str().unwrap_or_default().to_owned());
            }
        }
        warned += status["warnings"].as_array().map_or(0, Vec::len);
    }
    for name in ["[internal] load build definition from Dockerfile", "[1/1] COPY f /", "exporting to image"] {
        assert!(names.iter().any(|known| known == name), "{name} of {names:?}");
    }
    assert_eq!(warned, 1, "{}", finished.stderr);
}

#[test]
fn root_build_checks() {
    let Some(build) = Build::new() else { return };
    let clean = build.build("FROM scratch\nCOPY f /\n", &["--check"]).ok();
    assert!(clean.stdout.contains("Check complete, no warnings found."), "{}", clean.stdout);
    let found = build.build("FROM scratch AS A\nCOPY f /\n", &["--call=check"]);
    assert_eq!(found.code, 1);
    assert!(found.stdout.contains("WARNING: StageNameCasing"), "{}", found.stdout);
    let json = build.build("FROM scratch AS A\nCOPY f /\n", &["--call=check,format=json"]);
    let report: Value = serde_json::from_str(&json.stdout).unwrap_or_else(|error| panic!("{}: {error}", json.stdout));
    assert_eq!(report["warnings"][0]["ruleName"], "StageNameCasing");
    let targets = build.build("FROM scratch AS a\nFROM a AS b\n", &["--call=targets"]).ok();
    assert!(targets.stdout.contains("b (default)"), "{}", targets.stdout);
    let built = build.build("FROM scratch AS A\nCOPY f /\n", &["--progress=plain"]).ok();
    assert!(built.stderr.contains(" 1 warning found") && built.stderr.contains("StageNameCasing"), "{}", built.stderr);
    let refused = build.build("# check=error=true\nFROM scratch AS A\nCOPY f /\n", &[]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
}

/// A root file system with busybox, as the image `box`.
fn busybox(build: &Build) -> bool {
    let Some(busybox) = tier::tool("busybox") else {
        tier::skip("build", "needs a static busybox");
        return false;
    };
    let rootfs = build.home.path().join("box");
    for sub in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(rootfs.join(sub)).expect("create directory");
    }
    std::fs::copy(busybox, rootfs.join("bin/busybox")).expect("copy busybox");
    for name in ["sh", "cat", "echo", "id", "ls", "mkdir", "false", "true", "env", "sleep", "hostname", "stat"] {
        let _ = std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name));
    }
    let archive = build.home.path().join("box.tar");
    let status = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&rootfs).arg(".").status().expect("tar");
    assert!(status.success());
    let mut import = build.home.hull(&["import", archive.to_str().expect("UTF-8"), "box"]);
    finish(import.env("SOURCE_DATE_EPOCH", "1700000000")).ok();
    true
}

#[test]
fn root_build_runs_programs() {
    let Some(build) = Build::new() else { return };
    if !busybox(&build) {
        return;
    }
    let text = "FROM box AS builder\nARG WHO=you\nWORKDIR /work\nRUN echo \"for $WHO\" > made && echo loud\nRUN <<EOT\n\
                echo one > one\necho two > two\nEOT\nRUN <<EOT\n#!/bin/cat\nshown\nEOT\nFROM scratch\n\
                COPY --from=builder /work/ /\n";
    let words = ["--network=none", "--build-arg=WHO=me"];
    let files = build.files(text, &words);
    let expected = [("made", "for me\n"), ("one", "one\n"), ("two", "two\n")];
    assert_eq!(files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>(), expected);
    let finished = build.build(text, &["--network=none", "--build-arg=WHO=me", "--no-cache", "--progress=plain"]).ok();
    assert!(finished.stderr.contains(" loud\n"), "{}", finished.stderr);
    assert!(finished.stderr.contains("[builder 3/5] RUN echo \"for me\" > made && echo loud"), "{}", finished.stderr);
    let failed = build.build("FROM box\nRUN echo before; exit 3\n", &["--network=none", "--progress=plain"]);
    assert_eq!(failed.code, 1);
    let message = "ERROR: failed to build: failed to solve: process \"/bin/sh -c echo before; exit 3\" did not complete \
                   successfully: exit code: 3\n";
    assert!(failed.stderr.ends_with(message), "{}", failed.stderr);
    assert!(failed.stderr.contains("------\n > [2/2] RUN echo before; exit 3:\n"), "{}", failed.stderr);
    assert!(failed.stderr.contains("   2 | >>> RUN echo before; exit 3\n"), "{}", failed.stderr);
    // What changes nothing makes no layer.
    build.id("FROM box\nRUN true\nRUN echo x > /x\n", &["--network=none"]);
    assert_eq!(build.config("{{json .RootFS.Layers}}").as_array().map(Vec::len), Some(2));
    let rows = build.home.run(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "made"]).ok();
    assert_eq!(rows.lines()[..2], ["RUN /bin/sh -c echo x > /x # buildkit", "RUN /bin/sh -c true # buildkit"]);
    build.home.assert_clean();
}

#[test]
fn root_build_pushes() {
    let Some(peer) = hull_testkit::registry::Peer::start("") else { return };
    let Some(build) = Build::new() else { return };
    let name = format!("127.0.0.1:{}/team/app:v1", peer.port);
    let words = ["--push", "-t", &name, "--annotation", "org.example.of=build", "--iidfile=../iid"];
    build.build("FROM scratch\nCOPY f /f\n", &words).ok();
    let id = std::fs::read_to_string(build.home.path().join("iid")).expect("read");
    let Some(other) = Build::new() else { return };
    other.home.run(&["pull", &name]).ok();
    assert_eq!(other.home.run(&["image", "inspect", "--format", "{{.Id}}", &name]).ok().text(), id);
    let manifest = other.home.run(&["manifest", "inspect", &name]).ok().stdout;
    assert!(manifest.contains("org.example.of"), "{manifest}");
    let referrers = ["image", "referrers", "--format", "{{.ArtifactType}} {{.Annotations}}", &name];
    let expected = "application/vnd.in-toto+json in-toto.io/predicate-type=https://slsa.dev/provenance/v1";
    assert_eq!(other.home.run(&referrers).ok().text(), expected);
    // A base is fetched where it is missing.
    let Some(third) = Build::new() else { return };
    let files = third.files(&format!("FROM {name}\nCOPY f /g\n"), &[]);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["f", "g"]);
    build.home.assert_clean();
}

#[test]
fn root_build_squash_makes_one_layer_of_what_it_adds() {
    let Some(build) = Build::new() else { return };
    build.id("FROM scratch\nCOPY f /base\n", &[]);
    build.home.run(&["tag", "made", "base"]).ok();
    let text = "FROM base\nCOPY f /one\nCOPY f /two\n";
    let file = build.home.path().join("id");
    let id = build.id(text, &["--squash", "--iidfile", file.to_str().expect("UTF-8")]);
    assert_eq!(std::fs::read_to_string(file).expect("read"), id);
    assert_eq!(build.config("{{json .Id}}"), id);
    let layers = build.config("{{json .RootFS.Layers}}");
    assert_eq!(layers.as_array().map(Vec::len), Some(2), "{layers}");
    let plain = build.id(text, &[]);
    assert_ne!(plain, id);
    assert_eq!(build.config("{{json .RootFS.Layers}}")[0], layers[0]);
    let refused = build.build(text, &["--squash", "--output", "type=oci,dest=x.tar"]);
    assert!(refused.code != 0 && refused.stderr.contains("--squash makes an image of the store"), "{}", refused.stderr);
}
