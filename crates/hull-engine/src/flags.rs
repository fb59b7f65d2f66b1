//! Values of command-line flags, as Docker spells them. Pure except where a flag names a device of the host.
//!
//! Each function returns what was expected as its error; the caller adds the flag's name.

mod mounts;
pub mod network;
mod security;

use std::path::{Path, PathBuf};

use hull_oci::spec::Rlimit;
use rustix::fs::{FileType, major, minor};

use crate::config::{DeviceConfig, DeviceRuleConfig, NamespaceChoice, Rate, RestartPolicy};

pub use mounts::{mount, tmpfs, volume, volume_name, volumes_from};
pub use security::security_option;

type Parsed<T> = Result<T, String>;

/// `512m`, `1.5g`, `1024`: bytes with the binary suffixes b, k, m, g, t, optionally followed by `b` or `ib`.
///
/// # Errors
/// What was expected.
pub fn bytes(text: &str) -> Parsed<i64> {
    let expected = || format!("invalid size: '{text}'; use a number with an optional suffix b, k, m or g");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(lower.len());
    let (number, suffix) = lower.split_at(digits);
    let shift = match suffix.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(expected()),
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is more than the kernel can count"));
    }
    let fraction: f64 = number.parse().map_err(|_| expected())?;
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "range is checked")]
    {
        let value = fraction * (1_i64 << shift) as f64;
        if value < i64::MAX as f64 {
            Ok(value as i64)
        } else {
            Err(format!("{text:?} is more than the kernel can count"))
        }
    }
}

/// [`bytes`], or -1 for unlimited.
///
/// # Errors
/// What was expected.
pub fn bytes_or_unlimited(text: &str) -> Parsed<i64> {
    if text.trim() == "-1" { Ok(-1) } else { bytes(text) }
}

/// `1.5` CPUs as billionths; digits beyond the ninth are refused rather than rounded.
///
/// # Errors
/// What was expected.
pub fn cpus(text: &str) -> Parsed<i64> {
    let expected = || format!("failed to parse {text} as a rational number; use a decimal such as 1.5, at least 0.01");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return Err(expected());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| expected())? };
    let nanos: i64 = format!("{fraction:0<9}").parse().map_err(|_| expected())?;
    let value = whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(nanos)).ok_or_else(expected)?;
    if value < 10_000_000 { Err(expected()) } else { Ok(value) }
}

/// A CPU or node list such as `0-3,7`.
///
/// # Errors
/// What was expected.
pub fn cpu_list(text: &str) -> Parsed<String> {
    let ok = text.split(',').all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(first), Ok(last)) if first <= last && last < 8192)
    });
    if ok { Ok(text.to_owned()) } else { Err(format!("invalid format: {text}; use a list such as 0-3,7")) }
}

/// `NAME=value`, or `NAME` taken from Hull's own environment; `None` when that does not have it.
///
/// # Errors
/// What was expected.
pub fn env(text: &str, own: impl Fn(&str) -> Option<String>) -> Parsed<Option<String>> {
    if text.contains('\0') {
        return Err(format!("{text:?} has a null byte"));
    }
    match text.split_once('=') {
        Some(("", _)) => Err(format!("{text:?} has no name before '='")),
        Some(_) => Ok(Some(text.to_owned())),
        None if text.is_empty() => Err("expected NAME=value or NAME".to_owned()),
        None => Ok(own(text).map(|value| format!("{text}={value}"))),
    }
}

/// The lines of an env file: comments and blank lines are skipped, names have no white space.
///
/// # Errors
/// The line and what was expected.
pub fn env_file(content: &str, own: impl Fn(&str) -> Option<String>) -> Parsed<Vec<String>> {
    let mut list = Vec::new();
    for (number, line) in content.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.contains(char::is_whitespace) {
            return Err(format!("line {}: variable name {name:?} has white space", number + 1));
        }
        list.extend(env(line, &own).map_err(|reason| format!("line {}: {reason}", number + 1))?);
    }
    Ok(list)
}

/// `key=value`; a missing value is empty.
///
/// # Errors
/// What was expected.
pub fn pair(text: &str) -> Parsed<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        Err(format!("{text:?} has no key: expected KEY=VALUE"))
    } else {
        Ok((key.into(), value.into()))
    }
}

/// `--restart`: Docker's policies.
///
/// # Errors
/// What was found and what was expected.
pub fn restart(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
    match (name, count) {
        ("" | "no", None) => Ok(RestartPolicy::No),
        ("always", None) => Ok(RestartPolicy::Always),
        ("unless-stopped", None) => Ok(RestartPolicy::UnlessStopped),
        ("on-failure", None) => Ok(RestartPolicy::OnFailure(0)),
        ("on-failure", Some(count)) => count
            .parse()
            .map(RestartPolicy::OnFailure)
            .map_err(|_| "invalid restart policy format: maximum retry count must be an integer".to_owned()),
        ("no" | "always" | "unless-stopped", Some(_)) => {
            Err("invalid restart policy: maximum retry count can only be used with 'on-failure'".to_owned())
        }
        _ => Err(format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

/// A container or host name's characters.
///
/// # Errors
/// What was expected.
pub fn container_name(text: &str) -> Parsed<String> {
    let mut characters = text.chars();
    let first = characters.next().is_some_and(|first| first.is_ascii_alphanumeric());
    let rest = characters.all(|one| one.is_ascii_alphanumeric() || "_.-".contains(one));
    if first && rest && (2..=255).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed; use two or more characters"
        ))
    }
}

/// `nofile=1024:2048`; -1 means unlimited.
///
/// # Errors
/// What was expected.
pub fn ulimit(text: &str) -> Parsed<Rlimit> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let expected = || format!("{text:?} is not a limit: expected TYPE=SOFT[:HARD], such as nofile=1024:2048");
    let (name, values) = text.split_once('=').ok_or_else(expected)?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}; use one of {}", NAMES.join(", ")));
    }
    let value = |text: &str| match text {
        "-1" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| expected()),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(Rlimit { kind: format!("RLIMIT_{}", name.to_ascii_uppercase()), hard, soft })
}

/// A capability's name, with or without `CAP_`, in any case; `ALL` stays.
///
/// # Errors
/// What was expected.
pub fn capability(text: &str) -> Parsed<String> {
    let upper = text.to_ascii_uppercase();
    if upper == "ALL" || upper == "CAP_ALL" {
        return Ok("ALL".to_owned());
    }
    let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    if hull_oci::spec::CAPABILITIES.contains(&name.as_str()) {
        Ok(name)
    } else {
        Err(format!("unknown capability: {name:?}; use a name such as NET_ADMIN, or ALL"))
    }
}

/// `host`, `private`, `none`, `container:NAME` or `ns:PATH`.
///
/// # Errors
/// What was expected.
pub fn namespace(text: &str, private: &[&str]) -> Parsed<NamespaceChoice> {
    if private.contains(&text) {
        return Ok(NamespaceChoice::Private);
    }
    match text.split_once(':') {
        None if text == "host" => Ok(NamespaceChoice::Host),
        Some(("container", name)) if !name.is_empty() => Ok(NamespaceChoice::Container(name.to_owned())),
        Some(("ns", path)) if path.starts_with('/') => Ok(NamespaceChoice::Path(path.to_owned())),
        _ => Err(format!("use one of {}, host, container:NAME or ns:/PATH", private.join(", "))),
    }
}

fn device_node(path: &Path) -> Parsed<(FileType, rustix::fs::Stat)> {
    let stat = rustix::fs::stat(path).map_err(|errno| {
        let reason =
            if errno == rustix::io::Errno::NOENT { "no such file or directory".to_owned() } else { errno.to_string() };
        format!("error gathering device information while adding custom device {path:?}: {reason}")
    })?;
    match FileType::from_raw_mode(stat.st_mode) {
        kind @ (FileType::BlockDevice | FileType::CharacterDevice) => Ok((kind, stat)),
        _ => Err(format!("{} is not a device", path.display())),
    }
}

fn access(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| b"rwm".contains(&byte))
}

/// `HOST[:CONTAINER[:rwm]]`: looks the node up on the host. A directory stands for every device below it.
///
/// # Errors
/// What was expected.
pub fn device(text: &str) -> Parsed<Vec<DeviceConfig>> {
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or_default();
    let (target, mode) = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => (source, "rwm"),
        (Some(mode), None, _) if access(mode) => (source, mode),
        (Some(target), None, _) => (target, "rwm"),
        (Some(target), Some(mode), None) if access(mode) => (target, mode),
        _ => return Err(format!("{text:?}: expected HOST[:CONTAINER[:PERMISSIONS]] with permissions of r, w, m")),
    };
    if !source.starts_with('/') || !target.starts_with('/') {
        return Err(format!("{text:?}: device paths must be absolute"));
    }
    let mut found = Vec::new();
    collect_devices(Path::new(source), target, mode, 0, &mut found)?;
    if found.is_empty() { Err(format!("{source} holds no device")) } else { Ok(found) }
}

fn collect_devices(source: &Path, target: &str, mode: &str, depth: u32, found: &mut Vec<DeviceConfig>) -> Parsed<()> {
    if source.is_dir() {
        if depth > 8 || found.len() > 4096 {
            return Err(format!("{} holds too many devices", source.display()));
        }
        let entries = std::fs::read_dir(source).map_err(|error| format!("{}: {error}", source.display()))?;
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type().map_err(|error| format!("{}: {error}", entry.path().display()))?;
            if kind.is_symlink() || !(kind.is_dir() || device_node(&entry.path()).is_ok()) {
                continue;
            }
            collect_devices(
                &entry.path(),
                &format!("{}/{name}", target.trim_end_matches('/')),
                mode,
                depth + 1,
                found,
            )?;
        }
        return Ok(());
    }
    let (kind, stat) = device_node(source)?;
    found.push(DeviceConfig {
        source: source.to_string_lossy().into_owned(),
        path: target.to_owned(),
        kind: if kind == FileType::BlockDevice { "b" } else { "c" }.to_owned(),
        major: major(stat.st_rdev),
        minor: minor(stat.st_rdev),
        mode: stat.st_mode & 0o777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        access: mode.to_owned(),
    });
    Ok(())
}

/// `c 10:200 rwm`, `a *:* rwm`.
///
/// # Errors
/// What was expected.
pub fn device_rule(text: &str) -> Parsed<DeviceRuleConfig> {
    let expected = || format!("{text:?} is not a rule: expected 'TYPE MAJOR:MINOR ACCESS', such as 'c 10:200 rwm'");
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, mode] = parts.as_slice() else { return Err(expected()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(expected)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text.parse().map(Some).map_err(|_| expected()),
    };
    if !["a", "b", "c"].contains(kind) || !access(mode) {
        return Err(expected());
    }
    Ok(DeviceRuleConfig {
        kind: (*kind).to_owned(),
        major: number(major)?,
        minor: number(minor)?,
        access: (*mode).to_owned(),
    })
}

/// `/dev/sda:1mb` (bytes) or `/dev/sda:1000` (operations, weight).
///
/// # Errors
/// What was expected.
pub fn rate(text: &str, sized: bool) -> Parsed<Rate> {
    let (path, value) = text.rsplit_once(':').filter(|(path, _)| path.starts_with('/')).ok_or_else(|| {
        format!("{text:?}: expected DEVICE:VALUE, such as /dev/sda:{}", if sized { "1mb" } else { "1000" })
    })?;
    let value = if sized {
        u64::try_from(bytes(value)?).map_err(|_| format!("{text:?}: the rate is negative"))?
    } else {
        value.parse().map_err(|_| format!("{text:?}: {value:?} is not a whole number"))?
    };
    let path = PathBuf::from(path);
    let (kind, stat) = device_node(&path)?;
    if kind != FileType::BlockDevice {
        return Err(format!("{} is not a block device", path.display()));
    }
    Ok(Rate { path, major: major(stat.st_rdev), minor: minor(stat.st_rdev), value })
}

/// `KEY=VALUE` of `--sysctl`: only parameters that belong to a namespace of the container.
///
/// # Errors
/// What was expected.
pub fn sysctl(text: &str) -> Parsed<(String, String)> {
    let (key, value) = pair(text)?;
    let known = ["net.", "fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm"].iter().any(|one| key.starts_with(one));
    if known {
        Ok((key, value))
    } else {
        Err(format!("{key:?} does not belong to a namespace: it would change the host"))
    }
}

#[cfg(test)]
mod tests;
