//! From the specification to a plan: everything that can be checked, opened, compiled or allocated before the clone.
//!
//! Making a plan changes nothing on the machine. A document that asks for what is wrong, or for what this kernel or
//! build does not have, is refused here, with the field's name.

use std::os::fd::OwnedFd;
use std::path::Path;

use hull_cgroup::{Cgroup, Hierarchies};
use hull_oci::spec::{NamespaceType, Resources, Spec};
use hull_seccomp::Filter;

use crate::error::Error;
use crate::failure::{Failure, Step};
use crate::hooks::Point;
use crate::namespaces::Namespaces;
use crate::options::{CreateOptions, Streams};
use crate::process::ProcessPlan;
use crate::process::intel_rdt::IntelRdtPlan;
use crate::rootfs::{RootfsContext, RootfsPlan};
use crate::sysctl::Sysctls;

/// Everything that [`create`](crate::create) is going to do.
#[derive(Debug)]
pub struct Plan {
    pub(crate) namespaces: Namespaces,
    pub(crate) cgroup: Cgroup,
    pub(crate) resources: Resources,
    pub(crate) rootfs: RootfsPlan,
    pub(crate) process: ProcessPlan,
    pub(crate) terminal: bool,
    pub(crate) filter: Option<Filter>,
    pub(crate) listener: Option<Listener>,
    pub(crate) sysctls: Sysctls,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) hooks: HookPoints,
    pub(crate) net_devices: Vec<(String, String)>,
    pub(crate) intel_rdt: Option<IntelRdtPlan>,
    pub(crate) streams: Streams,
    pub(crate) new_keyring: bool,
    pub(crate) signals_blocked: bool,
}

/// Hooks by the point they run at.
#[derive(Debug)]
pub(crate) struct HookPoints {
    pub(crate) prestart: Point,
    pub(crate) create_runtime: Point,
    pub(crate) create_container: Point,
    pub(crate) start_container: Point,
}

/// Who receives the seccomp notify descriptor.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    pub(crate) metadata: String,
}

impl Plan {
    /// Checks the document and prepares the start. Takes the streams out of `options`.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::Unsupported`] name the field; the others what could not be opened.
    pub fn new(spec: &Spec, options: &mut CreateOptions) -> Result<Self, Error> {
        check_document(spec)?;
        crate::state::check_id(&options.id)?;
        let process =
            spec.process.as_ref().ok_or_else(|| Error::config("process", "process property must not be empty"))?;
        let linux = spec.linux.as_ref().ok_or_else(|| Error::config("linux", "is missing"))?;
        let namespaces = Namespaces::plan(spec)?;
        let rootless = crate::namespaces::without_privilege();
        let hierarchies = Hierarchies::probe()?;
        let cgroup = Cgroup::plan(&hierarchies, options.cgroup_driver, &linux.cgroups_path, &options.id, rootless)?;
        let rootfs = RootfsPlan::new(
            spec,
            options,
            &RootfsContext {
                new_userns: namespaces.new_user(),
                joined_userns: namespaces.joined_user(),
                new_mount_ns: !namespaces.joins(NamespaceType::Mount),
                cgroup: &cgroup,
                hierarchies: &hierarchies,
                new_cgroup_ns: spec.namespace(NamespaceType::Cgroup).is_some(),
                rootless,
                uid_mappings: &linux.uid_mappings,
                gid_mappings: &linux.gid_mappings,
            },
        )?;
        let filter = match options.filter.take() {
            Some(filter) => Some(filter),
            None => linux.seccomp.as_ref().map(hull_seccomp::compile).transpose()?,
        };
        let hooks = spec.hooks.clone().unwrap_or_default();
        Point::plan("poststart", &hooks.poststart)?;
        Point::plan("poststop", &hooks.poststop)?;
        let mut net_devices = Vec::with_capacity(linux.net_devices.len());
        for (name, device) in &linux.net_devices {
            for candidate in [name, &device.name] {
                if !candidate.is_empty() && hull_netlink::valid_name(candidate).is_err() {
                    return Err(Error::config(
                        format!("linux.netDevices.{name}"),
                        format!("{candidate:?} is not a device name"),
                    ));
                }
            }
            net_devices.push((name.clone(), if device.name.is_empty() { name.clone() } else { device.name.clone() }));
        }
        Ok(Self {
            process: ProcessPlan::new(process, &namespaces_context(&namespaces, rootless))?.with_linux(linux)?,
            terminal: process.terminal,
            listener: listener(spec, filter.as_ref())?,
            sysctls: Sysctls::plan(spec)?,
            hostname: bounded("hostname", &spec.hostname)?,
            domainname: bounded("domainname", &spec.domainname)?,
            hooks: HookPoints {
                prestart: Point::plan("prestart", &hooks.prestart)?,
                create_runtime: Point::plan("createRuntime", &hooks.create_runtime)?,
                create_container: Point::plan("createContainer", &hooks.create_container)?,
                start_container: Point::plan("startContainer", &hooks.start_container)?,
            },
            intel_rdt: linux.intel_rdt.as_ref().map(|rdt| IntelRdtPlan::new(rdt, &options.id)).transpose()?,
            resources: linux.resources.clone().unwrap_or_default(),
            streams: std::mem::take(&mut options.streams),
            new_keyring: !options.no_new_keyring,
            signals_blocked: options.signals_blocked,
            namespaces,
            cgroup,
            rootfs,
            filter,
            net_devices,
        })
    }

    /// A sentence about a failed step of the child, without the error itself.
    pub(crate) fn describe(&self, failure: &Failure) -> String {
        let hook = |point: &Point| format!("run {} hook", point.name());
        match failure.step {
            Step::Hostname => Some(format!("set hostname to {:?}", self.hostname)),
            Step::Domainname => Some(format!("set domainname to {:?}", self.domainname)),
            Step::CreateContainerHook => Some(hook(&self.hooks.create_container)),
            Step::StartContainerHook => Some(hook(&self.hooks.start_container)),
            _ => None,
        }
        .or_else(|| self.namespaces.describe(failure))
        .or_else(|| self.sysctls.describe(failure))
        .or_else(|| self.rootfs.describe(failure))
        .or_else(|| self.process.describe(failure))
        .unwrap_or_else(|| failure.step.describe().to_owned())
    }
}

fn namespaces_context(namespaces: &Namespaces, unprivileged: bool) -> crate::process::ProcessContext {
    let user_namespace = namespaces.new_user() || namespaces.joined_user();
    crate::process::ProcessContext { user_namespace, unprivileged, exec: false }
}

fn bounded(field: &str, value: &str) -> Result<String, Error> {
    if value.len() > 64 || value.contains('\0') {
        return Err(Error::config(field, "expected at most 64 bytes without a null byte"));
    }
    Ok(value.to_owned())
}

fn check_document(spec: &Spec) -> Result<(), Error> {
    let version: Vec<Option<u32>> =
        spec.oci_version.split(['.', '-', '+']).take(3).map(|part| part.parse().ok()).collect();
    if !matches!(version.as_slice(), [Some(1), Some(_), Some(_)]) {
        return Err(Error::config("ociVersion", format!("expected 1.x.y, found {:?}", spec.oci_version)));
    }
    if spec.vm.is_some() {
        return Err(Error::unsupported("vm", "virtual machine containers are not supported"));
    }
    Ok(())
}

/// Connects to the agent that handles notified calls, while paths still mean what the caller meant.
fn listener(spec: &Spec, filter: Option<&Filter>) -> Result<Option<Listener>, Error> {
    let seccomp = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let (Some(seccomp), Some(filter)) = (seccomp, filter) else { return Ok(None) };
    if !filter.notify() {
        return Ok(None);
    }
    if seccomp.listener_path.is_empty() {
        return Err(Error::config("linux.seccomp.listenerPath", "is missing; SCMP_ACT_NOTIFY needs it"));
    }
    let socket = connect(Path::new(&seccomp.listener_path))?;
    Ok(Some(Listener { socket, metadata: seccomp.listener_metadata.clone() }))
}

/// Connects to a Unix stream socket.
fn connect(path: &Path) -> Result<OwnedFd, Error> {
    std::os::unix::net::UnixStream::connect(path)
        .map(OwnedFd::from)
        .map_err(|error| crate::state::io_error("connect to", path, &error))
}
