//! Images from and to another machine's store: a stand-in for ssh runs the command here, with another store.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use hull_testkit::Home;

use crate::world::{import, noise, user};

/// A server, killed when dropped.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `hull registry serve` and reads its port from what it says.
pub(crate) fn server(command: &mut Command) -> (Running, u16) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("hull starts");
    let mut running = Running(child);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().expect("stdout")).read_line(&mut line).expect("line");
    let port = line.trim().rsplit(':').next().and_then(|text| text.parse().ok()).expect("port");
    (running, port)
}

/// A home whose ssh counts the bytes that come and go, and runs the command on this machine.
fn near() -> Home {
    let script = "#!/bin/sh\necho \"$@\" >> \"$HOME/asked\"\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n\
                  sh -c \"$1\" | tee -a \"$HOME/from\"\n";
    let home = user().file("ssh", script);
    let program = home.at("ssh");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
    home.with("HULL_SSH", program).with("HULL_SSH_HULL", env!("CARGO_BIN_EXE_hull"))
}

fn bytes(home: &Home, direction: &str) -> u64 {
    let path = home.at(direction);
    let length = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    let _ = std::fs::remove_file(&path);
    length
}

fn address(far: &Home) -> String {
    format!("ssh://user@there:2222{}", far.at("data").display())
}

#[test]
fn only_what_is_lacking_comes() {
    let (near, far) = (near(), user());
    let large = noise(900_000, 3);
    let id = import(&far, "registry.example:5000/team/base:1", "file", &large);
    let address = address(&far);
    let pulled = near.ok(&["pull", &address, "registry.example:5000/team/base:1"]);
    assert!(pulled.starts_with(&format!("1: Pulling from registry.example:5000/team/base at {address}\n")), "{pulled}");
    assert!(pulled.contains("Status: Downloaded newer image for registry.example:5000/team/base:1\n"), "{pulled}");
    assert_eq!(near.ok(&["images", "-q", "--no-trunc"]).trim(), id);
    assert!(bytes(&near, "from") > 900_000);
    let asked = std::fs::read_to_string(near.at("asked")).expect("read");
    let command = format!("--root '{}' registry serve --stdio", far.at("data").display());
    assert!(asked.contains("-p 2222 -- user@there ") && asked.trim_end().ends_with(&command), "{asked}");
    // Once more, in the other order of words.
    let again = near.ok(&["pull", "registry.example:5000/team/base:1", &address]);
    assert!(again.contains(": Already exists") && again.contains("Image is up to date"), "{again}");
    assert!(bytes(&near, "from") < 10_000);
    // Every tag of a repository.
    far.ok(&["tag", "registry.example:5000/team/base:1", "registry.example:5000/team/base:2"]);
    let all = near.ok(&["pull", "-a", &address, "registry.example:5000/team/base"]);
    let lines: Vec<&str> = all.lines().filter(|line| line.contains("ulling from")).collect();
    let expected = |tag: u32| format!("{tag}: Pulling from registry.example:5000/team/base at {address}");
    assert_eq!(lines, [expected(1), expected(2)]);
    assert!(all.contains("Status: Downloaded newer image for registry.example:5000/team/base\n"), "{all}");
    assert_eq!(near.ok(&["images", "--format", "{{.Tag}}"]), "1\n2\n");
    assert!(bytes(&near, "from") < 10_000);
    near.run(&["pull", "-q", &address, "registry.example:5000/team/none"]).fails("not found").fails("team/none");
}

#[test]
fn what_may_be_wrong_with_the_other_machine() {
    let script = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift\n\
                  test \"$1\" = nobody@there && { echo 'Permission denied (publickey).' >&2; exit 255; }\n\
                  exec sh -c \"$2\"\n";
    let near = near().file("ssh", script);
    let pull = ["pull", "-q", "ssh://there", "app"];
    near.run(&["pull", "-q", "ssh://nobody@there", "app"]).fails("to there failed: Permission denied (publickey).");
    let with = |name: &str, value: &str| {
        let mut command = near.hull(&pull);
        hull_testkit::finish(command.env(name, value))
    };
    with("HULL_SSH", "/nonexistent/ssh").fails("install an ssh client");
    with("HULL_SSH_HULL", "/nonexistent/hull").fails("cannot be run on there").fails("HULL_SSH_HULL");
    let old = format!("{} --no-such-flag", env!("CARGO_BIN_EXE_hull"));
    with("HULL_SSH_HULL", &old).fails("or later there").fails("--no-such-flag");
    with("HULL_SSH_HULL", "echo Welcome to there;").fails("Welcome to there").fails("start-up file");
    with("HULL_SSH_HULL", "exit 3;").fails("exit code 3");
    with("HULL_SSH_HULL", "printf 'HTTP/1.1 200 OK\\r\\n';").fails("there");
    for bad in ["ssh://-oProxyCommand=x", "ssh://a b", "ssh://h:0", "ssh://"] {
        near.run(&["pull", "-q", bad, "app"]).fails("is no address of a machine");
    }
    near.run(&["pull", "ssh://there"]).fails("the name of an image is missing");
    near.run(&["pull", "app", "other"]).fails("expected one image");
    near.run(&["push", "ssh://there", "app"]).fails("An image does not exist locally");
}

#[test]
fn a_transfer_that_breaks_goes_on() {
    let (near, far) = (near(), user());
    let id = import(&far, "team/app:1", "file", &noise(900_000, 5));
    // The connection ends after so many bytes, once.
    let script = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n\
                  if mkdir \"$HOME/once\" 2>/dev/null; then sh -c \"$1\" | dd bs=4096 count=100; exit 255; fi\nexec sh -c \"$1\"\n";
    let near = near.file("ssh", script);
    let done = near.run(&["pull", &address(&far), "team/app:1"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("Retrying: "), "{}", done.stdout);
    assert_eq!(near.ok(&["images", "-q", "--no-trunc"]).trim(), id);
}

#[test]
fn only_what_the_other_lacks_goes() {
    let script = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n\
                  tee -a \"$HOME/to\" | sh -c \"$1\"\n";
    let (near, far) = (near().file("ssh", script), user());
    let id = import(&near, "registry.example:5000/team/base:1", "file", &noise(900_000, 3));
    let address = address(&far);
    let pushed = near.ok(&["push", &address, "registry.example:5000/team/base:1"]);
    let first = format!("The push refers to repository [registry.example:5000/team/base] at {address}\n");
    assert!(pushed.starts_with(&first) && pushed.contains(": Pushed\n"), "{pushed}");
    let sent = bytes(&near, "to");
    assert!(sent > 900_000, "{sent}");
    // It is an image there like any other, under its own name.
    let list = far.ok(&["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]);
    assert_eq!(list, format!("registry.example:5000/team/base:1 {id}\n"));
    assert_eq!(far.ok(&["system", "check"]).trim(), "No problems found");
    // The sender's image does not become one of a registry where it is not.
    assert_eq!(near.ok(&["images", "--digests", "--format", "{{.Digest}}"]), "<none>\n");
    // Another name of it, and a name without a registry.
    near.ok(&["tag", "registry.example:5000/team/base:1", "app:2"]);
    let again = near.ok(&["push", "app:2", &address]);
    assert!(again.contains(": Layer already exists\n"), "{again}");
    assert!(bytes(&near, "to") < 10_000);
    assert!(far.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).contains("app:2\n"));
    // A layer that is there uncompressed, because it was made there.
    let other = user();
    import(&other, "made/there:1", "file", &noise(900_000, 3));
    near.ok(&["push", "-q", &crate::ssh::address(&other), "app:2"]);
    assert!(bytes(&near, "to") < 10_000);
    assert_eq!(other.ok(&["images", "-q", "--no-trunc", "app"]).trim(), id);
    assert_eq!(other.ok(&["system", "check"]).trim(), "No problems found");
    // All tags of a repository, and there and back.
    near.ok(&["tag", "app:2", "app:3"]);
    near.ok(&["push", "-q", "-a", &address, "app"]);
    assert_eq!(far.ok(&["images", "--format", "{{.Tag}}", "app"]), "2\n3\n");
    near.ok(&["rmi", "app:2", "app:3", "registry.example:5000/team/base:1"]);
    near.ok(&["pull", "-q", &address, "app:3"]);
    assert_eq!(near.ok(&["images", "-q", "--no-trunc"]).trim(), id);
}

#[test]
fn a_push_over_a_broken_connection_goes_on() {
    let script = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n\
                  if mkdir \"$HOME/once\" 2>/dev/null; then dd bs=4096 count=100 | sh -c \"$1\"; exit 255; fi\nexec sh -c \"$1\"\n";
    let (near, far) = (near().file("ssh", script), user());
    let id = import(&near, "team/app:1", "file", &noise(900_000, 7));
    let done = near.run(&["push", &address(&far), "team/app:1"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(near.at("once").exists());
    assert_eq!(far.ok(&["images", "-q", "--no-trunc"]).trim(), id);
}
