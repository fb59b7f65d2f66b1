//! The `docker` command against `hull serve`, where it is installed.

use std::process::{Command, Stdio};

use crate::server::Server;
use hull_testkit::{Finished, finish, tier};

struct Docker {
    server: Server,
    program: std::path::PathBuf,
}

impl Docker {
    fn new() -> Option<Self> {
        let program = tier::tool("docker")?;
        Some(Self { server: Server::with_image(&[])?, program })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("DOCKER_HOST", format!("unix://{}", self.server.socket().display()));
        command.env("DOCKER_CONFIG", self.server.home.path().join("config"));
        command.env("DOCKER_CLI_HINTS", "false").args(words).stdin(Stdio::null()).current_dir("/");
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> Finished {
        finish(&mut self.command(words))
    }

    /// `docker VERB --cgroup-parent NAME WORDS`.
    #[track_caller]
    fn container(&self, verb: &str, words: &[&str]) -> Finished {
        self.run(&[&[verb, "--cgroup-parent", self.server.home.name()], words].concat())
    }
}

#[test]
fn root_api_docker_runs_containers() {
    let Some(docker) = Docker::new() else { return };
    for _ in 0..5 {
        // However fast the container is, nothing of its output is lost.
        assert_eq!(docker.container("run", &["--rm", "probe", "echo", "hi"]).ok().text(), "hi");
    }
    assert_eq!(docker.container("run", &["--rm", "probe", "exit", "3"]).code, 3);
    assert_eq!(docker.container("run", &["--rm", "--entrypoint", "/nothing", "probe"]).code, 127);
    assert_eq!(docker.container("run", &["--rm", "--entrypoint", "/etc", "probe"]).code, 126);
    let absent = docker.container("create", &["--pull", "never", "absent"]);
    assert!(absent.code != 0 && absent.stderr.contains("No such image: absent:latest"), "{}", absent.stderr);
    let id = docker.container("run", &["-d", "--name", "web", "probe", "sleep", "100"]).ok().text().to_owned();
    assert!(docker.run(&["ps", "-q", "--no-trunc"]).ok().text() == id);
    assert_eq!(docker.run(&["exec", "web", "/probe", "echo", "inside"]).ok().text(), "inside");
    assert_eq!(docker.run(&["exec", "web", "/probe", "exit", "9"]).code, 9);
    let error = docker.run(&["exec", "web", "/probe", "err", "e"]).ok();
    assert_eq!((error.text(), error.stderr.trim_end()), ("", "e"));
    assert_eq!(
        docker.run(&["inspect", "-f", "{{.State.Status}} {{.Config.Image}}", "web"]).ok().text(),
        "running probe"
    );
    assert!(docker.run(&["stats", "--no-stream", "web"]).ok().stdout.contains("web"));
    docker.run(&["rename", "web", "site"]).ok();
    docker.run(&["stop", "-t", "0", "site"]).ok();
    assert_eq!(docker.run(&["wait", "site"]).ok().text(), "137");
    docker.run(&["start", "site"]).ok();
    docker.run(&["rm", "-f", "site"]).ok();
    docker.server.finish();
}

#[test]
fn root_api_docker_copies_files_and_shows_output() {
    let Some(docker) = Docker::new() else { return };
    docker.container("create", &["--name", "files", "probe", "cat", "/etc/motd"]).ok();
    let file = docker.server.home.path().join("motd");
    std::fs::write(&file, "welcome\n").expect("write");
    docker.run(&["cp", file.to_str().expect("UTF-8"), "files:/etc/motd"]).ok();
    assert_eq!(docker.run(&["start", "-a", "files"]).ok().text(), "welcome");
    assert!(docker.run(&["logs", "files"]).ok().stdout.contains("welcome"));
    let back = docker.server.home.path().join("back");
    docker.run(&["cp", "files:/etc/motd", back.to_str().expect("UTF-8")]).ok();
    assert_eq!(std::fs::read_to_string(&back).expect("read"), "welcome\n");
    assert!(docker.run(&["diff", "files"]).ok().stdout.contains("A /etc/motd"));
    docker.run(&["container", "prune", "-f"]).ok();
    docker.server.finish();
}
