//! `cargo xtask clients`: the programs that people already use, against `hull serve` and against dockerd.
//!
//! The scenarios are in `xtask/clients`. Each is a program of some client library's language and prints a line for each
//! thing that it finds out. Where a dockerd is given (`--docker unix://SOCKET`, with no containers and networks in it) both run and
//! their lines must be equal; `--record` writes down what dockerd's run said. Without one, Hull's lines must be those that
//! were written down. A line that ends with `# REASON` in `NAME.known` may differ.
//!
//! Libraries come from their registries, as this machine is configured; a scenario whose tools are not there, or whose
//! libraries cannot be had, is skipped, and says so. With `CI=true` that is a failure, but for Compose: Debian 12 has no
//! `docker compose`. It needs root and busybox.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::served::{Server, import, rootfs};
use crate::{Result, workspace};

const USAGE: &str = "usage: cargo xtask clients [--hull PROGRAM] [--docker unix://SOCKET] [--record] [NAME...]";

/// Name, program and the libraries that it needs.
const SCENARIOS: [(&str, Tool, &[&str]); 7] = [
    ("docker-py", Tool::Python, &["docker==7.1.0"]),
    ("testcontainers-py", Tool::Python, &["testcontainers==4.13.0"]),
    ("dockerode", Tool::Node, &["dockerode@4.0.9"]),
    ("testcontainers", Tool::Node, &["testcontainers@10.28.0"]),
    ("bollard", Tool::Rust, &[]),
    ("compose", Tool::Shell, &[]),
    ("docker-20", Tool::Debian, &["docker.io"]),
];

/// Seconds for a scenario.
const PATIENCE: &str = "150";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Python,
    Node,
    Rust,
    Shell,
    /// Programs of Debian packages that are taken out of them: their daemons are not wanted.
    Debian,
}

#[derive(Default)]
struct Options {
    hull: PathBuf,
    docker: Option<String>,
    record: bool,
    names: Vec<String>,
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--hull" => options.hull = PathBuf::from(rest.next().ok_or(USAGE)?),
            "--docker" => options.docker = Some(rest.next().ok_or(USAGE)?.clone()),
            "--record" => options.record = true,
            name if SCENARIOS.iter().any(|(known, ..)| known == &name) => options.names.push(name.to_owned()),
            _ => return Err(USAGE.into()),
        }
    }
    if options.hull.as_os_str().is_empty() {
        options.hull = crate::release::built()?;
    }
    options.hull =
        options.hull.canonicalize().map_err(|error| format!("{}: {error}\n{USAGE}", options.hull.display()))?;
    if options.record && options.docker.is_none() {
        return Err("--record needs --docker".into());
    }
    Ok(options)
}

/// Runs a command; what it said last, if it failed.
fn attempt(command: &mut Command) -> std::result::Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = text.lines().rev().take(5).collect();
    Err(last.into_iter().rev().collect::<Vec<_>>().join("\n  "))
}

/// Gets what a scenario needs, and says how it is run; or why it cannot be.
fn prepare(name: &str, tool: Tool, libraries: &[&str], tools: &Path) -> std::result::Result<Command, String> {
    let own = tools.join(name);
    let source = workspace().join("xtask/clients");
    std::fs::create_dir_all(&own).map_err(|error| error.to_string())?;
    let fetched = own.join("fetched");
    let wanted = libraries.join("\n");
    let is_there = std::fs::read_to_string(&fetched).is_ok_and(|text| text == wanted);
    let cannot = |why: String| format!("its libraries cannot be had: {why}");
    let mut command = Command::new("timeout");
    command.args(["-k", "5", PATIENCE]);
    match tool {
        Tool::Python => {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&own).args(libraries);
            if !is_there {
                attempt(&mut pip).map_err(cannot)?;
            }
            command.arg("python3").arg(source.join(format!("{name}.py"))).env("PYTHONPATH", &own);
        }
        Tool::Node => {
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&own).args(libraries);
            if !is_there {
                attempt(&mut npm).map_err(cannot)?;
            }
            command.arg("node").arg(source.join(format!("{name}.js"))).env("NODE_PATH", own.join("node_modules"));
        }
        Tool::Rust => {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(source.join(name).join("Cargo.toml"));
            // Its own target, outside the workspace's.
            cargo.current_dir(std::env::temp_dir()).env("CARGO_TARGET_DIR", &own);
            attempt(&mut cargo).map_err(cannot)?;
            command.arg(own.join("debug").join(format!("{name}-scenario")));
        }
        Tool::Shell => {
            attempt(Command::new("docker").args(["compose", "version"]))
                .map_err(|_| "no docker with its plugin compose".to_owned())?;
            command.arg("sh").arg(source.join(format!("{name}.sh")));
        }
        Tool::Debian => {
            if !is_there {
                attempt(Command::new("apt-get").args(["download", "-q"]).args(libraries).current_dir(&own))
                    .map_err(cannot)?;
                attempt(
                    Command::new("sh")
                        .args(["-c", "for one in *.deb; do dpkg -x $one . && rm $one || exit; done"])
                        .current_dir(&own),
                )
                .map_err(cannot)?;
            }
            // Later ones speak another version, which is another scenario.
            let version = Command::new(own.join("usr/bin/docker"))
                .arg("--version")
                .output()
                .map_err(|error| error.to_string())?;
            if !String::from_utf8_lossy(&version.stdout).contains(" 20.10.") {
                return Err("no docker of Debian 12".to_owned());
            }
            let path = std::env::var("PATH").unwrap_or_default();
            command.arg("sh").arg(source.join(format!("{name}.sh")));
            command
                .env("PATH", format!("{}:{path}", own.join("usr/bin").display()))
                .env("DOCKER_CONFIG", own.join("config"));
        }
    }
    std::fs::write(&fetched, wanted).map_err(|error| error.to_string())?;
    Ok(command)
}

/// IDs are never the same.
pub(crate) fn without_ids(line: &str) -> String {
    let (mut result, mut digits) = (String::new(), String::new());
    for one in line.chars().chain(['\n']) {
        if matches!(one, '0'..='9' | 'a'..='f') {
            digits.push(one);
            continue;
        }
        result.push_str(if matches!(digits.len(), 12 | 64) { "ID" } else { &digits });
        digits.clear();
        result.push(one);
    }
    result.pop();
    result
}

/// Runs a scenario and returns its lines; the last one is how it ended.
fn run_one(command: &mut Command, name: &str, address: &str, base: &Path) -> Result<Vec<String>> {
    let work = base.join(format!("{name}-{}", address.len()));
    if work.exists() {
        std::fs::remove_dir_all(&work)?;
    }
    let given = workspace().join("xtask/clients").join(name);
    if given.is_dir() {
        crate::check(Command::new("cp").arg("-r").arg(given).arg(&work))?;
    } else {
        std::fs::create_dir_all(&work)?;
    }
    let errors = std::fs::File::create(work.join("stderr"))?;
    command.current_dir(&work).env("DOCKER_HOST", address).env("TESTCONTAINERS_RYUK_DISABLED", "true");
    command.env("DOCKER_BUILDKIT", "1").env("TZ", "UTC").env("LC_ALL", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.stdin(Stdio::null()).stderr(errors).output()?;
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(without_ids).collect();
    lines.push(format!("ended with {}", output.status.code().unwrap_or(-1)));
    if !output.status.success() {
        let text = std::fs::read_to_string(work.join("stderr")).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(12).collect();
        eprintln!("{name}: error output:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok(lines)
}

/// Prints where lines differ, and returns how often.
fn differences(name: &str, docker: &[String], hull: &[String]) -> usize {
    let known = std::fs::read_to_string(workspace().join(format!("xtask/clients/{name}.known"))).unwrap_or_default();
    let is_known = |line: &str| known.lines().any(|one| one.split(" # ").next() == line.split(':').next());
    let mut count = 0;
    for at in 0..docker.len().max(hull.len()) {
        let [theirs, ours] = [docker, hull].map(|lines| lines.get(at).map_or("(nothing)", String::as_str));
        if theirs != ours && !is_known(theirs) {
            count += 1;
            println!("  docker {theirs}\n  hull   {ours}");
        }
    }
    count
}

/// Runs the scenarios.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = options(arguments)?;
    let tools = crate::target_directory().join("clients");
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    let is_wanted = |name: &str| options.names.is_empty() || options.names.iter().any(|wanted| wanted == name);
    let wanted: Vec<_> = SCENARIOS.into_iter().filter(|(name, ..)| is_wanted(name)).collect();
    let begun = std::time::Instant::now();
    // Registries and compilers are waited for together.
    let prepared: Vec<_> = std::thread::scope(|scope| {
        let tools = &tools;
        let all: Vec<_> = wanted
            .iter()
            .map(|(name, tool, libraries)| scope.spawn(|| prepare(name, *tool, libraries, tools)))
            .collect();
        all.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    println!("libraries: {:.1} s", begun.elapsed().as_secs_f64());
    let mut ready = Vec::new();
    for ((name, tool, _), prepared) in wanted.into_iter().zip(prepared) {
        match prepared.map_err(|_| format!("{name}: preparing it broke off"))? {
            Ok(command) => ready.push((name, command)),
            Err(why) if strict && tool != Tool::Shell => return Err(format!("{name}: {why}").into()),
            Err(why) => println!("skipped: {name}: {why}"),
        }
    }
    // Bridges and published ports are nobody else's.
    hull_sys::clone::unshare(hull_sys::clone::CloneFlags::NEWNET)?;
    crate::check(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let base = std::env::temp_dir().join(format!("hull-clients-{}", std::process::id()));
    std::fs::create_dir_all(&base)?;
    let archive = rootfs(&base)?;
    let server = Server::start(&options.hull, &base)?;
    import(&server.address, &archive)?;
    if let Some(docker) = &options.docker {
        import(docker, &archive)?;
    }
    let mut wrong = 0;
    for (name, command) in &mut ready {
        let begun = std::time::Instant::now();
        let hull = run_one(command, name, &server.address, &base)?;
        let took = begun.elapsed();
        let expected = workspace().join(format!("xtask/clients/{name}.expected"));
        let docker = match &options.docker {
            Some(address) => run_one(command, name, address, &base)?,
            None => std::fs::read_to_string(&expected)?.lines().map(str::to_owned).collect(),
        };
        if options.record {
            std::fs::write(&expected, format!("{}\n", docker.join("\n")))?;
        }
        let count = differences(name, &docker, &hull);
        println!("{name}: {} lines, {count} differ, {:.1} s", hull.len(), took.as_secs_f64());
        wrong += count;
    }
    server.clean()?;
    std::fs::remove_dir_all(&base)?;
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} lines differ").into()) }
}
