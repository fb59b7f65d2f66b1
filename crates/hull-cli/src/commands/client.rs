//! Docker's flags before the command: those of a client of a daemon, which Hull is not.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::{Failure, context};

/// Docker's global flags.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Print the version
    #[arg(short = 'v', long, short_alias = 'V', action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Directory of config.json, with credentials of registries [default: ~/.docker]
    #[arg(long, value_name = "DIR")]
    config: Option<OsString>,
    /// Docker's contexts: only 'default', this machine
    #[arg(short, long, value_name = "NAME", hide = true)]
    context: Option<String>,
    /// Accepted: Hull says what it has to say
    #[arg(short = 'D', long, hide = true)]
    debug: bool,
    /// Docker's daemons: Hull has none
    #[arg(short = 'H', long = "host", value_name = "SOCKET", hide = true)]
    hosts: Vec<String>,
    /// Accepted: debug, info, warn, error or fatal
    #[arg(short, long, value_name = "LEVEL", hide = true)]
    log_level: Option<String>,
    /// Accepted: there is no daemon to connect to
    #[arg(long, hide = true)]
    tls: bool,
    /// Accepted: there is no daemon to connect to
    #[arg(long, value_name = "FILE", hide = true)]
    tlscacert: Option<OsString>,
    /// Accepted: there is no daemon to connect to
    #[arg(long, value_name = "FILE", hide = true)]
    tlscert: Option<OsString>,
    /// Accepted: there is no daemon to connect to
    #[arg(long, value_name = "FILE", hide = true)]
    tlskey: Option<OsString>,
    /// Accepted: there is no daemon to connect to
    #[arg(long, hide = true)]
    tlsverify: bool,
}

impl Flags {
    /// Obeys what can be obeyed; what would be done to another machine must not be done to this one.
    pub(super) fn check(&self, args: &[OsString]) -> Option<Failure> {
        if let Some(host) = self.hosts.first() {
            let text =
                format!("-H {host}: Hull works on its own machine, without a daemon; use 'ssh MACHINE hull ...'");
            return Some(Failure::new(text));
        }
        if let Some(level) = &self.log_level
            && !["debug", "info", "warn", "error", "fatal"].contains(&level.to_ascii_lowercase().as_str())
        {
            return Some(Failure::new(format!("unable to parse logging level: {level}")));
        }
        if let Some(Err(failure)) = self.context.as_deref().map(context::check) {
            return Some(failure);
        }
        let tls = self.tls
            || self.tlsverify
            || [&self.tlscacert, &self.tlscert, &self.tlskey].into_iter().any(|file| file.is_some());
        if tls {
            crate::output::error("--tls does not apply: Hull works on its own machine, without a daemon");
        }
        self.config.as_ref().map(|directory| again(directory, args))
    }
}

/// Runs Hull again with the directory where everything looks for it; returns only if that fails.
fn again(directory: &OsString, args: &[OsString]) -> Failure {
    let mut words = Vec::new();
    let mut rest = args.iter().skip(1);
    let mut found = false;
    while let Some(word) = rest.next() {
        let text = word.to_string_lossy();
        if !found && text == "--config" {
            rest.next();
            found = true;
        } else if !found && text.starts_with("--config=") {
            found = true;
        } else {
            words.push(word);
        }
    }
    let error = Command::new("/proc/self/exe").args(words).env("DOCKER_CONFIG", directory).exec();
    Failure::new(format!("--config {}: {error}", directory.to_string_lossy()))
}
