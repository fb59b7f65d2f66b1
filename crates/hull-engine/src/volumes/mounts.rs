//! The mounts of a new container: what its flags, its image and other containers come to, with Docker's precedence.
//!
//! A mount of the flags wins over one of `--volumes-from`, and that over the image's `VOLUME`. Anonymous volumes get
//! their names here, so that the container's record has them before they are made.

use std::path::{Component, Path};

use crate::config::{MountConfig, RunConfig, VolumeConfig};
use crate::error::Error;
use crate::records::Engine;
use crate::{flags, names};

/// What a read-only root file system has in memory: path and mode.
const WRITABLE: [(&str, &str); 3] = [("/run", "mode=755"), ("/tmp", "mode=1777"), ("/var/tmp", "mode=1777")];

/// The path as the container's mount table has it: no empty, `.` and `..` components.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

fn is_at(mounts: &[MountConfig], target: &str) -> bool {
    mounts.iter().any(|mount| clean(mount.target()) == target)
}

/// Mounts a mount of another container read-only.
fn restrict(mount: &mut MountConfig) {
    if let MountConfig::Bind { options, .. } | MountConfig::Volume { options, .. } = mount {
        options.retain(|option| !matches!(option.as_str(), "rw" | "ro"));
        options.push("rro".to_owned());
    }
}

impl Engine {
    /// Completes the mounts of a new container.
    pub(crate) fn complete_mounts(&self, config: &mut RunConfig, image: &hull_image::Config) -> Result<(), Error> {
        // The same words twice are one mount.
        let given = std::mem::take(&mut config.mounts);
        for mount in given {
            let anonymous = matches!(&mount, MountConfig::Volume { name, .. } if name.is_empty());
            if anonymous || !config.mounts.contains(&mount) {
                config.mounts.push(mount);
            }
        }
        let targets: Vec<String> = config.mounts.iter().map(|mount| clean(mount.target())).collect();
        if let Some((_, twice)) = targets.iter().enumerate().find(|(index, path)| targets[..*index].contains(path)) {
            return Err(Error::Volume(format!("Duplicate mount point: {twice}")));
        }
        let mut others: Vec<MountConfig> = Vec::new();
        for text in &config.volumes_from {
            let wrong = |reason: String| Error::flag("--volumes-from", reason);
            let (name, read_only) = flags::volumes_from(text).map_err(wrong)?;
            for mut mount in self.find(name)?.config.mounts {
                if !matches!(mount, MountConfig::Bind { .. } | MountConfig::Volume { .. }) {
                    continue;
                }
                if read_only {
                    restrict(&mut mount);
                }
                let target = clean(mount.target());
                // The last container wins.
                others.retain(|other| clean(other.target()) != target);
                others.push(mount);
            }
        }
        others.retain(|other| !targets.contains(&clean(other.target())));
        config.lent_mounts = others.iter().map(|other| other.target().to_owned()).collect();
        config.mounts.extend(others);
        for path in image.volumes.keys() {
            let target = clean(path);
            if !path.starts_with('/') || target == "/" {
                let shown = hull_oci::spec::one_line(path);
                return Err(Error::Volume(format!(
                    "the image's volume {shown:?} is not a path that can be mounted on"
                )));
            }
            if !is_at(&config.mounts, &target) {
                let volume = VolumeConfig { anonymous: true, ..VolumeConfig::default() };
                config.mounts.push(MountConfig::Volume { name: String::new(), target, options: Vec::new(), volume });
            }
        }
        for mount in &mut config.mounts {
            match mount {
                MountConfig::Volume { name, volume, .. } => {
                    if name.is_empty() {
                        *name = names::hex(&names::random()?);
                    }
                    self.check_volume(name, volume)?;
                }
                // What a name stands for now is what later starts get.
                MountConfig::Image { image, .. } => *image = self.images.find(image)?.id.to_string(),
                MountConfig::Bind { .. } | MountConfig::Tmpfs { .. } => {}
            }
        }
        Ok(())
    }

    /// Refuses, before anything is made, a volume that could not be made.
    fn check_volume(&self, name: &str, config: &VolumeConfig) -> Result<(), Error> {
        let wrong = |reason: String| Error::Volume(format!("create {name}: {reason}"));
        if !matches!(config.driver.as_str(), "" | super::DRIVER) {
            let driver = hull_oci::spec::one_line(&config.driver);
            return Err(wrong(format!("error looking up volume plugin {driver}: plugin {driver:?} not found")));
        }
        super::device::check(&config.driver_options).map_err(wrong)
    }
}

/// The file systems in memory that a read-only root gets, where it has the directory and nothing else is mounted.
pub(crate) fn writable(config: &RunConfig, has_directory: impl Fn(&Path) -> bool) -> Vec<MountConfig> {
    if !(config.read_only && config.read_only_tmpfs) {
        return Vec::new();
    }
    let wanted = |(path, _): &&(&str, &str)| !is_at(&config.mounts, path) && has_directory(Path::new(path));
    let mount = |(path, mode): &(&str, &str)| MountConfig::Tmpfs {
        target: (*path).to_owned(),
        options: ["nosuid", "nodev", "tmpcopyup", mode].map(str::to_owned).to_vec(),
    };
    WRITABLE.iter().filter(wanted).map(mount).collect()
}
