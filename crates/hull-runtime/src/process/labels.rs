//! AppArmor and SELinux: the label that the program gets at `execve`.
//!
//! Labels are written only through a verified procfs, so that nothing mounted over `/proc/self/attr` by an image can
//! swallow them (CVE-2019-16884).

use std::path::Path;

use hull_fs::Procfs;
use rustix::io::Errno;

use crate::error::Error;
use crate::failure::{Failure, Step};

/// Longest label that the kernel takes in one write: a page.
const MAX_LABEL: usize = 4095;

/// Whether AppArmor confines processes on this machine.
#[must_use]
pub fn apparmor_enabled() -> bool {
    read_start("/sys/module/apparmor/parameters/enabled").is_some_and(|text| text.starts_with('Y'))
}

/// Whether SELinux labels processes on this machine.
#[must_use]
pub fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
        || read_start("/sys/kernel/security/lsm").is_some_and(|list| list.trim().split(',').any(|lsm| lsm == "selinux"))
}

fn read_start(path: &str) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(4096).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The texts to write.
#[derive(Debug, Default)]
pub(super) struct Labels {
    apparmor: Option<Vec<u8>>,
    selinux: Option<Vec<u8>>,
}

impl Labels {
    pub(super) fn new(apparmor: &str, selinux: &str) -> Result<Self, Error> {
        Self::build(apparmor, selinux, apparmor_enabled, selinux_enabled)
    }

    fn build(
        apparmor: &str,
        selinux: &str,
        apparmor_on: impl Fn() -> bool,
        selinux_on: impl Fn() -> bool,
    ) -> Result<Self, Error> {
        for (field, label) in [("process.apparmorProfile", apparmor), ("process.selinuxLabel", selinux)] {
            if label.len() > MAX_LABEL - 5 || label.bytes().any(|byte| byte == 0 || byte == b'\n') {
                return Err(Error::config(field, "expected at most 4090 bytes without null byte and line break"));
            }
        }
        // Unconfined is what a process is without AppArmor, so asking for it is no demand.
        if !apparmor.is_empty() && apparmor != "unconfined" && !apparmor_on() {
            let reason = format!("profile {apparmor:?} cannot be applied: AppArmor is not enabled on this machine");
            return Err(Error::unsupported("process.apparmorProfile", reason));
        }
        if !selinux.is_empty() && !selinux_on() {
            let reason = format!("label {selinux:?} cannot be applied: SELinux is not enabled on this machine");
            return Err(Error::unsupported("process.selinuxLabel", reason));
        }
        let wanted = !apparmor.is_empty() && apparmor_on();
        Ok(Self {
            apparmor: wanted.then(|| format!("exec {apparmor}").into_bytes()),
            selinux: (!selinux.is_empty()).then(|| selinux.as_bytes().to_vec()),
        })
    }

    pub(super) fn any(&self) -> bool {
        self.apparmor.is_some() || self.selinux.is_some()
    }

    pub(super) fn apply(&self, procfs: &Procfs) -> Result<(), Failure> {
        if let Some(text) = &self.apparmor {
            let written = match procfs.write_raw("thread-self/attr/apparmor/exec", text) {
                // Before Linux 5.8 the modules shared one file.
                Err(Errno::NOENT) => procfs.write_raw("thread-self/attr/exec", text),
                result => result,
            };
            written.map_err(|errno| Failure::new(Step::AppArmor, errno))?;
        }
        if let Some(text) = &self.selinux {
            procfs.write_raw("thread-self/attr/exec", text).map_err(|errno| Failure::new(Step::SelinuxLabel, errno))?;
        }
        Ok(())
    }

    pub(super) fn describe(&self, failure: &Failure) -> Option<String> {
        let text = |label: &Option<Vec<u8>>| label.as_deref().map(|label| String::from_utf8_lossy(label).into_owned());
        match failure.step {
            Step::AppArmor => Some(format!("apply AppArmor profile ({})", text(&self.apparmor)?)),
            Step::SelinuxLabel => Some(format!("apply SELinux label ({})", text(&self.selinux)?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_need_their_module() {
        let build = |apparmor: &str, selinux: &str, on: bool| Labels::build(apparmor, selinux, || on, || on);
        assert!(build("docker-default", "", false).is_err());
        assert!(build("", "system_u:system_r:container_t:s0", false).is_err());
        assert!(!build("unconfined", "", false).unwrap().any());
        assert!(!build("", "", true).unwrap().any());
        assert_eq!(build("docker-default", "", true).unwrap().apparmor.as_deref(), Some(&b"exec docker-default"[..]));
        assert!(build("a\nb", "", true).is_err());
        assert!(build(&"a".repeat(5000), "", true).is_err());
    }
}
