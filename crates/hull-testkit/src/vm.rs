//! A virtual machine with pure cgroup v2: Debian's user-mode-linux, an ordinary process that boots in two seconds over
//! the host's own file system, mounted read-only.
//!
//! The guest's init is a shell script, run by the static busybox. Under `/run/vm` it finds the files that the test put
//! on the [`Vm`]; `/run` and `/tmp` are its own and empty. It reports on the console, one line each:
//!
//! ```text
//! ok NAME
//! FAILED NAME: why
//! ```
//!
//! Nothing that the guest does reaches the host, except through a disk that the test attached.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Init: mounts, every controller delegated or systemd started, then [`SESSION`].
const INIT: &str = include_str!("vm-init.sh");

/// The functions that a test's script may use, the script, and the end.
const SESSION: &str = include_str!("vm-session.sh");

/// Where Debian has systemd.
const SYSTEMD: &str = "/lib/systemd/systemd";

/// What [`KERNEL`] is given where the processor has registers that it does not know.
const XSTATE: &str = include_str!("vm-xstate.c");

/// The kernel's file name.
const KERNEL: &str = "linux.uml";

/// The file under the guest's `/run/vm` that holds the test's own script.
const SCRIPT: &str = "script";

/// A virtual machine that is yet to boot.
#[derive(Debug)]
pub struct Vm {
    kernel: PathBuf,
    stage: TempDir,
    root: PathBuf,
    disk: Option<u64>,
    limit: Duration,
}

/// What a machine left when it powered off.
#[derive(Debug)]
pub struct Console {
    /// Everything that appeared on the console.
    pub text: String,
    reports: BTreeMap<String, Option<String>>,
}

impl Vm {
    /// A machine over the host's root directory, or `None` if no kernel or no static busybox is installed.
    ///
    /// # Panics
    /// If the temporary directory cannot be made.
    #[must_use]
    pub fn new() -> Option<Self> {
        let kernel =
            ["/usr/bin", "/usr/local/bin"].iter().map(|dir| Path::new(dir).join(KERNEL)).find(|path| path.is_file())?;
        let stage = tempfile::Builder::new().prefix("hull-vm-").tempdir().expect("temporary directory");
        let vm = Self { kernel, stage, root: "/".into(), disk: None, limit: Duration::from_secs(100) };
        Path::new("/bin/busybox").is_file().then_some(vm)
    }

    /// Boots over another directory of the host that holds a whole system; `stage` is a directory inside it.
    ///
    /// # Panics
    /// If a temporary directory cannot be made in `stage`.
    #[must_use]
    pub fn root(mut self, root: &Path, stage: &Path) -> Self {
        self.root = root.to_path_buf();
        self.stage = tempfile::Builder::new().prefix("hull-vm-").tempdir_in(stage).expect("temporary directory");
        self
    }

    /// Attaches an empty disk of this many bytes as `/dev/ubda` (98:0).
    #[must_use]
    pub const fn disk(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// Lets the host's systemd be the machine's init; the script then runs as a service. `None` if it is not installed.
    #[must_use]
    pub fn systemd(self) -> Option<Self> {
        Path::new(SYSTEMD).is_file().then(|| self.file("systemd", b""))
    }

    /// Kills the machine after this time instead of 100 seconds.
    #[must_use]
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Puts a copy of a program at `/run/vm/NAME`.
    ///
    /// # Panics
    /// If it cannot be copied.
    #[must_use]
    pub fn program(self, name: &str, path: &Path) -> Self {
        std::fs::copy(path, self.stage.path().join(name))
            .unwrap_or_else(|error| panic!("copy {}: {error}", path.display()));
        self
    }

    /// Puts a file at `/run/vm/NAME`; directories in the name are made.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        let path = self.stage.path().join(name);
        let written =
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, content));
        written.unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        self
    }

    /// Boots, runs `script` with the functions of the init script at hand, and returns when the machine is off.
    ///
    /// # Panics
    /// If the kernel cannot be started, or the machine does not power off within its limit.
    #[must_use]
    pub fn run(self, script: &str) -> Console {
        let inside = |name: &str| {
            let path = self.stage.path().join(name);
            let relative = path.strip_prefix(&self.root).expect("the stage lies in the machine's root");
            Path::new("/").join(relative)
        };
        let init = INIT.replace("@STAGE@", &inside("").to_string_lossy());
        let path = self.stage.path().join("init");
        std::fs::write(&path, init).expect("write init");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod init");
        std::fs::write(self.stage.path().join("session"), SESSION).expect("write session");
        std::fs::write(self.stage.path().join(SCRIPT), script).expect("write script");

        let mut command = Command::new(&self.kernel);
        command.arg("mem=1G").arg("rootfstype=hostfs").arg(format!("rootflags={}", self.root.display())).arg("ro");
        command.arg(format!("init={}", inside("init").display())).args(["con=null", "con0=fd:0,fd:1", "quiet"]);
        command.arg(format!("uml_dir={}/", self.stage.path().display()));
        if let Some(bytes) = self.disk {
            let image = self.stage.path().join("disk");
            std::fs::File::create(&image).and_then(|file| file.set_len(bytes)).expect("make disk");
            command.arg(format!("ubda={}", image.display()));
        }
        if let Some(library) = xstate_library(self.stage.path()) {
            command.env("LD_PRELOAD", library);
        }
        // Its own group, so that the threads and helper processes of the kernel die with it.
        command
            .env("TMPDIR", "/tmp")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        Console::read(&capture(&mut command, self.limit))
    }
}

/// Compiles [`XSTATE`] where the processor has AMX. Whoever builds tests has a C compiler.
fn xstate_library(stage: &Path) -> Option<PathBuf> {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !processors.split_ascii_whitespace().any(|flag| flag == "amx_tile") {
        return None;
    }
    let (source, library) = (stage.join("xstate.c"), stage.join("xstate.so"));
    std::fs::write(&source, XSTATE).expect("write xstate.c");
    let made = Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(made.as_ref().is_ok_and(std::process::ExitStatus::success), "cc of xstate.c: {made:?}");
    Some(library)
}

/// The command's output, or a panic with what there is of it when the time is up.
fn capture(command: &mut Command, limit: Duration) -> String {
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    let mut output = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = output.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).replace('\r', "")
    });
    let begin = Instant::now();
    let mut late = false;
    while child.try_wait().expect("wait").is_none() {
        if begin.elapsed() > limit {
            late = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("pid");
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    let _ = child.wait();
    let text = reader.join().expect("reader");
    assert!(!late, "the virtual machine ran longer than {limit:?}; its console:\n{text}");
    text
}

impl Console {
    fn read(text: &str) -> Self {
        let mut reports = BTreeMap::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("ok ") {
                // A name that failed once has failed.
                reports.entry(name.trim().to_owned()).or_insert(None);
            } else if let Some(rest) = line.strip_prefix("FAILED ") {
                let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
                reports.insert(name.trim().to_owned(), Some(why.to_owned()));
            }
        }
        Self { text: text.to_owned(), reports }
    }

    /// Asserts that exactly these names were reported, each `ok`.
    ///
    /// # Panics
    /// With the whole console if one failed, is missing or is not listed.
    #[track_caller]
    pub fn assert_ok(&self, names: &[&str]) {
        let mut faults = Vec::new();
        for (name, failure) in &self.reports {
            match failure {
                Some(why) => faults.push(format!("{name}: {why}")),
                None if !names.contains(&name.as_str()) => faults.push(format!("{name}: reported but not expected")),
                None => {}
            }
        }
        let missing = names.iter().filter(|name| !self.reports.contains_key(**name));
        faults.extend(missing.map(|name| format!("{name}: not reported")));
        assert!(faults.is_empty(), "{}\nconsole:\n{}", faults.join("\n"), self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_from_the_console() {
        let console = Console::read("Core dump limits :\nok a\nFAILED b: want 1, got 2\nok b\nok c d\n");
        assert_eq!(console.reports["a"], None);
        assert_eq!(console.reports["b"].as_deref(), Some("want 1, got 2"));
        assert!(console.reports.contains_key("c d"));
    }

    #[test]
    #[should_panic(expected = "c: not reported")]
    fn a_missing_report_is_a_failure() {
        Console::read("ok a\n").assert_ok(&["a", "c"]);
    }

    #[test]
    #[should_panic(expected = "b: reported but not expected")]
    fn an_unknown_report_is_a_failure() {
        Console::read("ok a\nok b\n").assert_ok(&["a"]);
    }
}
