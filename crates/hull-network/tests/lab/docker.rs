//! A docker daemon in the machine of a test, from the root directory that `HULL_PEERS_ROOT` names: its files, its mounts and
//! its rules are the test's own and go with it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_testkit::tier;

/// Makes the root directory that of a mount namespace, with the network's own view of /sys and without the v2 hierarchy
/// of a hybrid host, and becomes the daemon there. `/run/stage` is the test's directory.
const ENTER: &str = r#"
    set -e
    umount /sys/fs/cgroup/unified 2>/dev/null || true
    mount --bind "$1" "$1" && cd "$1"
    mount -t proc proc proc
    mount -t sysfs sysfs sys && mount --rbind /sys/fs/cgroup sys/fs/cgroup
    mount --rbind /dev dev
    mount -t tmpfs tmpfs run && mkdir run/stage && mount --bind "$2" run/stage
    mount -t tmpfs tmpfs tmp
    pivot_root . mnt && cd / && umount -l /mnt
    exec dockerd --data-root /run/stage/docker --exec-root /run/docker --pidfile /run/docker.pid \
        --cgroup-parent "/$3" -H unix:///run/docker.sock
"#;

/// A daemon; dropping it ends it and its containers.
pub struct Docker {
    child: Child,
    root: PathBuf,
    stage: tempfile::TempDir,
    /// Of its containers' control groups.
    parent: String,
}

impl Docker {
    /// Starts one in the network namespace that the calling thread is in; `None`, and why is said, where there is none.
    pub fn start() -> Option<Self> {
        let Some(root) = std::env::var_os("HULL_PEERS_ROOT").map(PathBuf::from) else {
            tier::skip("dockerd", "HULL_PEERS_ROOT does not say where other engines are");
            return None;
        };
        if !["usr/bin/dockerd", "usr/sbin/dockerd"].iter().any(|path| root.join(path).exists()) {
            tier::skip("dockerd", "dockerd is not installed");
            return None;
        }
        let stage = tempfile::tempdir().unwrap();
        let parent = format!("hull-test-docker-{}", std::process::id());
        let mut docker = Self { child: daemon(&root, stage.path(), &parent), root, stage, parent };
        docker.wait();
        Some(docker)
    }

    fn wait(&mut self) {
        for _ in 0..600 {
            if self.command(&["version"]).output().unwrap().status.success() {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "dockerd: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("dockerd does not answer: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.stage.path().join("log")).unwrap_or_default()
    }

    /// The directory that is `/run/stage` to it.
    pub fn stage(&self) -> &Path {
        self.stage.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.child.id().to_string()).args(["--mount", "--root", "--wd=/"]);
        command.args(["docker", "-H", "unix:///run/docker.sock"]).args(words).stdin(Stdio::null());
        command
    }

    /// Runs a command of docker's; what it prints.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {words:?}: {said}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The network namespace of a container.
    pub fn namespace(&self, container: &str) -> OwnedFd {
        let pid = self.run(&["inspect", "--format", "{{.State.Pid}}", container]);
        hull_network::namespace_of(pid.parse().unwrap()).unwrap()
    }

    fn end(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }

    /// Ends it and starts it again, as an update of its package does: it makes its rules anew.
    pub fn restart(&mut self) {
        self.end();
        self.child = daemon(&self.root, self.stage.path(), &self.parent);
        self.wait();
    }
}

fn daemon(root: &Path, stage: &Path, parent: &str) -> Child {
    let log = std::fs::File::options().append(true).create(true).open(stage.join("log")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]).arg(root).arg(stage).arg(parent);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all = self.command(&["ps", "--all", "--quiet"]).output();
        for container in all.map(|all| String::from_utf8_lossy(&all.stdout).into_owned()).unwrap_or_default().lines() {
            let _ = self.command(&["rm", "--force", container]).output();
        }
        self.end();
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies {
            let _ = std::fs::remove_dir(hierarchy.path().join(&self.parent));
        }
        let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.parent));
    }
}
