//! Kernel parameters of the container (`linux.sysctl`).
//!
//! Only parameters that belong to one of the container's own namespaces are taken. They are written by the child
//! through a private procfs instance, so that nothing mounted over `/proc/sys` can redirect the write.

use hull_fs::Procfs;
use hull_oci::spec::{NamespaceType, Spec};

use crate::error::Error;
use crate::failure::{Failure, Step};

/// Paths below `/proc` and values, checked.
#[derive(Debug, Default)]
pub(crate) struct Sysctls(Vec<(String, String)>);

const IPC: [&str; 10] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
    "kernel.shm_next_id",
];

impl Sysctls {
    /// Whether there are switches that network devices come by when they are made.
    pub(crate) fn of_network(&self) -> bool {
        let switch = |path: &str| {
            path.contains("net/") && ["/conf/", "/neigh/", "/core/"].iter().any(|part| path.contains(part))
        };
        self.0.iter().any(|(path, _)| switch(path))
    }

    /// Checks each parameter against the namespaces that the container has for itself.
    pub(crate) fn plan(spec: &Spec) -> Result<Self, Error> {
        let Some(linux) = &spec.linux else { return Ok(Self::default()) };
        let mut list = Vec::with_capacity(linux.sysctl.len());
        for (name, value) in &linux.sysctl {
            let field = format!("linux.sysctl.{name}");
            let well_formed = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
                && name.split(['.', '/']).all(|part| !part.is_empty());
            if !well_formed || value.len() > 4096 || value.contains(['\n', '\0']) {
                return Err(Error::config(field, "expected a name such as net.ipv4.ip_forward and a one-line value"));
            }
            // The first separator decides which of `.` and `/` separates, as in sysctl(8).
            let dotted = match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
                Some(b'/') => name.replace('.', "\0").replace('/', ".").replace('\0', "/"),
                _ => name.clone(),
            };
            let own = |kind| spec.namespace(kind).is_some();
            let needed = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
                NamespaceType::Ipc
            } else if dotted.starts_with("net.") {
                NamespaceType::Network
            } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
                NamespaceType::Uts
            } else if dotted.starts_with("user.") {
                NamespaceType::User
            } else {
                return Err(Error::config(field, format!("sysctl {name:?} is not in a separate kernel namespace")));
            };
            if dotted == "kernel.hostname" {
                return Err(Error::config(field, "use the `hostname` field of the configuration instead"));
            }
            if !own(needed) {
                return Err(Error::config(
                    field,
                    format!("sysctl {name:?} is not allowed without a {needed:?} namespace of the container's own"),
                ));
            }
            let path = dotted.replace('.', "\0").replace('/', ".").replace('\0', "/");
            list.push((format!("sys/{path}"), value.clone()));
        }
        Ok(Self(list))
    }

    /// In the child.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let procfs = Procfs::new()
            .map_err(|error| Failure::new(Step::Sysctl, error.errno().unwrap_or(rustix::io::Errno::IO)))?;
        for (index, (path, value)) in self.0.iter().enumerate() {
            procfs.write_raw(path, value.as_bytes()).map_err(|errno| Failure::at(Step::Sysctl, index, errno))?;
        }
        Ok(())
    }

    pub(crate) fn describe(&self, failure: &Failure) -> Option<String> {
        let (path, value) = self.0.get(usize::from(failure.index))?;
        (failure.step == Step::Sysctl).then(|| format!("write {value:?} to sysctl {}", &path[4..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, namespace: &str) -> Result<Vec<(String, String)>, String> {
        let json = format!(
            r#"{{"ociVersion":"1.3.0","linux":{{"sysctl":{{"{name}":"1"}},"namespaces":[{{"type":"{namespace}"}}]}}}}"#
        );
        let spec = Spec::parse(json.as_bytes()).unwrap();
        Sysctls::plan(&spec).map(|sysctls| sysctls.0).map_err(|error| error.to_string())
    }

    #[test]
    fn only_namespaced_parameters_are_taken() {
        assert_eq!(check("net.ipv4.ip_forward", "network").unwrap()[0].0, "sys/net/ipv4/ip_forward");
        assert_eq!(
            check("net/ipv4/conf/eth0.1/forwarding", "network").unwrap()[0].0,
            "sys/net/ipv4/conf/eth0.1/forwarding"
        );
        assert!(check("net.ipv4.ip_forward", "ipc").unwrap_err().contains("Network"));
        assert!(check("kernel.core_pattern", "ipc").unwrap_err().contains("not in a separate kernel namespace"));
        assert!(check("net..ipv4", "network").is_err());
        assert!(check("net./../kernel.core_pattern", "network").is_err());
    }
}
