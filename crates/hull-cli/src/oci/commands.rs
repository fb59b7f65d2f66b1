//! The commands and their flags: one table that the parser and `--help` share.

use super::args::{self, Flag, switch, value};

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    /// Name.
    pub(crate) name: &'static str,
    /// Words after the flags, for the usage line.
    pub(crate) words: &'static str,
    /// One sentence.
    pub(crate) about: &'static str,
    /// Flags.
    pub(crate) flags: &'static [Flag],
    /// Fewest and most words.
    pub(crate) count: (usize, usize),
    /// Number of words after which flags are no longer looked for.
    pub(crate) last_flag_word: usize,
}

/// No limit on where flags may stand.
const ANYWHERE: usize = usize::MAX;
const ONE: (usize, usize) = (1, 1);
const NONE: (usize, usize) = (0, 0);

/// Flags before the command.
pub(crate) static GLOBAL: &[Flag] = &[
    value("root", "DIR", "directory for container state (default /run/hull/oci)"),
    value("log", "FILE", "append the log to this file instead of standard error"),
    value("log-format", "FORMAT", "text or json"),
    value("log-level", "LEVEL", "error, warning or debug"),
    switch("debug", "log more"),
    switch("systemd-cgroup", "make cgroups as systemd scopes"),
    value("cgroup-manager", "NAME", "cgroupfs, systemd or disabled"),
    value("rootless", "BOOL", "true, false or auto: whether an ordinary user's state directory is used"),
    switch("version", "print the version").short('v'),
];

macro_rules! create_flags {
    ($($more:expr),* $(,)?) => {
        &[
            value("bundle", "DIR", "bundle directory (default: the working directory)").short('b'),
            value("config", "FILE", "configuration file (default: config.json in the bundle)").short('f'),
            value("console-socket", "SOCKET", "Unix socket that receives the terminal's master side"),
            value("pidfd-socket", "SOCKET", "Unix socket that receives a pidfd of the program"),
            value("pid-file", "FILE", "write the program's process ID to this file"),
            switch("no-pivot", "use chroot instead of pivot_root"),
            switch("no-new-keyring", "do not make a new session keyring"),
            value("preserve-fds", "N", "pass N more file descriptors, from 3 on"),
            $($more),*
        ]
    };
}

static CREATE: &[Flag] = create_flags![];
static RUN: &[Flag] = create_flags![
    switch("detach", "return once the program runs").short('d'),
    switch("keep", "keep the container after its program ended"),
    switch("no-subreaper", "do not reap orphans of the container"),
];
static RESTORE: &[Flag] = create_flags![
    switch("detach", "return once the program runs").short('d'),
    switch("keep", "keep the container after its program ended"),
    switch("no-subreaper", "do not reap orphans of the container"),
    value("image-path", "DIR", "directory of the checkpoint (default ./checkpoint)"),
    value("work-path", "DIR", "directory for logs"),
    value("parent-path", "DIR", "earlier checkpoint, relative to the image path"),
    value("manage-cgroups-mode", "MODE", "soft, full, strict or ignore"),
    value("empty-ns", "NAMESPACE", "namespace to make without restoring its contents"),
    value("lsm-profile", "TYPE:NAME", "label of the restored processes"),
    value("lsm-mount-context", "CONTEXT", "label of the restored mounts"),
    switch("tcp-established", "allow open TCP connections"),
    switch("ext-unix-sk", "allow external Unix sockets"),
    switch("shell-job", "allow shell jobs"),
    switch("file-locks", "handle file locks"),
    switch("auto-dedup", "free pages once they are restored"),
    switch("lazy-pages", "load pages when they are touched"),
];
static CHECKPOINT: &[Flag] = &[
    value("image-path", "DIR", "directory for the checkpoint (default ./checkpoint)"),
    value("work-path", "DIR", "directory for logs"),
    value("parent-path", "DIR", "earlier checkpoint, relative to the image path"),
    switch("leave-running", "keep the container running"),
    switch("tcp-established", "allow open TCP connections"),
    switch("tcp-skip-in-flight", "skip connections that are not established yet"),
    switch("link-remap", "allow removed files that are still linked"),
    switch("ext-unix-sk", "allow external Unix sockets"),
    switch("shell-job", "allow shell jobs"),
    switch("lazy-pages", "leave pages to a page server"),
    value("status-fd", "FD", "descriptor that gets a zero byte once the page server is ready"),
    value("page-server", "ADDRESS:PORT", "page server"),
    switch("file-locks", "handle file locks"),
    switch("pre-dump", "dump memory only, and keep the container running"),
    value("manage-cgroups-mode", "MODE", "soft, full, strict or ignore"),
    value("empty-ns", "NAMESPACE", "namespace whose contents are left out"),
    switch("auto-dedup", "drop pages from earlier checkpoints"),
];
static EXEC: &[Flag] = &[
    value("process", "FILE", "process document (JSON)").short('p'),
    value("console-socket", "SOCKET", "Unix socket that receives the terminal's master side"),
    value("pidfd-socket", "SOCKET", "Unix socket that receives a pidfd of the program"),
    value("cwd", "DIR", "working directory inside the container"),
    value("env", "NAME=VALUE", "environment variable; may be repeated").short('e'),
    switch("tty", "give the program a terminal").short('t'),
    value("user", "UID[:GID]", "identity").short('u'),
    value("additional-gids", "GID", "supplementary group; may be repeated").short('g'),
    switch("detach", "return once the program runs").short('d'),
    value("pid-file", "FILE", "write the program's process ID to this file"),
    value("process-label", "LABEL", "SELinux label"),
    value("apparmor", "PROFILE", "AppArmor profile"),
    switch("no-new-privs", "set no_new_privs"),
    value("cap", "NAME", "capability to add; may be repeated").short('c'),
    value("preserve-fds", "N", "pass N more file descriptors, from 3 on"),
    value("cgroup", "[CONTROLLER:]PATH", "cgroup below the container's; may be repeated"),
    switch("ignore-paused", "do not fail on a paused container"),
    switch("no-subreaper", "accepted; exec is no subreaper"),
];
static UPDATE: &[Flag] = &[
    value("resources", "FILE", "limits as JSON; - reads standard input").short('r'),
    value("memory", "SIZE", "memory limit"),
    value("memory-reservation", "SIZE", "soft memory limit"),
    value("memory-swap", "SIZE", "memory plus swap; -1 for unlimited swap"),
    value("kernel-memory", "SIZE", "obsolete"),
    value("kernel-memory-tcp", "SIZE", "obsolete"),
    value("cpu-period", "MICROSECONDS", "length of a CPU period"),
    value("cpu-quota", "MICROSECONDS", "CPU time per period"),
    value("cpu-burst", "MICROSECONDS", "CPU time that may be saved up"),
    value("cpu-share", "N", "relative CPU weight"),
    value("cpu-shares", "N", "as --cpu-share"),
    value("cpu-rt-period", "MICROSECONDS", "real-time period"),
    value("cpu-rt-runtime", "MICROSECONDS", "real-time runtime"),
    value("cpu-idle", "0|1", "whether the group has idle weight"),
    value("cpuset-cpus", "LIST", "CPUs"),
    value("cpuset-mems", "LIST", "memory nodes"),
    value("pids-limit", "N", "number of tasks; -1 for unlimited"),
    value("blkio-weight", "N", "block I/O weight, 10 to 1000"),
    value("l3-cache-schema", "SCHEMA", "Intel RDT cache schema"),
    value("mem-bw-schema", "SCHEMA", "Intel RDT memory bandwidth schema"),
];
static KILL: &[Flag] = &[switch("all", "signal every process of the container").short('a')];
static DELETE: &[Flag] = &[switch("force", "kill a running container first").short('f')];
static LIST: &[Flag] =
    &[value("format", "FORMAT", "table or json").short('f'), switch("quiet", "print only IDs").short('q')];
static PS: &[Flag] = &[value("format", "FORMAT", "table or json").short('f')];
static EVENTS: &[Flag] = &[
    switch("stats", "print the statistics once"),
    value("interval", "DURATION", "time between statistics (default 5s)"),
];
static SPEC: &[Flag] = &[
    value("bundle", "DIR", "directory for config.json (default: the working directory)").short('b'),
    switch("rootless", "configuration for an ordinary user"),
];

const fn command(name: &'static str, words: &'static str, about: &'static str, flags: &'static [Flag]) -> Command {
    Command { name, words, about, flags, count: ONE, last_flag_word: ANYWHERE }
}

/// All commands, in the order of a container's life.
pub(crate) static COMMANDS: &[Command] = &[
    command("create", "ID", "Creates a container without starting its program", CREATE),
    command("start", "ID", "Starts the program of a created container", &[]),
    command("run", "ID", "Creates a container and starts its program", RUN),
    command("state", "ID", "Prints the state of a container as JSON", &[]),
    Command {
        count: (1, usize::MAX),
        last_flag_word: 1,
        ..command("exec", "ID [PROGRAM [ARG...]]", "Runs another program in a running container", EXEC)
    },
    Command { count: (1, 2), ..command("kill", "ID [SIGNAL]", "Sends a signal to a container (default TERM)", KILL) },
    command("delete", "ID", "Deletes a container", DELETE),
    Command { count: NONE, words: "", ..command("list", "", "Lists containers", LIST) },
    Command {
        count: (1, usize::MAX),
        last_flag_word: 0,
        ..command("ps", "ID [PS-OPTION...]", "Lists the processes of a container", PS)
    },
    command("events", "ID", "Prints statistics and out-of-memory events of a container", EVENTS),
    command("pause", "ID", "Freezes the processes of a container", &[]),
    command("resume", "ID", "Thaws the processes of a container", &[]),
    command("update", "ID", "Changes the limits of a container", UPDATE),
    Command { count: NONE, ..command("spec", "", "Writes a new config.json", SPEC) },
    Command { count: NONE, ..command("features", "", "Prints what this runtime supports as JSON", &[]) },
    command("checkpoint", "ID", "Saves a running container to disk", CHECKPOINT),
    command("restore", "ID", "Runs a container saved by checkpoint", RESTORE),
];

/// The command of this name.
pub(crate) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// Help text of the whole.
pub(crate) fn overview(program: &str) -> String {
    let width = COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or(0);
    let list: String =
        COMMANDS.iter().map(|command| format!("  {:width$}  {}\n", command.name, command.about)).collect();
    format!(
        "OCI runtime\n\nUsage: {program} [FLAGS] COMMAND [COMMAND FLAGS] [ARGS]\n\nCommands:\n{list}\nFlags:\n{}",
        args::help(GLOBAL)
    )
}

impl Command {
    /// Help text of this command.
    pub(crate) fn help(&self, program: &str) -> String {
        let flags = if self.flags.is_empty() { String::new() } else { format!("\nFlags:\n{}", args::help(self.flags)) };
        let usage = format!("{program} {} [FLAGS] {}", self.name, self.words);
        format!("{}\n\nUsage: {}\n{flags}", self.about, usage.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_is_listed_twice() {
        for command in COMMANDS {
            for (index, flag) in command.flags.iter().enumerate() {
                let again = |other: &Flag| other.name == flag.name || (flag.short != '\0' && other.short == flag.short);
                assert!(!command.flags[index + 1..].iter().any(again), "{} --{}", command.name, flag.name);
                assert!(!flag.help.is_empty(), "{} --{}", command.name, flag.name);
            }
        }
    }

    #[test]
    fn help_names_every_command_and_flag() {
        let text = overview("hull oci");
        assert!(COMMANDS.iter().all(|command| text.contains(command.name)));
        let text = find("exec").unwrap().help("runc");
        assert!(text.contains("Usage: runc exec [FLAGS] ID [PROGRAM [ARG...]]"));
        assert!(text.contains("-p, --process FILE"));
    }
}
