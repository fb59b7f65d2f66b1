//! `RUN`: what a step sees, what becomes of what it does, and what is left when it is cancelled or killed.

use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_testkit::{Finished, finish, leak};

use super::machine::Machine;

/// A stage that can run something.
const BASE: &str = "FROM scratch AS base\nCOPY probe /probe\n";

struct Build {
    machine: Machine,
}

impl Build {
    fn new() -> Option<Self> {
        Some(Self { machine: Machine::new()? })
    }

    fn context(&self) -> PathBuf {
        self.machine.context()
    }

    fn command(&self, dockerfile: &str, words: &[&str]) -> Command {
        self.machine.command(dockerfile, words)
    }

    #[track_caller]
    fn build(&self, rest: &str, words: &[&str]) -> Finished {
        finish(&mut self.command(&format!("{BASE}{rest}"), words))
    }

    /// What the steps of a build printed.
    #[track_caller]
    fn said(&self, rest: &str, words: &[&str]) -> Vec<String> {
        said(&self.build(rest, words).ok())
    }

    /// The files of a build's result, but for the probe.
    #[track_caller]
    fn files(&self, rest: &str) -> Vec<String> {
        self.build(rest, &["-t", "made"]).ok();
        let archive = self.machine.home.path().join("export.tar");
        self.machine.home.run(&["create", "--network=none", "--name", "looked-at", "made", "/probe"]).ok();
        self.machine.home.run(&["export", "-o", &archive.to_string_lossy(), "looked-at"]).ok();
        self.machine.home.run(&["rm", "looked-at"]).ok();
        let listed = finish(Command::new("tar").arg("tf").arg(&archive)).ok();
        let name = |line: &str| line.trim_start_matches("./").trim_end_matches('/').to_owned();
        let mut names: Vec<String> = listed.lines().into_iter().map(name).filter(|name| !name.is_empty()).collect();
        names.sort();
        names.retain(|name| name != "probe");
        names
    }

    /// How many layers the image has.
    #[track_caller]
    fn layers(&self, rest: &str) -> usize {
        self.build(rest, &["-t", "made"]).ok();
        let text = self.machine.home.run(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", "made"]).ok();
        text.text().parse().expect("a number")
    }

    fn start(&self, rest: &str) -> Child {
        let mut command = self.command(&format!("{BASE}{rest}"), &[]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start")
    }
}

/// `#5 0.123 text`: the texts.
fn said(finished: &Finished) -> Vec<String> {
    let text = |line: &str| {
        let mut words = line.strip_prefix('#')?.splitn(3, ' ');
        words.next()?.parse::<u32>().ok()?;
        words.next()?.parse::<f64>().ok()?;
        Some(words.next()?.to_owned())
    };
    finished.stderr.lines().filter_map(text).collect()
}

#[test]
fn root_build_run_keeps_exactly_what_changed() {
    let Some(build) = Build::new() else { return };
    let steps = r#"RUN ["/probe", "mkdir", "/made", "+", "write", "/made/f", "x", "+", "write", "/top", "y"]
RUN ["/probe", "unlink", "/made/f", "+", "write", "/made/g", "z"]
"#;
    assert_eq!(build.files(steps), ["made", "made/g", "top"]);
    // Whatever the engine mounts leaves no trace, and a step that changes nothing adds no layer.
    let nothing = r#"RUN --mount=type=tmpfs,target=/deep/place --mount=type=cache,target=/other ["/probe", "ls", "/"]
RUN ["/probe", "echo", "nothing"]
"#;
    assert_eq!(build.files(nothing), [""; 0]);
    assert_eq!(build.layers(nothing), 1);
    assert_eq!(build.layers(steps), 3);
    // What is written beside the place of a mount stays, without the place.
    let beside = r#"RUN --mount=type=tmpfs,target=/deep/place ["/probe", "write", "/deep/place/f", "x", "+", "write", "/deep/g", "y"]
"#;
    assert_eq!(build.files(beside), ["deep", "deep/g"]);
    build.machine.home.assert_clean();
}

#[test]
fn root_build_run_environment() {
    let Some(build) = Build::new() else { return };
    let text = r#"ENV A=1
ARG B=2
WORKDIR /work
USER 7:8
RUN ["/probe", "env", "+", "cwd", "+", "id", "+", "umask", "+", "hostname", "+", "pid", "+", "cat", "/etc/hosts"]
"#;
    let said = build.said(text, &["--add-host", "there:1.2.3.4"]);
    let expected = [
        "A=1",
        "B=2",
        "HOME=/",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        // Not BuildKit's: what is made of nothing is of 1980.
        "SOURCE_DATE_EPOCH=315532800",
        "/work",
        "uid=7 gid=8 groups=8",
        "0022",
        "buildkitsandbox",
        "1",
    ];
    assert_eq!(said[..expected.len()], expected, "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("1.2.3.4") && line.ends_with("there")), "{said:?}");
    // It is not a container that commands know.
    assert_eq!(build.machine.home.run(&["ps", "-aq"]).ok().text(), "");
}

#[test]
fn root_build_run_that_fails() {
    let Some(build) = Build::new() else { return };
    let text = r#"RUN ["/probe", "write", "/f", "x"]
RUN ["/probe", "err", "so bad", "+", "exit", "7"]
RUN ["/probe", "write", "/g", "x"]
"#;
    let failed = build.build(text, &[]);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert!(said(&failed).contains(&"so bad".to_owned()), "{}", failed.stderr);
    let message = "process \"/probe err so bad + exit 7\" did not complete successfully: exit code: 7";
    assert!(failed.stderr.contains(message), "{}", failed.stderr);
    // What was finished before is not done again.
    let again = build.build(text, &[]);
    let cached = |finished: &Finished| finished.stderr.lines().filter(|line| line.ends_with(" CACHED")).count();
    assert!(cached(&again) >= 2, "{}", again.stderr);
    let missing = build.build("RUN [\"/nothing\"]\n", &[]);
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("/nothing"), "{}", missing.stderr);
    build.machine.home.assert_clean();
}

#[test]
fn root_build_an_image_without_its_interpreter_says_so() {
    let Some(build) = Build::new() else { return };
    // As a dynamic program copied to `scratch`: it is there, and what it needs is not.
    let text = "FROM scratch\nCOPY --chmod=755 <<E /script\n#!/no/interpreter\nE\n";
    build.build(text, &["-t", "made"]).ok();
    let home = &build.machine.home;
    let failed = home.run(&["run", "--rm", "--network=none", "--cgroup-parent", home.name(), "made", "/script"]);
    assert_eq!(failed.code, 127, "{}", failed.stderr);
    assert!(failed.stderr.contains("/no/interpreter"), "{}", failed.stderr);
    home.assert_clean();
}

#[test]
fn root_build_run_bind_mounts() {
    let Some(build) = Build::new() else { return };
    std::fs::create_dir(build.context().join("d")).expect("create directory");
    std::fs::write(build.context().join("d/f"), "of the context").expect("write");
    symlink("/etc/passwd", build.context().join("d/out")).expect("link");
    let text = r#"FROM scratch AS other
COPY d /dir
FROM base
RUN --mount=type=bind,from=other,source=/dir,target=/m ["/probe", "cat", "/m/f", "+", "write", "/m/g", "x", "+", "cat", "/m/out"]
RUN --mount=type=bind,from=other,target=/m,rw ["/probe", "write", "/m/dir/g", "x", "+", "ls", "/m/dir"]
RUN --mount=type=bind,from=other,source=/dir/f,target=/file ["/probe", "cat", "/file"]
RUN --mount=target=/context ["/probe", "cat", "/context/d/f"]
RUN ["/probe", "ls", "/"]
"#;
    let said = build.said(text, &[]);
    // Read-only; a link of the other stage means a file of this one, which has none.
    assert_eq!(said[..3], ["of the context", "errno:30", "errno:2"], "{said:?}");
    assert_eq!(said[3..7], ["ok", "f", "g", "out"], "{said:?}");
    assert_eq!(said[7..9], ["of the context", "of the context"], "{said:?}");
    assert!(!said[9..].iter().any(|name| name == "m" || name == "file" || name == "context"), "{said:?}");
    build.machine.home.assert_clean();
}

#[test]
fn root_build_run_source_of_a_mount_stays_inside() {
    let Some(build) = Build::new() else { return };
    let secret = build.machine.home.path().join("outside");
    std::fs::write(&secret, "of the machine").expect("write");
    let outside = secret.display();
    // CVE-2024-23651 and CVE-2024-1753: links as the source, in a cache directory and in a stage.
    let text = format!(
        r#"RUN --mount=type=cache,id=c,target=/c ["/probe", "symlink", "/", "/c/root", "+", "symlink", "{outside}", "/c/file", "+", "symlink", "../../../..", "/c/up"]
RUN --mount=type=cache,id=c,source=root,target=/m ["/probe", "cat", "/m{outside}", "+", "ls", "/m"]
RUN --mount=type=cache,id=c,source=up,target=/m ["/probe", "cat", "/m{outside}", "+", "ls", "/m"]
"#
    );
    let lines = build.said(&text, &[]);
    assert_eq!(lines[..3], ["ok", "ok", "ok"], "{lines:?}");
    assert_eq!(lines[3..], ["errno:2", "file", "root", "up", "errno:2", "file", "root", "up"], "{lines:?}");
    let file = "RUN --mount=type=cache,id=c,source=file,target=/m [\"/probe\", \"cat\", \"/m\"]\n";
    let failed = build.build(file, &[]);
    assert_ne!(failed.code, 0);
    assert!(!failed.stderr.contains("of the machine") && failed.stderr.contains("mount source"), "{}", failed.stderr);
    let stage = format!(
        r#"FROM base AS evil
RUN ["/probe", "symlink", "/", "/root", "+", "symlink", "{outside}", "/file"]
FROM base
RUN --mount=from=evil,source=/root,target=/m,rw ["/probe", "cat", "/m{outside}", "+", "write", "/m/new", "x"]
"#
    );
    let lines = build.said(&stage, &[]);
    assert_eq!(lines, ["ok", "ok", "errno:2", "ok"]);
    assert!(!Path::new("/new").exists());
    assert_eq!(std::fs::read_to_string(&secret).expect("read"), "of the machine");
}

#[test]
fn root_build_run_targets_stay_inside() {
    let Some(build) = Build::new() else { return };
    let outside = build.machine.home.path().join("outside");
    std::fs::create_dir(&outside).expect("create directory");
    // CVE-2024-23652: the place of a mount is made, and taken away again, below the container's root only.
    let text = format!(
        r#"RUN ["/probe", "symlink", "{0}", "/link"]
RUN --mount=type=tmpfs,target=/link/new ["/probe", "ls", "/"]
"#,
        outside.display()
    );
    build.build(&text, &[]).ok();
    assert!(outside.exists());
    assert_eq!(std::fs::read_dir(&outside).expect("read").count(), 0);
    // What was at the place of a mount before stays.
    let kept = r#"RUN ["/probe", "mkdir", "/d", "+", "mkdir", "/d/empty"]
RUN --mount=type=tmpfs,target=/d/empty ["/probe", "echo", "x"]
"#;
    assert_eq!(build.files(kept), ["d", "d/empty"]);
}

#[test]
fn root_build_run_cache_directories_stay() {
    let Some(build) = Build::new() else { return };
    let one = r#"RUN --mount=type=cache,id=c,target=/c,mode=0750,uid=5,gid=6 ["/probe", "write", "/c/f", "kept", "+", "stat", "/c"]
"#;
    let first = build.said(one, &[]);
    assert_eq!(first[0], "ok");
    assert!(first[1].contains("750") && first[1].contains('5') && first[1].contains('6'), "{first:?}");
    let two = r#"RUN --mount=type=cache,id=c,target=/elsewhere,sharing=locked ["/probe", "cat", "/elsewhere/f"]
RUN --mount=type=cache,id=d,target=/c ["/probe", "ls", "/c", "+", "echo", "none"]
RUN --mount=type=cache,id=c,target=/c,ro ["/probe", "write", "/c/g", "x"]
"#;
    assert_eq!(build.said(two, &[]), ["kept", "none", "errno:30"]);
    // One that begins with a stage's files.
    let three = r#"FROM base
RUN --mount=type=cache,id=e,from=base,source=/,target=/c ["/probe", "ls", "/c"]
"#;
    assert_eq!(build.said(three, &[]), ["probe"]);
}

#[test]
fn root_build_run_secrets_are_nowhere_else() {
    let Some(build) = Build::new() else { return };
    let value = "a-secret-that-nobody-else-has";
    let file = build.machine.home.path().join("secret-file");
    std::fs::write(&file, value).expect("write");
    let text = r#"RUN --mount=type=secret,id=s,target=/s,mode=0444,env=S ["/probe", "cat", "/s", "+", "env", "+", "write", "/s", "x"]
RUN --mount=type=secret,id=s ["/probe", "cat", "/run/secrets/s", "+", "stat", "/run/secrets/s"]
RUN --mount=type=secret,id=missing ["/probe", "ls", "/run/secrets", "+", "echo", "optional"]
"#;
    let flag = format!("id=s,src={}", file.display());
    let said = build.said(text, &["-t", "made", "--secret", &flag]);
    assert_eq!(said[0], value);
    assert!(said.contains(&format!("S={value}")), "{said:?}");
    assert!(said.contains(&"errno:30".to_owned()) && said.contains(&"optional".to_owned()), "{said:?}");
    // In no layer, no record and no left file; what the step itself printed is kept as it was printed.
    let mut grep = Command::new("grep");
    let grep = finish(grep.args(["-rl", "--exclude-dir=logs", value]).arg(build.machine.home.path().join("data")));
    assert_eq!(grep.stdout, "");
    // Another value is no reason to do anything again; a missing one that must be there is an error.
    std::fs::write(&file, "another").expect("write");
    assert_eq!(build.said(text, &["--secret", &flag]), [""; 0]);
    let required = "RUN --mount=type=secret,id=gone,required=true [\"/probe\", \"echo\", \"x\"]\n";
    let failed = build.build(required, &[]);
    assert!(failed.code != 0 && failed.stderr.contains("secret gone: not found"), "{}", failed.stderr);
}

#[test]
fn root_build_run_certificates_of_the_machine() {
    let Some(build) = Build::new() else { return };
    let file = build.machine.home.path().join("authorities.pem");
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nan authority\n-----END CERTIFICATE-----\n").expect("write");
    let flag = format!("--host-certificates={}", file.display());
    let text = r#"ENV PIP_CERT=/own.pem
RUN ["/probe", "cat", "/dev/hull-certificates.pem", "+", "env", "+", "write", "/made", "x"]
"#;
    let said = build.said(text, &["-t", "made", &flag]);
    for line in ["an authority", "SSL_CERT_FILE=/dev/hull-certificates.pem", "PIP_CERT=/own.pem"] {
        assert!(said.iter().any(|one| one == line), "{line}: {said:?}");
    }
    // They are no part of the step: neither its layer nor its key has them.
    assert_eq!(build.files(text), ["made"]);
    assert_eq!(build.said(text, &[]), [""; 0]);
    let config = build.machine.home.run(&["image", "inspect", "--format", "{{.Config.Env}}", "made"]).ok();
    assert!(!config.stdout.contains("SSL_CERT_FILE"), "{}", config.stdout);
    std::fs::write(&file, "no certificate").expect("write");
    let failed = build.build(text, &[&flag]);
    assert!(failed.code != 0 && failed.stderr.contains("no bundle of PEM certificates"), "{}", failed.stderr);
}

#[test]
fn root_build_run_ssh_agent() {
    let Some(build) = Build::new() else { return };
    let path = build.machine.home.path().join("agent");
    let _agent = UnixListener::bind(&path).expect("bind");
    let text = r#"RUN --mount=type=ssh,uid=9,mode=0640 ["/probe", "env", "+", "stat", "/run/buildkit/ssh_agent.0"]
RUN ["/probe", "ls", "/"]
"#;
    let said = build.said(text, &["--ssh", &format!("default={}", path.display())]);
    assert!(said.contains(&"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0".to_owned()), "{said:?}");
    assert!(!said.iter().any(|line| line == "run"), "{said:?}");
    let required = "RUN --mount=type=ssh,required=true [\"/probe\", \"echo\", \"x\"]\n";
    let failed = build.build(required, &[]);
    assert!(failed.code != 0 && failed.stderr.contains("unset ssh forward key default"), "{}", failed.stderr);
}

#[test]
fn root_build_run_limits_are_kept() {
    let Some(build) = Build::new() else { return };
    let text = "RUN [\"/probe\", \"alloc\", \"400\"]\n";
    let failed = build.build(text, &["--memory", "64m"]);
    assert!(failed.code != 0, "{}", failed.stderr);
    assert!(failed.stderr.contains("out of memory (limit 64MiB)"), "{}", failed.stderr);
    build.machine.home.assert_clean();
}

#[test]
fn root_build_run_networks() {
    let Some(build) = Build::new() else { return };
    let text = "RUN --network=none [\"/probe\", \"cat\", \"/proc/net/dev\"]\n";
    let none = build.said(text, &[]);
    let devices = |lines: &[String]| lines.iter().filter(|line| line.contains(':')).count();
    assert_eq!(devices(&none), 1, "{none:?}");
    let host = "RUN --network=host [\"/probe\", \"cat\", \"/proc/net/dev\"]\n";
    assert_ne!(build.build(host, &[]).code, 0);
    let own = std::fs::read_to_string("/proc/net/dev").expect("read");
    let own = own.lines().filter(|line| line.contains(':')).count();
    assert_eq!(devices(&build.said(host, &["--allow", "network.host"])), own);
}

/// Waits until a step has done something that can be seen.
fn until_seen(build: &Build, what: &str) {
    build
        .machine
        .home
        .until(what, || leak::processes(build.machine.home.name()).iter().any(|(_, line)| line.contains(what)));
}

#[test]
fn root_build_run_given_up_leaves_nothing() {
    let Some(build) = Build::new() else { return };
    let text = "RUN [\"/probe\", \"background\", \"sleep\", \"60\", \"+\", \"sleep\", \"60\"]\n";
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        let mut child = build.start(text);
        until_seen(&build, "/probe background");
        let begin = Instant::now();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).expect("kill");
        let status = child.wait().expect("wait");
        assert!(!status.success());
        // Without another command.
        build.machine.home.assert_clean();
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    let data = build.machine.home.path().join("data");
    build.machine.home.run(&["ps"]).ok();
    assert_eq!(std::fs::read_dir(data.join("ingest")).expect("read").count(), 0);
}

#[test]
fn root_build_run_step_killed_is_cleaned_up() {
    let Some(build) = Build::new() else { return };
    let mut child = build.start("RUN [\"/probe\", \"sleep\", \"60\"]\n");
    until_seen(&build, "/probe sleep");
    let (step, _) = leak::processes(build.machine.home.name())
        .into_iter()
        .find(|(_, line)| line.starts_with("hull-build-step"))
        .expect("the step's process");
    let step = rustix::process::Pid::from_raw(step).expect("pid");
    rustix::process::kill_process(step, rustix::process::Signal::KILL).expect("kill");
    assert!(!child.wait().expect("wait").success());
    build.machine.home.assert_clean();
}

#[test]
fn root_build_killed_at_any_moment_goes_on() {
    let Some(build) = Build::new() else { return };
    let text = r#"RUN ["/probe", "write", "/a", "1"]
RUN ["/probe", "fill", "/b", "3"]
RUN --mount=type=cache,id=k,target=/k ["/probe", "write", "/k/f", "1", "+", "write", "/c", "1"]
"#;
    let begin = Instant::now();
    let expected = build.files(text);
    assert_eq!(expected, ["a", "b", "c"]);
    let whole = begin.elapsed();
    let rounds = hull_testkit::loops(8);
    for round in 0..rounds {
        build.machine.home.run(&["image", "prune", "-af"]).ok();
        let changed = text.replace("\"1\"", &format!("\"{round}\""));
        let mut child = build.start(&changed);
        std::thread::sleep(whole * round / rounds);
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(build.files(&changed), expected, "round {round}");
        build.machine.home.run(&["ps"]).ok();
        build.machine.home.assert_clean();
    }
    let data = build.machine.home.path().join("data");
    for empty in ["ingest", "trash", "build/locks"] {
        assert_eq!(std::fs::read_dir(data.join(empty)).map_or(0, Iterator::count), 0, "{empty}");
    }
}

#[test]
fn root_build_run_twice_at_once() {
    let Some(build) = Build::new() else { return };
    // Whoever does the step leaves a mark in a directory that stays.
    let text = r#"RUN --mount=type=cache,id=k,target=/k ["/probe", "mkdir", "/k/done", "+", "sleep", "0.5", "+", "write", "/f", "x"]
"#;
    let start = || {
        let mut command = build.command(&format!("{BASE}{text}"), &[]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start")
    };
    let outputs: Vec<String> = [start(), start(), start()]
        .into_iter()
        .map(|mut child| {
            let mut text = String::new();
            child.stderr.take().expect("pipe").read_to_string(&mut text).expect("read");
            assert!(child.wait().expect("wait").success(), "{text}");
            text
        })
        .collect();
    // Done twice, the directory would have been there.
    assert!(!outputs.concat().contains("errno:"), "{outputs:?}");
    build.machine.home.assert_clean();
}

#[test]
fn root_build_run_independent_steps_at_once() {
    let Some(build) = Build::new() else { return };
    // Each waits for the files of all others, and then tells which there are.
    let (mut text, mut copies) = (String::new(), "FROM scratch\n".to_owned());
    for own in 0..10 {
        let waits: Vec<String> = (0..10).map(|other| format!(r#""+", "wait-file", "/k/{other}""#)).collect();
        let waits = waits.join(", ");
        text += &format!("FROM base AS stage{own}\n");
        text += &format!(
            r#"RUN --mount=type=cache,id=k,target=/k ["/probe", "write", "/k/{own}", "x", {waits}, "+", "ls", "/k", "+", "write", "/of-{own}", "x"]"#
        );
        text += "\n";
        copies += &format!("COPY --from=stage{own} /of-{own} /\n");
    }
    let text = text + &copies;
    let said = build.said(&text, &[]);
    for own in 0..10 {
        assert_eq!(said.iter().filter(|line| **line == own.to_string()).count(), 10, "{own}: {said:?}");
    }
    let expected: Vec<String> = (0..10).map(|own| format!("of-{own}")).collect();
    assert_eq!(build.files(&text), expected);
}

#[test]
fn root_build_explains_what_differs() {
    let Some(build) = Build::new() else { return };
    let directory = build.context().join("src");
    std::fs::create_dir(&directory).expect("create directory");
    std::fs::write(directory.join("a.c"), "1").expect("write");
    std::fs::write(directory.join("b.c"), "1").expect("write");
    let text = |value: &str| format!("COPY src /src\nENV FOO={value}\nRUN [\"/probe\", \"ls\", \"/src\"]\n");
    build.build(&text("1"), &[]).ok();
    assert_eq!(build.said(&text("1"), &["--explain"]), [""; 0]);
    let said = build.said(&text("2"), &["--explain"]);
    assert_eq!(said[0], "not cached: variable FOO changed from \"1\" to \"2\"");
    std::fs::write(directory.join("a.c"), "2").expect("write");
    let said = build.said(&text("2"), &["--explain"]);
    let expected = ["not cached: file src/a.c changed", "not cached: COPY src /src came out differently"];
    assert_eq!(said[..2], expected, "{said:?}");
}

#[test]
fn root_build_run_takes_security_options() {
    let Some(build) = Build::new() else { return };
    let text = "RUN [\"/probe\", \"status\", \"Seccomp\", \"+\", \"status\", \"NoNewPrivs\"]\n";
    let options = ["--no-cache", "--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"];
    assert_eq!(build.said(text, &["--no-cache"])[0], "2");
    assert_eq!(build.said(text, &options), ["0", "1"]);
    assert_ne!(build.build(text, &["--security-opt", "nothing=1"]).code, 0);
}
