//! The program: arguments, environment, lookup in `PATH`, working directory, `execve`.

use std::ffi::CString;

use hull_oci::spec::Process;
use hull_sys::attributes;
use hull_sys::clone::{ExecArray, execve};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::user;
use crate::error::Error;
use crate::failure::{Failure, Step};

/// Searched when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest path that the kernel takes.
const PATH_MAX: usize = 4096;

/// Where a program may be: itself if it has a slash, otherwise a file of that name in each absolute `PATH` directory.
pub(super) fn candidates(program: &str, env: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{}/{program}", directory.trim_end_matches('/')))
        .collect()
}

/// Drops all but the last assignment of each name; the order is that of the last assignments.
fn environment(env: &[String]) -> Result<Vec<CString>, Error> {
    let mut kept: Vec<CString> = Vec::with_capacity(env.len() + 1);
    let mut seen = std::collections::BTreeSet::new();
    for (index, entry) in env.iter().enumerate().rev() {
        let field = || format!("process.env[{index}]");
        let (name, _) = entry
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Error::config(field(), format!("{entry:?} is not NAME=value")))?;
        if seen.insert(name) {
            kept.push(c_string(field, entry)?);
        }
    }
    kept.reverse();
    Ok(kept)
}

fn c_string(field: impl Fn() -> String, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::config(field(), "contains a null byte"))
}

/// Everything that `execve` needs.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    argv: ExecArray,
    envp: ExecArray,
    /// Environment with room for the home directory that the child finds.
    home: Option<HomeSlot>,
    candidates: Vec<CString>,
    found: Option<usize>,
    cwd: CString,
    /// Directories to create when the working directory is missing, outermost first.
    missing: Vec<CString>,
}

/// `HOME` was not given: the strings, with an empty last one in `envp` until the child has looked.
#[derive(Debug)]
struct HomeSlot {
    uid: u32,
    env: Vec<CString>,
}

impl Program {
    pub(super) fn new(process: &Process, create_cwd: bool) -> Result<Self, Error> {
        let program = process.args.first().ok_or_else(|| Error::config("process.args", "expected a program"))?;
        if program.is_empty() {
            return Err(Error::config("process.args[0]", "is empty"));
        }
        let mut argv = Vec::with_capacity(process.args.len());
        for (index, argument) in process.args.iter().enumerate() {
            argv.push(c_string(|| format!("process.args[{index}]"), argument)?);
        }
        if !process.cwd.starts_with('/') {
            return Err(Error::config("process.cwd", format!("expected an absolute path, found {:?}", process.cwd)));
        }
        if process.cwd.len() >= PATH_MAX {
            return Err(Error::config("process.cwd", "is longer than 4095 bytes"));
        }
        let env = environment(&process.env)?;
        let given = env.iter().any(|entry| entry.as_bytes().starts_with(b"HOME="));
        let home = (!given).then(|| HomeSlot { uid: process.user.uid, env: env.clone() });
        let candidates = candidates(program, &process.env)
            .into_iter()
            .filter(|candidate| candidate.len() < PATH_MAX)
            .map(|candidate| c_string(|| String::from("process.args[0]"), &candidate))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            args: process.args.clone(),
            env: process.env.clone(),
            argv: ExecArray::new(argv),
            envp: ExecArray::new(env),
            home,
            candidates,
            found: None,
            cwd: c_string(|| String::from("process.cwd"), &process.cwd)?,
            missing: if create_cwd { prefixes(&process.cwd) } else { Vec::new() },
        })
    }

    /// Fills `HOME` from the container's `/etc/passwd`; `/` when the user is not listed.
    ///
    /// Allocates: this process is a copy of a single-threaded one, so its allocator holds no lock.
    pub(super) fn fill_home(&mut self) {
        let Some(HomeSlot { uid, mut env }) = self.home.take() else { return };
        let mut home = [0; PATH_MAX];
        let length = user::home_of(uid, &mut home).filter(|length| *length > 0).unwrap_or_else(|| {
            home[0] = b'/';
            1
        });
        let mut entry = b"HOME=".to_vec();
        entry.extend_from_slice(&home[..length]);
        if let Ok(entry) = CString::new(entry) {
            env.push(entry);
        }
        self.envp = ExecArray::new(env);
    }

    /// Enters the working directory, which is created if it is missing and this is the container's first process.
    /// `EACCES` and `EPERM` mean that another identity may be able to.
    pub(super) fn enter_cwd(&self) -> Result<(), Errno> {
        match self.try_enter() {
            Err(Errno::NOENT) if !self.missing.is_empty() => {
                for directory in &self.missing {
                    match rustix::fs::mkdir(directory.as_c_str(), Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        // A read-only file system, for one; entering tells what is really missing.
                        Err(_) => break,
                    }
                }
                self.try_enter()
            }
            result => result,
        }
    }

    /// A magic link such as `/proc/self/fd/N` could lead out of the container, so none is followed (CVE-2024-21626).
    fn try_enter(&self) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = loop {
            match rustix::fs::openat2(CWD, self.cwd.as_c_str(), flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => break result?,
            }
        };
        rustix::process::fchdir(&directory)
    }

    /// Checks that the working directory is inside the process's root: the kernel names it by an absolute path then.
    pub(super) fn verify_cwd() -> Result<(), Errno> {
        let mut buffer = [0; PATH_MAX];
        match attributes::getcwd(&mut buffer) {
            Ok(path) if path.starts_with(b"/") => Ok(()),
            // Outside, removed, or too long to be the path that was entered.
            Ok(_) => Err(Errno::XDEV),
            Err(errno) => Err(errno),
        }
    }

    /// Finds the program in the container, from the working directory and as the program's user.
    pub(super) fn lookup(&mut self) -> Result<(), Failure> {
        if self.found.is_some() {
            return Ok(());
        }
        let direct = self.args[0].contains('/');
        let mut errno = Errno::NOENT;
        for (index, candidate) in self.candidates.iter().enumerate() {
            match executable(candidate) {
                Ok(()) => {
                    self.found = Some(index);
                    return Ok(());
                }
                // A file that may not be executed does not hide one later in PATH, but is the better message.
                Err(Errno::NOENT | Errno::NOTDIR) if !direct => {}
                Err(other) if direct || errno == Errno::NOENT => errno = other,
                Err(_) => {}
            }
        }
        Err(Failure::new(Step::ProgramLookup, errno))
    }

    /// Becomes the program; returns only the failure.
    pub(super) fn exec(&self) -> Failure {
        let Some(candidate) = self.found.and_then(|index| self.candidates.get(index)) else {
            return Failure::new(Step::ProgramLookup, Errno::NOENT);
        };
        Failure::new(Step::Exec, execve(candidate, &self.argv, &self.envp))
    }

    pub(super) fn describe(&self, failure: &Failure) -> Option<String> {
        let program = self.args.first()?;
        match failure.step {
            Step::WorkingDirectory if failure.errno == Errno::XDEV => Some(format!(
                "change to working directory {:?}: it is outside of the container's root",
                self.cwd.to_string_lossy()
            )),
            Step::WorkingDirectory => {
                Some(format!("change to working directory {:?} (process.cwd)", self.cwd.to_string_lossy()))
            }
            Step::ProgramLookup => Some(format!("exec: {program:?}")),
            Step::Exec => Some(format!("exec {program}")),
            _ => None,
        }
    }
}

fn executable(path: &std::ffi::CStr) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(rustix::fs::stat(path)?.st_mode);
    if kind == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // Kernels before 5.8 cannot say for the effective identity; execve will.
        Err(Errno::NOSYS) => Ok(()),
        result => result,
    }
}

/// `/a`, `/a/b`, `/a/b/c` for `/a/b/c`; nothing when a component is `..`, which has no meaning before its parent exists.
fn prefixes(path: &str) -> Vec<CString> {
    let mut prefix = String::new();
    let mut all = Vec::new();
    for component in path.split('/').filter(|component| !matches!(*component, "" | ".")) {
        if component == ".." {
            return Vec::new();
        }
        prefix.push('/');
        prefix.push_str(component);
        all.extend(CString::new(prefix.as_str()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_last_assignment_wins() {
        let env = environment(&strings(&["A=1", "B=2", "A=3", "C=", "D=x=y"])).unwrap();
        let env: Vec<_> = env.iter().map(|entry| entry.to_str().unwrap()).collect();
        assert_eq!(env, ["B=2", "A=3", "C=", "D=x=y"]);
    }

    #[test]
    fn wrong_environments_are_refused() {
        for entry in ["", "A", "=1", "A=\0"] {
            let error = environment(&strings(&["OK=1", entry])).unwrap_err().to_string();
            assert!(error.contains("process.env[1]"), "{error}");
        }
    }

    #[test]
    fn candidates_come_from_the_last_path() {
        for (program, env, expected) in [
            ("sh", vec!["PATH=/x", "PATH=/a/:/b"], vec!["/a/sh", "/b/sh"]),
            ("sh", vec!["PATH=:.:rel:/a"], vec!["/a/sh"]),
            ("sh", vec!["PATH="], vec![]),
            ("./sh", vec![], vec!["./sh"]),
            ("/bin/sh", vec!["PATH=/a"], vec!["/bin/sh"]),
        ] {
            assert_eq!(candidates(program, &strings(&env)), expected, "{program} {env:?}");
        }
        assert_eq!(candidates("sh", &[]).last().unwrap(), "/bin/sh");
    }

    #[test]
    fn missing_directories_are_listed_outermost_first() {
        let list = |path| prefixes(path).iter().map(|prefix| prefix.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(list("/a//b/./c/"), ["/a", "/a/b", "/a/b/c"]);
        assert!(list("/").is_empty() && list("/a/../b").is_empty());
    }

    #[test]
    fn wrong_programs_are_refused() {
        let make = |args: &[&str], cwd: &str| {
            let process = Process { args: strings(args), cwd: cwd.into(), ..Process::default() };
            Program::new(&process, true).map(drop)
        };
        assert!(make(&["true"], "/").is_ok());
        for (args, cwd, field) in [
            (&[][..], "/", "process.args"),
            (&[""], "/", "process.args[0]"),
            (&["a", "b\0"], "/", "process.args[1]"),
            (&["a"], "", "process.cwd"),
            (&["a"], "x/y", "process.cwd"),
            (&["a"], "/\0", "process.cwd"),
        ] {
            let error = make(args, cwd).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn lookup_distinguishes_missing_and_forbidden() {
        let lookup = |program: &str, env: &[&str]| {
            let process =
                Process { args: strings(&[program]), env: strings(env), cwd: "/".into(), ..Process::default() };
            Program::new(&process, false).unwrap().lookup().map_err(|failure| failure.errno)
        };
        assert_eq!(lookup("sh", &["PATH=/nonexistent:/bin"]), Ok(()));
        assert_eq!(lookup("no-such-program", &[]), Err(Errno::NOENT));
        assert_eq!(lookup("/no/such/program", &[]), Err(Errno::NOENT));
        assert_eq!(lookup("/etc/passwd", &[]), Err(Errno::ACCESS));
        assert_eq!(lookup("/etc", &[]), Err(Errno::ISDIR));
        assert_eq!(lookup("passwd", &["PATH=/etc"]), Err(Errno::ACCESS));
    }

    #[test]
    fn working_directory_is_not_reached_by_magic_links() {
        let enter = |cwd: &str| {
            let process = Process { args: strings(&["x"]), cwd: cwd.into(), ..Process::default() };
            Program::new(&process, false).unwrap().enter_cwd()
        };
        let _held = std::fs::File::open("/usr").unwrap();
        assert_eq!(enter("/usr"), Ok(()));
        assert_eq!(Program::verify_cwd(), Ok(()));
        assert_eq!(enter("/proc/self/cwd"), Err(Errno::LOOP));
        assert_eq!(enter("/proc/self/fd/3"), Err(Errno::LOOP));
        assert_eq!(enter("/nonexistent/x"), Err(Errno::NOENT));
    }
}
