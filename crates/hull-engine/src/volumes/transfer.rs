//! Volumes as archives, and copies of volumes. A new one appears when all of it is there and on disk.

use std::io::{BufWriter, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use hull_layer::tar::walk::{self, Options, Report};
use hull_layer::tar::{Writer, WriterOptions};
use rustix::fs::{Mode, OFlags};

use super::stage::Stage;
use super::{ANONYMOUS, Volume};
use crate::copy::place::{Existing, Policy, Users};
use crate::copy::{self, extract};
use crate::error::Error;
use crate::flags;
use crate::records::{Engine, now};

/// Everything as it is.
pub(super) const EXACT: Policy = Policy {
    existing: Existing::Replace,
    owners: true,
    devices: true,
    raw: true,
    owner: None,
    users: Users { from: 0, to: 0 },
};

pub(super) fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))
}

impl Engine {
    /// A volume's files: its directory, or what its options say is mounted there.
    fn open_volume(&self, volume: &Volume) -> Result<OwnedFd, Error> {
        match super::device::mount(volume)? {
            Some(mounted) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::openat(&mounted, c".", flags, Mode::empty()).map_err(Error::io("open", &volume.name))
            }
            None => open(&self.volume_data(&volume.name)),
        }
    }

    /// Writes a volume's files as a tar archive.
    ///
    /// # Errors
    /// [`Error::NoVolume`]; when they cannot be read or the archive not be written.
    pub fn export_volume(&self, name: &str, output: impl Write) -> Result<Report, Error> {
        let volume = self.volume(name)?;
        let data = self.open_volume(&volume)?;
        let mut writer = Writer::with_options(BufWriter::with_capacity(256 << 10, output), WriterOptions::default());
        let report = walk::write_directory(&mut writer, data.as_fd(), &Options { root: true, ..Options::default() })?;
        let finished = writer.finish().and_then(|mut output| output.flush());
        finished.map_err(hull_layer::Error::file("write", "archive"))?;
        Ok(report)
    }

    /// Puts an archive's files into a volume, which is made if there is none. One that is there is changed file by file.
    ///
    /// # Errors
    /// When the archive is damaged or does not fit; a new volume is not made then.
    pub fn import_volume(&self, name: &str, input: impl Read) -> Result<Volume, Error> {
        flags::volume_name(name).map_err(Error::Volume)?;
        match self.volume(name) {
            Ok(volume) => {
                let data = self.open_volume(&volume)?;
                extract::extract(input, data.as_fd(), Path::new("/"), true, EXACT)?;
                return Ok(volume);
            }
            Err(Error::NoVolume(_)) => {}
            Err(error) => return Err(error),
        }
        let volume = Volume { name: name.to_owned(), created: now(), ..Volume::default() };
        let stage = Stage::new(self)?;
        stage.write(&volume)?;
        extract::extract(input, open(&stage.data())?.as_fd(), Path::new("/"), true, EXACT)?;
        self.publish(stage, &volume)
    }

    fn publish(&self, stage: Stage, volume: &Volume) -> Result<Volume, Error> {
        stage.sync()?;
        let _lock = self.lock_volumes()?;
        stage.publish(&self.volume_directory(&volume.name))?;
        self.volume_event(volume, "create");
        Ok(volume.clone())
    }

    /// Copies a volume, sharing content where the file system can. Without a name the copy gets one.
    ///
    /// # Errors
    /// [`Error::NoVolume`]; [`Error::Volume`] when the name is taken; when the copy cannot be made, and is not there then.
    pub fn clone_volume(&self, name: &str, new: &str) -> Result<Volume, Error> {
        flags::volume_name(new).map_err(Error::Volume)?;
        let source = self.volume(name)?;
        if self.volume_directory(new).exists() {
            return Err(Error::Volume(format!("a volume with the name {new} exists already")));
        }
        let data = self.open_volume(&source)?;
        let mut volume = Volume {
            name: new.to_owned(),
            created: now(),
            anonymous: false,
            options: std::collections::BTreeMap::new(),
            ..source
        };
        volume.labels.remove(ANONYMOUS);
        let stage = Stage::new(self)?;
        stage.write(&volume)?;
        copy::contents(data.as_fd(), open(&stage.data())?.as_fd(), EXACT)?;
        self.publish(stage, &volume)
    }
}
