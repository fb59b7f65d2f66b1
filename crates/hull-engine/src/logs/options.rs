//! `--log-driver` and `--log-opt`: what is allowed, in Docker's words, and what of it a monitor needs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hull_template::{FunctionSet, MissingKey, Template, Value};
use serde::{Deserialize, Serialize};

use super::remote::{Address, Format};
use crate::config::{LogConfig, Source};
use crate::error::Error;
use crate::records::Container;
use crate::{flags, pattern};

/// Without `max-size`: Hull's logs are bounded. Docker's json-file is not, and its local has five files of 20 MB.
const MAX_SIZE: u64 = 10_000_000;
const MAX_FILES: u32 = 3;
const LOCAL: (u64, u32) = (20_000_000, 5);

/// What a socket's driver keeps of output that nobody takes.
const BUFFER: usize = 1 << 20;

/// Where output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Driver {
    #[default]
    Json,
    Local,
    Journald,
    Syslog,
    None,
}

impl Driver {
    pub(crate) fn of(config: &LogConfig) -> Result<Self, String> {
        Ok(match config.driver.as_str() {
            "" | "json-file" => Self::Json,
            "local" => Self::Local,
            "journald" => Self::Journald,
            "syslog" => Self::Syslog,
            "none" => Self::None,
            other => return Err(format!("error looking up logging plugin {other}: plugin {other:?} not found")),
        })
    }

    /// The name that users know.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "json-file",
            Self::Local => "local",
            Self::Journald => "journald",
            Self::Syslog => "syslog",
            Self::None => "none",
        }
    }

    fn knows(self, option: &str) -> bool {
        let attributes = matches!(option, "labels" | "labels-regex" | "env" | "env-regex" | "tag");
        let remote = option == "cache-disabled" || option.starts_with("cache-");
        match self {
            _ if option == "mode" || option == "max-buffer-size" => true,
            Self::Json => attributes || matches!(option, "max-size" | "max-file" | "compress"),
            Self::Local => matches!(option, "max-size" | "max-file" | "compress"),
            Self::Journald => attributes || remote,
            Self::Syslog => {
                attributes || remote || matches!(option, "syslog-address" | "syslog-facility" | "syslog-format")
            }
            Self::None => true,
        }
    }
}

/// Everything that a monitor needs to keep a container's output, and that it hands over to its next image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) driver: Driver,
    pub(crate) max_size: u64,
    pub(crate) max_files: u32,
    pub(crate) compress: bool,
    /// What goes with each line, as the options ask.
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) buffer: usize,
    pub(crate) address: Option<Address>,
    pub(crate) format: Format,
    /// Facility in the priority's place.
    pub(crate) facility: u8,
    pub(crate) tag: String,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) image: String,
}

/// Bytes as Docker's `units.FromHumanSize` reads them: `10m` is ten million.
fn human_size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, factor) = match number.char_indices().last()? {
        (at, 'k') => (&number[..at], 1000),
        (at, 'm') => (&number[..at], 1_000_000),
        (at, 'g') => (&number[..at], 1_000_000_000),
        (at, 't') => (&number[..at], 1_000_000_000_000),
        _ => (number, 1),
    };
    let number = number.trim_end_matches(' ');
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let fraction = number.parse::<f64>().ok().filter(|_| plain)?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a size as people write it"
    )]
    Some((fraction * factor as f64) as u64)
}

/// `true` and `false` in all of Go's spellings.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Plan {
    fn files(&mut self, options: &BTreeMap<String, String>) -> Result<(), String> {
        (self.max_size, self.max_files) = if self.driver == Driver::Local { LOCAL } else { (MAX_SIZE, MAX_FILES) };
        if let Some(text) = options.get("max-size") {
            // Docker's -1 is without limit.
            self.max_size = match text.as_str() {
                "-1" => u64::MAX,
                text => {
                    human_size(text).ok_or_else(|| format!("invalid value for max-size: invalid size: '{text}'"))?
                }
            };
            if self.max_size == 0 {
                return Err("max-size must be a positive number".to_owned());
            }
        }
        if let Some(text) = options.get("max-file") {
            self.max_files =
                text.parse().map_err(|_| format!("invalid value for max-file: parsing {text:?}: invalid syntax"))?;
            if self.max_files < 1 {
                return Err("max-file cannot be less than 1".to_owned());
            }
            self.max_files = self.max_files.min(1000);
        }
        let single = self.max_files < 2 || self.max_size == u64::MAX;
        self.compress = match options.get("compress") {
            None => !single,
            Some(text) => truth(text).ok_or_else(|| format!("invalid value for compress: parsing {text:?}"))?,
        };
        if self.compress && single {
            return Err("compress cannot be true when max-file is less than 2 or when max-size is not set".to_owned());
        }
        Ok(())
    }

    fn syslog(&mut self, options: &BTreeMap<String, String>) -> Result<(), String> {
        const FACILITIES: [&str; 24] = [
            "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "",
            "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
        ];
        let facility = options.get("syslog-facility").map_or("daemon", String::as_str);
        let number = FACILITIES.iter().position(|name| !name.is_empty() && *name == facility);
        let number = number.or_else(|| facility.parse().ok().filter(|number| *number <= 23));
        let number = number.ok_or_else(|| "invalid syslog facility".to_owned())?;
        self.facility = u8::try_from(number).unwrap_or(3);
        let address = options.get("syslog-address").map_or("", String::as_str);
        self.address = Some(syslog_address(address)?);
        self.format = match options.get("syslog-format").map_or("", String::as_str) {
            "" if address.is_empty() || address.starts_with("unix") => Format::Local,
            "" => Format::Default,
            "rfc3164" => Format::Rfc3164,
            "rfc5424" => Format::Rfc5424,
            "rfc5424micro" => Format::Rfc5424Micro,
            _ => return Err("Invalid syslog format".to_owned()),
        };
        Ok(())
    }

    /// What the options say for themselves.
    fn of(config: &LogConfig) -> Result<Self, String> {
        let driver = Driver::of(config)?;
        let options = &config.options;
        let mut plan = Self { driver, buffer: BUFFER, ..Self::default() };
        if driver == Driver::None {
            return Ok(plan);
        }
        let mode = options.get("mode").map_or("blocking", String::as_str);
        if mode != "blocking" && mode != "non-blocking" {
            return Err(format!("logger: logging mode not supported: {mode}"));
        }
        if let Some(text) = options.get("max-buffer-size") {
            if mode != "non-blocking" {
                return Err("logger: max-buffer-size option is only supported with 'mode=non-blocking'".to_owned());
            }
            let size = flags::bytes(text)
                .map_err(|_| format!("error parsing option max-buffer-size: invalid size: '{text}'"))?;
            plan.buffer = usize::try_from(size).unwrap_or(BUFFER).min(64 << 20);
        }
        if let Some(unknown) = options.keys().find(|option| !driver.knows(option)) {
            return Err(match driver {
                Driver::Local => format!("unknown log opt '{unknown}' for log driver local"),
                _ => format!("unknown log opt '{unknown}' for {} log driver", driver.name()),
            });
        }
        match driver {
            Driver::Json | Driver::Local => plan.files(options)?,
            Driver::Syslog => plan.syslog(options)?,
            Driver::Journald => {
                plan.address = Some(Address::Datagram(PathBuf::from("/run/systemd/journal/socket")));
            }
            Driver::None => {}
        }
        if let Some(tag) = options.get("tag") {
            Template::parse(tag).map_err(|error| format!("invalid log tag {tag:?}: {error}"))?;
        }
        Ok(plan)
    }

    /// The plan of a container whose options were accepted.
    pub(crate) fn new(container: &Container) -> Self {
        let config = &container.config.log;
        // Options that were accepted once may depend on names that cannot be resolved now: then the log is off.
        let mut plan = Self::of(config).unwrap_or(Self { driver: Driver::None, ..Self::default() });
        plan.id.clone_from(&container.id);
        plan.name.clone_from(&container.name);
        plan.image = match &container.config.source {
            Source::Image(name) => name.clone(),
            Source::Directory(path) => path.display().to_string(),
        };
        plan.attributes = attributes(container);
        let asked = config.options.get("tag").map(|tag| tag_of(tag, container, &plan.image));
        match (plan.driver, asked) {
            (Driver::Json, Some(tag)) if !tag.is_empty() => {
                plan.attributes.insert("tag".to_owned(), tag);
            }
            (_, Some(tag)) => plan.tag = tag,
            (_, None) => plan.tag = container.id.chars().take(12).collect(),
        }
        plan
    }
}

/// What the options ask to go with each line.
fn attributes(container: &Container) -> BTreeMap<String, String> {
    let options = &container.config.log.options;
    let names = |key: &str| options.get(key).map_or("", String::as_str).split(',').filter(|name| !name.is_empty());
    let mut found = BTreeMap::new();
    let labels = &container.config.labels;
    for name in names("labels") {
        if let Some(value) = labels.get(name) {
            found.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(wanted) = options.get("labels-regex") {
        found.extend(
            labels.iter().filter(|(name, _)| pattern::matches(wanted, name)).map(|(k, v)| (k.clone(), v.clone())),
        );
    }
    for variable in &container.config.env {
        let Some((name, value)) = variable.split_once('=') else { continue };
        let wanted = names("env").any(|one| one == name)
            || options.get("env-regex").is_some_and(|wanted| pattern::matches(wanted, name));
        if wanted {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    found
}

fn tag_of(template: &str, container: &Container, image: &str) -> String {
    let text = |text: &str| Value::from(text);
    let first = |text: &str| text.chars().take(12).collect::<String>();
    let image_id = container.image_id.strip_prefix("sha256:").unwrap_or(&container.image_id);
    let fields = [
        ("ID", text(&first(&container.id))),
        ("FullID", text(&container.id)),
        ("Name", text(&container.name)),
        ("ImageID", text(&first(image_id))),
        ("ImageFullID", text(&container.image_id)),
        ("ImageName", text(image)),
        ("Command", text(&container.args.join(" "))),
        ("DaemonName", text("hull")),
    ];
    let data = Value::map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    let parsed = Template::parse(template);
    let made = parsed.and_then(|one| one.execute(&data, MissingKey::NoValue, FunctionSet::default()));
    // Syslog and the journal take one line.
    hull_oci::spec::one_line(&made.unwrap_or_default())
}

fn syslog_address(text: &str) -> Result<Address, String> {
    if text.is_empty() {
        let usual = ["/dev/log", "/var/run/syslog", "/var/run/log"].iter().find(|path| Path::new(path).exists());
        return Ok(Address::Datagram(PathBuf::from(usual.unwrap_or(&"/dev/log"))));
    }
    let invalid = || format!("syslog-address should be in form proto://address, got {text}");
    let (protocol, rest) = text.split_once("://").ok_or_else(invalid)?;
    match protocol {
        "unix" | "unixgram" => {
            let path = PathBuf::from(rest);
            if !path.exists() {
                return Err(format!("stat {rest}: no such file or directory"));
            }
            Ok(if protocol == "unix" { Address::Stream(path) } else { Address::Datagram(path) })
        }
        "udp" | "tcp" => {
            let (host, port) = match rest.rsplit_once(':').filter(|(host, _)| !host.ends_with(':')) {
                Some((host, port)) => (host, port.parse().map_err(|_| invalid())?),
                None => (rest, 514),
            };
            let found = hull_http::dns::Resolver::default().lookup(host);
            let found = found.map_err(|error| format!("syslog-address {text}: {error}"))?;
            let address = found.first().ok_or_else(invalid)?;
            let address = SocketAddr::new(*address, port);
            Ok(if protocol == "udp" { Address::Udp(address) } else { Address::Tcp(address) })
        }
        other => Err(format!("unsupported scheme: '{other}'")),
    }
}

/// Refuses what no container can be made with.
pub(crate) fn check(config: &LogConfig) -> Result<(), Error> {
    let named = |reason: String| {
        let flag = if reason.starts_with("error looking up logging plugin") { "--log-driver" } else { "--log-opt" };
        Error::flag(flag, reason)
    };
    let plan = Plan::of(config).map_err(named)?;
    if plan.driver == Driver::Journald && !Path::new("/run/systemd/journal/socket").exists() {
        return Err(Error::flag("--log-driver", "journald is not enabled on this host"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogConfig { driver: driver.to_owned(), options }
    }

    #[test]
    fn sizes_are_decimal_as_docker_s() {
        assert_eq!(human_size("10m"), Some(10_000_000));
        assert_eq!(human_size("1.5kB"), Some(1500));
        assert_eq!(human_size("2GiB"), Some(2_000_000_000));
        assert_eq!(human_size("512"), Some(512));
        for bad in ["", "m", "1x", "-1", "1e3"] {
            assert_eq!(human_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_in_docker_s_words() {
        let reason =
            |driver: &str, options: &[(&str, &str)]| Plan::of(&config(driver, options)).err().unwrap_or_default();
        assert_eq!(reason("splunky", &[]), "error looking up logging plugin splunky: plugin \"splunky\" not found");
        assert_eq!(reason("", &[("foo", "1")]), "unknown log opt 'foo' for json-file log driver");
        assert_eq!(reason("local", &[("tag", "x")]), "unknown log opt 'tag' for log driver local");
        assert_eq!(reason("", &[("max-file", "0")]), "max-file cannot be less than 1");
        assert_eq!(reason("", &[("mode", "x")]), "logger: logging mode not supported: x");
        assert!(reason("", &[("max-size", "big")]).contains("max-size"));
        assert!(reason("", &[("max-file", "1"), ("compress", "true")]).starts_with("compress cannot be true"));
        assert!(reason("", &[("max-buffer-size", "1m")]).contains("only supported with 'mode=non-blocking'"));
        assert!(reason("syslog", &[("syslog-facility", "nope")]).contains("facility"));
        assert!(reason("syslog", &[("syslog-address", "ftp://x")]).contains("unsupported scheme"));
        assert_eq!(reason("none", &[("anything", "1")]), "");
    }

    #[test]
    fn logs_are_bounded_by_default() {
        let plan = Plan::of(&config("", &[])).unwrap();
        assert_eq!((plan.max_size, plan.max_files, plan.compress), (10_000_000, 3, true));
        let plan = Plan::of(&config("json-file", &[("max-file", "1"), ("max-size", "1k")])).unwrap();
        assert_eq!((plan.max_size, plan.max_files, plan.compress), (1000, 1, false));
        let plan = Plan::of(&config("syslog", &[("syslog-address", "udp://127.0.0.1:99")])).unwrap();
        assert!(matches!(plan.address, Some(Address::Udp(address)) if address.port() == 99));
    }
}
