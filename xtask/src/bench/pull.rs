//! `cargo xtask bench pull`: pulling the image of `bench images` from a registry on the loopback device, beside docker and
//! podman.
//!
//! Every contender begins without a layer of the image, with the registry's blobs in the page cache, and ends with an
//! image that can be run: docker and podman with unpacked layers, Hull with indexed ones, which are on disk by then.
//! docker's daemon is started for this, without networks, with its data beside the others' on the same file system.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::engines::{Server, has};
use super::images::{application, command, timed};
use super::{Options, Stage, report};
use crate::{Result, release, workspace};

/// Runs of each contender; the first of each is not counted.
const RUNS: usize = 5;

/// The registry's port, and the image in it.
const PORT: u16 = 5057;

pub(super) fn run(options: &Options) -> Result<()> {
    let binary = options.binary.clone().map_or_else(release::build, Ok)?;
    let stage = Stage::new(options.peers_root.as_deref())?;
    fs::copy(&binary, stage.path.join("hull"))?;
    fs::copy(std::env::current_exe()?, stage.path.join("xtask"))?;
    let about = application(&stage.path)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(stage.path.join("xtask")).args(["bench", "inside-pull"]);
    let output = command.arg(&stage.root).arg(stage.inner()).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("measuring: {}", output.status).into());
    }
    let table = report::pulls(&report::read(&String::from_utf8_lossy(&output.stdout))?, &about);
    println!("{table}");
    if !options.dry {
        report::write(&workspace().join("docs/benchmarks.md"), "pull", &table)?;
    }
    Ok(())
}

/// `bench inside-pull ROOT STAGE`.
pub(super) fn inside(arguments: &[String]) -> Result<()> {
    let [root, stage] = arguments else { return Err("inside-pull: wrong arguments".into()) };
    super::inside::enter(Path::new(root))?;
    let stage = Path::new(stage);
    std::env::set_current_dir(stage)?;
    let at = |words: &str| words.replace("STAGE", &stage.display().to_string());
    let name = format!("127.0.0.1:{PORT}/app:1");
    fs::write(
        "registry.yml",
        format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '127.0.0.1:{PORT}'}}\n",
            stage.join("registry").display()
        ),
    )?;
    let answers = |_| std::net::TcpStream::connect(("127.0.0.1", PORT)).is_ok();
    let _registry = Server::start("docker-registry serve registry.yml", Path::new("registry.log"), &answers)?;
    let hull = |words: &str| command(&at(&format!("STAGE/hull --root STAGE/data --state /run/bench/engine {words}")));
    timed(&mut hull("load -i image.tar"))?;
    timed(&mut hull(&format!("tag app:1 {name}")))?;
    timed(&mut hull(&format!("push {name}")))?;
    timed(&mut hull("rmi -f app:1"))?;
    timed(&mut hull(&format!("rmi -f {name}")))?;
    timed(&mut hull("system prune -af"))?;

    let podman =
        "podman --cgroup-manager=cgroupfs --storage-driver=overlay --root STAGE/podman --runroot /run/bench/podman";
    let podman = |words: &str| command(&at(&format!("{podman} {words}")));
    let docker = |words: &str| command(&format!("docker -H unix:///run/bench/docker.sock {words}"));
    let (has_podman, has_docker) = (has("podman"), has("dockerd") && has("docker"));
    let daemon = at("dockerd --data-root STAGE/docker --exec-root /run/bench/docker --pidfile /run/bench/docker.pid \
                     -H unix:///run/bench/docker.sock --bridge=none --iptables=false --ip6tables=false");
    let listens = |_| UnixStream::connect("/run/bench/docker.sock").is_ok();
    let _daemon = if has_docker { Some(Server::start(&daemon, Path::new("dockerd.log"), &listens)?) } else { None };
    for round in 0..=RUNS {
        let show = |name: &str, took: Duration| {
            if round > 0 {
                println!("bench {name} us {}", took.as_micros());
            }
        };
        show("hull-pull", timed(&mut hull(&format!("pull -q {name}")))?);
        timed(&mut hull(&format!("rmi -f {name}")))?;
        timed(&mut hull("system prune -af"))?;
        if has_docker {
            show("docker-pull", timed(&mut docker(&format!("pull -q {name}")))?);
            timed(&mut docker(&format!("rmi -f {name}")))?;
        }
        if has_podman {
            show("podman-pull", timed(&mut podman(&format!("pull -q --tls-verify=false {name}")))?);
            timed(&mut podman("rmi -f -a"))?;
        }
        let unpack = "for blob in layout/blobs/sha256/*; do gzip -dc $blob > /dev/null 2>&1; done; true";
        show("gunzip", timed(Command::new("sh").args(["-c", unpack]))?);
    }
    println!("version kernel {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    let registry = Command::new("docker-registry").arg("--version").output()?;
    let registry = String::from_utf8_lossy(&registry.stdout).split(' ').take(3).collect::<Vec<_>>().join(" ");
    println!("version registry {}", registry.lines().next().unwrap_or_default());
    for (name, has) in [("docker", has_docker), ("podman", has_podman)] {
        if has {
            let output = Command::new(name).arg("--version").output()?;
            println!("version {name} {}", String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default());
        }
    }
    Ok(())
}
