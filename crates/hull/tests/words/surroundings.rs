//! Bad surroundings: nobody who reads, no streams, a narrow terminal, words that are no UTF-8, no HOME, a clock in 1970.
//! Hull never panics, says at most a line, and does what it was asked where that is possible.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use hull_testkit::{home, probe, tier, vm::Vm};

/// Commands that print much, and look at much.
const COMMANDS: [&[&str]; 16] = [
    &["--help"],
    &["run", "--help"],
    &["help", "network", "create"],
    &["__commands"],
    &["ps", "-a"],
    &["images"],
    &["volume", "ls"],
    &["network", "ls"],
    &["info"],
    &["version"],
    &["system", "df", "-v"],
    &["history", "hello"],
    &["inspect", "hello"],
    &["events", "--since", "0", "--until", "1"],
    &["ps", "--nothing"],
    &["logs", "nothing"],
];

/// Neither a panic nor a signal.
#[track_caller]
fn sound(what: &str, output: &Output) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("panicked"), "{what}: {error}");
    assert_eq!(output.status.signal(), None, "{what}: {error}");
    assert!(output.status.code().is_some_and(|code| code < 128), "{what}: {:?}", output.status);
}

#[test]
fn nobody_reads() {
    let home = home!(plain);
    for words in COMMANDS {
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let output = home.hull(words).stdout(writer).output().expect("run hull");
        sound(&format!("{words:?}"), &output);
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let output = home.hull(words).stderr(writer).output().expect("run hull");
        sound(&format!("{words:?} without a reader of errors"), &output);
        // A disk that is full.
        let full = std::fs::File::options().write(true).open("/dev/full").expect("open /dev/full");
        sound(&format!("{words:?} to a full disk"), &home.hull(words).stdout(full).output().expect("run hull"));
    }
}

#[test]
fn streams_are_closed() {
    let home = home!(plain);
    for closing in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        for words in COMMANDS {
            let line = format!("exec \"$@\" {closing}");
            let mut command = Command::new("sh");
            command.args(["-c", &line, "sh", env!("CARGO_BIN_EXE_hull")]);
            command.arg("--root").arg(home.path().join("data")).arg("--state").arg(home.path().join("run"));
            let output = command.args(words).output().expect("run sh");
            sound(&format!("{words:?} {closing}"), &output);
        }
    }
}

#[test]
fn root_a_container_runs_without_streams() {
    let Some(home) = home!() else { return };
    for closing in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let mut inner = home.container("run", &["--rm"], &["exit", "7"]);
        inner.stdin(Stdio::null());
        let words: Vec<OsString> =
            std::iter::once(inner.get_program()).chain(inner.get_args()).map(OsStr::to_owned).collect();
        let output = Command::new("sh").args(["-c", &format!("exec \"$@\" {closing}"), "sh"]).args(words).output();
        let output = output.expect("run sh");
        sound(closing, &output);
        assert_eq!(output.status.code(), Some(7), "{closing}: {}", String::from_utf8_lossy(&output.stderr));
    }
    home.assert_clean();
}

#[test]
fn the_terminal_is_narrow() {
    let home = home!(plain);
    for columns in ["20", "1", "0", "-1", "wide", "99999999999999999999"] {
        for words in COMMANDS {
            let mut command = home.hull(words);
            let output = command.env("COLUMNS", columns).env("LINES", columns).env("TERM", "dumb").output();
            let output = output.expect("run hull");
            sound(&format!("{words:?} in {columns} columns"), &output);
            if words.contains(&"--help") {
                assert!(output.stdout.len() > 500, "{words:?} in {columns} columns");
            }
        }
    }
}

#[test]
fn words_are_no_text() {
    let home = home!(plain);
    let bad = OsStr::from_bytes(b"\xff\xfe");
    for words in [
        &["ps"][..],
        &["run"],
        &["inspect"],
        &["import"],
        &["load", "-i"],
        &["cp", "x:/y"],
        &["run", "--env-file"],
        &["run", "--rootfs"],
        &["volume", "create"],
        &["network", "create"],
        &["ps", "--format"],
        &["login", "-p", "x", "-u"],
        &["--"],
        &[],
    ] {
        let mut command = home.hull(words);
        let output = command.arg(bad).env("LC_ALL", "C").current_dir(home.path()).output().expect("run hull");
        sound(&format!("{words:?} and no text"), &output);
        assert_ne!(output.status.code(), Some(0), "{words:?}");
        assert!(!output.stderr.is_empty(), "{words:?}");
    }
    // The directories may have any name.
    for words in
        [&["ps"][..], &["images", "-q"], &["volume", "create", "data"], &["inspect", "hello"], &["volume", "ls"]]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        command
            .arg("--root")
            .arg(home.path().join(bad))
            .arg("--state")
            .arg(home.path().join(OsStr::from_bytes(b"r\xfe")));
        let output = command.args(words).env("LC_ALL", "en_US.ISO-8859-1").output().expect("run hull");
        sound(&format!("{words:?} in directories that are no text"), &output);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for name in ["HOME", "XDG_DATA_HOME", "DOCKER_CONFIG", "NO_COLOR", "COLUMNS", "HULL_SECURITY", "HULL_SNAPSHOTTER"] {
        for words in COMMANDS {
            let output = home.hull(words).env(name, bad).output().expect("run hull");
            sound(&format!("{words:?} with {name} that is no text"), &output);
        }
    }
}

#[test]
fn nothing_is_known_of_the_user() {
    let home = home!(plain);
    for words in COMMANDS {
        let output = home.hull(words).env_clear().output().expect("run hull");
        sound(&format!("{words:?} without an environment"), &output);
    }
    for words in [&["logout", "registry.invalid"][..], &["login", "-u", "a", "-p", "b", "127.0.0.1:1"]] {
        sound(&format!("{words:?}"), &home.hull(words).env_clear().output().expect("run hull"));
    }
}

#[test]
fn root_an_ordinary_user_without_a_home_is_told_so() {
    if !tier::root() {
        return;
    }
    // A copy that everybody may execute, wherever the binary under test is.
    let place = tempfile::Builder::new().prefix("hull-nohome-").tempdir_in("/tmp").expect("temporary directory");
    let program = place.path().join("hull");
    std::fs::copy(env!("CARGO_BIN_EXE_hull"), &program).expect("copy hull");
    for path in [place.path(), &program] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("set permissions");
    }
    for words in [&["ps"][..], &["images"], &["run", "hello"], &["info"]] {
        let mut command = Command::new(&program);
        let output =
            command.args(words).env_clear().uid(65_534).gid(65_534).current_dir("/").output().expect("run hull");
        sound(&format!("{words:?}"), &output);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.lines().count() <= 2, "{words:?}: {error}");
    }
}

#[test]
fn vm_the_clock_is_in_1970() {
    let Some(vm) = Vm::new() else {
        tier::skip("vm", "needs user-mode-linux and a static busybox");
        return;
    };
    let vm = vm.program("hull", Path::new(env!("CARGO_BIN_EXE_hull"))).program("probe", &probe());
    // Some thirty starts: on a machine that others use, too, these may take minutes. The kernel sets no clock to a time
    // before its own start, so that all times are counted from how long the machine has been up.
    let console = vm.limit(std::time::Duration::from_secs(300)).run(
        r#"
rootfs /tmp/rootfs
h() { /run/vm/hull --root /tmp/data --state /tmp/live "$@"; }
clock() { check "clock-$1" "date -s @$(($(cut -d. -f1 /proc/uptime) + $1))"; }
clock 9000
same runs hello "$(h run --name one --network none --rootfs /tmp/rootfs echo hello)"
h run -d --name two --network none --rootfs /tmp/rootfs sleep 1000 >/dev/null
same listed 'two ' "$(h ps --format '{{.Names}}' | tr '\n' ' ')"
same year 1970 "$(h inspect -f '{{.Created}}' one | head -c 4)"
check age 'h ps -a | grep -q "ago"'
same logged hello "$(h logs --since 1 one)"
check events 'h events --since 1 --until 0s --format "{{.Action}}" | grep -q start'
check volume 'h volume create data && h volume inspect data | grep -q 1970'
# Back before what has happened.
clock 3000
check earlier 'h ps -a && h inspect one two && h system df && h images'
check stopped 'h stop -t 1 two'
check removed 'h rm one two'
clock 300
check zero 'h run --rm --network none --rootfs /tmp/rootfs true && h container prune -f && h system prune -f'
"#,
    );
    console.assert_ok(&[
        "clock-9000",
        "runs",
        "listed",
        "year",
        "age",
        "logged",
        "events",
        "volume",
        "clock-3000",
        "earlier",
        "stopped",
        "removed",
        "clock-300",
        "zero",
    ]);
}
