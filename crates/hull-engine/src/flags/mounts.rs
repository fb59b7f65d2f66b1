//! `-v`, `--mount`, `--tmpfs`, `--volumes-from`: Docker's words for mounts, and its words for what is wrong with them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{Parsed, bytes};
use crate::config::{MountConfig, VolumeConfig};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// What every tmpfs of a container has unless it is told otherwise.
const TMPFS_DEFAULTS: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// Longest name of a volume.
const MAX_NAME: usize = 255;

/// The name of a volume, with Docker's rule and words.
///
/// # Errors
/// What is wrong with it.
pub fn volume_name(name: &str) -> Parsed<()> {
    let first = name.chars().next().is_some_and(|one| one.is_ascii_alphanumeric());
    let good = first && name.chars().all(|one| one.is_ascii_alphanumeric() || "_.-".contains(one));
    if name.len() == 1 && good {
        return Err(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        ));
    }
    if !good {
        return Err(format!(
            "create {name}: {name:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        ));
    }
    if name.len() > MAX_NAME {
        return Err(format!("create volume: a name has at most {MAX_NAME} characters"));
    }
    Ok(())
}

fn target_path(kind: &str, text: &str) -> Parsed<String> {
    let wrong = |reason: String| Err(format!("invalid mount config for type {kind:?}: {reason}"));
    if text.is_empty() {
        return wrong("field Target must not be empty".to_owned());
    }
    if !text.starts_with('/') {
        return wrong(format!("invalid mount path: '{text}' mount path must be absolute"));
    }
    // Also what leads to the root, such as `/a/..`.
    let mut depth = 0_u32;
    for part in Path::new(text).components() {
        match part {
            Component::ParentDir => depth = depth.saturating_sub(1),
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    if depth == 0 {
        return wrong("invalid specification: destination can't be '/'".to_owned());
    }
    Ok(text.to_owned())
}

/// A path of the host, or the name of a volume.
enum From {
    Path(PathBuf),
    Name(String),
}

fn source(text: &str, directory: &Path) -> From {
    if text.starts_with('/') {
        From::Path(PathBuf::from(text))
    } else if text.starts_with("./") || text.starts_with("../") || text == "." || text == ".." {
        From::Path(directory.join(text))
    } else {
        From::Name(text.to_owned())
    }
}

/// `-v [HOST|NAME:]CONTAINER[:OPTIONS]`. A relative path of the host begins with a dot and counts from `directory`.
///
/// # Errors
/// What is wrong, in Docker's words.
pub fn volume(text: &str, directory: &Path) -> Parsed<MountConfig> {
    let invalid = || format!("invalid volume specification: '{text}'");
    let inside = |error: String| format!("{}: {error}", invalid());
    let parts: Vec<&str> = text.split(':').collect();
    let (from, target, mode) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [from, target] => (Some(*from), *target, ""),
        [from, target, mode] => (Some(*from), *target, *mode),
        _ => return Err(invalid()),
    };
    if from.is_some_and(str::is_empty) || target.is_empty() {
        return Err(invalid());
    }
    let from = from.map(|from| source(from, directory));
    let bind = matches!(from, Some(From::Path(_)));
    let kind = if bind { "bind" } else { "volume" };
    let target = target_path(kind, target).map_err(inside)?;
    let field =
        |name: &str| inside(format!("invalid mount config for type {kind:?}: field {name} must not be specified"));
    let wrong = || format!("invalid mode: {mode}");
    let (mut recursive, mut access, mut propagation, mut no_copy) = ("rbind", None, None, false);
    let mut more = Vec::new();
    for option in mode.split(',').filter(|_| !mode.is_empty()) {
        match option {
            "ro" | "rw" | "rro" if access.is_none() => access = Some(option),
            // Labels are set only where the SELinux module is on; none of what these ask for is needed elsewhere.
            "z" | "Z" if !Path::new("/sys/fs/selinux/enforce").exists() => {}
            "z" | "Z" => return Err(format!("{text:?}: relabelling is not supported")),
            "consistent" | "cached" | "delegated" | "copy" => {}
            "nosuid" | "nodev" | "noexec" | "suid" | "dev" | "exec" => more.push(option.to_owned()),
            "bind" if bind => recursive = "bind",
            "rbind" if bind => recursive = "rbind",
            "nocopy" if bind => return Err(field("VolumeOptions")),
            "nocopy" => no_copy = true,
            mapped if mapped == "idmap" || mapped.starts_with("idmap=") => more.push(mapped.to_owned()),
            name if PROPAGATIONS.contains(&name) => {
                if !bind {
                    return Err(field("BindOptions"));
                }
                if propagation.replace(name).is_some() {
                    return Err(wrong());
                }
            }
            _ => return Err(wrong()),
        }
    }
    let mut options = Vec::new();
    if access == Some("ro") || access == Some("rro") {
        // As Docker since 25: what is mounted below is read-only too.
        options.push(if recursive == "rbind" { "rro" } else { "ro" }.to_owned());
    } else if access == Some("rw") {
        options.push("rw".to_owned());
    }
    options.extend(more);
    Ok(match from {
        Some(From::Path(source)) => {
            options.insert(0, recursive.to_owned());
            options.push(propagation.unwrap_or("rprivate").to_owned());
            MountConfig::Bind { source, target, options, create: true }
        }
        Some(From::Name(name)) => {
            volume_name(&name)?;
            MountConfig::Volume { name, target, options, volume: VolumeConfig { no_copy, ..VolumeConfig::default() } }
        }
        None => {
            let volume = VolumeConfig { anonymous: true, no_copy, ..VolumeConfig::default() };
            MountConfig::Volume { name: String::new(), target, options, volume }
        }
    })
}

/// `--tmpfs PATH[:OPTIONS]`.
///
/// # Errors
/// What was expected.
pub fn tmpfs(text: &str) -> Parsed<MountConfig> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target = target_path("tmpfs", target)?;
    let mut list: Vec<String> = TMPFS_DEFAULTS.map(String::from).to_vec();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "exec" | "suid" | "dev" => list.retain(|one| one.strip_prefix("no") != Some(option)),
            "ro" | "rw" | "nosuid" | "nodev" | "noexec" | "noatime" | "nodiratime" | "relatime" | "strictatime"
            | "noswap" | "tmpcopyup" => {
                if !list.iter().any(|one| one == option) {
                    list.push(option.to_owned());
                }
            }
            "atime" | "defaults" | "notmpcopyup" => {}
            sized if sized.starts_with("size=") && !sized.ends_with('%') => {
                list.push(format!("size={}", bytes(&sized["size=".len()..])?));
            }
            other
                if ["size=", "mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks=", "huge=", "mpol="]
                    .iter()
                    .any(|key| other.starts_with(key)) =>
            {
                list.push(other.to_owned());
            }
            other => {
                let name = other.split('=').next().unwrap_or(other);
                return Err(format!("invalid tmpfs option {name:?}"));
            }
        }
    }
    Ok(MountConfig::Tmpfs { target, options: list })
}

/// `NAME[:ro|rw]` of `--volumes-from`: the container, and whether its volumes are read-only.
///
/// # Errors
/// What is wrong, in Docker's words.
pub fn volumes_from(text: &str) -> Parsed<(&str, bool)> {
    let (name, mode) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(format!("malformed volumes-from specification: {text:?}"));
    }
    let mut read_only = false;
    for option in mode.split(',').filter(|_| !mode.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" | "z" | "Z" => {}
            _ => return Err(format!("invalid mode: {mode}")),
        }
    }
    Ok((name, read_only))
}

/// The fields of a line of comma-separated values, as `--mount` has them: quotes keep a comma.
fn fields(text: &str) -> Parsed<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut characters = text.chars().peekable();
    let mut quoted = false;
    while let Some(one) = characters.next() {
        let Some(field) = fields.last_mut() else { break };
        match one {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    if quoted { Err(format!("{text:?}: a quote is not closed")) } else { Ok(fields) }
}

/// The keys of `--mount`, collected.
#[derive(Default)]
struct Keys {
    kind: Option<String>,
    source: String,
    target: String,
    read_only: bool,
    create: bool,
    propagation: Option<String>,
    recursive: Option<String>,
    idmap: Option<String>,
    volume: VolumeConfig,
    image_subpath: String,
    tmpfs: Vec<String>,
    /// The first key of each family that was used.
    families: BTreeMap<&'static str, String>,
}

fn truth(key: &str, value: Option<&str>) -> Parsed<bool> {
    match value {
        None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(format!("invalid value for {key}: {other}")),
    }
}

impl Keys {
    fn take(&mut self, field: &str) -> Parsed<()> {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let key = key.to_lowercase();
        for family in ["bind", "volume", "tmpfs", "image"] {
            if key.starts_with(family) && key[family.len()..].starts_with('-') {
                self.families.entry(family).or_insert_with(|| key.clone());
            }
        }
        match key.as_str() {
            "readonly" | "ro" => self.read_only = truth(&key, value)?,
            "volume-nocopy" => self.volume.no_copy = truth(&key, value)?,
            "bind-nonrecursive" if truth(&key, value)? => self.recursive = Some("disabled".to_owned()),
            "bind-nonrecursive" => {}
            "bind-create-src" => self.create = truth(&key, value)?,
            _ => {
                let value = value.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
                self.pair(&key, value, field)?;
            }
        }
        Ok(())
    }

    fn pair(&mut self, key: &str, value: &str, field: &str) -> Parsed<()> {
        let split = |value: &str| {
            let (key, value) = value.split_once('=').unwrap_or((value, ""));
            (key.to_owned(), value.to_owned())
        };
        match key {
            "type" => self.kind = Some(value.to_lowercase()),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "destination" | "dst" => value.clone_into(&mut self.target),
            "consistency" => {}
            "bind-propagation" => self.propagation = Some(value.to_lowercase()),
            "bind-recursive" => match value {
                "enabled" | "disabled" | "writable" | "readonly" => self.recursive = Some(value.to_owned()),
                _ => {
                    return Err(format!(
                        "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \"writable\", \
                         or \"readonly\")"
                    ));
                }
            },
            "idmap" => self.idmap = Some(value.to_owned()),
            "volume-driver" => value.clone_into(&mut self.volume.driver),
            "volume-subpath" => value.clone_into(&mut self.volume.subpath),
            "volume-label" => self.volume.labels.extend([split(value)]),
            "volume-opt" => self.volume.driver_options.extend([split(value)]),
            "image-subpath" => value.clone_into(&mut self.image_subpath),
            "tmpfs-size" => {
                let size = bytes(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.push(format!("size={size}"));
            }
            "tmpfs-mode" => {
                let octal = u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777);
                if !octal {
                    return Err(format!("invalid value for {key}: {value}"));
                }
                self.tmpfs.push(format!("mode={value}"));
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }
}

fn subpath(kind: &str, path: &str) -> Parsed<()> {
    let outside = Path::new(path).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir));
    if outside {
        return Err(format!(
            "invalid mount config for type {kind:?}: subpath must be a relative path within the {kind}"
        ));
    }
    Ok(())
}

/// `--mount type=bind|volume|tmpfs|image,source=...,target=...,...`. Without a type it is a volume.
///
/// # Errors
/// What is wrong, in Docker's words.
pub fn mount(text: &str, directory: &Path) -> Parsed<MountConfig> {
    let mut keys = Keys::default();
    for field in fields(text)? {
        keys.take(&field)?;
    }
    let kind = keys.kind.clone().unwrap_or_else(|| "volume".to_owned());
    let wrong = |reason: String| format!("invalid mount config for type {kind:?}: {reason}");
    if !["bind", "volume", "tmpfs", "image"].contains(&kind.as_str()) {
        return Err(wrong("mount type unknown".to_owned()));
    }
    if let Some((family, _)) = keys.families.iter().find(|(family, _)| **family != kind) {
        return Err(format!("cannot mix '{family}-*' options with mount type '{kind}'"));
    }
    if keys.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let target = target_path(&kind, &keys.target)?;
    let mut options = Vec::new();
    match kind.as_str() {
        "bind" => bind(keys, target, directory, wrong),
        "volume" => {
            subpath(&kind, &keys.volume.subpath)?;
            if keys.source.is_empty() {
                keys.volume.anonymous = true;
            } else {
                volume_name(&keys.source)?;
            }
            if keys.read_only {
                options.push("rro".to_owned());
            }
            options.extend(keys.idmap.map(idmap));
            Ok(MountConfig::Volume { name: keys.source, target, options, volume: keys.volume })
        }
        "image" => {
            if keys.source.is_empty() {
                return Err(wrong("field Source must not be empty".to_owned()));
            }
            subpath(&kind, &keys.image_subpath)?;
            Ok(MountConfig::Image { image: keys.source, target, subpath: keys.image_subpath })
        }
        _ => {
            if !keys.source.is_empty() {
                return Err(wrong("field Source must not be specified".to_owned()));
            }
            options.extend(TMPFS_DEFAULTS.map(String::from));
            if keys.read_only {
                options.push("ro".to_owned());
            }
            options.extend(keys.tmpfs);
            Ok(MountConfig::Tmpfs { target, options })
        }
    }
}

fn idmap(ranges: String) -> String {
    if ranges.is_empty() { "idmap".to_owned() } else { format!("idmap={ranges}") }
}

fn bind(keys: Keys, target: String, directory: &Path, wrong: impl Fn(String) -> String) -> Parsed<MountConfig> {
    if keys.source.is_empty() {
        return Err(wrong("field Source must not be empty".to_owned()));
    }
    let From::Path(source) = source(&keys.source, directory) else {
        return Err(wrong(format!("invalid mount path: '{}' mount path must be absolute", keys.source)));
    };
    let propagation = match &keys.propagation {
        None => "rprivate",
        Some(name) if PROPAGATIONS.contains(&name.as_str()) => name,
        Some(name) => return Err(wrong(format!("invalid propagation mode: {name}"))),
    };
    let recursive = keys.recursive.as_deref().unwrap_or("enabled");
    if matches!(recursive, "readonly" | "writable") && !keys.read_only {
        return Err(format!("option 'bind-recursive={recursive}' requires 'readonly' to be specified in conjunction"));
    }
    if recursive == "readonly" && keys.propagation.as_deref() != Some("rprivate") {
        return Err(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
                .to_owned(),
        );
    }
    let mut options = vec![if recursive == "disabled" { "bind" } else { "rbind" }.to_owned()];
    if keys.read_only {
        options.push(if matches!(recursive, "disabled" | "writable") { "ro" } else { "rro" }.to_owned());
    }
    options.extend(keys.idmap.map(idmap));
    options.push(propagation.to_owned());
    Ok(MountConfig::Bind { source, target, options, create: keys.create })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        let here = Path::new("/here");
        let MountConfig::Bind { source, target, options, .. } = volume("./a:/b:ro", here).expect("parses") else {
            panic!("no bind mount")
        };
        assert_eq!((source.to_str(), target.as_str()), (Some("/here/./a"), "/b"));
        assert_eq!(options, ["rbind", "rro", "rprivate"]);
        let named = volume("data:/b:nocopy,ro", here).expect("parses");
        let MountConfig::Volume { name, options, volume: more, .. } = &named else { panic!("no volume") };
        assert_eq!((name.as_str(), options.as_slice(), more.no_copy), ("data", &["rro".to_owned()][..], true));
        assert!(named.read_only());
        let anonymous = volume("/b", here).expect("parses");
        assert!(matches!(anonymous, MountConfig::Volume { volume: VolumeConfig { anonymous: true, .. }, .. }));
        for (text, reason) in [
            ("/a:/", "destination can't be '/'"),
            ("/a:/b/..", "destination can't be '/'"),
            ("/a:/b:xx", "invalid mode: xx"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
            ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
            ("/a:b", "mount path must be absolute"),
            (":/b", "invalid volume specification"),
            ("", "invalid volume specification"),
            ("x:/b", "too short"),
            ("a/b:/b", "use absolute path"),
            ("aa:/b:rshared", "field BindOptions must not be specified"),
            ("/a:/b:nocopy", "field VolumeOptions must not be specified"),
        ] {
            let error = volume(text, here).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn long_forms() {
        let here = Path::new("/");
        let given = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave", here).expect("parses");
        let MountConfig::Bind { options, create, .. } = given else { panic!("no bind mount") };
        assert_eq!(options, ["rbind", "rro", "rslave"]);
        assert!(!create);
        let given = mount("type=bind,src=/a,dst=/b,ro,bind-recursive=writable", here).expect("parses");
        assert!(matches!(given, MountConfig::Bind { options, .. } if options == ["rbind", "ro", "rprivate"]));
        let given = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700", here).expect("parses");
        let MountConfig::Tmpfs { options, .. } = given else { panic!("no tmpfs") };
        assert_eq!(options, ["nosuid", "nodev", "noexec", "size=1048576", "mode=700"]);
        let text = "src=data,dst=/b,volume-subpath=a/b,\"volume-opt=o=addr=1.2.3.4,rw\",volume-label=x=y";
        let MountConfig::Volume { name, volume, .. } = mount(text, here).expect("parses") else { panic!("no volume") };
        assert_eq!((name.as_str(), volume.subpath.as_str()), ("data", "a/b"));
        assert_eq!(volume.driver_options["o"], "addr=1.2.3.4,rw");
        assert_eq!(volume.labels["x"], "y");
        for (text, reason) in [
            ("type=bind,target=/b", "invalid mount config for type \"bind\": field Source must not be empty"),
            ("type=bind,src=a,target=/b", "invalid mount path: 'a' mount path must be absolute"),
            ("type=foo,target=/b", "invalid mount config for type \"foo\": mount type unknown"),
            ("target=b", "invalid mount path: 'b' mount path must be absolute"),
            ("src=aa", "target is required"),
            ("type=tmpfs,src=/a,target=/b", "field Source must not be specified"),
            ("type=bind,src=/a,target=/b,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
            ("type=volume,target=/b,tmpfs-size=1", "cannot mix 'tmpfs-*' options with mount type 'volume'"),
            ("type=bind,src=/a,target=/b,bind-recursive=xx", "invalid value for bind-recursive"),
            ("type=bind,src=/a,target=/b,bind-recursive=readonly", "requires 'readonly'"),
            ("type=bind,src=/a,target=/b,readonly=maybe", "invalid value for readonly: maybe"),
            ("type=bind,src=/a,target=/b,bind-propagation=xx", "invalid propagation mode: xx"),
            ("foo=bar,target=/x", "unexpected key 'foo' in 'foo=bar'"),
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("src=aa,dst=/b,volume-subpath=../x", "subpath must be a relative path within the volume"),
            ("type=image,dst=/b", "field Source must not be empty"),
            ("type=tmpfs,dst=/b,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
            ("type=tmpfs,\"dst=/b", "a quote is not closed"),
        ] {
            let error = mount(text, here).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn file_systems_in_memory_and_other_containers() {
        let MountConfig::Tmpfs { options, .. } = tmpfs("/t:exec,size=64k,mode=1777").expect("parses") else {
            panic!("no tmpfs")
        };
        assert_eq!(options, ["nosuid", "nodev", "size=65536", "mode=1777"]);
        assert!(tmpfs("t").expect_err("relative").contains("mount path must be absolute"));
        assert_eq!(tmpfs("/t:foo=1").expect_err("unknown"), "invalid tmpfs option \"foo\"");
        assert_eq!(volumes_from("web:ro"), Ok(("web", true)));
        assert_eq!(volumes_from("web"), Ok(("web", false)));
        assert_eq!(volumes_from("web:xx").expect_err("mode"), "invalid mode: xx");
    }
}
