//! `cargo xtask clients`: the programs that people already use, against `hull serve` and against dockerd.
//!
//! The scenarios are in `xtask/clients`. Each is a program of some client library's language and prints a line for each
//! thing that it finds out. Where a dockerd is given (`--docker unix://SOCKET`, with no containers and networks in it) both run and
//! their lines must be equal; `--record` writes down what dockerd's run said. Without one, Hull's lines must be those that
//! were written down. A line that ends with `# REASON` in `NAME.known` may differ.
//!
//! Libraries come from their registries, as this machine is configured; a scenario whose tools are not there, or whose
//! libraries cannot be had, is skipped, and says so. It needs root and busybox.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{Result, workspace};

const USAGE: &str = "usage: cargo xtask clients --hull PROGRAM [--docker unix://SOCKET] [--record] [NAME...]";

/// Name, program and the libraries that it needs.
const SCENARIOS: [(&str, Tool, &[&str]); 6] = [
    ("docker-py", Tool::Python, &["docker==7.1.0"]),
    ("testcontainers-py", Tool::Python, &["testcontainers==4.13.0"]),
    ("dockerode", Tool::Node, &["dockerode@4.0.9"]),
    ("testcontainers", Tool::Node, &["testcontainers@10.28.0"]),
    ("bollard", Tool::Rust, &[]),
    ("compose", Tool::Shell, &[]),
];

/// Seconds for a scenario.
const PATIENCE: &str = "150";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Python,
    Node,
    Rust,
    Shell,
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
    options.hull = options.hull.canonicalize().map_err(|error| format!("--hull: {error}\n{USAGE}"))?;
    if options.record && options.docker.is_none() {
        return Err("--record needs --docker".into());
    }
    Ok(options)
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Gets what a scenario needs, and says how it is run; or why it cannot be.
fn prepare(name: &str, tool: Tool, libraries: &[&str], tools: &Path) -> std::result::Result<Command, String> {
    let own = tools.join(name);
    let source = workspace().join("xtask/clients");
    std::fs::create_dir_all(&own).map_err(|error| error.to_string())?;
    let fetched = own.join("fetched");
    let wanted = libraries.join("\n");
    let is_there = std::fs::read_to_string(&fetched).is_ok_and(|text| text == wanted);
    let cannot = |what: &str| format!("{what} cannot be had");
    let mut command = Command::new("timeout");
    command.args(["-k", "5", PATIENCE]);
    match tool {
        Tool::Python => {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&own).args(libraries);
            if !is_there && !succeeds(&mut pip) {
                return Err(cannot(libraries[0]));
            }
            command.arg("python3").arg(source.join(format!("{name}.py"))).env("PYTHONPATH", &own);
        }
        Tool::Node => {
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&own).args(libraries);
            if !is_there && !succeeds(&mut npm) {
                return Err(cannot(libraries[0]));
            }
            command.arg("node").arg(source.join(format!("{name}.js"))).env("NODE_PATH", own.join("node_modules"));
        }
        Tool::Rust => {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--manifest-path"]).arg(source.join(name).join("Cargo.toml"));
            // Its own target, outside the workspace's.
            cargo.current_dir(std::env::temp_dir()).env("CARGO_TARGET_DIR", &own);
            if !succeeds(&mut cargo) {
                return Err(cannot(name));
            }
            command.arg(own.join("debug").join(format!("{name}-scenario")));
        }
        Tool::Shell => {
            if !succeeds(Command::new("docker").args(["compose", "version"])) {
                return Err("no docker with its plugin compose".to_owned());
            }
            command.arg("sh").arg(source.join(format!("{name}.sh")));
        }
    }
    std::fs::write(&fetched, wanted).map_err(|error| error.to_string())?;
    Ok(command)
}

/// A root file system with busybox, as an archive.
fn rootfs(base: &Path) -> Result<Vec<u8>> {
    let root = base.join("rootfs");
    for name in ["bin", "etc", "root", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let busybox = path.split(':').map(|place| Path::new(place).join("busybox")).find(|path| path.exists());
    std::fs::copy(busybox.ok_or("no busybox")?, root.join("bin/busybox"))?;
    let list = Command::new(root.join("bin/busybox")).arg("--list").output()?;
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    std::fs::write(root.join("etc/group"), "root:x:0:\n")?;
    let archive = base.join("rootfs.tar");
    crate::check(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg("."))?;
    Ok(std::fs::read(archive)?)
}

/// Gives an engine its only image.
fn import(address: &str, archive: &[u8]) -> Result<()> {
    let mut stream = UnixStream::connect(address.trim_start_matches("unix://"))?;
    let change = "CMD%20%5B%22sh%22%5D";
    let head = format!(
        "POST /images/create?fromSrc=-&repo=busybox&tag=latest&changes={change} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        archive.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(archive)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let is_made = answer.starts_with("HTTP/1.1 200") && !answer.contains("\"error\"");
    if is_made { Ok(()) } else { Err(format!("{address}: the image cannot be made: {answer}").into()) }
}

/// Hull's server; dropping it ends it.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(hull: &Path, base: &Path) -> Result<Self> {
        let address = format!("unix://{}", base.join("hull.sock").display());
        let mut command = Command::new(hull);
        command.arg("--root").arg(base.join("data")).arg("--state").arg(base.join("state"));
        command
            .env_remove("HULL_DEFAULT_NETWORK")
            .args(["serve", "-H", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        // It says so when it can be reached.
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        Ok(Self { child, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// IDs are never the same.
fn without_ids(line: &str) -> String {
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
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let tools = target.join("clients");
    let mut ready = Vec::new();
    for (name, tool, libraries) in SCENARIOS {
        if !options.names.is_empty() && !options.names.iter().any(|wanted| wanted == name) {
            continue;
        }
        match prepare(name, tool, libraries, &tools) {
            Ok(command) => ready.push((name, command)),
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
    drop(server);
    std::fs::remove_dir_all(&base)?;
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} lines differ").into()) }
}
