//! `cargo xtask bench build`: builds, beside BuildKit (docker's) and buildah.
//!
//! ```text
//! STAGE/small        a project of some twenty files with two steps: what a no-op costs
//! STAGE/large-N      10 000 files, 100 MB, others in each round: first build, nothing changed, one file changed
//! STAGE/stages       ten stages that compute for themselves, and one that takes something of each
//! ```
//!
//! Everybody builds from the same directory in the same round, each round beginning with another one, with what was
//! written before on the disk. Images are named, and steps have no network. What an earlier round left is pruned outside
//! of the measurement.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Bench;
use super::engines::{self, Engines};
use super::images::command;
use super::report::{Row, Table};
use super::stage::{Place, has, micros, show, version};
use crate::Result;

/// Rounds of what takes seconds.
const ROUNDS: usize = 3;
/// How often each looks at the large context without a change, in each round.
const AGAIN: usize = 3;
/// The large context: directories, files in each, bytes of each.
const LARGE: (usize, usize, usize) = (100, 100, 10_000);
/// Bytes that each of the ten stages computes the digest of, in megabytes.
const WORK: usize = 60;

/// Builds, beside others.
pub(super) const BENCH: Bench = Bench {
    word: "build",
    fill: engines::fill,
    measure,
    apart: true,
    table: Table { programs: &["hull", "docker", "buildah"], rows: ROWS },
    section: Some("build"),
};

const ROWS: &[Row] = &[
    ("hull-small", "small project, nothing changed: `hull build`", "hull-small", "30 ms"),
    ("docker-small", "`docker build` (BuildKit)", "hull-small", "ratio 10"),
    ("buildah-small", "`buildah build --layers`", "hull-small", ""),
    ("hull-first", "10 000 files of 100 MB, first build: `hull build`", "hull-first", ""),
    ("docker-first", "`docker build`", "hull-first", "ratio 3"),
    ("buildah-first", "`buildah build --layers`", "hull-first", ""),
    ("hull-again", "the same, nothing changed: `hull build`", "hull-again", "150 ms"),
    ("docker-again", "`docker build`", "hull-again", ""),
    ("buildah-again", "`buildah build --layers`", "hull-again", ""),
    ("hull-one", "the same, one file changed: `hull build`", "hull-one", "500 ms"),
    ("docker-one", "`docker build`", "hull-one", ""),
    ("buildah-one", "`buildah build --layers`", "hull-one", ""),
    ("hull-ten", "ten independent stages that compute: `hull build`", "hull-ten", ""),
    ("docker-ten", "`docker build`", "hull-ten", ""),
    ("buildah-ten", "`buildah build --layers --jobs 10`", "hull-ten", ""),
    ("hull-lone", "one of these stages alone: `hull build`", "hull-lone", ""),
    ("docker-lone", "`docker build`", "hull-lone", ""),
    ("buildah-lone", "`buildah build --layers`", "hull-lone", ""),
];

fn measure(place: &Place) -> Result<()> {
    let mut engines = Engines::enter(place)?;
    engines.peers()?;
    let builders = Builders { engines: &engines, names: builders(&engines) };
    small(Path::new("small"))?;
    stages(Path::new("stages"))?;
    builders.no_op(place.runs)?;
    for round in 0..ROUNDS {
        builders.large(round)?;
    }
    builders.stages()?;
    engines.versions()?;
    if builders.names.contains(&"buildah") {
        version("buildah", "buildah")?;
    }
    Ok(())
}

fn builders(engines: &Engines) -> Vec<&'static str> {
    let mut names: Vec<&str> = engines.names();
    // buildah's images are podman's.
    names.retain(|name| *name != "podman");
    if engines.names().contains(&"podman") && has("buildah") {
        names.push("buildah");
    }
    names
}

/// Those that are measured.
struct Builders<'e> {
    engines: &'e Engines,
    names: Vec<&'static str>,
}

impl Builders<'_> {
    /// One build, from spawn to end; `context` is both its directory and its name.
    fn build(&self, name: &str, context: &str, options: &str) -> Result<Duration> {
        let words = format!("build --network none -t {context}:1 {options}");
        let mut command = match name {
            "buildah" => self.buildah(&format!("{words} --layers --ulimit nofile=1024:1024 --ulimit nproc=1024:1024")),
            name => self.engines.command(name, &words),
        };
        command.arg(context).env("DOCKER_BUILDKIT", "1").env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
        command.env("HOME", self.engines.stage());
        // What others wrote is on the disk.
        rustix::fs::sync();
        command.stdout(File::create("stdout")?).stderr(File::create("stderr")?);
        let begin = Instant::now();
        let status = command.status().map_err(|error| format!("{name}: {error}"))?;
        let took = begin.elapsed();
        if status.success() {
            return Ok(took);
        }
        Err(format!("{name} build {context}: {status}: {}", fs::read_to_string("stderr")?.trim()).into())
    }

    fn buildah(&self, words: &str) -> Command {
        let stage = self.engines.stage().display();
        let mut command = command(&format!(
            "buildah --storage-driver=overlay --root {stage}/podman --runroot /run/bench/podman {words}"
        ));
        command.env("BUILDAH_ISOLATION", "chroot");
        command
    }

    /// The builders' order in a round.
    fn order(&self, round: usize) -> impl Iterator<Item = &'static str> {
        let count = self.names.len();
        (0..count).map(move |offset| self.names[(round + offset) % count])
    }

    fn no_op(&self, runs: usize) -> Result<()> {
        for round in 0..=runs {
            for name in self.order(round) {
                let took = self.build(name, "small", "")?;
                // The first round is the build itself.
                if round > 0 {
                    show(&format!("{name}-small"), "us", &[micros(took)]);
                }
            }
        }
        Ok(())
    }

    fn large(&self, round: usize) -> Result<()> {
        let context = format!("large-{round}");
        let directory = Path::new(&context);
        large(directory, round)?;
        for name in self.order(round) {
            show(&format!("{name}-first"), "us", &[micros(self.build(name, &context, "")?)]);
            for _ in 0..if name == "buildah" { 1 } else { AGAIN } {
                show(&format!("{name}-again"), "us", &[micros(self.build(name, &context, "")?)]);
            }
            let text = format!("changed for {name} in round {round}\n").repeat(300);
            fs::write(directory.join("directory-50/file-50"), text)?;
            show(&format!("{name}-one"), "us", &[micros(self.build(name, &context, "")?)]);
        }
        for name in self.names.clone() {
            match name {
                "buildah" => drop(self.buildah(&format!("rmi -f {context}:1")).output()?),
                name => {
                    self.engines.run(name, &format!("rmi -f {context}:1"))?;
                    self.engines.run(name, "builder prune -af")?;
                }
            }
        }
        fs::remove_dir_all(directory)?;
        Ok(())
    }

    fn stages(&self) -> Result<()> {
        for round in 0..=ROUNDS {
            for name in self.order(round) {
                // By default buildah builds one stage after the other.
                let jobs = if name == "buildah" { "--jobs 10" } else { "" };
                let ten = self.build(name, "stages", &format!("--build-arg ROUND={round} {jobs}"))?;
                let one = self.build(name, "stages", &format!("--build-arg ROUND=alone-{round} --target stage0"))?;
                if round > 0 {
                    show(&format!("{name}-ten"), "us", &[micros(ten)]);
                    show(&format!("{name}-lone"), "us", &[micros(one)]);
                }
            }
        }
        Ok(())
    }
}

/// A project as there are many.
fn small(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory.join("source"))?;
    fs::write(directory.join("requirements.txt"), "one==1\ntwo==2\n")?;
    for number in 0..20 {
        let text = format!("print({number})\n").repeat(200);
        fs::write(directory.join(format!("source/part{number}.py")), text)?;
    }
    let text = "FROM app:1 AS base\nWORKDIR /app\nCOPY requirements.txt .\nRUN cp requirements.txt installed\n\
                COPY . .\nENV MODE=fast\nRUN ls source > list\nFROM app:1\nCOPY --from=base /app /app\n\
                CMD [\"cat\", \"/app/list\"]\n";
    Ok(fs::write(directory.join("Dockerfile"), text)?)
}

/// The large context; contents are others in each round, and do not compress.
fn large(directory: &Path, round: usize) -> Result<()> {
    let (directories, files, bytes) = LARGE;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(round as u64 + 1);
    let mut content = vec![0; bytes];
    for number in 0..directories {
        let below = directory.join(format!("directory-{number}"));
        fs::create_dir_all(&below)?;
        for number in 0..files {
            for word in content.chunks_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
            }
            File::create(below.join(format!("file-{number}")))?.write_all(&content)?;
        }
    }
    Ok(fs::write(directory.join("Dockerfile"), "FROM app:1\nCOPY . /data\n")?)
}

fn stages(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let mut text = "ARG ROUND\n".to_owned();
    for number in 0..10 {
        let _ = write!(
            text,
            "FROM app:1 AS stage{number}\nARG ROUND\n\
             RUN echo $ROUND {number} > /out && dd if=/dev/zero bs=1048576 count={WORK} 2>/dev/null | sha256sum >> /out\n"
        );
    }
    text += "FROM app:1\n";
    for number in 0..10 {
        let _ = writeln!(text, "COPY --from=stage{number} /out /out-{number}");
    }
    Ok(fs::write(directory.join("Dockerfile"), text)?)
}
