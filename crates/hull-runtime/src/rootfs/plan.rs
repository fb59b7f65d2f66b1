//! From the specification to the plan, in the parent.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use hull_oci::spec::{IdMapping, Mount, Spec};
use hull_sys::mount::Attributes;
use rustix::fs::CWD;

use super::cgroup::CgroupPlan;
use super::idmap::Mappings;
use super::mount::{Kind, MountPlan, Source};
use super::options::{self, MountOptions, Parameter};
use super::overlay::{Mapping, OverlayPlan, mapped, reachable};
use super::{RootSource, RootfsContext, RootfsPlan, dev, mount, normalize};
use crate::error::Error;
use crate::options::{CreateOptions, Rootfs};

/// Files below `/proc` that may be mounted over, as programs like lxcfs do.
const PROC_ALLOWED: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

impl RootfsPlan {
    /// Understands and checks everything; opens bind mount sources where the child could not.
    ///
    /// # Errors
    /// [`Error::Config`] names the field; [`Error::System`] what could not be opened.
    pub fn new(spec: &Spec, options: &CreateOptions, context: &RootfsContext<'_>) -> Result<Self, Error> {
        let root = spec.root.clone().unwrap_or_default();
        let linux = spec.linux.clone().unwrap_or_default();
        let mut mappings = Mappings::new(context.uid_mappings, context.gid_mappings);
        let source = match &options.rootfs {
            Rootfs::Config | Rootfs::Mapped => {
                if root.path.is_empty() {
                    return Err(Error::config("root.path", "is empty, expected a directory"));
                }
                let path = options.bundle.join(&root.path);
                let stat = rustix::fs::stat(&path).map_err(Error::system("open root file system", path.display()))?;
                if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
                    return Err(Error::config("root.path", format!("{} is not a directory", path.display())));
                }
                let mapping = match options.rootfs {
                    Rootfs::Mapped => new_mapping(context, &mut mappings)?,
                    _ => None,
                };
                match mapping {
                    Some(mapping) => {
                        let tree = mapped(CWD, &path, &mapping, true);
                        let tree = tree.map_err(Error::system("map the owners of root file system", path.display()))?;
                        let target =
                            reachable().map_or_else(|| c_path("root.path", &path), |path| Ok(path.to_owned()))?;
                        RootSource::Tree(Some(tree), target)
                    }
                    None => RootSource::Directory(c_path("root.path", &path)?),
                }
            }
            Rootfs::Overlay { lower, upper, work, target, volatile } => {
                let userns = context.new_userns || context.joined_userns || context.rootless;
                let mapping = new_mapping(context, &mut mappings)?;
                let paths: [&Path; 3] = [upper, work, target];
                RootSource::Overlay(OverlayPlan::new(lower, paths, *volatile, userns, mapping.as_ref())?)
            }
        };
        let propagation = match linux.rootfs_propagation.as_str() {
            "" => None,
            name => Some(options::root_propagation(name).ok_or_else(|| {
                Error::config(
                    "linux.rootfsPropagation",
                    format!("{name:?} is not a propagation type such as \"private\""),
                )
            })?),
        };
        let mount_namespace = context.new_mount_ns && has_mount_namespace(spec) || joins_mount_namespace(spec);
        if !mount_namespace {
            let refused = [
                ("mounts", spec.mounts.is_empty()),
                ("linux.maskedPaths", linux.masked_paths.is_empty()),
                ("linux.readonlyPaths", linux.readonly_paths.is_empty()),
                ("root.readonly", !root.readonly),
            ];
            if let Some((field, _)) = refused.iter().find(|(_, empty)| !empty) {
                return Err(Error::config(*field, "needs a mount namespace in linux.namespaces"));
            }
        }
        let mut mounts = Vec::with_capacity(spec.mounts.len());
        for (index, mount) in spec.mounts.iter().enumerate() {
            let field = format!("mounts[{index}]");
            let tree = options.trees.iter().find(|(place, _)| *place == index).map(|(_, tree)| tree);
            mounts.push(plan_mount(&field, mount, tree, options, context, &linux.mount_label, &mut mappings)?);
        }
        let paths = |field: &str, list: &[String]| -> Result<Vec<CString>, Error> {
            let each = |(index, path): (usize, &String)| {
                let field = format!("{field}[{index}]");
                if !path.starts_with('/') {
                    return Err(Error::config(field, format!("{path:?} is not an absolute path")));
                }
                c_path(&field, Path::new(path))
            };
            list.iter().enumerate().map(each).collect()
        };
        Ok(Self {
            root: source,
            dev: dev::plan(spec, &mounts, context)?,
            mounts,
            console_size: spec.process.as_ref().and_then(|process| process.console_size),
            masked: paths("linux.maskedPaths", &linux.masked_paths)?,
            readonly: paths("linux.readonlyPaths", &linux.readonly_paths)?,
            root_readonly: root.readonly,
            propagation,
            no_pivot: options.no_pivot,
            inherited_umask: None,
            mount_namespace,
            root_fd: None,
            null: None,
        })
    }
}

/// The mapping of a user namespace that is made for the container by root.
fn new_mapping(context: &RootfsContext<'_>, mappings: &mut Mappings<'_>) -> Result<Option<Mapping>, Error> {
    if !context.new_userns || context.rootless {
        return Ok(None);
    }
    let root = |maps: &[IdMapping]| maps.iter().find(|one| one.container_id == 0).map(|one| one.host_id);
    let root = root(context.uid_mappings)
        .zip(root(context.gid_mappings))
        .ok_or_else(|| Error::config("linux.uidMappings", "maps no ID 0, whom the writable layer would belong to"))?;
    Ok(Some(Mapping { namespace: mappings.user_namespace("linux.uidMappings", &[], &[])?, root }))
}

fn has_mount_namespace(spec: &Spec) -> bool {
    spec.namespace(hull_oci::spec::NamespaceType::Mount).is_some()
}

fn joins_mount_namespace(spec: &Spec) -> bool {
    spec.namespace(hull_oci::spec::NamespaceType::Mount).is_some_and(|namespace| !namespace.path.is_empty())
}

/// A path as C string; `field` is for the error.
pub(super) fn c_path(field: &str, path: &Path) -> Result<CString, Error> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= 4096 {
        return Err(Error::config(field, "is longer than a path can be (4095 bytes)"));
    }
    CString::new(bytes).map_err(|_| Error::config(field, "holds a null byte"))
}

fn plan_mount(
    field: &str,
    spec: &Mount,
    tree: Option<&OwnedFd>,
    create: &CreateOptions,
    context: &RootfsContext<'_>,
    label: &str,
    mappings: &mut Mappings,
) -> Result<MountPlan, Error> {
    if spec.destination.is_empty() {
        return Err(Error::config(format!("{field}.destination"), "is empty"));
    }
    c_path(&format!("{field}.destination"), Path::new(&spec.destination))?;
    let destination = normalize(&spec.destination);
    if destination == Path::new("/") {
        return Err(Error::config(format!("{field}.destination"), "is the root directory itself"));
    }
    let mut options = MountOptions::parse(&spec.options)
        .map_err(|option| Error::config(format!("{field}.options"), format!("{option:?} is not a mount option")))?;
    if spec.kind == "bind" && options.bind.is_none() {
        options.bind = Some(false);
    }
    let proc_path = destination.strip_prefix("/proc").ok().map(Path::to_path_buf);
    let over_proc = proc_path.as_ref().is_some_and(|below| {
        !below.as_os_str().is_empty() && PROC_ALLOWED.iter().any(|allowed| below == Path::new(allowed))
    });
    if let Some(below) = &proc_path {
        let is_root = below.as_os_str().is_empty();
        if !over_proc && !(is_root && (spec.kind == "proc" || options.bind.is_some() || options.remount)) {
            let reason = format!("{:?} cannot be mounted on: it is inside /proc", spec.destination);
            return Err(Error::config(format!("{field}.destination"), reason));
        }
    }
    if let (Some(option), true) = (&options.foreign, options.bind.is_some()) {
        return Err(Error::config(
            format!("{field}.options"),
            format!("{option:?} is not a mount option, and a bind mount has no options of a file system"),
        ));
    }
    if options.copy_up && spec.kind != "tmpfs" {
        return Err(Error::config(format!("{field}.options"), "tmpcopyup is only for tmpfs"));
    }
    if context.rootless && options.bind == Some(true) && options.attributes.set.contains(Attributes::RDONLY) {
        // Below the host's sysfs are its cgroups, some of which an ordinary user may write (CVE-2023-25809).
        let source = create.bundle.join(&spec.source);
        if normalize(&source.to_string_lossy()).starts_with("/sys") {
            options.recursive.set |= Attributes::RDONLY;
        }
    }
    let (uids, gids) = match options.idmap_ranges.take() {
        Some(ranges) if spec.uid_mappings.is_empty() && spec.gid_mappings.is_empty() => ranges
            .resolve(context.uid_mappings, context.gid_mappings)
            .map_err(|reason| Error::config(format!("{field}.options"), reason))?,
        Some(_) => return Err(Error::config(field, "has both an idmap option with ranges and mappings of its own")),
        None => (spec.uid_mappings.clone(), spec.gid_mappings.clone()),
    };
    let mapped = options.idmap.is_some() || !uids.is_empty() || !gids.is_empty();
    if mapped && options.bind.is_none() {
        return Err(Error::config(field, "ID mappings are only for bind mounts"));
    }
    let userns = if mapped {
        let namespace = mappings.user_namespace(field, &uids, &gids)?;
        Some((namespace, options.idmap.unwrap_or(false)))
    } else {
        None
    };
    let in_userns = context.new_userns || context.joined_userns;
    let kind = if options.remount {
        Kind::Remount { parameters: std::mem::take(&mut options.parameters) }
    } else if let (Some(recursive), Some(tree)) = (options.bind, tree) {
        let tree = tree.try_clone().map_err(|error| {
            let errno = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::MFILE);
            Error::system("duplicate mount of", &spec.destination)(errno)
        })?;
        Kind::Bind { source: Source::Tree(Some(tree)), recursive, nofollow: false }
    } else if let Some(recursive) = options.bind {
        bind(field, spec, &options, recursive, create, in_userns || userns.is_some())?
    } else if matches!(spec.kind.as_str(), "cgroup" | "cgroup2") {
        Kind::Cgroup(CgroupPlan::new(context, options.attributes.set.contains(Attributes::RDONLY)))
    } else if spec.kind.is_empty() {
        return Err(Error::config(format!("{field}.type"), "is empty, and no option says bind"));
    } else {
        file_system(field, spec, &mut options, label)?
    };
    // A read-only tmpfs is filled first, and /dev gets its nodes: both are sealed at the end.
    let late = destination == Path::new("/dev") || spec.kind == "tmpfs";
    let seal = late && options.attributes.set.contains(Attributes::RDONLY) && !options.remount;
    if seal {
        options.attributes.set -= Attributes::RDONLY;
    }
    let ordinary = ["/proc", "/sys", "/dev"].iter().any(|path| destination == Path::new(path));
    let mut plan = MountPlan {
        ordinary: ordinary || matches!(spec.kind.as_str(), "proc" | "sysfs"),
        target: PathBuf::from(&spec.destination),
        target_nofollow: options.target_nofollow,
        is_proc_root: destination == Path::new("/proc"),
        holds_protected: matches!(destination.to_str(), Some("/proc" | "/sys")),
        destination,
        over_proc,
        type_name: if options.bind.is_some() { "bind".to_owned() } else { spec.kind.clone() },
        kind,
        attributes: options.attributes,
        recursive: options.recursive,
        propagation: options.propagation,
        userns,
        seal,
        attached: None,
    };
    if plan.is_open_tree() {
        // Attributes are set where the privilege is.
        mount::prepare(&mut plan).map_err(Error::system("set options of mount", field))?;
    }
    Ok(plan)
}

fn bind(
    field: &str,
    spec: &Mount,
    options: &MountOptions,
    recursive: bool,
    create: &CreateOptions,
    open_now: bool,
) -> Result<Kind, Error> {
    if spec.source.is_empty() {
        return Err(Error::config(format!("{field}.source"), "is empty, expected the path to bind"));
    }
    let path = create.bundle.join(&spec.source);
    let c_source = c_path(&format!("{field}.source"), &path)?;
    let nofollow = options.source_nofollow;
    if options.copy_symlink
        && let Ok(stat) = rustix::fs::lstat(&c_source)
        && rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink()
    {
        let target = rustix::fs::readlink(&c_source, Vec::new()).map_err(Error::system("read link", path.display()))?;
        return Ok(Kind::Symlink(target));
    }
    if !open_now {
        return Ok(Kind::Bind { source: Source::Path(c_source), recursive, nofollow });
    }
    match mount::open_source(&c_source, recursive, nofollow) {
        Ok(tree) => Ok(Kind::Bind { source: Source::Tree(Some(tree)), recursive, nofollow }),
        // An ordinary user may clone mounts only inside the new user namespace.
        Err(rustix::io::Errno::PERM) => Ok(Kind::Bind { source: Source::Path(c_source), recursive, nofollow }),
        Err(errno) => Err(Error::system("open bind mount source", path.display())(errno)),
    }
}

fn file_system(field: &str, spec: &Mount, options: &mut MountOptions, label: &str) -> Result<Kind, Error> {
    let fs_type =
        CString::new(spec.kind.as_str()).map_err(|_| Error::config(format!("{field}.type"), "holds a null byte"))?;
    let mut parameters = std::mem::take(&mut options.parameters);
    let mut prepend = |key: &str, value: &str| -> Result<(), Error> {
        let parameter = Parameter::new(key, Some(value))
            .ok_or_else(|| Error::config(format!("{field}.{key}"), "holds a null byte"))?;
        parameters.insert(0, parameter);
        Ok(())
    };
    let pseudo = matches!(spec.kind.as_str(), "proc" | "sysfs");
    if !label.is_empty() && !pseudo {
        prepend("context", label)?;
    }
    if !spec.source.is_empty() {
        prepend("source", &spec.source)?;
    }
    let inherit_mode = spec.kind == "tmpfs" && !parameters.iter().any(|one| one.key.as_c_str() == c"mode");
    let fallback = match spec.kind.as_str() {
        "sysfs" => Some(c"/sys".to_owned()),
        "mqueue" => Some(c"/dev/mqueue".to_owned()),
        _ => None,
    };
    Ok(Kind::FileSystem { fs_type, parameters, copy_up: options.copy_up, inherit_mode, fallback })
}
