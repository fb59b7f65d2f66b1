//! The list of all settings.

use serde_json::{Map, Value};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path.
    Path,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Bool,
    /// Texts; a variable separates them by commas.
    List,
    /// Names and texts; a variable has `NAME=TEXT,...`.
    Map,
    /// Names of limits and `SOFT:HARD`, or Docker's objects.
    Ulimits,
    /// `base=SUBNET,size=BITS`, or Docker's objects; a variable separates them by semicolons.
    Pools,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in the TOML file.
    pub key: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Its place in `daemon.json`, members separated by dots; empty if it has none.
    pub daemon: &'static str,
    /// Its place in `~/.docker/config.json` likewise.
    pub docker: &'static str,
    /// What holds where nobody says anything, for people.
    pub default: &'static str,
    /// What it does.
    pub about: &'static str,
    /// The machine's files say it for root only: another user could not use it.
    pub machine: bool,
}

const fn new(key: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Setting {
    Setting { key, kind, daemon: "", docker: "", default, about, machine: false }
}

impl Setting {
    const fn daemon(mut self, place: &'static str) -> Self {
        self.daemon = place;
        self
    }

    const fn docker(mut self, place: &'static str) -> Self {
        self.docker = place;
        self
    }

    const fn machine(mut self) -> Self {
        self.machine = true;
        self
    }

    /// Its variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("HULL_{}", self.key.to_ascii_uppercase().replace('-', "_"))
    }
}

/// All settings, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    new("root", Kind::Path, "/var/lib/hull, or $XDG_DATA_HOME/hull", "directory of images, containers and volumes")
        .daemon("data-root")
        .machine(),
    new("state", Kind::Path, "/run/hull, or $XDG_RUNTIME_DIR/hull", "directory of runtime state").machine(),
    new("snapshotter", Kind::Text, "found by trying", "how layers are kept: erofs or directory"),
    new(
        "disk-budget",
        Kind::Text,
        "by the disk's size",
        "what the store may keep beyond what is named: SIZE or unlimited",
    ),
    new("trash-time", Kind::Text, "7d", "how long removed volumes can be restored: 90s, 36h, 7d"),
    new("policy", Kind::Path, "/etc/containers/policy.json", "which images must be signed, and by whom"),
    new("security", Kind::Text, "standard", "where isolation starts from: compat, standard or hardened"),
    new("no-new-privileges", Kind::Bool, "by security", "containers gain no privileges by set-user-ID programs")
        .daemon("no-new-privileges"),
    new("seccomp-profile", Kind::Path, "builtin", "profile of system calls: a file, builtin or unconfined")
        .daemon("seccomp-profile"),
    new("default-network", Kind::Text, "bridge", "network of containers that name none"),
    new(
        "default-address-pools",
        Kind::Pools,
        "172.16.0.0/12, 192.168.0.0/16, 10.64.0.0/10 by /20",
        "where networks get their subnets from",
    )
    .daemon("default-address-pools"),
    new("bip", Kind::Text, "the first free subnet", "address and subnet of the network bridge, as 172.20.0.1/16")
        .daemon("bip"),
    new("mtu", Kind::Number, "the uplink's", "largest packet of networks that say none").daemon("mtu"),
    new("ip", Kind::Text, "0.0.0.0 and ::", "address of the machine that ports are published at").daemon("ip"),
    new("dns", Kind::List, "the machine's", "name servers of containers").daemon("dns"),
    new("dns-search", Kind::List, "the machine's", "domains that are tried behind short names").daemon("dns-search"),
    new("dns-opts", Kind::List, "the machine's", "options of the resolver").daemon("dns-opts"),
    new("log-driver", Kind::Text, "json-file", "where output is kept: json-file, local, journald, syslog or none")
        .daemon("log-driver"),
    new("log-opts", Kind::Map, "", "options of the log driver, such as max-size").daemon("log-opts"),
    new("default-ulimits", Kind::Ulimits, "", "limits of containers' processes, as nofile=1024:2048")
        .daemon("default-ulimits"),
    new("default-shm-size", Kind::Text, "64m", "size of /dev/shm").daemon("default-shm-size"),
    new("cgroup-parent", Kind::Text, "hull", "parent of the containers' control groups").daemon("cgroup-parent"),
    new("init", Kind::Bool, "false", "an init process runs in each container").daemon("init"),
    new("registry-mirrors", Kind::List, "", "mirrors of docker.io").daemon("registry-mirrors"),
    new("insecure-registries", Kind::List, "loopback", "registries without valid certificates or TLS")
        .daemon("insecure-registries"),
    new("http-proxy", Kind::Text, "$http_proxy", "proxy of Hull's own requests by HTTP").daemon("proxies.http-proxy"),
    new("https-proxy", Kind::Text, "$https_proxy", "proxy of Hull's own requests by HTTPS")
        .daemon("proxies.https-proxy"),
    new("no-proxy", Kind::Text, "$no_proxy", "hosts that are asked directly").daemon("proxies.no-proxy"),
    new(
        "container-proxies",
        Kind::Map,
        "",
        "variables that containers get: httpProxy, httpsProxy, noProxy, ftpProxy, allProxy",
    )
    .docker("proxies.default"),
    new("detach-keys", Kind::Text, "ctrl-p,ctrl-q", "keys that detach from a container").docker("detachKeys"),
    new("ps-format", Kind::Text, "", "format of hull ps").docker("psFormat"),
    new("images-format", Kind::Text, "", "format of hull images").docker("imagesFormat"),
    new("stats-format", Kind::Text, "", "format of hull stats").docker("statsFormat"),
    new("networks-format", Kind::Text, "", "format of hull network ls").docker("networksFormat"),
    new("volumes-format", Kind::Text, "", "format of hull volume ls").docker("volumesFormat"),
    new("ssh", Kind::Text, "ssh", "program for addresses of ssh://"),
    new("ssh-hull", Kind::Text, "hull", "Hull's path on the machines behind ssh://"),
];

/// A word for an error.
fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn pair(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: expected NAME=VALUE"))?;
    Ok((name.trim().to_owned(), Value::from(value.trim())))
}

/// `SOFT:HARD` of a text, a number or Docker's object.
fn ulimit(value: &Value) -> Result<Value, String> {
    let number = |name: &str| value.get(name).and_then(Value::as_i64);
    match value {
        Value::String(_) => Ok(value.clone()),
        Value::Number(number) => Ok(Value::from(number.to_string())),
        Value::Object(_) => match (number("Soft").or(number("soft")), number("Hard").or(number("hard"))) {
            (Some(soft), Some(hard)) => Ok(Value::from(format!("{soft}:{hard}"))),
            (Some(one), None) | (None, Some(one)) => Ok(Value::from(format!("{one}:{one}"))),
            (None, None) => Err("a limit has no Soft and no Hard".to_owned()),
        },
        other => Err(format!("expected SOFT:HARD, found {}", found(other))),
    }
}

/// `base=SUBNET,size=BITS` of a text or Docker's object.
fn pool(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(_) => Ok(value.clone()),
        Value::Object(_) => {
            let base = value.get("base").and_then(Value::as_str).ok_or("a pool has no base")?;
            let size = value.get("size").and_then(Value::as_u64).ok_or("a pool has no size")?;
            Ok(Value::from(format!("base={base},size={size}")))
        }
        other => Err(format!("expected base=SUBNET,size=BITS, found {}", found(other))),
    }
}

impl Kind {
    /// The value that a variable's text is.
    pub(crate) fn of_text(self, text: &str) -> Result<Value, String> {
        let parts = |separator: char| text.split(separator).map(str::trim).filter(|part| !part.is_empty());
        Ok(match self {
            Self::Text | Self::Path => Value::from(text),
            Self::Number => Value::from(text.trim().parse::<u64>().map_err(|_| format!("{text:?} is not a number"))?),
            Self::Bool => match text.trim().to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" | "t" | "y" => Value::from(true),
                "0" | "false" | "no" | "off" | "f" | "n" => Value::from(false),
                _ => return Err(format!("{text:?} is neither true nor false")),
            },
            Self::List => parts(',').collect(),
            Self::Map | Self::Ulimits => Value::Object(parts(',').map(pair).collect::<Result<Map<_, _>, _>>()?),
            Self::Pools => parts(';').collect(),
        })
    }

    /// The value that a file's is.
    pub(crate) fn of_value(self, value: Value) -> Result<Value, String> {
        let wrong = |expected: &str| Err(format!("expected {expected}, found {}", found(&value)));
        Ok(match (self, &value) {
            (Self::Text | Self::Path, Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Bool, Value::Bool(_)) => value,
            // Sizes are written as numbers too.
            (Self::Text, Value::Number(number)) => Value::from(number.to_string()),
            (Self::Text | Self::Path, _) => return wrong("a text"),
            (Self::Number, _) => return wrong("a number"),
            (Self::Bool, _) => return wrong("true or false"),
            (Self::List, Value::Array(list)) if list.iter().all(Value::is_string) => value,
            (Self::List, _) => return wrong("a list of texts"),
            (Self::Map, Value::Object(map)) => {
                let text = |value: &Value| match value {
                    Value::String(text) => Ok(Value::from(text.clone())),
                    Value::Number(_) | Value::Bool(_) => Ok(Value::from(value.to_string())),
                    other => Err(format!("expected a text, found {}", found(other))),
                };
                let entry = |(key, value): (&String, &Value)| text(value).map(|value| (key.clone(), value));
                Value::Object(map.iter().map(entry).collect::<Result<_, _>>()?)
            }
            (Self::Map, _) => return wrong("a table of texts"),
            (Self::Ulimits, Value::Object(map)) => {
                let entry = |(key, value): (&String, &Value)| ulimit(value).map(|value| (key.clone(), value));
                Value::Object(map.iter().map(entry).collect::<Result<_, _>>()?)
            }
            (Self::Ulimits, _) => return wrong("a table of limits"),
            (Self::Pools, Value::Array(list)) => Value::Array(list.iter().map(pool).collect::<Result<_, _>>()?),
            (Self::Pools, _) => return wrong("a list of pools"),
        })
    }
}
