//! What a container's requests take while others take all they can get: a fork bomb, a memory hog, a log flood and a disk
//! filler, each alone in its limits, then all of them at once.
//!
//! The neighbour is an echo server on the bridge, with limits of its own; the requests are sent from here, one every
//! millisecond, as many beside every one of them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::engines::{self, Engines, alternate};
use super::report::Table;
use super::stage::{Place, micros, show};
use super::{Bench, life};
use crate::Result;

/// Requests of one measurement, and measurements beside each neighbour.
const REQUESTS: usize = 1000;
const ROUNDS: usize = 5;

/// Between two requests.
const GAP: Duration = Duration::from_millis(1);

/// How long a greedy container runs before it is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// Where the neighbour answers.
const PORT: u16 = 7000;

/// Name, limits beside those of all, and what the shell does. The hog's shell survives what the kernel kills.
const GREEDY: [(&str, &str, &str); 4] = [
    ("bomb", "--pids-limit 64", "bomb() { bomb | bomb & }; bomb; sleep 100000"),
    ("hog", "--memory 64m --memory-swap 64m", "while :; do tail /dev/zero; done"),
    ("flood", "", "yes"),
    ("filler", "", "while :; do dd if=/dev/zero of=/big bs=1M count=256; rm /big; done"),
];

/// Processor time of each greedy container.
const CPUS: &str = "--cpus 0.5";

/// What is measured here only; the table of a container's life has it too.
pub(super) const BENCH: Bench = Bench {
    word: "neighbours",
    fill: engines::fill,
    measure,
    apart: true,
    table: Table { programs: &["hull", "docker", "podman"], rows: life::ROWS },
    section: None,
};

fn measure(place: &Place) -> Result<()> {
    let engines = Engines::enter(place)?;
    beside(&engines, place.runs)?;
    engines.versions()
}

/// Measures, beside nobody first; afterwards none of the containers is left.
pub(super) fn beside(engines: &Engines, runs: usize) -> Result<()> {
    engines.hull(&format!(
        "run -d --name echo --network bridge --cpus 1 --memory 128m --pids-limit 32 app:1 xtask bench serve {PORT}"
    ))?;
    let address = engines.said("hull", "inspect --format {{.NetworkSettings.Networks.bridge.IPAddress}} echo")?;
    let mut stream = connect(&address)?;
    stream.set_nodelay(true)?;
    stream.write_all(b"p")?;
    latency("alone", &mut stream)?;
    for (name, limits, script) in GREEDY {
        start(engines, name, limits, script)?;
        std::thread::sleep(SETTLE);
        latency(name, &mut stream)?;
        engines.hull(&format!("rm -f {name}"))?;
    }
    for (name, limits, script) in GREEDY {
        start(engines, name, limits, script)?;
    }
    std::thread::sleep(SETTLE);
    latency("all", &mut stream)?;
    let works = [
        ("hull-beside-exec", "hull", "exec echo true".to_owned()),
        ("hull-beside-run", "hull", "run --rm --network none app:1 true".to_owned()),
        ("hull-beside-ps", "hull", "ps".to_owned()),
    ];
    alternate(engines, &works, runs)?;
    let names: Vec<&str> = GREEDY.iter().map(|(name, ..)| *name).collect();
    let took = engines.hull(&format!("rm -f {} echo", names.join(" ")))?;
    show("hull-beside-rm", "us", &[micros(took)]);
    Ok(())
}

/// The server needs a moment until it listens.
fn connect(address: &str) -> Result<TcpStream> {
    let deadline = Instant::now() + SETTLE;
    loop {
        match TcpStream::connect((address, PORT)) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(GAP),
            result => return result.map_err(|error| format!("{address}:{PORT}: {error}").into()),
        }
    }
}

fn start(engines: &Engines, name: &str, limits: &str, script: &str) -> Result<()> {
    let flags = format!("run -d --name {name} --network none {CPUS} {limits} app:1 sh -c");
    engines.run_words("hull", &flags, &[script]).map(drop)
}

/// Half of the requests take no longer than the first figure, 99 of 100 no longer than the second; of each measurement.
fn latency(beside: &str, stream: &mut TcpStream) -> Result<()> {
    let (mut middle, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut took = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            std::thread::sleep(GAP);
            let begin = Instant::now();
            stream.write_all(b"p")?;
            stream.read_exact(&mut [0])?;
            took.push(micros(begin.elapsed()));
        }
        took.sort_by(f64::total_cmp);
        middle.push(took[REQUESTS / 2]);
        slow.push(took[REQUESTS * 99 / 100]);
    }
    show(&format!("beside-{beside}-p50"), "us", &middle);
    show(&format!("beside-{beside}-p99"), "us", &slow);
    Ok(())
}
