//! Values of flags that several commands have, and what is said of one that is wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_engine::{attach, flags};
use hull_runtime::lifecycle::signal as signals;

use super::Failure;

/// An env file larger than this is refused.
const MAX_ENV_FILE: u64 = 1 << 20;

/// Puts the flag's name before what was wrong with its value.
pub(super) fn named<T>(flag: &str, result: Result<T, String>) -> Result<T, Failure> {
    result.map_err(|reason| Failure::usage(format!("{flag}: {reason}")))
}

/// Flags whose values Docker's command line looks at itself, with their short forms.
const LOOKED_AT: [(&str, &str); 17] = [
    ("--add-host", "--add-host"),
    ("--attach", "-a, --attach"),
    ("--blkio-weight-device", "--blkio-weight-device"),
    ("--cpus", "--cpus"),
    ("--device-read-bps", "--device-read-bps"),
    ("--device-read-iops", "--device-read-iops"),
    ("--device-write-bps", "--device-write-bps"),
    ("--device-write-iops", "--device-write-iops"),
    ("--dns", "--dns"),
    ("--gpus", "--gpus"),
    ("--memory", "-m, --memory"),
    ("--memory-reservation", "--memory-reservation"),
    ("--memory-swap", "--memory-swap"),
    ("--mount", "--mount"),
    ("--network", "--network"),
    ("--shm-size", "--shm-size"),
    ("--ulimit", "--ulimit"),
];

/// The same in Docker's words, where it is Docker's command line that would say it.
pub(super) fn value<T>(flag: &str, text: &str, result: Result<T, String>) -> Result<T, Failure> {
    result.map_err(|reason| match LOOKED_AT.iter().find(|(known, _)| *known == flag) {
        Some((_, both)) if !reason.starts_with("invalid mount config") => {
            Failure::usage(format!("invalid argument {text:?} for {both:?} flag: {reason}"))
        }
        _ => Failure::usage(format!("{flag}: {reason}")),
    })
}

/// Parses each value of a repeated flag.
pub(super) fn all<T>(
    flag: &str,
    values: &[String],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Failure> {
    values.iter().map(|text| value(flag, text, parse(text))).collect()
}

pub(super) fn optional<T>(
    flag: &str,
    text: Option<&String>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    text.map(|text| value(flag, text, parse(text))).transpose()
}

pub(super) fn own_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `-e` after `--env-file`, so that a single variable replaces one of a file.
pub(super) fn environment(files: &[PathBuf], variables: &[String]) -> Result<Vec<String>, Failure> {
    let mut list = Vec::new();
    for path in files {
        let text = read_text(path, MAX_ENV_FILE).map_err(|reason| Failure::usage(format!("--env-file: {reason}")))?;
        let parsed = flags::env_file(&text, own_variable).map_err(|reason| format!("{}: {reason}", path.display()));
        list.extend(named("--env-file", parsed)?);
    }
    list.extend(all("--env", variables, |text| flags::env(text, own_variable))?.into_iter().flatten());
    Ok(list)
}

pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, String> {
    use std::io::Read as _;
    let shown = path.display();
    let file = std::fs::File::open(path).map_err(|error| super::opening(path, &error))?;
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text).map_err(|error| format!("{shown}: {error}"))?;
    if text.len() as u64 > limit { Err(format!("{shown} has more than {limit} bytes")) } else { Ok(text) }
}

/// Keys as the flag names them.
pub(super) fn keys(text: &str) -> Result<Vec<u8>, Failure> {
    let setting = if text.is_empty() { hull_config::text("detach-keys") } else { None };
    let text = setting.as_deref().unwrap_or(text);
    attach::detach_keys(text).map_err(|reason| Failure::usage(format!("invalid detach keys ({text}): {reason}")))
}

pub(super) fn parse_signal(text: &str) -> Result<i32, String> {
    signals::parse(text).filter(|number| *number > 0).ok_or_else(|| format!("invalid signal: {text}"))
}

pub(super) fn signal(text: &str) -> Result<i32, Failure> {
    parse_signal(text).map_err(Failure::new)
}

/// Seconds as `--timeout` names them: -1 is for ever.
pub(super) fn grace(seconds: i64) -> Result<Option<Duration>, Failure> {
    match seconds {
        -1 => Ok(None),
        seconds => {
            let seconds = u64::try_from(seconds)
                .map_err(|_| Failure::usage(format!("--timeout: {seconds}: expected 0 or more, or -1")))?;
            Ok(Some(Duration::from_secs(seconds)))
        }
    }
}

/// Words that are not looked at.
#[derive(Debug, clap::Args)]
pub(super) struct Words {
    /// Anything
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    words: Vec<String>,
}

impl Words {
    /// All of them.
    pub(super) fn all(&self) -> &[String] {
        &self.words
    }
}
