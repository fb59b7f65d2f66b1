//! Mounts of a container that is to be made.

use std::path::Path;

use hull_engine::config::MountConfig;
use hull_engine::flags;
use hull_oci::spec::one_line;

use crate::refusal::Refusal;
use crate::wire::create::{HostConfig, Mount};

/// A field of the flag's form, quoted so that nothing in it counts as another field.
fn field(text: &mut String, key: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(&format!("\"{key}={}\"", value.replace('"', "\"\"")));
}

/// A mount in the form of `--mount`.
fn text(mount: &Mount) -> Result<String, Refusal> {
    let wrong = |reason: &str| {
        let kind = one_line(&mount.kind);
        Refusal::bad(format!("invalid mount config for type \"{kind}\": {reason}"))
    };
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    let mut text = String::new();
    field(&mut text, "type", &mount.kind);
    field(&mut text, "target", &mount.target);
    if !mount.source.is_empty() {
        field(&mut text, "source", &mount.source);
    }
    if mount.read_only {
        field(&mut text, "readonly", "true");
    }
    let mixed = |name: &str| wrong(&format!("field {name} must not be specified"));
    let kind = mount.kind.as_str();
    if let Some(options) = &mount.bind_options {
        if kind != "bind" {
            return Err(mixed("BindOptions"));
        }
        if !options.propagation.is_empty() {
            field(&mut text, "bind-propagation", &options.propagation);
        }
        if options.create_mountpoint {
            field(&mut text, "bind-create-src", "true");
        }
        let recursive =
            match (options.non_recursive, options.read_only_non_recursive, options.read_only_force_recursive) {
                (true, ..) => "disabled",
                (_, true, _) => "writable",
                (_, _, true) => "readonly",
                _ => "enabled",
            };
        field(&mut text, "bind-recursive", recursive);
    }
    if let Some(options) = &mount.volume_options {
        if kind != "volume" {
            return Err(mixed("VolumeOptions"));
        }
        if options.no_copy {
            field(&mut text, "volume-nocopy", "true");
        }
        if !options.subpath.is_empty() {
            field(&mut text, "volume-subpath", &options.subpath);
        }
        if !options.driver_config.name.is_empty() {
            field(&mut text, "volume-driver", &options.driver_config.name);
        }
        for (key, value) in &options.driver_config.options {
            field(&mut text, "volume-opt", &format!("{key}={value}"));
        }
        for (key, value) in &options.labels {
            field(&mut text, "volume-label", &format!("{key}={value}"));
        }
    }
    if let Some(options) = &mount.image_options {
        if kind != "image" {
            return Err(mixed("ImageOptions"));
        }
        if !options.subpath.is_empty() {
            field(&mut text, "image-subpath", &options.subpath);
        }
    }
    if let Some(options) = &mount.tmpfs_options {
        if kind != "tmpfs" {
            return Err(mixed("TmpfsOptions"));
        }
        if options.size_bytes != 0 {
            field(&mut text, "tmpfs-size", &options.size_bytes.to_string());
        }
        if options.mode != 0 {
            field(&mut text, "tmpfs-mode", &format!("{:o}", options.mode));
        }
    }
    Ok(text)
}

/// All mounts that a document asks for, and `volumes`, which get no names.
pub(super) fn all<'v>(
    host: &HostConfig,
    volumes: impl Iterator<Item = &'v String>,
) -> Result<Vec<MountConfig>, Refusal> {
    let root = Path::new("/");
    let bad = |reason: String| Refusal::bad(one_line(&reason));
    let mut list: Vec<MountConfig> = Vec::new();
    for bind in &host.binds {
        list.push(flags::volume(bind, root).map_err(bad)?);
    }
    for mount in &host.mounts {
        let mut made = flags::mount(&text(mount)?, root).map_err(bad)?;
        if let (MountConfig::Tmpfs { options, .. }, Some(given)) = (&mut made, &mount.tmpfs_options) {
            options.extend(given.options.iter().map(|pair| pair.join("=")));
        }
        list.push(made);
    }
    for (target, options) in &host.tmpfs {
        let text = if options.is_empty() { target.clone() } else { format!("{target}:{options}") };
        list.push(flags::tmpfs(&text).map_err(bad)?);
    }
    for (index, mount) in list.iter().enumerate() {
        let target = mount.target().trim_end_matches('/');
        if list[..index].iter().any(|other| other.target().trim_end_matches('/') == target) {
            return Err(Refusal::bad(format!("Duplicate mount point: {}", one_line(target))));
        }
    }
    for volume in volumes {
        let made = flags::volume(volume, root).map_err(bad)?;
        // What is mounted there by name is meant.
        if !list.iter().any(|other| other.target().trim_end_matches('/') == made.target().trim_end_matches('/')) {
            list.push(made);
        }
    }
    Ok(list)
}
