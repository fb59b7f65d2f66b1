//! `cargo xtask bench network`: containers on bridges, beside docker and podman, in one throw-away network namespace.
//!
//! ```text
//! LAN peer (a namespace) 192.0.2.2 ── veth ── 192.0.2.1 the "host" (a namespace) ── Hull's bridge, docker's, podman's
//! ```
//!
//! What Hull costs by itself (bridge against none, 200 ports, the 500th container) is measured before docker's daemon
//! runs; what is compared with others after, so that everybody's packets pass everybody's rules.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Bench;
use super::engines::{self, Engines, Server, alternate};
use super::report::{Row, Table};
use super::stage::{Place, micros, show};
use crate::{Result, check};

/// Containers on one bridge.
const MANY: usize = 500;

/// The first and the last of them that are compared.
const ENDS: usize = 10;

/// Runs of docker and podman with 200 ports, which take seconds each.
const PORT_RUNS: usize = 2;

/// Rounds of the traffic.
const ROUNDS: usize = 25;

const LAN_HOST: &str = "192.0.2.1";
const LAN_PEER: &str = "192.0.2.2";

/// Networks, beside others.
pub(super) const BENCH: Bench = Bench {
    word: "network",
    fill: engines::fill,
    measure,
    apart: true,
    table: Table { programs: &["hull", "docker", "podman"], rows: ROWS },
    section: Some("network"),
};

const ROWS: &[Row] = &[
    ("hull-none", "`hull run --rm --network none` of `true`", "hull-none", ""),
    ("hull-bridge", "`hull run --rm` on the bridge", "hull-none", ""),
    ("hull-bridge-more", "of that, the bridge", "", "2.5 ms"),
    ("hull-ports", "`hull run --rm -p` of 200 ports", "hull-none", ""),
    ("hull-ports-more", "of that, the ports", "", "2 ms"),
    ("hull-first", "`hull run -d`, containers 1 to 10 of a bridge", "hull-first", ""),
    ("hull-last", "containers 491 to 500", "hull-first", "ratio 2"),
    ("hull-many-rm", "`hull rm -f` of these 500", "", ""),
    ("hull-run", "`hull run --rm` on the bridge, docker's daemon running", "hull-run", ""),
    ("docker-run", "`docker run --rm`", "hull-run", "ratio 20"),
    ("podman-run", "`podman run --rm`", "hull-run", "ratio 20"),
    ("hull-run-ports", "`hull run --rm -p` of 200 ports, docker's daemon running", "hull-run-ports", ""),
    ("docker-run-ports", "`docker run --rm -p` of 200 ports", "hull-run-ports", ""),
    ("podman-run-ports", "`podman run --rm -p` of 200 ports", "hull-run-ports", ""),
    ("hull-port-rate", "bytes from the LAN through hull's published port", "docker-port-rate", "ratio 0.97"),
    ("docker-port-rate", "through docker's", "docker-port-rate", ""),
    ("podman-port-rate", "through podman's", "docker-port-rate", ""),
    ("hull-port-trip", "a round trip through hull's published port", "docker-port-trip", "ratio 1.03"),
    ("docker-port-trip", "through docker's", "docker-port-trip", ""),
    ("podman-port-trip", "through podman's", "docker-port-trip", ""),
    ("hull-near-rate", "bytes from container to container, hull", "docker-near-rate", "ratio 0.97"),
    ("docker-near-rate", "docker", "docker-near-rate", ""),
    ("podman-near-rate", "podman", "docker-near-rate", ""),
    ("hull-near-trip", "a round trip from container to container, hull", "docker-near-trip", "ratio 1.03"),
    ("docker-near-trip", "docker", "docker-near-trip", ""),
    ("podman-near-trip", "podman", "docker-near-trip", ""),
];

fn measure(place: &Place) -> Result<()> {
    let lan = lan()?;
    let mut engines = Engines::enter(place)?;
    alone(&engines, place.runs)?;
    many(&engines)?;
    engines.peers()?;
    beside(&engines, place.runs)?;
    traffic(&engines, &lan)?;
    engines.versions()
}

/// Makes the namespace of a peer on the local network, and the way to it.
fn lan() -> Result<Server> {
    let own = fs::read_link("/proc/self/ns/net")?;
    let apart = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other != own);
    let peer = Server::start("unshare --net sleep 100000", Path::new("/dev/null"), &apart)?;
    let ip = |words: &str| check(Command::new("ip").args(words.split(' ')));
    ip("link set lo up")?;
    ip(&format!("link add lan0 type veth peer name lan1 netns {}", peer.id()))?;
    ip(&format!("address add {LAN_HOST}/24 dev lan0"))?;
    ip("link set lan0 up")?;
    ip(&format!("route add default via {LAN_PEER}"))?;
    let inside = |words: &str| {
        let net = format!("--net=/proc/{}/ns/net", peer.id());
        check(Command::new("nsenter").arg(net).arg("ip").args(words.split(' ')))
    };
    inside("link set lo up")?;
    inside(&format!("address add {LAN_PEER}/24 dev lan1"))?;
    inside("link set lan1 up")?;
    Ok(peer)
}

/// Hull by itself: without a network, on the bridge, and with 200 published ports.
fn alone(engines: &Engines, runs: usize) -> Result<()> {
    let work = |flags: &str| format!("run --rm {flags} app:1 true");
    let works = [
        ("hull-none", "hull", work("--network none")),
        ("hull-bridge", "hull", work("")),
        ("hull-ports", "hull", work("-p 20000-20199:20000-20199")),
    ];
    let took = alternate(engines, &works, runs)?;
    for (name, more, less) in [("hull-bridge-more", 1, 0), ("hull-ports-more", 2, 1)] {
        let more: Vec<f64> = took[more].iter().zip(&took[less]).map(|(more, less)| more - less).collect();
        show(name, "us", &more);
    }
    Ok(())
}

/// Containers that stay on one bridge: what the first and the last of them cost.
fn many(engines: &Engines) -> Result<()> {
    let links = || -> Result<usize> { Ok(fs::read_dir("/sys/class/net")?.count()) };
    engines.hull("network create --subnet 10.213.0.0/16 many")?;
    let before = links()?;
    let mut took = Vec::with_capacity(MANY);
    for number in 0..MANY {
        let words = format!("run -d --name many-{number} --network many app:1 sleep 100000");
        took.push(micros(engines.run_rested("hull", &words)?));
    }
    show("hull-first", "us", &took[..ENDS]);
    show("hull-last", "us", &took[MANY - ENDS..]);
    let names: Vec<String> = (0..MANY).map(|number| format!("many-{number}")).collect();
    show("hull-many-rm", "us", &[micros(engines.hull(&format!("rm -f {}", names.join(" ")))?)]);
    // The kernel takes a namespace's links away some time after its last process.
    for _ in 0..200 {
        if links()? <= before {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    println!("version left {} links", links()?.saturating_sub(before));
    engines.hull("network rm many").map(drop)
}

/// The same work by every engine.
fn beside(engines: &Engines, runs: usize) -> Result<()> {
    let words = "run --rm app:1 true".to_owned();
    let names: Vec<(String, &str)> = engines.names().into_iter().map(|name| (format!("{name}-run"), name)).collect();
    let works: Vec<_> = names.iter().map(|(work, name)| (work.as_str(), *name, words.clone())).collect();
    alternate(engines, &works, runs)?;
    let words = "run --rm -p 20000-20199:20000-20199 app:1 true".to_owned();
    let names: Vec<(String, &str)> =
        engines.names().into_iter().map(|name| (format!("{name}-run-ports"), name)).collect();
    let works: Vec<_> = names.iter().map(|(work, name)| (work.as_str(), *name, words.clone())).collect();
    alternate(engines, &works, PORT_RUNS).map(drop)
}

/// Bytes and round trips from the LAN through a published port, and from one container to another.
fn traffic(engines: &Engines, lan: &Server) -> Result<()> {
    let names: Vec<(&str, u16)> = engines.names().into_iter().zip(30001..).collect();
    let mut paths = Vec::new();
    for (name, port) in &names {
        engines.run(name, &format!("run -d --name server -p {port}:7000 app:1 /bin/xtask bench serve 7000"))?;
        engines.run(name, "run -d --name client app:1 sleep 100000")?;
        let said = engines.said(name, "exec server /bin/busybox ip -4 -o address show dev eth0")?;
        let mut words = said.split_whitespace().skip_while(|word| *word != "inet").skip(1);
        let address = words.next().and_then(|address| address.split('/').next());
        let address = address.ok_or_else(|| format!("{name}: no address: {said}"))?.to_owned();
        paths.push((*name, *port, address));
    }
    let peer = format!("--net=/proc/{}/ns/net", lan.id());
    for round in 0..=ROUNDS {
        for offset in 0..paths.len() {
            let (name, port, address) = &paths[(round + offset) % paths.len()];
            let mut talk = Command::new("nsenter");
            talk.arg(&peer).arg("./xtask").args(["bench", "talk", &format!("{LAN_HOST}:{port}")]);
            let port = String::from_utf8(talk.output()?.stdout)?;
            let near = engines.said(name, &format!("exec client /bin/xtask bench talk {address}:7000"))?;
            for (what, said) in [("port", port), ("near", near)] {
                let figures = said.trim().split_once(' ').ok_or_else(|| format!("{name}, {what}: no figures"))?;
                if round > 0 {
                    show(&format!("{name}-{what}-rate"), "MBps", &[figures.0.parse()?]);
                    show(&format!("{name}-{what}-trip"), "us", &[figures.1.parse()?]);
                }
            }
        }
    }
    Ok(())
}
