//! `cargo xtask compare`: the same command lines against a real Docker and against Hull.
//!
//! The lines are in `xtask/compare/*.txt`, run by a shell in which `docker` is one engine or the other, each file from a
//! state without containers, volumes, networks and with one image, `busybox`. Exit code, standard output and the first
//! line of standard error are compared after [`normal`] has taken out what must differ. A line may be followed by its
//! known difference, with the reason; the run fails on a difference that is not listed and on a listed one that is gone.
//!
//! It needs root, a `docker` client (`--docker`), its daemon (`DOCKER_HOST`) with nothing of value in it, as everything
//! there is removed, and an archive of a root file system with busybox (`--rootfs`).

mod normal;
mod script;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Result, workspace};
use script::Line;

const USAGE: &str = "usage: cargo xtask compare --docker PROGRAM --hull PROGRAM --rootfs ARCHIVE [--show] [FILE...]";

/// What is printed of a line that differs.
const SHOWN: usize = 1500;

/// What a line did, normalised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

/// One of the two: where its program and its files are.
struct Side {
    directory: PathBuf,
}

#[derive(Default)]
struct Options {
    docker: PathBuf,
    hull: PathBuf,
    rootfs: PathBuf,
    /// Print known differences too.
    show: bool,
    files: Vec<String>,
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let mut value = || rest.next().map(PathBuf::from).ok_or(USAGE);
        match word.as_str() {
            "--docker" => options.docker = value()?,
            "--hull" => options.hull = value()?,
            "--rootfs" => options.rootfs = value()?,
            "--show" => options.show = true,
            file if !file.starts_with('-') => options.files.push(file.to_owned()),
            _ => return Err(USAGE.into()),
        }
    }
    for given in [&mut options.docker, &mut options.hull, &mut options.rootfs] {
        *given = given.canonicalize().map_err(|error| format!("{}: {error}\n{USAGE}", given.display()))?;
    }
    Ok(options)
}

impl Side {
    /// A directory with the program `docker` in it.
    fn new(base: &Path, program: &Path, is_hull: bool) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = base.join(if is_hull { "hull" } else { "docker" });
        std::fs::create_dir_all(directory.join("bin"))?;
        std::fs::create_dir_all(directory.join("config"))?;
        let program = program.display();
        let text = if is_hull {
            let at = directory.display();
            format!("#!/bin/sh\nexec {program} --root {at}/data --state {at}/state \"$@\"\n")
        } else {
            format!("#!/bin/sh\nexec {program} \"$@\"\n")
        };
        let script = directory.join("bin/docker");
        std::fs::write(&script, text)?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { directory })
    }

    /// Runs a line in the directory `work`, for at most so many seconds.
    fn run(&self, line: &str, seconds: u32) -> Result<Outcome> {
        let work = self.directory.join("work");
        std::fs::create_dir_all(&work)?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.directory.join("bin").display());
        let out = |name: &str| std::fs::File::create(self.directory.join(name));
        let mut command = Command::new("timeout");
        command.args(["-k", "1", &seconds.to_string(), "sh", "-c", line]);
        command.env_clear().env("PATH", path).env("HOME", &self.directory).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env("DOCKER_CONFIG", self.directory.join("config"));
        for name in ["DOCKER_HOST", "HULL_SNAPSHOTTER"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // Files, because a process that lives on keeps a pipe open.
        let status =
            command.current_dir(&work).stdin(Stdio::null()).stdout(out("stdout")?).stderr(out("stderr")?).status()?;
        let read = |name: &str| -> Result<String> {
            Ok(String::from_utf8_lossy(&std::fs::read(self.directory.join(name))?).into_owned())
        };
        let (stdout, stderr) = (read("stdout")?, read("stderr")?);
        let mut errors = stderr.lines().filter(|line| !line.trim().is_empty());
        let mut first = errors.next().unwrap_or_default().to_owned();
        if first.ends_with(':') {
            // Docker writes a list of what is wrong below; Hull writes one line.
            first = format!("{first} {}", errors.next().unwrap_or_default().trim_start_matches("* "));
        }
        Ok(Outcome {
            code: status.code().unwrap_or(-1),
            stdout: normal::output(&stdout),
            stderr: normal::error(&first),
        })
    }

    fn begin(&self, rootfs: &Path) -> Result<()> {
        // What a person left in the daemon, its builder's records included, would show in `system df` and in lists.
        let left = self.run(
            "docker rm -fv $(docker ps -aq) >/dev/null 2>&1; docker volume rm -f $(docker volume ls -q) >/dev/null 2>&1; \
             docker network prune -f >/dev/null 2>&1; docker rmi -f $(docker images -aq) >/dev/null 2>&1; \
             docker builder prune -af >/dev/null 2>&1; docker image prune -af >/dev/null 2>&1; \
             docker ps -aq; docker volume ls -q; docker images -aq; \
             docker network ls --format '{{.Name}}' | grep -vx -e bridge -e host -e none; \
             docker system df --format '{{.Type}} {{.TotalCount}}' | grep '^Build Cache' | grep -v ' 0$'",
            120,
        )?;
        if !left.stdout.trim().is_empty() || !left.stderr.is_empty() {
            return Err(format!("cannot begin: there is still {:?} {}", left.stdout.trim(), left.stderr).into());
        }
        let outcome = self.run(
            &format!(
                "cd ..; rm -rf work; mkdir work; \
                 docker import -c 'CMD [\"sh\"]' -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' {} busybox",
                rootfs.display()
            ),
            120,
        )?;
        if outcome.code == 0 { Ok(()) } else { Err(format!("cannot begin: {}", outcome.stderr).into()) }
    }

    /// Runs all lines of a file.
    fn file(&self, lines: &[Line], rootfs: &Path) -> Result<Vec<Outcome>> {
        self.begin(rootfs)?;
        lines.iter().map(|line| self.run(&line.text, 40)).collect()
    }
}

/// Prints the lines that only one of two texts has.
fn print_difference(what: &str, docker: &str, hull: &str) {
    if docker == hull {
        return;
    }
    let (before, after): (Vec<&str>, Vec<&str>) = (docker.lines().collect(), hull.lines().collect());
    let mut text = String::new();
    for line in before.iter().filter(|line| !after.contains(line)) {
        text.push_str(&format!("    docker {what}: {line}\n"));
    }
    for line in after.iter().filter(|line| !before.contains(line)) {
        text.push_str(&format!("    hull   {what}: {line}\n"));
    }
    if text.is_empty() {
        text = format!("    {what}: the same lines in another order or number: docker {before:?}, hull {after:?}\n");
    }
    print!("{}", text.chars().take(SHOWN).collect::<String>());
}

fn print(line: &Line, docker: &Outcome, hull: &Outcome) {
    println!("  $ {}", line.text);
    if docker.code != hull.code {
        println!("    docker exit code {}, hull {}", docker.code, hull.code);
    }
    print_difference("stdout", &docker.stdout, &hull.stdout);
    print_difference("stderr", &docker.stderr, &hull.stderr);
}

/// Runs the comparison.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = options(arguments)?;
    // Bridges and published ports of the lines are nobody else's.
    hull_sys::clone::unshare(hull_sys::clone::CloneFlags::NEWNET)?;
    crate::check(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let base = std::env::temp_dir().join(format!("hull-compare-{}", std::process::id()));
    let sides = [Side::new(&base, &options.docker, false)?, Side::new(&base, &options.hull, true)?];
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(workspace().join("xtask/compare"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "txt")
            && (options.files.is_empty() || options.files.contains(&name))
        {
            files.insert(name, script::parse(&std::fs::read_to_string(&path)?)?);
        }
    }
    let (mut equal, mut known, mut wrong) = (0, 0, 0);
    for (name, lines) in &files {
        println!("{name}: {} lines", lines.len());
        let rootfs = &options.rootfs;
        let (docker, hull) = std::thread::scope(|scope| {
            let docker = scope.spawn(|| sides[0].file(lines, rootfs).map_err(|error| error.to_string()));
            let hull = sides[1].file(lines, rootfs).map_err(|error| error.to_string());
            (docker.join().unwrap_or_else(|_| Err("the thread of docker died".to_owned())), hull)
        });
        for ((line, docker), hull) in lines.iter().zip(docker?).zip(hull?) {
            match (&line.known, docker == hull) {
                (None, true) => equal += 1,
                (Some(reason), false) => {
                    known += 1;
                    if options.show {
                        println!("  known: {reason}");
                        print(line, &docker, &hull);
                    }
                }
                (None, false) => {
                    wrong += 1;
                    print(line, &docker, &hull);
                }
                (Some(reason), true) => {
                    wrong += 1;
                    println!("  $ {}\n    equal now, but listed: {reason}", line.text);
                }
            }
        }
    }
    sides[1].run("docker rm -fv $(docker ps -aq); docker network prune -f", 60)?;
    std::fs::remove_dir_all(&base)?;
    let total = equal + known + wrong;
    println!("{total} lines: {equal} equal, {known} known differences, {wrong} unexpected");
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} lines differ otherwise than listed").into()) }
}
