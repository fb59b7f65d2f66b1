//! Resource limits.
//!
//! Raising a hard limit needs `CAP_SYS_RESOURCE` in the first user namespace. Where the runtime does not have it, the
//! limit is as high as it may be, and a warning says so.

use hull_oci::spec::Rlimit as Wanted;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::Error;
use crate::failure::{Failure, Step};

/// The limits by name.
pub const NAMES: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

#[derive(Debug)]
struct Limit {
    name: &'static str,
    resource: Resource,
    wanted: Rlimit,
    /// What is set when the kernel does not let the hard limit be raised; absent when that is a failure.
    degraded: Option<Rlimit>,
}

/// The limits to set, in the document's order.
#[derive(Debug, Default)]
pub(super) struct RlimitPlan(Vec<Limit>);

const fn finite(value: u64) -> Option<u64> {
    if value == u64::MAX { None } else { Some(value) }
}

/// The lower of two limits, where `None` is unlimited.
fn lower(left: Option<u64>, right: Option<u64>) -> Option<u64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

impl RlimitPlan {
    pub(super) fn new(wanted: &[Wanted], warnings: &mut Vec<String>) -> Result<Self, Error> {
        if wanted.is_empty() {
            return Ok(Self::default());
        }
        // In a user namespace the capability does not count, but then the kernel says EPERM and `degraded` is taken.
        let may_raise = capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_RESOURCE))
            && std::fs::read("/proc/self/uid_map").is_ok_and(|map| map.trim_ascii() == b"0          0 4294967295");
        Self::build(wanted, may_raise, getrlimit, warnings)
    }

    fn build(
        wanted: &[Wanted],
        may_raise: bool,
        current: impl Fn(Resource) -> Rlimit,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let mut limits: Vec<Limit> = Vec::with_capacity(wanted.len());
        for (index, limit) in wanted.iter().enumerate() {
            let field = |part: &str| format!("process.rlimits[{index}].{part}");
            let Some(&(name, resource)) = NAMES.iter().find(|(name, _)| *name == limit.kind) else {
                return Err(Error::config(field("type"), format!("{:?} is not a resource limit", limit.kind)));
            };
            if limits.iter().any(|earlier| earlier.name == name) {
                return Err(Error::config(field("type"), format!("{name} is set twice")));
            }
            if limit.soft > limit.hard {
                let reason = format!("{} of {name} is above the hard limit {}", limit.soft, limit.hard);
                return Err(Error::config(field("soft"), reason));
            }
            let wanted = Rlimit { current: finite(limit.soft), maximum: finite(limit.hard) };
            let ceiling = current(resource).maximum;
            let highest = lower(wanted.maximum, ceiling);
            let degraded = (!may_raise && highest != wanted.maximum).then(|| {
                let highest_text = ceiling.map_or_else(|| String::from("unlimited"), |value| value.to_string());
                warnings.push(format!("{name}: raising the hard limit is not permitted, it stays {highest_text}"));
                Rlimit { current: lower(wanted.current, highest), maximum: highest }
            });
            limits.push(Limit { name, resource, wanted, degraded });
        }
        Ok(Self(limits))
    }

    /// Sets the limits of the caller.
    pub(super) fn apply(&self) -> Result<(), Failure> {
        self.set(setrlimit, getrlimit).map_err(|(index, errno)| Failure::at(Step::Rlimit, index, errno))
    }

    /// Sets the limits of another process.
    pub(super) fn apply_to(&self, pid: Pid) -> Result<(), Error> {
        self.set(
            |resource, limit| prlimit(Some(pid), resource, limit).map(drop),
            |_| Rlimit { current: Some(0), maximum: Some(0) },
        )
        .map_err(|(index, errno)| Error::System {
            operation: "set rlimit",
            object: self.0[index].name.into(),
            errno,
        })
    }

    fn set(
        &self,
        set: impl Fn(Resource, Rlimit) -> Result<(), Errno>,
        current: impl Fn(Resource) -> Rlimit,
    ) -> Result<(), (usize, Errno)> {
        for (index, limit) in self.0.iter().enumerate() {
            match set(limit.resource, limit.wanted) {
                Ok(()) => {}
                // The runtime may have set it from outside already.
                Err(Errno::PERM) if current(limit.resource) == limit.wanted => {}
                Err(Errno::PERM) => {
                    let degraded = limit.degraded.ok_or((index, Errno::PERM))?;
                    set(limit.resource, degraded).map_err(|errno| (index, errno))?;
                }
                Err(errno) => return Err((index, errno)),
            }
        }
        Ok(())
    }

    pub(super) fn describe(&self, failure: &Failure) -> Option<String> {
        (failure.step == Step::Rlimit)
            .then(|| self.0.get(usize::from(failure.index)).map(|limit| format!("set {}", limit.name)))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(kind: &str, soft: u64, hard: u64) -> Wanted {
        Wanted { kind: kind.into(), hard, soft }
    }

    fn ceiling(_: Resource) -> Rlimit {
        Rlimit { current: Some(100), maximum: Some(1000) }
    }

    #[test]
    fn wrong_limits_are_refused() {
        for (limits, field) in [
            (vec![wanted("RLIMIT_X", 1, 1)], "process.rlimits[0].type"),
            (vec![wanted("NOFILE", 1, 1)], "process.rlimits[0].type"),
            (vec![wanted("RLIMIT_AS", 1, 1), wanted("RLIMIT_AS", 1, 1)], "process.rlimits[1].type"),
            (vec![wanted("RLIMIT_AS", 2, 1)], "process.rlimits[0].soft"),
        ] {
            let error = RlimitPlan::build(&limits, true, ceiling, &mut Vec::new()).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn a_limit_that_cannot_be_raised_degrades_with_a_warning() {
        let limits = [wanted("RLIMIT_NOFILE", u64::MAX, u64::MAX), wanted("RLIMIT_CORE", 0, 500)];
        let mut warnings = Vec::new();
        let plan = RlimitPlan::build(&limits, false, ceiling, &mut warnings).unwrap();
        assert_eq!(warnings, ["RLIMIT_NOFILE: raising the hard limit is not permitted, it stays 1000"]);
        assert_eq!(plan.0[0].degraded, Some(Rlimit { current: Some(1000), maximum: Some(1000) }));
        assert_eq!(plan.0[1].degraded, None);
        let mut warnings = Vec::new();
        let plan = RlimitPlan::build(&limits, true, ceiling, &mut warnings).unwrap();
        assert_eq!((warnings.len(), plan.0[0].degraded.is_none()), (0, true));
    }

    #[test]
    fn refusals_are_reported_by_index() {
        let limits = [wanted("RLIMIT_CORE", 0, 0), wanted("RLIMIT_NOFILE", 5, 2000)];
        let plan = RlimitPlan::build(&limits, true, ceiling, &mut Vec::new()).unwrap();
        let refuse = |resource, _| if resource == Resource::Nofile { Err(Errno::PERM) } else { Ok(()) };
        assert_eq!(plan.set(refuse, ceiling), Err((1, Errno::PERM)));
        let failure = Failure::at(Step::Rlimit, 1, Errno::PERM);
        assert_eq!(plan.describe(&failure).as_deref(), Some("set RLIMIT_NOFILE"));
    }
}
