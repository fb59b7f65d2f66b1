//! Why a program could not be executed.
//!
//! `execve(2)` answers `ENOENT` for a missing program, a missing ELF interpreter and a missing script interpreter alike.
//! This module looks into the container's root, from outside and after the fact, and says which file is meant. All that it
//! reads is the image's: every path is resolved inside the root, only regular files are opened, and sizes are bounded.

use std::path::Path;

use hull_fs::{Procfs, Root};
use hull_oci::spec::Process;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::program::candidates;

/// Bytes of a file that are looked at; headers of real programs are in the first page.
const HEAD: usize = 64 << 10;
/// What the kernel reads of a script's first line.
const SHEBANG: usize = 256;
/// Interpreters of interpreters that the kernel follows.
const DEPTH: usize = 5;
/// Longest path that the kernel takes.
const PATH_MAX: usize = 4096;

/// The container engine's texts for errors; front ends look for them.
fn text(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The sentence without a look into the container.
pub(super) fn plain(program: &str, errno: Errno) -> String {
    if !program.contains('/') && errno == Errno::NOENT {
        return format!("exec: {program:?}: executable file not found in $PATH");
    }
    format!("exec: {program:?}: {}", text(errno))
}

/// Says why a process could not be executed. `errno` is what `execve(2)` or the lookup before it answered.
#[must_use]
pub fn diagnose(root: &Root, process: &Process, errno: Errno) -> String {
    let program = process.args.first().map(String::as_str).unwrap_or_default();
    if program.contains('/') && !program.starts_with('/') {
        // The path counts from the working directory; what is said about it is the same.
        let inside = format!("{}/{program}", process.cwd);
        return explain(root, program, &[inside], errno);
    }
    diagnose_exec(root, program, &process.env, errno)
}

/// [`diagnose`] for a program that is an absolute path or is looked up in the environment's `PATH`.
#[must_use]
pub fn diagnose_exec(root: &Root, program: &str, env: &[String], errno: Errno) -> String {
    explain(root, program, &candidates(program, env), errno)
}

fn explain(root: &Root, program: &str, paths: &[String], errno: Errno) -> String {
    let found = paths.iter().find_map(|path| match Found::open(root, path) {
        Found::Missing => None,
        found => Some((path, found)),
    });
    let Some((path, found)) = found else {
        return match paths {
            _ if errno == Errno::ISDIR => format!("exec: {program:?}: is a directory: permission denied"),
            [path] if program.contains('/') => {
                format!(
                    "exec: {program:?}: stat {path}: {}",
                    text(if errno == Errno::NOEXEC { Errno::NOENT } else { errno })
                )
            }
            _ => plain(program, errno),
        };
    };
    let head = match found {
        Found::Directory if path == program => return format!("exec: {program:?}: is a directory: permission denied"),
        Found::Directory => return format!("exec: {program:?}: {path} is a directory: permission denied"),
        Found::Other => return format!("exec: {program:?}: {path} is not a regular file: permission denied"),
        Found::File { mode, .. } if mode & 0o111 == 0 => {
            return format!(
                "exec: {program:?}: permission denied: {path} is not executable (mode {:04o})",
                mode & 0o7777
            );
        }
        Found::File { head, .. } => head,
        Found::Missing => return plain(program, errno),
    };
    let reason = match errno {
        Errno::ACCESS => Some(format!("the user may not execute {path}, or its file system is mounted noexec")),
        Errno::NOENT | Errno::NOEXEC | Errno::LIBBAD | Errno::ISDIR => why(root, path, &head, DEPTH),
        _ => None,
    };
    match reason {
        Some(reason) => format!("exec {path}: {}: {reason}", text(errno)),
        None => format!("exec {path}: {}", text(errno)),
    }
}

/// What is at a path inside the container.
#[derive(Debug)]
enum Found {
    Missing,
    Directory,
    Other,
    File { mode: u32, head: Vec<u8> },
}

impl Found {
    fn open(root: &Root, path: &str) -> Self {
        if path.len() >= PATH_MAX || path.contains('\0') {
            return Self::Missing;
        }
        let Ok(file) = root.resolve(Path::new(path)) else { return Self::Missing };
        let Ok(stat) = rustix::fs::fstat(&file) else { return Self::Missing };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Self::Directory,
            _ => return Self::Other,
        }
        // Opened through its descriptor: what was checked is what is read.
        let mut head = Vec::new();
        if let Ok(procfs) = Procfs::new()
            && let Ok(file) = std::os::fd::AsFd::as_fd(&file).try_clone_to_owned()
            && let Ok(file) = procfs.reopen(std::os::fd::AsFd::as_fd(&file), OFlags::RDONLY | OFlags::NONBLOCK)
        {
            use std::io::Read;
            let _ = std::fs::File::from(file).take(HEAD as u64).read_to_end(&mut head);
        }
        Self::File { mode: stat.st_mode, head }
    }
}

/// What about a file's content keeps it from being executed.
fn why(root: &Root, path: &str, head: &[u8], depth: usize) -> Option<String> {
    if head.is_empty() {
        return Some(format!("{path} is empty"));
    }
    if let Some(line) = head.strip_prefix(b"#!") {
        return why_script(root, path, line, depth);
    }
    match elf(head) {
        Ok(elf) => {
            if let Some(built) = foreign(&elf) {
                return Some(format!("{path} is built for {built}, this machine is {}", std::env::consts::ARCH));
            }
            let interpreter = elf.interpreter?;
            match Found::open(root, &interpreter) {
                Found::Missing => Some(format!(
                    "{path} needs the dynamic loader {interpreter}, which does not exist in the container{}",
                    if interpreter.contains("musl") || interpreter.contains("ld-linux") {
                        " (built for another C library?)"
                    } else {
                        ""
                    }
                )),
                Found::File { mode, head } if mode & 0o111 != 0 => match super::diagnose::elf(&head) {
                    Ok(elf) => {
                        foreign(&elf).map(|built| format!("its dynamic loader {interpreter} is built for {built}"))
                    }
                    Err(_) => Some(format!("its dynamic loader {interpreter} is not a program")),
                },
                _ => Some(format!("its dynamic loader {interpreter} is not executable")),
            }
        }
        Err(NotElf::Malformed(what)) => Some(format!("{path} is a damaged program: {what}")),
        Err(NotElf::Other) if head.starts_with(b"\xef\xbb\xbf#!") => {
            Some(format!("{path} starts with a byte order mark before its #! line"))
        }
        Err(NotElf::Other) => Some(format!("{path} is neither a program for Linux nor a script with a #! line")),
    }
}

fn why_script(root: &Root, path: &str, line: &[u8], depth: usize) -> Option<String> {
    let line = &line[..line.len().min(SHEBANG)];
    let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
    let line = &line[..end];
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let Some(word) = words.next() else { return Some(format!("{path} has an empty #! line")) };
    let shown = String::from_utf8_lossy(word.trim_ascii_end()).into_owned();
    if line.ends_with(b"\r") && words.next().is_none() {
        return Some(format!(
            "the #! line of {path} ends in a carriage return (CRLF line endings), so its interpreter is {shown:?} followed by \\r"
        ));
    }
    match Found::open(root, &shown) {
        Found::Missing => Some(format!("the interpreter {shown} of the script {path} does not exist in the container")),
        Found::Directory | Found::Other => Some(format!("the interpreter {shown} of the script {path} is not a file")),
        Found::File { mode, .. } if mode & 0o111 == 0 => {
            Some(format!("the interpreter {shown} of the script {path} is not executable"))
        }
        Found::File { .. } if depth == 0 => Some(format!("too many interpreters, {path} the last of them")),
        Found::File { head, .. } => why(root, &shown, &head, depth - 1),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum NotElf {
    Other,
    Malformed(&'static str),
}

#[derive(Debug, PartialEq, Eq)]
struct Elf {
    machine: u16,
    is64: bool,
    little: bool,
    interpreter: Option<String>,
}

/// Name of the machine that a program is built for, when this one cannot run it natively.
fn foreign(elf: &Elf) -> Option<String> {
    let native = match std::env::consts::ARCH {
        "x86_64" => elf.little && matches!(elf.machine, 62 | 3),
        "aarch64" => elf.little && matches!(elf.machine, 183 | 40),
        _ => true,
    };
    if native {
        return None;
    }
    let name = match elf.machine {
        3 => "x86",
        8 => "mips",
        20 => "powerpc",
        21 if elf.little => "ppc64le",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 if elf.is64 => "riscv64",
        243 => "riscv32",
        258 => "loongarch64",
        other => return Some(format!("an unknown machine ({other})")),
    };
    Some(name.to_owned())
}

/// Reads an ELF header and the program interpreter, trusting no number in it.
fn elf(head: &[u8]) -> Result<Elf, NotElf> {
    const PT_INTERP: u64 = 3;
    if !head.starts_with(b"\x7fELF") {
        return Err(NotElf::Other);
    }
    let cut = NotElf::Malformed("truncated header");
    let (Some(&class), Some(&data)) = (head.get(4), head.get(5)) else { return Err(cut) };
    let is64 = match class {
        1 => false,
        2 => true,
        _ => return Err(NotElf::Malformed("neither 32 nor 64 bits")),
    };
    let little = match data {
        1 => true,
        2 => false,
        _ => return Err(NotElf::Malformed("unknown byte order")),
    };
    let number = |offset: usize, size: usize| -> Option<u64> {
        let bytes = head.get(offset..offset.checked_add(size)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) })
    };
    let at = |offset, size| number(offset, size).ok_or(NotElf::Malformed("truncated header"));
    let machine = u16::try_from(at(18, 2)?).unwrap_or_default();
    let (table, entry_size, count) =
        if is64 { (at(32, 8)?, at(54, 2)?, at(56, 2)?) } else { (at(28, 4)?, at(42, 2)?, at(44, 2)?) };
    let mut elf = Elf { machine, is64, little, interpreter: None };
    let (offset_field, size_field, word) = if is64 { (8, 32, 8) } else { (4, 16, 4) };
    for index in 0..count.min(512) {
        let entry = index
            .checked_mul(entry_size)
            .and_then(|distance| table.checked_add(distance))
            .and_then(|entry| usize::try_from(entry).ok());
        let Some(entry) = entry.filter(|entry| *entry < head.len()) else {
            return Err(NotElf::Malformed("program headers beyond the start of the file"));
        };
        if at(entry, 4)? != PT_INTERP {
            continue;
        }
        let start = usize::try_from(at(entry + offset_field, word)?).ok();
        let length = usize::try_from(at(entry + size_field, word)?).ok().filter(|length| *length <= PATH_MAX);
        let name = start
            .zip(length)
            .and_then(|(start, length)| head.get(start..start.checked_add(length)?))
            .ok_or(NotElf::Malformed("interpreter name beyond the start of the file"))?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        elf.interpreter = Some(String::from_utf8_lossy(&name[..end]).into_owned());
        break;
    }
    Ok(elf)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    /// A directory that is removed with the value.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hull-diagnose-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("bin")).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, content: &[u8], mode: u32) {
            let path = self.0.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }

        fn ask(&self, program: &str, errno: Errno) -> String {
            let root = Root::open(&self.0).unwrap();
            diagnose_exec(&root, program, &["PATH=/usr/bin:/bin".into()], errno)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A 64-bit little-endian header with one program header and an interpreter's name.
    fn program(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&1_u32.to_le_bytes());
        if let Some(name) = interpreter {
            bytes[64..68].copy_from_slice(&3_u32.to_le_bytes());
            bytes[72..80].copy_from_slice(&120_u64.to_le_bytes());
            bytes[96..104].copy_from_slice(&(name.len() as u64 + 1).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    const NATIVE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };

    #[test]
    fn each_reason_has_its_sentence() {
        let tree = Tree::new("reasons");
        tree.file("bin/loader-missing", &program(NATIVE, Some("/lib/ld-musl-x.so.1")), 0o755);
        tree.file("bin/foreign", &program(243, None), 0o755);
        tree.file("bin/script", b"#!/bin/bash -e\necho\n", 0o755);
        tree.file("bin/crlf", b"#!/bin/sh\r\necho\r\n", 0o755);
        tree.file("bin/nested", b"#! /bin/script\n", 0o755);
        tree.file("bin/plain", b"echo hello\n", 0o755);
        tree.file("bin/empty", b"", 0o755);
        tree.file("bin/data", b"x", 0o644);
        tree.file("bin/cut", b"\x7fELF\x02\x01", 0o755);
        std::fs::create_dir(tree.0.join("bin/directory")).unwrap();
        for (name, errno, expected) in [
            ("loader-missing", Errno::NOENT, &["no such file or directory", "/lib/ld-musl-x.so.1"][..]),
            ("foreign", Errno::NOEXEC, &["exec format error", "riscv64"]),
            ("script", Errno::NOENT, &["no such file or directory", "/bin/bash"]),
            ("crlf", Errno::NOENT, &["no such file or directory", "carriage return"]),
            ("nested", Errno::NOENT, &["no such file or directory", "/bin/bash"]),
            ("plain", Errno::NOEXEC, &["exec format error", "#! line"]),
            ("empty", Errno::NOEXEC, &["exec format error", "is empty"]),
            ("data", Errno::ACCESS, &["permission denied", "mode 0644"]),
            ("cut", Errno::NOEXEC, &["exec format error", "damaged"]),
            ("directory", Errno::ISDIR, &["is a directory", "permission denied"]),
            ("script", Errno::ACCESS, &["permission denied", "noexec"]),
            ("absent", Errno::NOENT, &["exec: \"absent\": executable file not found in $PATH"]),
        ] {
            let message = tree.ask(name, errno);
            for part in expected {
                assert!(message.contains(part), "{name}: {message}");
            }
            assert!(!message.contains('\n') && !message.contains("os error"), "{message}");
        }
        let message = tree.ask("/no/such", Errno::NOENT);
        assert!(message.contains("stat /no/such: no such file or directory"), "{message}");
    }

    #[test]
    fn links_do_not_lead_out() {
        let tree = Tree::new("links");
        std::os::unix::fs::symlink("/etc/passwd", tree.0.join("bin/out")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc/passwd", tree.0.join("bin/up")).unwrap();
        std::os::unix::fs::symlink("loop", tree.0.join("bin/loop")).unwrap();
        for name in ["out", "up", "loop"] {
            assert!(tree.ask(name, Errno::NOENT).contains("not found in $PATH"), "{name}");
        }
    }

    #[test]
    fn a_script_that_is_its_own_interpreter_ends() {
        let tree = Tree::new("self");
        tree.file("bin/self", b"#!/bin/self\n", 0o755);
        assert!(tree.ask("self", Errno::NOENT).contains("too many interpreters"));
    }

    #[test]
    fn headers_are_not_trusted() {
        let good = program(62, Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(elf(&good).unwrap().interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        for end in 0..good.len() {
            let _ = elf(&good[..end]);
        }
        for offset in 0..120 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[offset] = value;
                let _ = elf(&bytes);
            }
        }
        let mut wide = good.clone();
        wide[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(elf(&wide), Err(NotElf::Malformed(_))));
        wide = good;
        wide[96..104].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(elf(&wide), Err(NotElf::Malformed(_))));
    }
}
