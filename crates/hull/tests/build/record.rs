//! What a build records and proves: the same inputs give the same image, and what differs is told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use hull_testkit::{Finished, Home, finish, tier};

/// A home with a context of a name, and the image `box` that has a shell.
struct Build {
    home: Home,
    context: PathBuf,
}

impl Build {
    fn new(context: &str) -> Option<Self> {
        let home = Home::new(env!("CARGO_BIN_EXE_hull"))?;
        let Some(busybox) = tier::tool("busybox") else {
            tier::skip("build", "needs a static busybox");
            return None;
        };
        let context = home.path().join(context);
        std::fs::create_dir_all(&context).expect("create directory");
        let build = Self { home, context };
        let rootfs = build.home.path().join("box");
        for sub in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            std::fs::create_dir_all(rootfs.join(sub)).expect("create directory");
        }
        std::fs::copy(busybox, rootfs.join("bin/busybox")).expect("copy busybox");
        for name in ["sh", "cat", "cp", "mkdir", "date", "tr", "rm"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).expect("link");
        }
        let archive = build.home.path().join("box.tar");
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--mtime=@1600000000", "-cf"]).arg(&archive);
        assert!(tar.arg("-C").arg(&rootfs).arg(".").status().expect("tar").success());
        let mut import = build.home.hull(&["import", archive.to_str().expect("UTF-8"), "box"]);
        finish(import.env("SOURCE_DATE_EPOCH", "1700000000")).ok();
        Some(build)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.context.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("create directory");
        std::fs::write(path, text).expect("write");
    }

    /// Makes a file as old as another checkout would have it.
    fn age(&self, name: &str, days: u64) {
        let path = self.context.join(name);
        let file = std::fs::File::open(path).expect("open");
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).expect("set time");
    }

    #[track_caller]
    fn build(&self, words: &[&str]) -> Finished {
        let mut command = self.home.hull(&["build", "--network=none", "-t", "made"]);
        command.args(words).current_dir(&self.context).env_remove("SOURCE_DATE_EPOCH");
        finish(command.arg("."))
    }

    #[track_caller]
    fn id(&self, words: &[&str]) -> String {
        let mut all = vec!["-q"];
        all.extend(words);
        self.build(&all).ok().text().to_owned()
    }

    /// What a file of the image holds.
    #[track_caller]
    fn file(&self, path: &str) -> String {
        let name = Path::new(path).file_name().expect("a name").to_string_lossy().into_owned();
        let out = self.home.path().join("looked-at");
        self.home.run(&["create", "--network=none", "--name", "looked-at", "made", "sh"]).ok();
        let copied = self.home.run(&["cp", &format!("looked-at:{path}"), &out.to_string_lossy()]);
        self.home.run(&["rm", "looked-at"]).ok();
        if copied.code != 0 { format!("{name}: none") } else { std::fs::read_to_string(out).expect("read") }
    }
}

const NOISE: &str = "FROM box\nWORKDIR /app\nCOPY . .\nRUN mkdir -p /var/log/apt /var/lib/dbus /lib/p && \
                     cat /proc/sys/kernel/random/uuid > /var/log/apt/history.log && \
                     tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id && \
                     cp /etc/machine-id /var/lib/dbus/ && echo $SOURCE_DATE_EPOCH > /epoch\n";

#[test]
fn root_build_same_inputs_same_image() {
    let (Some(one), Some(other)) = (Build::new("context"), Build::new("elsewhere/checked-out")) else { return };
    for build in [&one, &other] {
        build.write("Dockerfile", NOISE);
        build.write("sub/f", "x");
    }
    // Older than the base, and younger.
    one.age("sub/f", 3000);
    other.age("Dockerfile", 5000);
    let id = one.id(&[]);
    assert_eq!(other.id(&[]), id);
    // Also when every step is done again.
    assert_eq!(one.id(&["--no-cache"]), id);
    assert_eq!(one.file("/var/log/apt/history.log"), "history.log: none");
    assert_eq!(one.file("/epoch"), "1700000000\n");
    let machine = one.file("/etc/machine-id");
    assert_eq!(machine.trim_end().len(), 32, "{machine}");
    assert_eq!(one.file("/var/lib/dbus/machine-id"), machine);
    // As the step left it, it is another one each time.
    assert_ne!(one.id(&["--no-normalise"]), one.id(&["--no-normalise", "--no-cache"]));
    assert_eq!(one.file("/var/log/apt/history.log").len(), 37);
    one.home.assert_clean();
}

#[test]
fn root_build_keeps_times_when_asked() {
    let Some(build) = Build::new("context") else { return };
    build.write("Dockerfile", "FROM scratch\nCOPY f /\n");
    build.write("f", "x");
    build.age("f", 3000);
    let time = |words: &[&str]| {
        let out = build.home.path().join("out");
        let output = format!("--output=type=tar,dest={}", out.display());
        let mut all = vec![output.as_str()];
        all.extend(words);
        build.build(&all).ok();
        let listed = finish(Command::new("tar").args(["--utc", "--full-time", "-tvf"]).arg(&out)).ok();
        listed.lines().into_iter().find(|line| line.ends_with(" f")).map(str::to_owned).expect("f")
    };
    assert!(time(&[]).contains("1980-01-01 00:00:00"));
    assert!(!time(&["--timestamps=keep"]).contains("1980-01-01"));
    build.build(&["--timestamps=other"]).fails("timestamps");
}

#[test]
fn root_build_lock() {
    let Some(build) = Build::new("context") else { return };
    build.write(
        "Dockerfile",
        "FROM box\nARG VERSION\nCOPY . /all/\nRUN <<EOT\nmkdir -p /lib/apk/db\ncat > /lib/apk/db/installed <<EOF\n\
         C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\n\nEOF\necho $VERSION > /version\nEOT\n",
    );
    build.write("src/a", "1");
    build.write("src/b", "1");
    let version = ["--build-arg", "VERSION=hidden"];
    let locked = ["--locked", "--build-arg", "VERSION=hidden"];
    build.build(&locked).fails("there is no");
    let id = build.id(&["--lock", "--build-arg", "VERSION=hidden"]);
    let path = build.context.join("hull.lock");
    let read = || std::fs::read_to_string(&path).expect("read hull.lock");
    let text = read();
    let lock: hull_testkit::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(lock["images"][0]["reference"], "box", "{text}");
    assert_eq!(lock["results"].as_object().and_then(|all| all.values().next()).expect("a result"), id.as_str());
    assert_eq!(lock["steps"][0]["packages"][0]["name"], "musl", "{text}");
    assert_eq!(lock["steps"][0]["packages"][0]["hash"], "Q1abc=", "{text}");
    assert!(!text.contains("hidden"), "{text}");
    // It is not part of what it locks, and does not change by itself.
    assert_eq!(build.id(&version), id);
    assert_eq!(build.id(&locked), id);
    assert_eq!(read(), text);
    let refused = |words: &[&str], expected: &[&str]| {
        let finished = build.build(words);
        assert_eq!(finished.code, 1, "{}", finished.stderr);
        for text in expected {
            assert!(finished.stderr.contains(text), "{text}: {}", finished.stderr);
        }
        assert_eq!(read(), text);
    };
    refused(&["--locked", "--build-arg", "VERSION=2"], &["argument VERSION changed"]);
    refused(&["--locked", "--target", "other", "--build-arg", "VERSION=hidden"], &["it is of the target"]);
    build.write("src/a", "2");
    build.write("src/c", "1");
    refused(&locked, &["file src/a changed", "file src/c is new"]);
    std::fs::remove_file(build.context.join("src/c")).expect("remove");
    build.write("src/a", "1");
    assert_eq!(build.id(&locked), id);
    // Another image has the name now; the one of the lock is still here.
    build.home.run(&["tag", "box", "kept"]).ok();
    build.home.run(&["tag", "made", "box"]).ok();
    assert_eq!(build.id(&locked), id);
    build.home.run(&["rmi", "-f", "kept"]).ok();
    // Without --locked it follows.
    build.home.run(&["tag", "made", "box"]).ok();
    assert_ne!(build.id(&version), id);
    assert_ne!(read(), text);
    build.home.assert_clean();
}

#[test]
fn root_build_leaves_other_files_of_that_name() {
    let Some(build) = Build::new("context") else { return };
    build.write("Dockerfile", "FROM box\nCOPY . /all/\n");
    build.write("hull.lock", "of another program\n");
    build.id(&[]);
    assert_eq!(build.file("/all/hull.lock"), "of another program\n");
    assert_eq!(std::fs::read_to_string(build.context.join("hull.lock")).expect("read"), "of another program\n");
    build.build(&["--locked"]).fails("write it again with --lock");
}

#[test]
fn root_build_verify() {
    let Some(build) = Build::new("context") else { return };
    build.write("Dockerfile", NOISE);
    build.write("f", "1");
    build.build(&[]).ok();
    let verify = |words: &[&str]| {
        let mut command = build.home.hull(&["build", "--network=none", "--verify", "made"]);
        finish(command.args(words).current_dir(&build.context).env_remove("SOURCE_DATE_EPOCH").arg("."))
    };
    let same = verify(&[]);
    assert_eq!((same.code, same.text()), (0, "made: the same, bit by bit"), "{}", same.stderr);
    let other = verify(&["--no-normalise"]);
    assert_eq!(other.code, 1, "{}", other.stderr);
    let lines = other.lines();
    assert_eq!(lines[0], "made: it comes out differently");
    assert!(lines[1].starts_with("step RUN /bin/sh -c mkdir -p /var/log/apt"), "{lines:?}");
    assert!(lines.contains(&"  /etc/machine-id: content"), "{lines:?}");
    assert!(lines.contains(&"  /var/log/apt/history.log: only in what was built again"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("configuration")), "{lines:?}");
    build.write("f", "22");
    let other = verify(&[]);
    let lines = other.lines();
    assert!(lines.contains(&"step COPY . . # buildkit") && lines.contains(&"  /app/f: content"), "{lines:?}");
    let several = verify(&["--platform=linux/amd64,linux/arm64"]);
    assert!(several.code == 1 && several.stderr.contains("an image is for one platform"), "{}", several.stderr);
    // Nothing was named or written.
    assert!(!build.context.join("hull.lock").exists());
    build.home.assert_clean();
}

#[test]
fn root_build_provenance() {
    let Some(build) = Build::new("context") else { return };
    build.write(
        "Dockerfile",
        "FROM box\nARG TOKEN\nCOPY f /\nRUN mkdir -p /var/log/apt && date > /var/log/apt/term.log\n",
    );
    build.write("f", "1");
    let shown = || {
        let text = build.home.run(&["image", "inspect", "--provenance", "made"]).ok().text().to_owned();
        serde_json::from_str::<hull_testkit::Value>(&text).expect("JSON")
    };
    let id = build.id(&["--build-arg", "TOKEN=hidden"]);
    let statement = shown();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(statement["subject"][0]["digest"]["sha256"], id.trim_start_matches("sha256:"));
    let predicate = &statement["predicate"];
    let dependencies = &predicate["buildDefinition"]["resolvedDependencies"];
    assert!(dependencies[0]["uri"].as_str().expect("text").starts_with("pkg:docker/box@latest"), "{dependencies}");
    let normalised = &predicate["runDetails"]["metadata"]["hull_normalised"][0]["files"][0];
    assert_eq!(normalised["paths"][0], "/var/log/apt/term.log", "{statement}");
    assert!(!statement.to_string().contains("hidden"));
    let max = ["--provenance=mode=max", "--build-arg", "TOKEN=hidden"];
    assert_eq!(build.id(&max), id);
    assert!(shown().to_string().contains("\"build-arg:TOKEN\":\"hidden\""));
    let record = build.home.run(&["builder", "inspect"]).ok();
    assert!(record.text().contains("/var/log/apt/term.log") && record.text().contains("\"reference\": \"box\""));
    build.id(&["--provenance=false", "--build-arg", "TOKEN=other", "--label", "a=b"]);
    build.home.run(&["image", "inspect", "--provenance", "made"]).fails("it is not known how it was built");
    build.build(&["--provenance=much"]).fails("expected true, false, mode=min or mode=max");
}

#[test]
fn root_build_explains_another_base() {
    let Some(build) = Build::new("context") else { return };
    build.write("Dockerfile", "FROM box\nRUN echo x > /x\n");
    build.id(&[]);
    build.home.run(&["tag", "made", "box"]).ok();
    let said = build.build(&["--explain", "--progress=plain"]);
    assert!(said.stderr.contains("not cached: the base image box is another one: now sha256:"), "{}", said.stderr);
}

#[test]
fn root_build_warns_of_a_repository_in_the_image() {
    let Some(build) = Build::new("context") else { return };
    build.write("Dockerfile", "FROM scratch\nCOPY . /all\n");
    build.write(".git/index", "differs from clone to clone");
    build.write("f", "1");
    let warned = |words: &[&str]| build.build(words).ok().stderr.contains("the context's .git is copied");
    assert!(warned(&["--lock"]) && warned(&["--explain", "--progress=plain"]));
    std::fs::remove_file(build.context.join("hull.lock")).expect("remove");
    assert!(!warned(&[]), "a build as any other is not slowed down by looking");
    build.write(".dockerignore", ".git\n");
    assert!(!warned(&["--lock"]));
}
