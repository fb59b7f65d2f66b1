//! Values of flags, and what is said of one that is wrong.

use crate::commands::Failure;

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
pub(in crate::commands) fn value<T>(flag: &str, text: &str, result: Result<T, String>) -> Result<T, Failure> {
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
