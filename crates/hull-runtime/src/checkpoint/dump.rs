//! Saving a container.

use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hull_fs::Root;
use hull_oci::Status;
use hull_oci::spec::Spec;
use rustix::fs::FileType;

use super::protobuf::Writer;
use super::rpc::{self, Kind, Worker};
use super::{
    CheckpointOptions, DESCRIPTORS, Directories, EXTERNAL_NAMESPACES, common, destination, field, is_bind, joined,
    manage_cgroups, own_cgroups,
};
use crate::error::Error;
use crate::state::Record;

const LOG: &str = "dump.log";

/// Saves a running container into an image. Unless it is left running, all its processes have ended afterwards; removing
/// the container is the caller's part.
///
/// # Errors
/// [`Error::Status`] unless the container runs; [`Error::Checkpoint`] without CRIU, with a CRIU that is too old for this
/// kernel, and when it fails, with the last error of its log.
pub fn checkpoint(root: &Path, id: &str, options: &CheckpointOptions) -> Result<(), Error> {
    let record = Record::load(root, id)?;
    match record.status(root) {
        Status::Running | Status::Paused => {}
        status => return Err(Error::Status { operation: "checkpoint", id: id.to_owned(), status: status.as_str() }),
    }
    let spec = record.spec(root)?;
    let program = rpc::find()?;
    rpc::check_version(&program)?;
    if options.image.lazy_pages && !rpc::features(&program)?.lazy_pages {
        return Err(Error::Checkpoint(String::from("lazy pages: this kernel or CRIU does not support them")));
    }
    if options.pre_dump && !rpc::features(&program)?.memory_tracking {
        return Err(Error::Checkpoint(String::from("pre-dump: this kernel or CRIU does not track memory")));
    }
    let directories = Directories::open(&options.image, true)?;
    let mut request = common(&options.image, &directories, &spec, LOG)?;
    request.number(field::PID, i64::from(record.pid));
    request.bytes(field::ROOT, record.rootfs.as_os_str().as_bytes());
    request.flag(field::LEAVE_RUNNING, options.leave_running || options.pre_dump);
    if options.pre_dump {
        request.flag(field::TRACK_MEM, true);
    }
    manage_cgroups(&mut request, options.image.cgroup_mode, &record.cgroup, &own_cgroups(record.pid)?);
    let paths = record.cgroup.paths();
    if let Some(freezer) = paths.get("freezer").or_else(|| paths.get("")) {
        request.bytes(field::FREEZE_CGROUP, freezer.as_os_str().as_bytes());
    }
    if let Some((address, port)) = &options.page_server {
        let mut server = Writer::default();
        server.bytes(1, address.as_bytes());
        server.number(2, i64::from(*port));
        request.message(field::PAGE_SERVER, &server);
    }
    let mut inherited = vec![&directories.image, &directories.work];
    if let Some(status) = &options.status_fd {
        request.number(field::STATUS_FD, i64::from(status.as_raw_fd()));
        inherited.push(status);
    }
    if !options.pre_dump {
        for outside in outside(&record, &spec)? {
            request.bytes(field::EXTERNAL, outside.as_bytes());
        }
        let names = descriptors(record.pid)?;
        for name in names.iter().filter(|name| name.starts_with("file[")) {
            request.bytes(field::EXTERNAL, name.as_bytes());
        }
        let json = serde_json::to_vec(&names).map_err(|error| Error::Checkpoint(error.to_string()))?;
        hull_fs::atomic::write(&directories.image, Path::new(DESCRIPTORS), &json, 0o600)?;
    }
    // The record's process must still be the one that is named in the request.
    let _pidfd = record.pidfd()?;
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    Worker::start(&program, &inherited)?
        .request(kind, Some(&request), |_| Ok(()))
        .map(drop)
        .map_err(|error| directories.explain(error, LOG))
}

/// What of the container's mounts and namespaces is not its own.
fn outside(record: &Record, spec: &Spec) -> Result<Vec<String>, Error> {
    let mut list = Vec::new();
    for mount in spec.mounts.iter().filter(|mount| is_bind(mount)) {
        list.push(format!("mnt[{0}]:{0}", destination(mount)));
    }
    for (target, _) in super::cgroup_binds(spec, &record.cgroup)? {
        list.push(format!("mnt[{target}]:{target}"));
    }
    let path = format!("/proc/{}/root", record.pid);
    let root = Root::open(Path::new(&path))?;
    for path in masked_files(&root, spec) {
        list.push(format!("mnt[{path}]:{path}"));
    }
    for (kind, name, key) in EXTERNAL_NAMESPACES {
        if let Some(path) = joined(spec, kind) {
            let stat = rustix::fs::stat(path).map_err(Error::system("inspect namespace", path))?;
            list.push(format!("{name}[{}]:{key}", stat.st_ino));
        }
    }
    Ok(list)
}

/// Masked paths that are files: each is covered by the machine's null device.
pub(super) fn masked_files(root: &Root, spec: &Spec) -> Vec<String> {
    let masked = spec.linux.as_ref().map(|linux| linux.masked_paths.as_slice()).unwrap_or_default();
    masked
        .iter()
        .filter(|path| {
            root.resolve(Path::new(path))
                .and_then(|file| rustix::fs::fstat(&file).map_err(hull_fs::Error::system("inspect", path)))
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
        })
        .cloned()
        .collect()
}

/// Names by which descriptors 0 to 2 can be replaced: `pipe:[N]`, `file[MOUNT:INODE]` of a file outside of the container's
/// mounts, otherwise what the kernel calls them. A closed one has none.
fn descriptors(pid: i32) -> Result<Vec<String>, Error> {
    let mounts = read(&format!("/proc/{pid}/mountinfo"))?;
    let own = |id: &str| mounts.lines().any(|line| line.split(' ').next() == Some(id));
    let mut names = Vec::with_capacity(3);
    for number in 0..3 {
        let path = format!("/proc/{pid}/fd/{number}");
        let Ok(link) = std::fs::read_link(&path) else {
            names.push(String::new());
            continue;
        };
        let mut name = link.to_string_lossy().into_owned();
        if link.is_absolute() {
            let information = read(&format!("/proc/{pid}/fdinfo/{number}"))?;
            let mount = information.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
            let inode = std::fs::metadata(&path).map(|metadata| metadata.ino());
            if let (Some(mount), Ok(inode)) = (mount, inode)
                && !own(mount)
                && !name.starts_with("/dev/pts/")
                && let Ok(mount) = mount.parse::<u32>()
            {
                name = format!("file[{mount:x}:{inode:x}]");
            }
        }
        names.push(name);
    }
    Ok(names)
}

fn read(path: &str) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(|error| crate::state::io_error("read", Path::new(path), &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_named() {
        let names = descriptors(std::process::id().cast_signed()).unwrap();
        assert_eq!(names.len(), 3);
        for name in names {
            // Of this process every mount is its own.
            assert!(!name.starts_with("file["), "{name}");
        }
    }
}
