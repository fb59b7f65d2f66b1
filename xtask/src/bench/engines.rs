//! Hull, docker and podman beside each other, in a network namespace that nobody else sees.
//!
//! ```text
//! STAGE/rootfs, rootfs.tar   busybox and this program: the image `app:1` of every engine
//! STAGE/data, docker, podman what the engines keep; run-time state is in /run/bench, a file system of the namespace
//! ```
//!
//! The namespaces are made by unshare(1) around the measuring process, so that no bridge, rule or address of a contender
//! reaches the machine. What is left running is removed when the engines are dropped.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use super::bundle;
use super::images::command;
use super::stage::{Place, Stage, alternately, has, machine, show};
use crate::Result;

/// Fills a stage with the root file system, as a directory and as a tar; they need no words.
pub(super) fn fill(stage: &Stage) -> Result<String> {
    bundle::fill(&stage.path, &stage.inner())?;
    let rootfs = stage.path.join("rootfs");
    fs::copy(stage.program(), rootfs.join("bin/xtask"))?;
    let tar = stage.path.join("rootfs.tar");
    crate::check(Command::new("tar").arg("-C").arg(rootfs).arg("-cf").arg(tar).arg("."))?;
    Ok(String::new())
}

/// A process that was started for the measurement.
#[derive(Debug)]
pub(super) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Asked to end, docker's daemon ends its own children.
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap_or_default()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts one and waits until `up` says that it answers.
    pub(super) fn start(words: &str, log: &Path, up: &dyn Fn(u32) -> bool) -> Result<Self> {
        let file = File::create(log)?;
        let child = command(words).stdout(Stdio::null()).stderr(file).spawn();
        let server = Self(child.map_err(|error| format!("{words}: {error}"))?);
        for _ in 0..400 {
            if up(server.0.id()) {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("{words}: it does not answer: {}", fs::read_to_string(log).unwrap_or_default()).into())
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

/// The engines that are here, each with the image `app:1`.
#[derive(Debug)]
pub(super) struct Engines {
    stage: PathBuf,
    pause: Duration,
    podman: bool,
    docker: Option<Server>,
}

impl Engines {
    /// Enters the contenders' root with the network's own view of /sys, and gives Hull its image.
    pub(super) fn enter(place: &Place) -> Result<Self> {
        place.enter()?;
        rustix::mount::mount("tmpfs", "/tmp", "tmpfs", MountFlags::empty(), None)?;
        fs::create_dir("/tmp/cgroup")?;
        rustix::mount::mount_bind_recursive("/sys/fs/cgroup", "/tmp/cgroup")?;
        rustix::mount::mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None)?;
        rustix::mount::mount_bind_recursive("/tmp/cgroup", "/sys/fs/cgroup")?;
        rustix::mount::unmount("/tmp/cgroup", UnmountFlags::DETACH)?;
        std::env::set_current_dir(&place.stage)?;
        let engines = Self { stage: place.stage.clone(), pause: place.pause, podman: false, docker: None };
        engines.hull("import rootfs.tar app:1")?;
        Ok(engines)
    }

    /// Starts docker's daemon and gives docker and podman their images, where they are installed.
    pub(super) fn peers(&mut self) -> Result<()> {
        if has("dockerd") && has("docker") {
            let daemon = format!(
                "dockerd --data-root {}/docker --exec-root /run/bench/docker --pidfile /run/bench/docker.pid \
                 -H unix:///run/bench/docker.sock",
                self.stage.display()
            );
            let listens = |_| UnixStream::connect("/run/bench/docker.sock").is_ok();
            self.docker = Some(Server::start(&daemon, Path::new("dockerd.log"), &listens)?);
            self.run("docker", "import rootfs.tar app:1")?;
        }
        if has("podman") {
            self.podman = true;
            self.run("podman", "import -q rootfs.tar app:1")?;
        }
        Ok(())
    }

    /// The engines measured now.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let mut names = vec!["hull"];
        names.extend(self.docker.as_ref().map(|_| "docker"));
        names.extend(self.podman.then_some("podman"));
        names
    }

    /// The stage's directory.
    pub(super) fn stage(&self) -> &Path {
        &self.stage
    }

    /// An engine's command line.
    pub(super) fn command(&self, engine: &str, words: &str) -> Command {
        let stage = self.stage.display();
        command(&match engine {
            "docker" => format!("docker -H unix:///run/bench/docker.sock {words}"),
            "podman" => format!(
                "podman --cgroup-manager=cgroupfs --storage-driver=overlay --root {stage}/podman \
                 --runroot /run/bench/podman {words}"
            ),
            _ => format!("{stage}/hull --root {stage}/data --state /run/bench/engine {words}"),
        })
    }

    /// What a shell asks Hull to complete.
    pub(super) fn completion(&self, words: &str) -> Command {
        let stage = self.stage.display();
        command(&format!("{stage}/hull __complete --root {stage}/data --state /run/bench/engine {words}"))
    }

    /// Runs a command of an engine, from spawn to the end, and fails if it fails. Its output goes to files: a pipe that
    /// a container holds open would be waited for.
    pub(super) fn run(&self, engine: &str, words: &str) -> Result<Duration> {
        self.run_words(engine, words, &[])
    }

    /// The same with words at the end that may have spaces in them.
    pub(super) fn run_words(&self, engine: &str, words: &str, more: &[&str]) -> Result<Duration> {
        let mut command = self.command(engine, words);
        command.args(more);
        command.stdout(File::create("stdout")?).stderr(File::create("stderr")?);
        command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        let begin = Instant::now();
        let status = command.status().map_err(|error| format!("{engine}: {error}"))?;
        let took = begin.elapsed();
        if status.success() {
            return Ok(took);
        }
        let words: String = words.chars().take(200).collect();
        Err(format!("{engine} {words}: {status}: {}", fs::read_to_string("stderr")?.trim()).into())
    }

    /// The same after the pause that makes a start as dear as it is at a prompt.
    pub(super) fn run_rested(&self, engine: &str, words: &str) -> Result<Duration> {
        std::thread::sleep(self.pause);
        self.run(engine, words)
    }

    pub(super) fn hull(&self, words: &str) -> Result<Duration> {
        self.run("hull", words)
    }

    /// What a command of an engine prints, without the newline.
    pub(super) fn said(&self, engine: &str, words: &str) -> Result<String> {
        self.run(engine, words)?;
        Ok(fs::read_to_string("stdout")?.trim().to_owned())
    }

    /// Prints the versions for the table.
    pub(super) fn versions(&self) -> Result<()> {
        machine()?;
        for name in self.names() {
            let said = self.said(name, "--version")?;
            println!("version {name} {}", said.lines().next().unwrap_or_default());
        }
        Ok(())
    }

    /// Removes every container of an engine.
    fn clear(&self, engine: &str) -> Result<()> {
        let containers = self.said(engine, "ps -aq")?;
        if containers.is_empty() {
            return Ok(());
        }
        self.run(engine, &format!("rm -f {}", containers.replace('\n', " "))).map(drop)
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        for engine in self.names() {
            if let Err(error) = self.clear(engine) {
                eprintln!("{error}");
            }
        }
    }
}

/// Runs every one of `works` (name, engine, command) once in each round, each round beginning with another one; the
/// times of each work.
pub(super) fn alternate(engines: &Engines, works: &[(&str, &str, String)], rounds: usize) -> Result<Vec<Vec<f64>>> {
    let took = alternately(works.len(), rounds, engines.pause, |index| engines.run(works[index].1, &works[index].2))?;
    for ((name, ..), took) in works.iter().zip(&took) {
        show(name, "us", took);
    }
    Ok(took)
}
