//! What the values of flags and arguments are, and their names.

use hull_engine::Engine;
use hull_engine::records::Phase;

use super::Offer;

const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];
const SIGNALS: &[&str] = &["HUP", "INT", "KILL", "QUIT", "TERM", "STOP", "CONT", "USR1", "USR2", "WINCH"];
const PLATFORMS: &[&str] =
    &["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/ppc64le", "linux/riscv64", "linux/s390x"];

/// Which containers a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    All,
    Running,
    Stopped,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Containers(Which),
    /// `CONTAINER:PATH` or a path.
    Copy,
    /// A container, image, network or volume.
    Anything,
    Images,
    Networks,
    /// What `--network` takes.
    Network,
    Volumes,
    /// `VOLUME:PATH` or `DIRECTORY:PATH`.
    Mount,
    /// What `--pid` and the like take.
    Namespace,
    Variables,
    Words(&'static [&'static str]),
    /// Settings of `hull config show`.
    Settings,
    Files,
    Directories,
    Nothing,
}

impl Kind {
    /// By the command, the flag (none for a positional argument), the value's name in the help, and its place.
    pub(super) fn of(path: &[&str], command: &str, flag: Option<&str>, name: &str, place: usize) -> Self {
        if let Some(flag) = flag {
            return Self::of_flag(flag, name);
        }
        let which = || match command {
            "exec" | "attach" | "top" | "stats" | "port" | "kill" | "stop" | "pause" | "unpause" | "wait" | "ui" => {
                Which::Running
            }
            "start" => Which::Stopped,
            _ => Which::All,
        };
        match (path, command) {
            (_, "run" | "create") if path.first() != Some(&"network") && path.first() != Some(&"volume") => {
                return if place == 0 { Self::Images } else { Self::Files };
            }
            (_, "exec") => return if place == 0 { Self::Containers(which()) } else { Self::Files },
            (_, "cp") => return Self::Copy,
            (_, "build") => return Self::Directories,
            (["config", ..], _) => return Self::Settings,
            (["inspect"], _) => return Self::Anything,
            (_, "tag" | "rmi" | "push" | "pull" | "history" | "save" | "explore") => return Self::Images,
            (_, "commit") => return if place == 0 { Self::Containers(Which::All) } else { Self::Images },
            (["volume", ..], "create") | (["network", ..], "create") | (_, "rename") if place > 0 => {
                return Self::Nothing;
            }
            (["volume", ..], "create") | (["network", ..], "create") => return Self::Nothing,
            (["volume", ..], "import") if place > 0 => return Self::Files,
            _ => {}
        }
        match name.split([' ', '[', ':', '|', '/']).next().unwrap_or_default() {
            "CONTAINER" | "CONTAINERS" => Self::Containers(which()),
            "IMAGE" | "IMAGES" => Self::Images,
            "NETWORK" | "NETWORKS" => Self::Networks,
            "VOLUME" | "VOLUMES" => Self::Volumes,
            "FILE" | "ARCHIVE" | "PATH" => Self::Files,
            "DIR" => Self::Directories,
            _ => Self::Nothing,
        }
    }

    fn of_flag(flag: &str, name: &str) -> Self {
        match flag {
            "network" | "net" => Self::Network,
            "volumes-from" | "link" => Self::Containers(Which::All),
            "volume" => Self::Mount,
            "pid" | "ipc" | "uts" | "userns" | "cgroupns" => Self::Namespace,
            "env" | "build-arg" => Self::Variables,
            "cap-add" | "cap-drop" => Self::Words(CAPABILITIES),
            "signal" | "stop-signal" => Self::Words(SIGNALS),
            "platform" => Self::Words(PLATFORMS),
            "restart" => Self::Words(&["no", "on-failure", "always", "unless-stopped"]),
            "log-driver" => Self::Words(&["json-file", "local", "journald", "syslog", "none"]),
            "attach" => Self::Words(&["stdin", "stdout", "stderr"]),
            "format" => Self::Words(&["json", "table"]),
            "progress" => Self::Words(&["auto", "plain", "tty", "quiet"]),
            "driver" => Self::Words(&["bridge", "macvlan", "ipvlan", "local"]),
            _ => match name.split([' ', '[', ':', '|', '/']).next().unwrap_or_default() {
                "FILE" | "PATH" => Self::Files,
                "DIR" => Self::Directories,
                "IMAGE" => Self::Images,
                "CONTAINER" => Self::Containers(Which::All),
                _ => Self::Nothing,
            },
        }
    }

    /// Adds what it may be. Records that cannot be read have no names to offer.
    pub(super) fn offer(&self, engine: &Engine, word: &str, offer: &mut Offer) {
        let mut add = |list: Vec<String>, what: &str, end: &str| {
            offer.candidates.extend(list.into_iter().map(|name| (format!("{name}{end}"), what.to_owned())));
        };
        match self {
            Self::Containers(which) => add(containers(engine, *which), "container", ""),
            Self::Copy => {
                if !word.contains(['/', ':']) {
                    add(containers(engine, Which::All), "container", ":");
                    offer.open = true;
                }
                offer.files = true;
            }
            Self::Anything => {
                add(containers(engine, Which::All), "container", "");
                add(images(engine), "image", "");
                add(volumes(engine), "volume", "");
                add(networks(engine), "network", "");
            }
            Self::Images => add(images(engine), "image", ""),
            Self::Networks => add(networks(engine), "network", ""),
            Self::Network => match word.strip_prefix("container:") {
                Some(_) => add(prefixed(containers(engine, Which::Running)), "container", ""),
                None => {
                    add(networks(engine), "network", "");
                    add(vec!["container:".to_owned()], "", "");
                }
            },
            Self::Volumes => add(volumes(engine), "volume", ""),
            Self::Mount => {
                if !word.contains(['/', ':']) {
                    add(volumes(engine), "volume", ":");
                    offer.open = true;
                }
                offer.directories = true;
            }
            Self::Namespace => match word.strip_prefix("container:") {
                Some(_) => add(prefixed(containers(engine, Which::Running)), "container", ""),
                None => add(["host", "private", "container:"].map(str::to_owned).to_vec(), "", ""),
            },
            Self::Variables => {
                let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
                add(
                    names.filter(|name| name.chars().all(|one| one.is_ascii_alphanumeric() || one == '_')).collect(),
                    "",
                    "",
                );
            }
            Self::Words(words) => add(words.iter().map(|word| (*word).to_owned()).collect(), "", ""),
            Self::Settings => {
                let about = |setting: &hull_config::Setting| (setting.key.to_owned(), setting.about.to_owned());
                offer.candidates.extend(hull_config::SETTINGS.iter().map(about));
            }
            Self::Files => offer.files = true,
            Self::Directories => offer.directories = true,
            Self::Nothing => {}
        }
    }
}

fn prefixed(names: Vec<String>) -> Vec<String> {
    names.into_iter().map(|name| format!("container:{name}")).collect()
}

fn containers(engine: &Engine, which: Which) -> Vec<String> {
    let fits = |id: &str| match which {
        Which::All => true,
        Which::Running => engine.state(id).is_ok_and(|state| state.phase == Phase::Running),
        Which::Stopped => engine.state(id).is_ok_and(|state| state.phase != Phase::Running),
    };
    let names = engine.names().unwrap_or_default();
    names.into_iter().filter(|(_, id)| fits(id)).map(|(name, _)| name).collect()
}

fn images(engine: &Engine) -> Vec<String> {
    let names = engine.images.names().unwrap_or_default();
    let mut list = Vec::new();
    for name in names {
        let familiar = name.familiar();
        list.extend(familiar.strip_suffix(":latest").map(str::to_owned));
        list.push(familiar);
    }
    list
}

fn volumes(engine: &Engine) -> Vec<String> {
    engine.volume_names().unwrap_or_default()
}

fn networks(engine: &Engine) -> Vec<String> {
    // A machine without records gets none by being asked; these are always there.
    let fixed = || ["bridge", "host", "none"].map(str::to_owned).to_vec();
    if !engine.root().join("hull.db").exists() {
        return fixed();
    }
    engine.networks().list().map_or_else(|_| fixed(), |list| list.into_iter().map(|network| network.name).collect())
}
