//! `exec`: another program in a running container.

use std::path::Path;

use hull_oci::spec::{Capabilities, MAX_CONFIG_BYTES, Process};
use hull_runtime::{ExecOptions, Streams};

use super::args::Parsed;
use super::foreground::{self, Console};
use super::launch::read_bounded;
use super::streams::{self, Inherited};
use super::{CommandError, Globals, id};

/// Runs the program and, unless detached, waits for it.
pub(super) fn exec(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let id = id(parsed)?;
    let mut process = match parsed.get("process") {
        Some(path) => from_file(Path::new(path))?,
        None => from_container(globals, id)?,
    };
    apply_flags(&mut process, parsed)?;
    if process.args.is_empty() {
        return Err(CommandError::new(
            "exec: `process.args` is empty: expected a program after the container ID, or in the --process document",
        ));
    }
    let Inherited { mut streams, env } = streams::inherited(parsed)?;
    process.env.extend(env);
    let detach = parsed.on("detach");
    let console = own_console(&process, &mut streams, detach)?;
    let options = ExecOptions { streams, cgroup: parsed.texts("cgroup")?, ignore_paused: parsed.on("ignore-paused") };
    let running = hull_runtime::exec(&globals.root, id, &process, options)?;
    if let Some(path) = parsed.get("pid-file")
        && let Err(error) = streams::write_pid_file(path, running.pid)
    {
        // Nobody would know the process, so it must not stay.
        let _ = rustix::process::pidfd_send_signal(&running.pidfd, rustix::process::Signal::KILL);
        return Err(error);
    }
    if detach {
        return Ok(0);
    }
    let terminal = console.map(Console::receive).transpose()?;
    foreground::attend(&running, terminal)
}

fn own_console(process: &Process, streams: &mut Streams, detach: bool) -> Result<Option<Console>, CommandError> {
    match (process.terminal, streams.console.is_some()) {
        (true, false) if detach => {
            Err(CommandError::new("a terminal is asked for, and nobody would receive it: expected --console-socket"))
        }
        (true, false) => {
            let (console, theirs) = Console::new()?;
            streams.console = Some(theirs);
            Ok(Some(console))
        }
        _ => Ok(None),
    }
}

fn from_file(path: &Path) -> Result<Process, CommandError> {
    let bytes = read_bounded(path, MAX_CONFIG_BYTES)?;
    hull_oci::spec::parse(&bytes).map_err(|error| CommandError::new(format!("{}: {error}", path.display())))
}

/// The container's own program is the model: identity, environment, limits and capabilities carry over.
fn from_container(globals: &Globals, id: &str) -> Result<Process, CommandError> {
    let spec = hull_runtime::state::Record::load(&globals.root, id)?.spec(&globals.root)?;
    let process = spec.process.unwrap_or_default();
    Ok(Process { terminal: false, args: Vec::new(), ..process })
}

fn apply_flags(process: &mut Process, parsed: &Parsed) -> Result<(), CommandError> {
    let program = parsed.words.get(1..).unwrap_or_default();
    if !program.is_empty() {
        let text = |word: &std::ffi::OsString| {
            word.to_str().map(str::to_owned).ok_or_else(|| CommandError::new(format!("{word:?} is not UTF-8")))
        };
        process.args = program.iter().map(text).collect::<Result<_, _>>()?;
    }
    if let Some(cwd) = parsed.text("cwd")? {
        cwd.clone_into(&mut process.cwd);
    }
    if let Some(user) = parsed.text("user")? {
        let (uid, gid) = parse_user(user).ok_or_else(|| {
            CommandError::new(format!("invalid value {user:?} for flag --user: expected UID[:GID] as numbers"))
        })?;
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    for group in parsed.texts("additional-gids")? {
        process.user.additional_gids.push(parse_id(&group).ok_or_else(|| {
            CommandError::new(format!("invalid value {group:?} for flag --additional-gids: expected a number"))
        })?);
    }
    process.env.extend(parsed.texts("env")?);
    if parsed.given("tty") {
        process.terminal = parsed.on("tty");
    }
    if let Some(label) = parsed.text("process-label")? {
        label.clone_into(&mut process.selinux_label);
    }
    if let Some(profile) = parsed.text("apparmor")? {
        profile.clone_into(&mut process.apparmor_profile);
    }
    if parsed.given("no-new-privs") {
        process.no_new_privileges = parsed.on("no-new-privs");
    }
    add_capabilities(process, &parsed.texts("cap")?);
    Ok(())
}

/// Adds to the sets that take effect. Never to the inheritable one: that let unprivileged programs of the container
/// regain what they had dropped (CVE-2022-29162).
fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let sets = process.capabilities.get_or_insert_with(Capabilities::default);
    for name in names {
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            if !set.contains(name) {
                set.push(name.clone());
            }
        }
    }
}

/// `UID[:GID]`, nothing else (CVE-2026-30892).
fn parse_user(text: &str) -> Option<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Some((parse_id(text)?, None)),
        Some((uid, gid)) => Some((parse_id(uid)?, Some(parse_id(gid)?))),
    }
}

/// Digits only; the highest number means "no ID" to the kernel.
fn parse_id(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{args, commands};
    use super::*;

    fn parsed(line: &str) -> Parsed {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let command = commands::find("exec").unwrap();
        args::parse(command.flags, &words, command.last_flag_word).unwrap()
    }

    #[test]
    fn users_are_parsed_whole() {
        assert_eq!(parse_user("7"), Some((7, None)));
        assert_eq!(parse_user("7:8"), Some((7, Some(8))));
        for wrong in ["", ":", "1:", ":1", "1x", "1:2:3", "-1", "+1", " 1", "4294967295", "4294967296", "root"] {
            assert_eq!(parse_user(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn flags_override_the_model() {
        let mut process = Process { env: vec!["A=1".to_owned()], cwd: "/".to_owned(), ..Process::default() };
        let parsed = parsed("-t -u 5:6 -g 7 -g 8 -e B=2 --cwd /tmp -c CAP_KILL --no-new-privs id sh -c ls");
        apply_flags(&mut process, &parsed).unwrap();
        assert_eq!(process.args, ["sh", "-c", "ls"]);
        assert_eq!(process.env, ["A=1", "B=2"]);
        assert_eq!((process.user.uid, process.user.gid), (5, 6));
        assert_eq!(process.user.additional_gids, [7, 8]);
        assert_eq!(process.cwd, "/tmp");
        assert!(process.terminal && process.no_new_privileges);
        let capabilities = process.capabilities.unwrap();
        assert_eq!(capabilities.effective, ["CAP_KILL"]);
        assert!(capabilities.inheritable.is_empty() && capabilities.ambient.is_empty());
    }
}
