//! `--ssh ID=KEY`: keys in files are held by an agent of the build's own, OpenSSH's, which ends with it.
//!
//! Whatever the build's process comes to, the agent ends: it was given a command to end with, which reads a pipe of this
//! process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use hull_oci::spec::one_line;
use rustix::process::{Pid, Signal};

use crate::Error;

/// A longer file is no key.
const MAX_KEY: u64 = 64 << 10;
/// Says where the agent is, and stays until this process closes the pipe or is gone.
const COMMAND: &str = r#"echo "$SSH_AGENT_PID $SSH_AUTH_SOCK"; exec cat > /dev/null"#;

/// The agents of a build.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    all: Vec<Agent>,
}

#[derive(Debug)]
struct Agent {
    command: Child,
    pipe: Option<ChildStdin>,
    pid: Option<Pid>,
    socket: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Its command, which is its parent, still lives: the number is its own.
        if let Some(pid) = self.pid {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        drop(self.pipe.take());
        let _ = self.command.wait();
    }
}

impl Agents {
    /// The sockets of `--ssh`, with an agent in place of each ID's keys.
    ///
    /// # Errors
    /// When a file is no key, or wants a passphrase, or OpenSSH is not installed.
    pub(crate) fn start(ssh: &BTreeMap<String, Vec<PathBuf>>) -> Result<(Self, BTreeMap<String, Vec<PathBuf>>), Error> {
        let mut agents = Self::default();
        let mut sockets = BTreeMap::new();
        for (id, paths) in ssh {
            let wrong = |path: &Path, reason: &str| {
                Error::Request(format!("ssh {id}: {}: {}", path.display(), one_line(reason)))
            };
            let mut keys = Vec::new();
            let mut given = Vec::new();
            for path in paths {
                let meta = std::fs::metadata(path).map_err(|error| wrong(path, &error.to_string()))?;
                if meta.is_file() {
                    keys.push(path);
                } else if meta.file_type().is_socket() {
                    given.push(path.clone());
                } else {
                    return Err(wrong(path, "it is neither an agent's socket nor a key"));
                }
            }
            if let Some(first) = keys.first() {
                if !given.is_empty() {
                    return Err(wrong(first, "keys and an agent's socket cannot be used together"));
                }
                let agent = Agent::start().map_err(|reason| wrong(first, &reason))?;
                for key in &keys {
                    agent.add(key).map_err(|reason| wrong(key, &reason))?;
                }
                given.push(agent.socket.clone());
                agents.all.push(agent);
            }
            sockets.insert(id.clone(), given);
        }
        Ok((agents, sockets))
    }
}

/// A command of OpenSSH's, with nothing of this process's environment but the way to programs.
fn openssh(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("LC_ALL", "C");
    command
}

fn not_run(name: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("keys in files need {name}: install openssh-client"),
        _ => format!("run {name}: {error}"),
    }
}

impl Agent {
    fn start() -> Result<Self, String> {
        let mut command = openssh("ssh-agent");
        command.args(["/bin/sh", "-c", COMMAND]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut command = command.spawn().map_err(|error| not_run("ssh-agent", &error))?;
        let mut line = String::new();
        let output = command.stdout.take();
        let pipe = command.stdin.take();
        let mut agent = Self { command, pipe, pid: None, socket: PathBuf::new() };
        if let Some(output) = output {
            let read = BufReader::new(output.take(4096)).read_line(&mut line);
            read.map_err(|error| format!("read from ssh-agent: {error}"))?;
        }
        let (pid, socket) = line.trim_end().split_once(' ').ok_or("ssh-agent does not start")?;
        agent.pid = pid.parse().ok().and_then(Pid::from_raw);
        agent.socket = PathBuf::from(socket);
        Ok(agent)
    }

    fn add(&self, key: &Path) -> Result<(), String> {
        let file = File::open(key).map_err(|error| error.to_string())?;
        if file.metadata().map_err(|error| error.to_string())?.len() > MAX_KEY {
            return Err("it is no key".to_owned());
        }
        let mut command = openssh("ssh-add");
        // Nobody is asked for a passphrase, neither on the terminal nor in a window.
        command.env("SSH_ASKPASS", "/bin/false").env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", "none");
        command.env("SSH_AUTH_SOCK", &self.socket).args(["-q", "-"]);
        let output = command.stdin(file).output().map_err(|error| not_run("ssh-add", &error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it is no key");
        Err(format!("the key cannot be used, perhaps because it has a passphrase: {said}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_held_by_an_agent_that_ends() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        let mut keygen = openssh("ssh-keygen");
        let made = keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "of a test", "-f"]).arg(&key).status();
        if made.is_err() {
            eprintln!("skipped: openssh-client is not installed");
            return;
        }
        let ssh = |path: &Path| BTreeMap::from([("default".to_owned(), vec![path.to_owned()])]);
        let (agents, sockets) = Agents::start(&ssh(&key)).unwrap();
        let socket = sockets["default"][0].clone();
        let listed = openssh("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &socket).output().unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains("of a test"), "{listed:?}");
        let pid = agents.all[0].pid.unwrap();
        drop(agents);
        for _ in 0..500 {
            if rustix::process::test_kill_process(pid).is_err() && !socket.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(rustix::process::test_kill_process(pid).is_err() && !socket.exists());
        // A key with a passphrase, and what is no key.
        let locked = directory.path().join("locked");
        let mut keygen = openssh("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "secret", "-f"]).arg(&locked).status().unwrap();
        std::fs::write(directory.path().join("text"), "text").unwrap();
        for name in ["locked", "text"] {
            let error = Agents::start(&ssh(&directory.path().join(name))).unwrap_err().to_string();
            assert!(error.starts_with("ssh default: ") && error.contains("the key cannot be used"), "{error}");
        }
        assert!(Agents::start(&ssh(directory.path())).unwrap_err().to_string().contains("neither"));
        assert!(Agents::start(&ssh(&directory.path().join("gone"))).is_err());
    }
}
