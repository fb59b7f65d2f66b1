//! `RUN --mount` and `RUN --device`: comma-separated fields.

use crate::ast::{Mount, MountKind, Sharing};
use crate::error::{quote, with_suggestion};
use crate::words;

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];
const SHARING: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

fn kind_name(kind: MountKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("bind", |(name, _)| name)
}

/// Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A size with a unit, in powers of 1024: `64m`, `1.5GiB`.
fn size(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if unit.is_empty() || unit == "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * f64::from(1u32 << (shift % 30)) * f64::from(1u32 << (shift / 30 * 30));
    // The comparison is false for what is no number.
    (bytes >= 0.0 && bytes < i64::MAX as f64).then_some(bytes as u64)
}

/// What a word is replaced by when a field's value is expanded.
pub(super) type Expand<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

/// Which keys were given, as far as a check needs to know it.
#[derive(Default)]
struct Given {
    sharing: bool,
}

/// The mount that a flag's value means.
pub(super) fn resolve(raw: &str, expand: Expand<'_>) -> Result<Mount, String> {
    let mut mount = Mount { raw: raw.to_owned(), ..Mount::default() };
    let mut given = Given::default();
    for field in fields(raw)? {
        match field.split_once('=') {
            Some((key, value)) => {
                let value = expand(value)?;
                set(&mut mount, &mut given, &key.to_lowercase(), &value, &field)?;
            }
            None => flag(&mut mount, &field)?,
        }
    }
    check(&mount, &given)?;
    Ok(mount)
}

/// The mount as far as the text alone says it: what is expanded is judged only when it has been.
pub(super) fn outline(raw: &str) -> Result<Mount, String> {
    let mut mount = Mount { raw: raw.to_owned(), ..Mount::default() };
    let mut given = Given::default();
    for field in fields(raw)? {
        let Some((key, value)) = field.split_once('=') else {
            // Only what is right is of interest here.
            let _ = flag(&mut mount, &field);
            continue;
        };
        let key = key.to_lowercase();
        if key == "from" {
            if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                return Err("'from' doesn't support variable expansion, define alias stage instead".into());
            }
            mount.from = Some(value.to_owned());
        } else if matches!(key.as_str(), "source" | "src" | "target" | "dst" | "destination" | "id" | "env")
            || !value.contains('$')
        {
            let _ = set(&mut mount, &mut given, &key, value, &field);
        }
    }
    Ok(mount)
}

fn fields(raw: &str) -> Result<Vec<String>, String> {
    words::csv(raw).map_err(|reason| format!("failed to parse csv mounts: {reason}"))
}

/// A field without a value.
fn flag(mount: &mut Mount, field: &str) -> Result<(), String> {
    match field.to_lowercase().as_str() {
        "readonly" | "ro" => mount.read_only = Some(true),
        "readwrite" | "rw" => mount.read_only = Some(false),
        key @ "required" => {
            required(mount, key)?;
            mount.required = true;
        }
        _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
    }
    Ok(())
}

fn unexpected(mount: &Mount, key: &str) -> String {
    format!("unexpected key '{key}' for mount type '{}'", kind_name(mount.kind))
}

fn required(mount: &Mount, key: &str) -> Result<(), String> {
    match mount.kind {
        MountKind::Secret | MountKind::Ssh => Ok(()),
        _ => Err(unexpected(mount, key)),
    }
}

fn set(mount: &mut Mount, given: &mut Given, key: &str, value: &str, field: &str) -> Result<(), String> {
    let invalid = || format!("invalid value for {key}: {value}");
    let number = |radix| u32::from_str_radix(value, radix).map_err(|_| format!("invalid value {value} for {key}"));
    let text = || (!value.is_empty()).then(|| value.to_owned());
    match key {
        "type" => {
            let wanted = value.to_lowercase();
            mount.kind = KINDS.iter().find(|(name, _)| *name == wanted).map(|(_, kind)| *kind).ok_or_else(|| {
                let message = format!("unsupported mount type {}", quote(value));
                with_suggestion(message, value, KINDS.iter().map(|(name, _)| *name), true)
            })?;
        }
        "from" => mount.from = text(),
        "source" | "src" => mount.source = text(),
        "target" | "dst" | "destination" => mount.target = text(),
        "readonly" | "ro" => mount.read_only = Some(boolean(value).ok_or_else(invalid)?),
        "readwrite" | "rw" => mount.read_only = Some(!boolean(value).ok_or_else(invalid)?),
        "required" => {
            required(mount, key)?;
            mount.required = boolean(value).ok_or_else(invalid)?;
        }
        "size" if mount.kind == MountKind::Tmpfs => mount.size = Some(size(value).ok_or_else(invalid)?),
        "size" => return Err(unexpected(mount, key)),
        "id" => mount.id = text(),
        "sharing" => {
            let wanted = value.to_lowercase();
            mount.sharing =
                SHARING.iter().find(|(name, _)| *name == wanted).map(|(_, kind)| *kind).ok_or_else(|| {
                    let message = format!("unsupported sharing value {}", quote(value));
                    with_suggestion(message, value, SHARING.iter().map(|(name, _)| *name), true)
                })?;
            given.sharing = true;
        }
        "mode" => mount.mode = Some(number(8)?),
        "uid" => mount.uid = Some(number(10)?),
        "gid" => mount.gid = Some(number(10)?),
        "env" => mount.env = Some(value.to_owned()),
        _ => return Err(with_suggestion(format!("unexpected key '{key}' in '{field}'"), key, KEYS, true)),
    }
    Ok(())
}

fn check(mount: &Mount, given: &Given) -> Result<(), String> {
    let kind = kind_name(mount.kind);
    if matches!(mount.kind, MountKind::Bind | MountKind::Tmpfs) {
        let owned = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)];
        if let Some((key, _)) = owned.iter().find(|(_, value)| value.is_some()) {
            return Err(format!("{key} not allowed for {} type mounts", quote(kind)));
        }
    }
    if mount.kind == MountKind::Secret {
        if mount.from.is_some() {
            return Err("secret mount should not have a from".into());
        }
        if given.sharing {
            return Err("secret mount should not define sharing".into());
        }
        if mount.source.is_none() && mount.target.is_none() && mount.id.is_none() {
            return Err("invalid secret mount. one of source, target required".into());
        }
        if mount.source.is_some() && mount.id.is_some() {
            return Err("both source and id can't be set".into());
        }
    }
    if given.sharing && mount.kind != MountKind::Cache {
        return Err(format!("invalid cache sharing set for {kind} mount"));
    }
    Ok(())
}

/// Checks a `--device` value: `NAME[,required]`.
pub(super) fn check_device(raw: &str) -> Result<(), String> {
    let fields = words::csv(raw).map_err(|reason| format!("failed to parse csv devices: {reason}"))?;
    let mut name: Option<String> = None;
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => {}
            ("required", Some(value)) => {
                boolean(value).ok_or_else(|| format!("invalid value for required: {value}"))?;
            }
            ("name", Some(value)) => match &name {
                Some(name) => return Err(format!("device name already set to {name}")),
                None => name = Some(value.to_owned()),
            },
            _ if name.is_none() => name = Some(field),
            (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
            _ => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(with_suggestion(message, &key, ["name", "required"], true));
            }
        }
    }
    Ok(())
}
