//! `cargo xtask bench pull`: pulling the image of `bench images` from a registry on the loopback device, beside docker and
//! podman.
//!
//! Every contender begins without a layer of the image, with the registry's blobs in the page cache, and ends with an
//! image that can be run: docker and podman with unpacked layers, Hull with indexed ones, which are on disk by then.
//! docker's daemon is started for this, without networks, with its data beside the others' on the same file system.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Bench;
use super::engines::Server;
use super::images::{RUNS, application, command, timed};
use super::report::{Row, Table};
use super::stage::{Place, has, machine, version};
use crate::Result;

/// The registry's port, and the image in it.
const PORT: u16 = 5057;

/// Pulling, beside others.
pub(super) const BENCH: Bench = Bench {
    word: "pull",
    fill: application,
    measure,
    apart: false,
    table: Table { programs: &["hull", "docker", "podman", "registry"], rows: ROWS },
    section: Some("pull"),
};

const ROWS: &[Row] = &[
    ("hull-pull", "`hull pull`", "hull-pull", ""),
    ("docker-pull", "`docker pull`", "hull-pull", ""),
    ("podman-pull", "`podman pull`", "hull-pull", ""),
    ("gunzip", "`gzip -dc` of the layers, one after the other", "hull-pull", ""),
];

fn measure(place: &Place) -> Result<()> {
    place.enter()?;
    let stage = &place.stage;
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
    machine()?;
    version("hull", stage.join("hull"))?;
    let registry = Command::new("docker-registry").arg("--version").output()?;
    let registry = String::from_utf8_lossy(&registry.stdout).split(' ').take(3).collect::<Vec<_>>().join(" ");
    println!("version registry {}", registry.lines().next().unwrap_or_default());
    for (name, has) in [("docker", has_docker), ("podman", has_podman)] {
        if has {
            version(name, name)?;
        }
    }
    Ok(())
}
