//! Steps for other processors, whose programs an interpreter runs (binfmt_misc). What is registered is so in a user
//! namespace of the test's own, and the interpreter is the probe.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use hull_testkit::tier;

use super::machine::Machine;

/// Said by the script when the kernel does not have it.
const NOT_THERE: i32 = 77;

/// Registers what `REGISTER` says, and does the rest of its words.
const SCRIPT: &str = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null || exit 77\n\
                      printf %s \"$REGISTER\" > /proc/sys/fs/binfmt_misc/register || exit 78\n\
                      exec \"$@\"";

/// The other processor: its platform, and its number in ELF headers.
fn other() -> (&'static str, u8) {
    if hull_oci::image::Platform::native().architecture == "arm64" { ("linux/amd64", 62) } else { ("linux/arm64", 183) }
}

/// Runs a command in a user namespace where an interpreter is registered with these flags.
fn registered(command: &Command, interpreter: &Path, flags: &str) -> Output {
    let magic = format!(r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x{:02x}\x00", other().1);
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let register = format!(":hull:M::{magic}:{mask}:{}:{flags}", interpreter.display());
    let mut inside = Command::new("unshare");
    inside.args([
        "--user",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        "read go; exec sh -c \"$@\"",
        "sh",
        SCRIPT,
    ]);
    inside.arg("sh").arg(command.get_program()).args(command.get_args()).env("REGISTER", register);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = inside.spawn().expect("unshare starts");
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/user")).ok();
    let (own, id) = (namespace("self"), child.id().to_string());
    let begin = Instant::now();
    while namespace(&id) == own {
        assert!(begin.elapsed() < Duration::from_secs(20), "no user namespace");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Not all of them: root of such a namespace is an ordinary user.
    for name in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{id}/{name}"), "0 0 4294967290").expect("map");
    }
    child.stdin.take().expect("input").write_all(b"go\n").expect("write");
    child.wait_with_output().expect("wait")
}

#[test]
fn root_build_steps_of_another_processor() {
    let Some(machine) = Machine::new() else { return };
    if !tier::user_namespaces() || tier::tool("unshare").is_none() {
        return;
    }
    let (platform, number) = other();
    let foreign = machine.context().join("foreign");
    let mut bytes = std::fs::read(hull_testkit::probe()).expect("the probe");
    bytes[18] = number;
    std::fs::write(&foreign, bytes).expect("write");
    std::fs::set_permissions(&foreign, std::fs::Permissions::from_mode(0o755)).expect("permit");
    let interpreter = machine.path("interpreter");
    std::fs::copy(hull_testkit::probe(), &interpreter).expect("copy the probe");
    let file = format!(
        "FROM scratch\nCOPY foreign /\nRUN [\"/foreign\", \"ls\", \"/\", \"+\", \"cat\", \"{}\"]\n",
        interpreter.display()
    );
    let platform = format!("--platform={platform}");
    let run = |flags: &str| registered(&machine.command(&file, &[&platform, "--no-cache"]), &interpreter, flags);
    let done = run("F");
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.code() == Some(NOT_THERE) {
        tier::skip("binfmt_misc", "the kernel may have no binfmt_misc for user namespaces");
        return;
    }
    assert!(done.status.success(), "{said}");
    // The program ran, and saw its own files: not the interpreter.
    assert!(said.lines().any(|line| line.ends_with(" foreign") || line.contains("foreign ")), "{said}");
    assert!(said.contains("errno:2"), "{said}");
    assert!(!said.contains("interpreter "), "{said}");
    // Without a descriptor of its own it would have to be in the image.
    let refused = run("");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("without the flag F"), "{said}");
    machine.home.assert_clean();
}
