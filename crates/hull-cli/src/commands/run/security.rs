//! The flags of `run` and `create` that say how a container is kept apart from the machine.

use std::path::Path;

use clap::ArgAction;
use hull_engine::config::{IpcMode, Level, NamespaceChoice, Namespaces, RunConfig, Security, Source, UserChoice};
use hull_engine::{can_map_owners, cdi, flags, seccomp};

use crate::commands::Failure;
use crate::commands::values::{all, named, optional, read_text};
use crate::output;

/// Flags of isolation.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Isolation")]
pub(in crate::commands) struct Isolation {
    /// Where single settings start from: compat (Docker's), standard or hardened [default: standard, or HULL_SECURITY]
    #[arg(long = "security", value_name = "LEVEL")]
    level: Option<String>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    cap_drop: Vec<String>,
    /// All capabilities and devices, nothing hidden or filtered
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    privileged: bool,
    /// seccomp=FILE|unconfined|builtin, apparmor=PROFILE, label=LABEL, no-new-privileges[=false],
    /// systempaths=unconfined, writable-cgroups[=false]
    #[arg(long = "security-opt", value_name = "OPTION")]
    security: Vec<String>,
    /// Users: host, or private (auto) for a block of IDs of its own
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Process IDs: private, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// IPC: private, shareable, none, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Host name: private, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// Control group view: private, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long = "sysctl", value_name = "KEY=VALUE")]
    sysctls: Vec<String>,
    /// Add a device of the host, a directory of devices, or one that a vendor describes (VENDOR/CLASS=NAME)
    #[arg(long = "device", value_name = "HOST[:CONTAINER[:rwm]]")]
    devices: Vec<String>,
    /// Add a rule to the allowed devices
    #[arg(long = "device-cgroup-rule", value_name = "RULE")]
    device_rules: Vec<String>,
    /// Add GPUs: all, a number, or device=ID,...
    #[arg(long, value_name = "GPUS")]
    gpus: Option<String>,
    /// A small first process reaps and passes signals on
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    init: bool,
    /// OCI runtime that runs it: a name or a path [default: Hull's own]
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<String>,
}

impl Isolation {
    /// Fills in the isolation of a configuration, after its networks.
    pub(super) fn apply(&self, config: &mut RunConfig) -> Result<(), Failure> {
        config.security = self.security()?;
        let network = std::mem::take(&mut config.namespaces.network);
        config.namespaces = Namespaces { network, ..self.namespaces()? };
        config.sysctls = all("--sysctl", &self.sysctls, flags::sysctl)?.into_iter().collect();
        let (described, nodes): (Vec<_>, Vec<_>) = self.devices.iter().cloned().partition(|text| cdi::is_name(text));
        config.cdi = described;
        config.cdi.extend(optional("--gpus", self.gpus.as_ref(), cdi::gpus)?.into_iter().flatten());
        config.devices = all("--device", &nodes, flags::device)?.into_iter().flatten().collect();
        config.device_rules = all("--device-cgroup-rule", &self.device_rules, flags::device_rule)?;
        config.init = self.init;
        config.runtime = self.runtime.clone().filter(|name| !name.is_empty() && name != "hull");
        self.users(config)?;
        conflicts(config)
    }

    fn namespaces(&self) -> Result<Namespaces, Failure> {
        let choice = |kind: &str, value: Option<&String>, private: &[&str]| -> Result<NamespaceChoice, Failure> {
            let Some(text) = value.filter(|text| !text.is_empty()) else { return Ok(NamespaceChoice::Private) };
            let flag = if kind == "CGROUP" { "cgroupns".to_owned() } else { kind.to_ascii_lowercase() };
            flags::namespace(text, private).map_err(|reason| {
                let shown = if kind == "IPC" { format!(": {text}") } else { String::new() };
                Failure::usage(format!("--{flag}: invalid {kind} mode{shown}; {reason}"))
            })
        };
        let ipc_mode = match self.ipc.as_deref() {
            Some("shareable") => IpcMode::Shareable,
            Some("none") => IpcMode::None,
            _ => IpcMode::Private,
        };
        Ok(Namespaces {
            pid: choice("PID", self.pid.as_ref(), &["private"])?,
            ipc: choice("IPC", self.ipc.as_ref(), &["private", "shareable", "none"])?,
            uts: choice("UTS", self.uts.as_ref(), &["private"])?,
            cgroup: choice("CGROUP", self.cgroupns.as_ref(), &["private"])?,
            ipc_mode,
            ..Namespaces::default()
        })
    }

    /// Whose users the container's are: as told, and otherwise as the level says where nothing speaks against it.
    fn users(&self, config: &mut RunConfig) -> Result<(), Failure> {
        let told = self.userns.as_deref().filter(|text| !text.is_empty());
        let private = match told {
            Some("host") => false,
            Some("private" | "auto") => true,
            Some(other) => {
                let reason = format!("invalid USER mode; use one of host, private or auto, not {other:?}");
                return Err(Failure::usage(format!("--userns: {reason}")));
            }
            None => config.security.level == Level::Hardened,
        };
        if !private {
            return Ok(());
        }
        let spaces = &config.namespaces;
        let other = |choice: &NamespaceChoice| *choice != NamespaceChoice::Private;
        let reason = if config.security.privileged {
            "privileged mode is incompatible with user namespaces: use --userns=host"
        } else if other(&spaces.network) {
            "cannot share the host's or another's network namespace when user namespaces are enabled"
        } else if other(&spaces.pid) {
            "cannot share the host's or another's PID namespace when user namespaces are enabled"
        } else if other(&spaces.ipc) || other(&spaces.uts) {
            "cannot share the host's or another's namespaces when user namespaces are enabled"
        } else {
            let possible = match &config.source {
                _ if config.runtime.is_some() => Err("users of its own need Hull's own runtime".to_owned()),
                Source::Directory(path) => can_map_owners(path),
                Source::Image(_) => Ok(()),
            };
            if told.is_none()
                && let Err(reason) = possible
            {
                output::warning(format!("WARNING: the container has the machine's users: {reason}"));
                return Ok(());
            }
            config.namespaces.user = UserChoice::Private;
            return Ok(());
        };
        // A level gives way to what was asked for by name.
        if told.is_some() { Err(Failure::usage(format!("--userns: {reason}"))) } else { Ok(()) }
    }

    fn security(&self) -> Result<Security, Failure> {
        let level = match &self.level {
            Some(text) => named("--security", Level::parse(text))?,
            None => named("security", Level::parse(&hull_config::text("security").unwrap_or_default()))?,
        };
        let mut security = Security {
            level,
            no_new_privileges: level != Level::Compat,
            cap_add: all("--cap-add", &self.cap_add, |text| {
                flags::capability(text).map_err(|reason| format!("invalid CapAdd: {reason}"))
            })?,
            cap_drop: all("--cap-drop", &self.cap_drop, |text| {
                flags::capability(text).map_err(|reason| format!("invalid CapDrop: {reason}"))
            })?,
            privileged: self.privileged,
            ..Security::default()
        };
        for option in &self.security {
            let read = |path: &str| {
                read_text(Path::new(path), seccomp::MAX_BYTES)
                    .map_err(|reason| format!("opening seccomp profile failed: {reason}"))
                    .and_then(|text| seccomp::parse(text.as_bytes()).map_err(|reason| format!("{path}: {reason}")))
            };
            named("--security-opt", flags::security_option(&mut security, option, read))?;
        }
        Ok(security)
    }
}

/// Flags that contradict each other, in Docker's words where it has some.
fn conflicts(config: &RunConfig) -> Result<(), Failure> {
    let spaces = &config.namespaces;
    let refuse = |text: &str| Err(Failure::usage(text));
    if spaces.uts != NamespaceChoice::Private && (config.hostname.is_some() || config.domainname.is_some()) {
        return refuse("--hostname: conflicting options: hostname and the UTS mode");
    }
    if matches!(spaces.network, NamespaceChoice::Container(_)) && config.hostname.is_some() {
        return refuse("--hostname: conflicting options: hostname and the network mode");
    }
    for key in config.sysctls.keys() {
        if spaces.network == NamespaceChoice::Host && key.starts_with("net.") {
            return refuse(&format!("--sysctl: sysctl '{key}' not allowed in host network namespace"));
        }
        if spaces.ipc == NamespaceChoice::Host && (key.starts_with("kernel.") || key.starts_with("fs.mqueue.")) {
            return refuse(&format!("--sysctl: sysctl '{key}' not allowed in host ipc namespace"));
        }
    }
    if config.security.writable_cgroups && spaces.cgroup != NamespaceChoice::Private {
        return refuse("--security-opt: writable-cgroups needs a private cgroup namespace");
    }
    Ok(())
}
