//! `cargo xtask screenshots`: the pictures of the README, of Hull as it is.
//!
//! Each command runs on a pseudo-terminal; what would be seen of it ([`terminal`]) is written to
//! `docs/img/NAME.svg` by [`svg`]. Nothing is drawn that was not printed, but the prompt. Containers run in mount, network
//! and host name namespaces of this process, on a store that is removed at the end and seems to be where users have theirs;
//! the base image is composed first, from the distribution's archive, with the machine's network. It needs root and curl.

mod svg;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hull_sys::clone::CloneFlags;
use hull_testkit::terminal::Terminal;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount};

use crate::{Result, workspace};

const USAGE: &str = "usage: cargo xtask screenshots [--hull PROGRAM]";

/// What the machine is called in the pictures.
const HOST: &str = "debian";
/// Where Hull keeps everything unless it is told otherwise.
const DATA: &str = "/var/lib/hull";
/// A command that takes longer has failed.
const MOST: Duration = Duration::from_secs(300);
/// A picture of more bytes is not for a README.
const LARGEST: usize = 60_000;

/// A session on a terminal.
struct Session<'a> {
    stage: &'a Stage,
    seen: vt100::Parser,
}

/// Where everything is, removed at the end.
struct Stage {
    directory: PathBuf,
    program: PathBuf,
    /// What the machine is really called.
    host: String,
}

impl Stage {
    fn new(program: &Path) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("hull-screenshots-{}", std::process::id()));
        let stage = Self {
            program: program.canonicalize()?,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            directory,
        };
        let work = stage.directory.join("work/examples/hello");
        std::fs::create_dir_all(&work)?;
        for name in ["bin", "data", "home"] {
            std::fs::create_dir(stage.directory.join(name))?;
        }
        // What is below these directories is this process's own.
        hull_sys::clone::unshare(CloneFlags::NEWNS)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        for over in ["/var/lib", "/run"] {
            mount("tmpfs", over, "tmpfs", MountFlags::empty(), None)?;
        }
        std::fs::create_dir(DATA)?;
        mount_bind(stage.directory.join("data"), DATA)?;
        std::fs::copy(workspace().join("examples/hello/Dockerfile"), work.join("Dockerfile"))?;
        std::os::unix::fs::symlink(&stage.program, stage.directory.join("bin/hull"))?;
        Ok(stage)
    }

    /// A shell's command line.
    fn shell(&self, line: &str) -> Command {
        let at = |name: &str| self.directory.join(name);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).current_dir(at("work"));
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", at("bin").display()));
        command
            .env("HOME", at("home"))
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env("HOSTNAME", HOST)
            .env("TZ", "UTC");
        for name in ["HULL_DEFAULT_NETWORK", "HULL_ROOT", "HULL_STATE", "NO_COLOR", "COLUMNS", "LINES"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs what nobody sees.
    fn quietly(&self, line: &str) -> Result<()> {
        let output = self.shell(line).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{line}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
    }

    fn session(&self, columns: u16, rows: u16) -> Session<'_> {
        Session { stage: self, seen: terminal::new(columns, rows) }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let gone = self.quietly("hull rm --force $(hull ps -aq) && hull network prune --force");
        let gone = gone.and_then(|()| Ok(unmount(DATA, UnmountFlags::DETACH)?));
        if let Err(error) = gone.and_then(|()| Ok(std::fs::remove_dir_all(&self.directory)?)) {
            eprintln!("{}: {error}", self.directory.display());
        }
    }
}

impl Session<'_> {
    /// Runs a command line to its end, with the prompt before it.
    fn run(&mut self, line: &str) -> Result<&mut Self> {
        self.seen.process(format!("\x1b[1;36m$\x1b[0m \x1b[1m{line}\x1b[0m\r\n").as_bytes());
        let mut terminal = self.start(line)?;
        let status = terminal.end(MOST, |bytes| self.seen.process(bytes))?;
        match status.ok_or_else(|| format!("{line}: it did not end"))? {
            status if status.success() => Ok(self),
            status => Err(format!("{line}: {status}: {}", self.text().trim()).into()),
        }
    }

    /// Runs a program that takes the whole screen for some time, and presses keys; what is seen then.
    fn look(&mut self, line: &str, time: Duration, keys: &str) -> Result<()> {
        let terminal = self.start(line)?;
        for (keys, time) in [("", time), (keys, Duration::from_secs(2))] {
            terminal.press(keys)?;
            let begin = Instant::now();
            while begin.elapsed() < time {
                self.seen.process(&terminal.read()?);
            }
        }
        Ok(())
    }

    fn start(&self, line: &str) -> Result<Terminal> {
        let (rows, columns) = self.seen.screen().size();
        Ok(Terminal::start(self.stage.shell(line), columns, rows)?)
    }

    fn text(&self) -> String {
        let line =
            |line: Vec<terminal::Cell>| line.iter().map(|(character, _)| *character).chain(['\n']).collect::<String>();
        terminal::lines(self.seen.screen()).into_iter().map(line).collect()
    }

    /// Writes the picture, unless it shows what is nobody's business.
    fn write(&self, name: &str, title: &str) -> Result<()> {
        let text = self.text();
        let directory = self.stage.directory.to_string_lossy().into_owned();
        let home = workspace().to_string_lossy().into_owned();
        for secret in [&directory, &home, &self.stage.host] {
            if text.contains(secret.as_str()) {
                return Err(format!("{name}: it shows {secret:?}:\n{text}").into());
            }
        }
        let svg = svg::picture(title, self.seen.screen().size().1, &terminal::lines(self.seen.screen()));
        if svg.len() > LARGEST {
            return Err(format!("{name}: the picture has {} bytes, at most {LARGEST} are wanted", svg.len()).into());
        }
        let path = workspace().join("docs/img").join(format!("{name}.svg"));
        println!("{}: {} bytes\n{text}", path.display(), svg.len());
        std::fs::create_dir_all(workspace().join("docs/img"))?;
        Ok(std::fs::write(path, svg)?)
    }
}

/// Makes the pictures.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let program = match arguments {
        [] => crate::release::build()?,
        [option, program] if option == "--hull" => program.into(),
        _ => return Err(USAGE.into()),
    };
    let stage = Stage::new(&program)?;
    let mut first = stage.session(110, 50);
    first.run("hull bootstrap debian:bookworm --include busybox")?;
    // From here on nothing reaches the machine's own network.
    hull_sys::clone::unshare(CloneFlags::NEWNET | CloneFlags::NEWUTS)?;
    rustix::system::sethostname(HOST.as_bytes())?;
    crate::check(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    first
        .run("hull build --tag hello examples/hello")?
        .run("hull run -d --name hello -p 127.0.0.1:8080:80 --memory 64m --cpus 0.5 --pids-limit 50 hello")?;
    // The server and the first health check take a moment.
    std::thread::sleep(Duration::from_secs(3));
    first
        .run("hull ps --format 'table {{.Names}}\\t{{.Image}}\\t{{.Status}}\\t{{.Ports}}'")?
        .run("curl --silent http://127.0.0.1:8080/")?
        .run("hull stats --no-stream hello")?;
    first.write("first-run", "hull bootstrap, build, run, ps and stats")?;

    let mut explain = stage.session(110, 60);
    explain.run("hull explain hello | head -n 32")?;
    explain.write("explain", "hull explain: what a container may do, and what it uses")?;

    let mut explore = stage.session(110, 60);
    explore.run("hull image explore hello")?;
    explore.write("explore", "hull image explore: what each layer holds and wastes")?;

    let dockerfile = "FROM debian:bookworm\nENV THEME=dark\nCOPY pages /www\nRUN ls /www > /index\n";
    std::fs::create_dir_all(stage.directory.join("work/site/pages"))?;
    std::fs::write(stage.directory.join("work/site/Dockerfile"), dockerfile)?;
    stage.quietly("echo hello > site/pages/index.html; echo about > site/pages/about.html; hull build -t site site")?;
    stage.quietly("echo 'good evening' > site/pages/index.html; sed -i s/dark/light/ site/Dockerfile")?;
    let mut build = stage.session(100, 50);
    build.run("hull build --explain --tag site site")?;
    build.write("build", "hull build --explain: why a step is done again")?;

    let busy = "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo batch done; sleep 0.3; done";
    stage.quietly("hull network create backend")?;
    stage.quietly("hull run -d --name db --network backend --memory 256m hello busybox sleep 100000")?;
    stage.quietly(&format!(
        "hull run -d --name worker --network backend --cpus 0.5 --memory 128m hello sh -c '{busy}'"
    ))?;
    stage.quietly("hull run -d --name cache --read-only --memory 64m hello busybox sleep 100000")?;
    let mut top = stage.session(110, 12);
    top.look("hull top", Duration::from_secs(5), "j")?;
    top.write("top", "hull top: containers with their use, logs and processes")
}
