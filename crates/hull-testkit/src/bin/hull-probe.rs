//! The program that tests run inside containers: it does what its arguments say and prints what it finds.
//!
//! `hull-probe ACTION [ARG...] [+ ACTION [ARG...]]...` does one action after the other. A failed action prints
//! `errno:N` (a number, because no C library tells names here) and the next one is still done. Actions that answer a
//! question print the answer alone, so that a test compares whole lines. It is static and needs no file beside it.
//!
//! As the interpreter of another program, which the kernel then names first, it does what that one is told to do.

#![expect(clippy::exit, reason = "`exit N` and the end of `main` are this program's contract")]

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, RenameFlags};

fn main() {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let interpreted = usize::from(arguments.first().is_some_and(|first| first.starts_with('/')));
    for words in arguments[interpreted..].split(|word| word == "+") {
        let Some((action, rest)) = words.split_first() else { continue };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        match act(action, &rest) {
            Ok(text) => {
                print!("{text}");
                if !text.is_empty() && !text.ends_with('\n') {
                    println!();
                }
            }
            Err(error) => println!("errno:{}", error.raw_os_error().unwrap_or(-1)),
        }
        let _ = io::stdout().flush();
    }
}

/// Does one action and returns what it has to say.
fn act(action: &str, args: &[&str]) -> io::Result<String> {
    let arg = |index: usize| args.get(index).copied().unwrap_or("");
    let number = |index: usize| args.get(index).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let seconds = |index: usize| Duration::from_secs_f64(arg(index).parse().unwrap_or(1.0));
    match action {
        // Files.
        "cat" => Ok(String::from_utf8_lossy(&fs::read(arg(0))?).into_owned()),
        "ls" => {
            let mut names: Vec<_> = fs::read_dir(arg(0))?
                .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<_>>()?;
            names.sort();
            Ok(names.join("\n"))
        }
        "write" => OpenOptions::new().write(true).create(true).truncate(true).open(arg(0)).and_then(|mut file| {
            file.write_all(arg(1).as_bytes())?;
            Ok("ok".into())
        }),
        "poke" => OpenOptions::new().write(true).open(arg(0)).and_then(|mut file| {
            file.write_all(arg(1).as_bytes())?;
            Ok("ok".into())
        }),
        "fill" => {
            // So many mebibytes.
            let mut file = fs::File::create(arg(0))?;
            for _ in 0..number(1) {
                file.write_all(&[1; 1 << 20])?;
            }
            file.sync_all()?;
            Ok("ok".into())
        }
        "open-write" => OpenOptions::new().write(true).open(arg(0)).map(|_| "ok".into()),
        "mkdir" => fs::create_dir(arg(0)).map(|()| "ok".into()),
        "unlink" => fs::remove_file(arg(0)).map(|()| "ok".into()),
        "symlink" => std::os::unix::fs::symlink(arg(0), arg(1)).map(|()| "ok".into()),
        "chmod" => {
            let mode = u32::from_str_radix(arg(1), 8).unwrap_or(0o644);
            fs::set_permissions(arg(0), fs::Permissions::from_mode(mode)).map(|()| "ok".into())
        }
        "chown" => {
            let owner = |index| u32::try_from(number(index)).ok();
            std::os::unix::fs::chown(arg(0), owner(1), owner(2)).map(|()| "ok".into())
        }
        "readlink" => fs::read_link(arg(0)).map(|path| path.to_string_lossy().into_owned()),
        "stat" => stat(arg(0)),
        "statfs" => {
            let info = rustix::fs::statfs(arg(0))?;
            Ok(format!("type={:x} bytes={}", info.f_type, info.f_blocks * u64::try_from(info.f_bsize).unwrap_or(0)))
        }
        "mknod" => {
            let kind = match arg(1) {
                "b" => FileType::BlockDevice,
                "p" => FileType::Fifo,
                _ => FileType::CharacterDevice,
            };
            let device =
                rustix::fs::makedev(u32::try_from(number(2)).unwrap_or(0), u32::try_from(number(3)).unwrap_or(0));
            rustix::fs::mknodat(CWD, arg(0), kind, Mode::from_raw_mode(0o600), device)?;
            Ok("ok".into())
        }
        "mount" => {
            rustix::mount::mount(arg(0), arg(1), arg(2), rustix::mount::MountFlags::empty(), None)?;
            Ok("ok".into())
        }
        "umount" => {
            rustix::mount::unmount(arg(0), rustix::mount::UnmountFlags::DETACH)?;
            Ok("ok".into())
        }
        "mounts" => fs::read_to_string("/proc/self/mountinfo"),
        // The process.
        "echo" => Ok(args.join(" ")),
        "err" => {
            eprintln!("{}", args.join(" "));
            Ok(String::new())
        }
        "status" => status(arg(0)),
        "env" => {
            let mut lines: Vec<_> =
                std::env::vars_os().map(|(k, v)| format!("{}={}", k.display(), v.display())).collect();
            lines.sort();
            Ok(lines.join("\n"))
        }
        "cwd" => std::env::current_dir().map(|path| path.to_string_lossy().into_owned()),
        "id" => {
            let groups = rustix::process::getgroups()?;
            let groups: Vec<_> = groups.iter().map(|gid| gid.as_raw().to_string()).collect();
            Ok(format!(
                "uid={} gid={} groups={}",
                rustix::process::getuid().as_raw(),
                rustix::process::getgid().as_raw(),
                groups.join(",")
            ))
        }
        "pid" => Ok(std::process::id().to_string()),
        "argv0" => Ok(std::env::args().next().unwrap_or_default()),
        "fds" => fds(),
        "hostname" => sethostname_or_read(arg(0)),
        "umask" => {
            let mask = rustix::process::umask(Mode::empty());
            Ok(format!("{:04o}", mask.as_raw_mode()))
        }
        "rlimits" => fs::read_to_string("/proc/self/limits"),
        "isatty" => Ok(rustix::termios::isatty(io::stdin()).to_string()),
        "winsize" => {
            let size = rustix::termios::tcgetwinsize(io::stdin())?;
            Ok(format!("{}x{}", size.ws_row, size.ws_col))
        }
        "stdin" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            Ok(text)
        }
        "readfd" => {
            let mut text = String::new();
            fs::File::open(format!("/proc/self/fd/{}", arg(0)))?.read_to_string(&mut text)?;
            Ok(text)
        }
        // Doing things.
        "sleep" => {
            std::thread::sleep(seconds(0));
            Ok(String::new())
        }
        // As a shell's `-c`: one line of words, without quotes.
        "-c" => {
            let words: Vec<&str> = arg(0).split_whitespace().collect();
            match words.split_first() {
                Some((action, rest)) => act(action, rest),
                None => Ok(String::new()),
            }
        }
        // Ends with failure where there is no such file.
        "need" => {
            if fs::symlink_metadata(arg(0)).is_err() {
                std::process::exit(1);
            }
            Ok(String::new())
        }
        // So many lines, numbered.
        "lines" => Ok((0..number(0)).map(|line| format!("line {line}\n")).collect()),
        // What is no text.
        "binary" => io::stdout().write_all(&(0..=255).collect::<Vec<u8>>()).map(|()| String::new()),
        "exit" => std::process::exit(i32::try_from(number(0)).unwrap_or(1)),
        "alloc" => Ok(allocate(number(0))),
        "fork" => Ok(format!("started={}", spawn(number(0)))),
        // For ever as many processes as there may be, each of which does the same.
        "bomb" => loop {
            if Command::new("/proc/self/exe").arg("bomb").spawn().is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        },
        // Lines for ever.
        "flood" => loop {
            io::stdout().write_all(b"all work and no play makes a dull log\n")?;
        },
        "background" => {
            Command::new("/proc/self/exe").args(args).spawn()?;
            Ok("ok".into())
        }
        "exec" => {
            use std::os::unix::process::CommandExt as _;
            Err(Command::new(arg(0)).args(args.get(1..).unwrap_or_default()).exec())
        }
        "child" => {
            // A child dies of what PID 1 is immune to.
            let status = Command::new("/proc/self/exe").args(args).status()?;
            Ok(status.to_string())
        }
        "notify" => {
            let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
            let sender = std::os::unix::net::UnixDatagram::unbound()?;
            sender.send_to(arg(0).as_bytes(), socket).map(|_| "ok".into())
        }
        "abort" => std::process::abort(),
        "spin" => {
            let end = Instant::now() + seconds(0);
            let mut turns = 0_u64;
            while Instant::now() < end {
                turns += 1;
            }
            Ok(format!("turns={turns}"))
        }
        "wait-file" => {
            let end = Instant::now() + Duration::from_secs(20);
            while fs::symlink_metadata(arg(0)).is_err() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(String::new())
        }
        // Attacks.
        "overwrite-exe" => Ok(overwrite_exe(seconds(0))),
        "writable" => writable(arg(0)),
        "steal-fds" => Ok(steal_fds(seconds(0))),
        "exchange" => {
            let end = Instant::now() + seconds(2);
            while Instant::now() < end {
                let _ = rustix::fs::renameat_with(CWD, arg(0), CWD, arg(1), RenameFlags::EXCHANGE);
            }
            Ok(String::new())
        }
        _ => {
            eprintln!("hull-probe: unknown action {action}");
            std::process::exit(99);
        }
    }
}

/// The value of one line of `/proc/self/status`, such as `CapEff`, `Seccomp`, `NoNewPrivs`.
fn status(field: &str) -> io::Result<String> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.unwrap_or("absent").trim().to_owned())
}

/// `kind mode uid gid major:minor size`.
fn stat(path: &str) -> io::Result<String> {
    let meta = fs::symlink_metadata(path)?;
    let kind = match meta.file_type() {
        kind if kind.is_dir() => "dir",
        kind if kind.is_symlink() => "link",
        kind if kind.is_char_device() => "char",
        kind if kind.is_block_device() => "block",
        kind if kind.is_fifo() => "fifo",
        kind if kind.is_socket() => "socket",
        _ => "file",
    };
    let device = meta.rdev();
    Ok(format!(
        "{kind} {:04o} {} {} {}:{} {}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        rustix::fs::major(device),
        rustix::fs::minor(device),
        meta.len()
    ))
}

/// Every open descriptor and what it is, except the one that lists them.
fn fds() -> io::Result<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        let target = fs::read_link(&path)?.to_string_lossy().into_owned();
        if target.starts_with("/proc/") && target.ends_with("/fd") {
            continue;
        }
        lines.push(format!("{} {target}", path.file_name().unwrap_or_default().display()));
    }
    lines.sort();
    Ok(lines.join("\n"))
}

/// Prints the host name, or sets it.
fn sethostname_or_read(name: &str) -> io::Result<String> {
    if name.is_empty() {
        return Ok(rustix::system::uname().nodename().to_string_lossy().into_owned());
    }
    rustix::system::sethostname(name.as_bytes())?;
    Ok("ok".into())
}

/// Allocates and touches so many MiB, a MiB at a time, and says how far it came.
fn allocate(mib: u64) -> String {
    let mut held: Vec<Vec<u8>> = Vec::new();
    for step in 0..mib {
        let mut block = vec![0_u8; 1 << 20];
        for page in block.chunks_mut(4096) {
            page[0] = u8::try_from(step & 0xff).unwrap_or(1) | 1;
        }
        held.push(block);
    }
    format!("allocated={}", held.len())
}

/// Starts up to `count` processes that sleep for a minute, and says how many were allowed.
fn spawn(count: u64) -> usize {
    let mut children = Vec::new();
    for _ in 0..count {
        match Command::new("/proc/self/exe").args(["sleep", "60"]).spawn() {
            Ok(child) => children.push(child),
            Err(_) => break,
        }
    }
    let started = children.len();
    for mut child in children {
        let _ = child.kill();
        let _ = child.wait();
    }
    started
}

/// CVE-2019-5736: for so long, holds every other process's executable open and tries to write to it.
fn overwrite_exe(time: Duration) -> String {
    let end = Instant::now() + time;
    let own = fs::metadata("/proc/self/exe").map(|meta| (meta.dev(), meta.ino())).ok();
    let mut seen = 0;
    while Instant::now() < end {
        let Ok(entries) = fs::read_dir("/proc") else { break };
        for entry in entries.flatten() {
            let path = entry.path().join("exe");
            // O_PATH survives the process's exit, when the file is no longer busy.
            let path_only = i32::try_from(rustix::fs::OFlags::PATH.bits()).unwrap_or(0);
            let Ok(held) = OpenOptions::new().read(true).custom_flags(path_only).open(&path) else { continue };
            if held.metadata().map(|meta| (meta.dev(), meta.ino())).ok() == own {
                continue;
            }
            seen += 1;
            let again = format!("/proc/self/fd/{}", held.as_raw_fd());
            for _ in 0..200 {
                if let Ok(mut file) = OpenOptions::new().write(true).open(&again) {
                    let _ = file.write_all(b"#!overwritten\n");
                    return "OVERWRITTEN".into();
                }
            }
        }
    }
    format!("seen={seen}")
}

/// How many files below a directory can be opened for writing, and the first of them; how many there are.
fn writable(directory: &str) -> io::Result<String> {
    let (mut count, mut seen, mut first) = (0, 0, String::new());
    let mut waiting = vec![std::path::PathBuf::from(directory)];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory)?.flatten() {
            let kind = entry.file_type()?;
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                seen += 1;
                if OpenOptions::new().write(true).open(entry.path()).is_ok() {
                    count += 1;
                    first = if count == 1 { entry.path().display().to_string() } else { first };
                }
            }
        }
    }
    Ok(format!("writable={count} of {seen} {first}"))
}

/// CVE-2016-9962: for so long, opens the descriptors of every other process and reports directories among them.
fn steal_fds(time: Duration) -> String {
    let end = Instant::now() + time;
    let own = std::process::id().to_string();
    let root = fs::metadata("/").map_or((0, 0), |meta| (meta.dev(), meta.ino()));
    let mut opened = 0;
    while Instant::now() < end {
        let Ok(entries) = fs::read_dir("/proc") else { break };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == own || name.parse::<u32>().is_err() {
                continue;
            }
            let Ok(links) = fs::read_dir(entry.path().join("fd")) else { continue };
            for link in links.flatten() {
                let number: u32 = link.file_name().to_string_lossy().parse().unwrap_or(0);
                if number < 3 {
                    continue;
                }
                if let Ok(file) = fs::File::open(link.path()) {
                    opened += 1;
                    let target = fs::read_link(link.path()).unwrap_or_default();
                    // What it may hold is the container's own root, where its program is looked up.
                    let foreign = |meta: fs::Metadata| meta.is_dir() && (meta.dev(), meta.ino()) != root;
                    if file.metadata().is_ok_and(foreign) && !target.starts_with("/proc") {
                        return format!("STOLEN {}", target.display());
                    }
                }
            }
        }
    }
    format!("opened={opened}")
}
