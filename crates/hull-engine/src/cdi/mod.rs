//! Devices that vendors describe: the Container Device Interface, `--device VENDOR/CLASS=NAME` and `--gpus`.
//!
//! A description is a JSON or YAML file of [`DIRECTORIES`]; of two that name the same device the one in the later
//! directory counts, and two in one directory are an error. It is read anew at each start, bounded and strictly:
//! unknown fields, versions and names are refused, because what it says is done with the machine's privileges.

mod yaml;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use hull_oci::spec::{Device, DeviceRule, Hook, Hooks, IntelRdt, Mount, NetDevice, Spec};
use rustix::fs::{FileType, major, minor};
use serde::Deserialize;

use crate::error::Error;

/// Where descriptions are, the later one counting more.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

const MAX_BYTES: u64 = 4 << 20;

/// Files looked at in one directory.
const MAX_FILES: usize = 256;

const VERSIONS: [&str; 10] = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Description {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    devices: Vec<Named>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Named {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<EditMount>,
    hooks: Vec<EditHook>,
    intel_rdt: Option<Rdt>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<u32>,
    net_devices: Vec<NetEdit>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    path: String,
    #[serde(default)]
    host_path: String,
    #[serde(default, rename = "type")]
    kind: String,
    major: Option<i64>,
    minor: Option<i64>,
    file_mode: Option<u32>,
    #[serde(default)]
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EditMount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EditHook {
    hook_name: String,
    path: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct Rdt {
    #[serde(rename = "closID")]
    clos_id: String,
    #[serde(rename = "l3CacheSchema")]
    l3_cache_schema: String,
    mem_bw_schema: String,
    schemata: Vec<String>,
    enable_monitoring: bool,
    #[serde(rename = "enableCMT")]
    enable_cmt: bool,
    #[serde(rename = "enableMBM")]
    enable_mbm: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetEdit {
    host_interface_name: String,
    name: String,
}

/// Whether a value of `--device` names a described device rather than a path.
#[must_use]
pub fn is_name(text: &str) -> bool {
    parse_name(text).is_some()
}

/// `VENDOR/CLASS=NAME` as kind and name.
fn parse_name(text: &str) -> Option<(&str, &str)> {
    let (kind, name) = text.split_once('=')?;
    (valid_kind(kind) && valid_device(name)).then_some((kind, name))
}

fn word(text: &str, inner: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    edge(bytes.first())
        && edge(bytes.last())
        && text.len() <= 255
        && text.chars().all(|one| one.is_ascii_alphanumeric() || inner.contains(one))
}

fn valid_kind(kind: &str) -> bool {
    kind.split_once('/').is_some_and(|(vendor, class)| {
        let letter = |text: &str| text.starts_with(|one: char| one.is_ascii_alphabetic());
        letter(vendor) && letter(class) && word(vendor, "_-.") && word(class, "_-")
    })
}

fn valid_device(name: &str) -> bool {
    word(name, "_-.:")
}

/// What `--gpus` asks for, as names of described devices. `all`, a number, or `device=0,1`; further fields that Docker
/// takes, such as `capabilities`, only choose among what a driver offers.
///
/// # Errors
/// What was expected.
pub fn gpus(text: &str) -> Result<Vec<String>, String> {
    let mut vendor = "nvidia.com";
    let mut wanted: Vec<String> = Vec::new();
    let mut field = "";
    for part in text.trim_matches('"').split(',') {
        let (key, value) = part.split_once('=').map_or((field, part), |(key, value)| (key.trim(), value));
        let value = value.trim_matches('"');
        match key {
            "" if value == "all" => wanted.push("all".to_owned()),
            "" | "count" => match value {
                "all" | "-1" => wanted.push("all".to_owned()),
                number => {
                    let count: u32 = number.parse().map_err(|_| {
                        format!("invalid count ({number}): value must be either \"all\" or an integer: invalid syntax")
                    })?;
                    if count > 64 {
                        return Err(format!("{text:?}: more than 64 devices"));
                    }
                    wanted.extend((0..count).map(|index| index.to_string()));
                }
            },
            "device" => wanted.push(value.to_owned()),
            "driver" => match value {
                "nvidia" | "cdi" | "" => {}
                "amd" => vendor = "amd.com",
                other => return Err(format!("could not select device driver {other:?} with capabilities: [[gpu]]")),
            },
            "capabilities" | "options" => {}
            other => return Err(format!("unexpected key '{other}' in '{text}'")),
        }
        field = if key == "count" { "" } else { key };
    }
    if wanted.is_empty() {
        wanted.push("all".to_owned());
    }
    wanted
        .into_iter()
        .map(|name| {
            let name = format!("{vendor}/gpu={name}");
            if is_name(&name) { Ok(name) } else { Err(format!("{text:?}: {name:?} is no device")) }
        })
        .collect()
}

/// Adds what the descriptions of these devices say to a specification.
///
/// # Errors
/// [`Error::Flag`] naming the devices that nothing describes, or the description that is wrong.
pub fn inject(spec: &mut Spec, names: &[String], directories: &[impl AsRef<Path>]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let described = read_all(directories, names)?;
    let mut used: Vec<&Description> = Vec::new();
    let mut edits = Vec::new();
    let mut missing = Vec::new();
    for text in names {
        let found = parse_name(text).and_then(|(kind, name)| {
            // From the directory that counts most.
            described.iter().rev().find_map(|(description, _)| {
                let device = description.devices.iter().find(|device| device.name == name)?;
                (description.kind == kind).then_some((description, &device.container_edits))
            })
        });
        let Some((description, device)) = found else {
            missing.push(text.as_str());
            continue;
        };
        // A description's own edits come once, whatever number of its devices is used.
        if !used.iter().any(|one| std::ptr::eq(*one, description)) {
            used.push(description);
            edits.push(&description.container_edits);
        }
        edits.push(device);
    }
    if !missing.is_empty() {
        let gpu = missing.iter().all(|name| name.starts_with("nvidia.com/gpu=") || name.starts_with("amd.com/gpu="));
        let reason = format!("CDI device injection failed: unresolvable CDI devices {}", missing.join(", "));
        let hint = if gpu { ": no driver describes its devices in /etc/cdi or /var/run/cdi" } else { "" };
        return Err(Error::flag("--device", format!("{reason}{hint}")));
    }
    edits.into_iter().try_for_each(|one| apply(spec, one))
}

/// All descriptions with their directory's number, in the order in which they count.
fn read_all(directories: &[impl AsRef<Path>], names: &[String]) -> Result<Vec<(Description, usize)>, Error> {
    let mut list: Vec<(Description, usize)> = Vec::new();
    for (number, directory) in directories.iter().enumerate() {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| ["json", "yaml", "yml"].iter().any(|one| end == *one)));
        paths.sort();
        paths.truncate(MAX_FILES);
        for path in paths {
            let described = match read(&path) {
                Ok(described) => described,
                Err(reason) => {
                    return Err(Error::flag("--device", format!("CDI description {}: {reason}", path.display())));
                }
            };
            for device in &described.devices {
                let full = format!("{}={}", described.kind, device.name);
                let twice = list.iter().any(|(other, at)| {
                    *at == number
                        && other.kind == described.kind
                        && other.devices.iter().any(|one| one.name == device.name)
                });
                if twice && names.contains(&full) {
                    let reason = format!("conflicting device {full:?}: described twice in {}", path.display());
                    return Err(Error::flag("--device", reason));
                }
            }
            list.push((described, number));
        }
    }
    Ok(list)
}

fn read(path: &Path) -> Result<Description, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().is_ok_and(|one| one.is_file()) {
        return Err("is not a regular file".to_owned());
    }
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    parse(&text, path.extension().is_some_and(|end| end == "json"))
}

fn parse(text: &str, json: bool) -> Result<Description, String> {
    let described: Description = if json {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        serde_json::from_value(yaml::parse(text)?).map_err(|error| error.to_string())?
    };
    let version = described.cdi_version.trim_start_matches('v');
    if !VERSIONS.contains(&version) {
        return Err(format!("cdiVersion {:?} is not known", described.cdi_version));
    }
    if !valid_kind(&described.kind) {
        return Err(format!("kind {:?}: expected VENDOR/CLASS", described.kind));
    }
    let too_long = |list: &BTreeMap<String, String>| list.iter().any(|(key, _)| key.is_empty() || key.len() > 316);
    if too_long(&described.annotations) {
        return Err("an annotation has no name".to_owned());
    }
    if described.devices.is_empty() {
        return Err("devices: is empty".to_owned());
    }
    for (index, device) in described.devices.iter().enumerate() {
        if !valid_device(&device.name) || too_long(&device.annotations) {
            return Err(format!("devices[{index}].name {:?} is not a device's name", device.name));
        }
        if described.devices[..index].iter().any(|other| other.name == device.name) {
            return Err(format!("devices[{index}].name {:?} is there twice", device.name));
        }
        device.container_edits.check().map_err(|reason| format!("devices[{index}].containerEdits.{reason}"))?;
    }
    described.container_edits.check().map_err(|reason| format!("containerEdits.{reason}"))?;
    Ok(described)
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        for (index, variable) in self.env.iter().enumerate() {
            if variable.split_once('=').is_none_or(|(name, _)| name.is_empty()) || variable.contains('\0') {
                return Err(format!("env[{index}] {variable:?}: expected NAME=VALUE"));
            }
        }
        for (index, node) in self.device_nodes.iter().enumerate() {
            if !node.path.starts_with('/') {
                return Err(format!("deviceNodes[{index}].path {:?} is not absolute", node.path));
            }
            if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
                return Err(format!("deviceNodes[{index}].type {:?}: expected b, c, u or p", node.kind));
            }
            if node.permissions.chars().any(|one| !"rwm".contains(one)) {
                return Err(format!("deviceNodes[{index}].permissions {:?}: expected r, w and m", node.permissions));
            }
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            if !mount.container_path.starts_with('/') || mount.host_path.is_empty() {
                return Err(format!("mounts[{index}]: expected a hostPath and an absolute containerPath"));
            }
        }
        for (index, hook) in self.hooks.iter().enumerate() {
            if slot(&mut Hooks::default(), &hook.hook_name).is_none() {
                return Err(format!("hooks[{index}].hookName {:?} is not a hook", hook.hook_name));
            }
            if !hook.path.starts_with('/') {
                return Err(format!("hooks[{index}].path {:?} is not absolute", hook.path));
            }
        }
        Ok(())
    }
}

fn slot<'h>(hooks: &'h mut Hooks, name: &str) -> Option<&'h mut Vec<Hook>> {
    Some(match name {
        "prestart" => &mut hooks.prestart,
        "createRuntime" => &mut hooks.create_runtime,
        "createContainer" => &mut hooks.create_container,
        "startContainer" => &mut hooks.start_container,
        "poststart" => &mut hooks.poststart,
        "poststop" => &mut hooks.poststop,
        _ => return None,
    })
}

fn apply(spec: &mut Spec, edits: &Edits) -> Result<(), Error> {
    let process = spec.process.get_or_insert_default();
    for variable in &edits.env {
        let name = variable.split('=').next().unwrap_or_default();
        process.env.retain(|one| one.split('=').next() != Some(name));
        process.env.push(variable.clone());
    }
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        if !process.user.additional_gids.contains(gid) {
            process.user.additional_gids.push(*gid);
        }
    }
    let linux = spec.linux.get_or_insert_default();
    for node in &edits.device_nodes {
        let (device, rule) = device(node)?;
        linux.devices.retain(|one| one.path != device.path);
        linux.devices.push(device);
        linux.resources.get_or_insert_default().devices.push(rule);
    }
    for device in &edits.net_devices {
        linux.net_devices.insert(device.host_interface_name.clone(), NetDevice { name: device.name.clone() });
    }
    if let Some(rdt) = &edits.intel_rdt {
        let mut schemata = rdt.schemata.clone();
        schemata.extend(Some(rdt.l3_cache_schema.clone()).filter(|one| !one.is_empty()));
        linux.intel_rdt = Some(IntelRdt {
            clos_id: rdt.clos_id.clone(),
            schemata,
            mem_bw_schema: rdt.mem_bw_schema.clone(),
            enable_monitoring: rdt.enable_monitoring || rdt.enable_cmt || rdt.enable_mbm,
            ..IntelRdt::default()
        });
    }
    for mount in &edits.mounts {
        let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
        let mut options = mount.options.clone();
        if kind == "bind" && !options.iter().any(|one| one == "bind" || one == "rbind") {
            options.push("rbind".to_owned());
        }
        spec.mounts.retain(|one| one.destination != mount.container_path);
        spec.mounts.push(Mount {
            destination: mount.container_path.clone(),
            kind: kind.to_owned(),
            source: mount.host_path.clone(),
            options,
            ..Mount::default()
        });
    }
    for hook in &edits.hooks {
        if let Some(list) = slot(spec.hooks.get_or_insert_default(), &hook.hook_name) {
            list.push(Hook {
                path: hook.path.clone(),
                args: hook.args.clone(),
                env: hook.env.clone(),
                timeout: hook.timeout,
            });
        }
    }
    Ok(())
}

/// A node with what the description leaves to the machine's own.
fn device(node: &Node) -> Result<(Device, DeviceRule), Error> {
    let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let mut kind = node.kind.clone();
    let (mut first, mut second) = (node.major, node.minor);
    let (mut mode, mut uid, mut gid) = (node.file_mode, node.uid, node.gid);
    if kind.is_empty() || (kind != "p" && first.is_none()) {
        let stat = rustix::fs::stat(host)
            .map_err(|errno| Error::flag("--device", format!("CDI device node {host}: {errno}")))?;
        let found = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => "b",
            FileType::CharacterDevice => "c",
            FileType::Fifo => "p",
            _ => return Err(Error::flag("--device", format!("CDI device node {host} is not a device"))),
        };
        if !kind.is_empty() && kind != found && !(kind == "u" && found == "c") {
            return Err(Error::flag("--device", format!("CDI device node {host} is of type {found}, not {kind}")));
        }
        found.clone_into(&mut kind);
        first = first.or(Some(i64::from(major(stat.st_rdev))));
        second = second.or(Some(i64::from(minor(stat.st_rdev))));
        mode = mode.or(Some(stat.st_mode & 0o777));
        uid = uid.or(Some(stat.st_uid));
        gid = gid.or(Some(stat.st_gid));
    }
    let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
    let rule = DeviceRule { allow: true, kind: kind.clone(), major: first, minor: second, access: access.to_owned() };
    let device = Device {
        path: node.path.clone(),
        kind,
        major: first.unwrap_or_default(),
        minor: second.unwrap_or_default(),
        file_mode: mode,
        uid,
        gid,
    };
    Ok((device, rule))
}

#[cfg(test)]
mod tests;
