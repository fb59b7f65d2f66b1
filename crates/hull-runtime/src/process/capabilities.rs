//! The five capability sets.
//!
//! A capability that is unknown, or that this process cannot hand on, is left out with a warning, as the specification
//! asks; it never widens another set. Inheritable and ambient stay empty unless the document fills them.

use hull_oci::spec::Capabilities;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

use hull_oci::spec::CAPABILITIES as NAMES;

use super::own::Own;
use crate::error::Error;
use crate::failure::{Failure, Step};

/// Number of a capability by its full name.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    NAMES.iter().position(|known| *known == name).and_then(|index| u32::try_from(index).ok())
}

fn name(number: u16) -> String {
    NAMES.get(usize::from(number)).map_or_else(|| format!("capability {number}"), |name| (*name).to_owned())
}

/// What this process may hand on.
#[derive(Clone, Copy, Debug)]
struct Grantable {
    /// All that the kernel knows.
    known: u64,
    bounding: u64,
    permitted: u64,
}

impl Grantable {
    /// A process that enters another user namespace has every capability there.
    fn probe(user_namespace: bool, own: Option<Own>) -> Result<Self, Error> {
        let mut bounding = own.map_or(0, |own| own.bounding);
        // Capabilities are numbered without gaps, and what is not in the set is asked for one by one.
        let first = u64::BITS - bounding.leading_zeros();
        let mut known = u64::MAX.checked_shr(u64::BITS - first).unwrap_or(0);
        for number in first..u64::BITS {
            let Ok(inside) = capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << number)) else { break };
            known |= 1 << number;
            bounding |= u64::from(inside) << number;
        }
        if user_namespace {
            return Ok(Self { known, bounding: known, permitted: known });
        }
        let permitted = match own {
            Some(own) => own.permitted,
            None => capabilities(None).map_err(Error::system("read", "own capabilities"))?.permitted.bits(),
        };
        Ok(Self { known, bounding, permitted })
    }
}

/// Masks that the child applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CapabilityPlan {
    /// To drop from the bounding set.
    drop: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
}

impl CapabilityPlan {
    pub(super) fn new(
        wanted: Option<&Capabilities>,
        user_namespace: bool,
        own: Option<Own>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let empty = Capabilities::default();
        Ok(Self::build(wanted.unwrap_or(&empty), Grantable::probe(user_namespace, own)?, warnings))
    }

    fn build(wanted: &Capabilities, grantable: Grantable, warnings: &mut Vec<String>) -> Self {
        let mut set = |kind: &str, names: &[String], limit: u64, why: &str| {
            let mut mask = 0;
            for name in names {
                match number(name).map(|number| 1_u64 << number) {
                    Some(bit) if grantable.known & bit == 0 => {
                        warnings.push(format!("{kind} capability {name}: this kernel does not have it, ignored"));
                    }
                    Some(bit) if limit & bit == 0 => {
                        warnings.push(format!("{kind} capability {name}: {why}, ignored"));
                    }
                    Some(bit) => mask |= bit,
                    None => warnings.push(format!("{kind} capability {name:?}: unknown, ignored")),
                }
            }
            mask
        };
        let own = "the runtime does not have it";
        let bounding = set("bounding", &wanted.bounding, grantable.bounding, own);
        let permitted = set("permitted", &wanted.permitted, grantable.permitted, own);
        let effective = set("effective", &wanted.effective, permitted, "it is not in the permitted set");
        let inheritable =
            set("inheritable", &wanted.inheritable, bounding & grantable.permitted, "it is not in the bounding set");
        let ambient = set(
            "ambient",
            &wanted.ambient,
            inheritable & permitted,
            "it is not in both the permitted and the inheritable set",
        );
        Self { drop: grantable.bounding & !bounding, effective, permitted, inheritable, ambient }
    }

    /// Drops from the bounding set; needs `CAP_SETPCAP` while there is anything to drop.
    pub(super) fn limit_bounding(&self) -> Result<(), Failure> {
        each(self.drop, |number, bit| {
            remove_capability_from_bounding_set(bit).map_err(|errno| Failure::at(Step::Bounding, number, errno))
        })
    }

    /// Sets the three process sets, then ambient.
    pub(super) fn apply(&self) -> Result<(), Failure> {
        let failed = |step| move |errno| Failure::new(step, errno);
        // Kernels before 4.3 have no ambient set, and so nothing in it.
        match clear_ambient_capability_set() {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(failed(Step::Ambient)(errno)),
        }
        let sets = CapabilitySets {
            effective: CapabilitySet::from_bits_retain(self.effective),
            permitted: CapabilitySet::from_bits_retain(self.permitted),
            inheritable: CapabilitySet::from_bits_retain(self.inheritable),
        };
        set_capabilities(None, sets).map_err(failed(Step::Capabilities))?;
        each(self.ambient, |number, bit| {
            configure_capability_in_ambient_set(bit, true).map_err(|errno| Failure::at(Step::Ambient, number, errno))
        })
    }
}

fn each(mask: u64, mut apply: impl FnMut(usize, CapabilitySet) -> Result<(), Failure>) -> Result<(), Failure> {
    (0..64)
        .filter(|number| mask >> number & 1 == 1)
        .try_for_each(|number| apply(number, CapabilitySet::from_bits_retain(1 << number)))
}

pub(super) fn describe(failure: &Failure) -> Option<String> {
    match failure.step {
        Step::Bounding => Some(format!("drop {} from the bounding set", name(failure.index))),
        Step::Ambient => Some(format!("raise {} in the ambient set", name(failure.index))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    const ALL: Grantable = Grantable { known: (1 << 41) - 1, bounding: (1 << 41) - 1, permitted: (1 << 41) - 1 };

    #[test]
    fn numbers_follow_the_kernel() {
        for (name, expected) in [("CAP_CHOWN", 0), ("CAP_SYS_ADMIN", 21), ("CAP_CHECKPOINT_RESTORE", 40)] {
            assert_eq!(number(name), Some(expected));
        }
        for name in ["CHOWN", "cap_chown", "CAP_", "", "CAP_CHOWN "] {
            assert_eq!(number(name), None, "{name:?}");
        }
    }

    #[test]
    fn inheritable_and_ambient_stay_empty() {
        let wanted = Capabilities {
            bounding: names(&["CAP_KILL", "CAP_CHOWN"]),
            permitted: names(&["CAP_KILL"]),
            effective: names(&["CAP_KILL"]),
            ..Capabilities::default()
        };
        let mut warnings = Vec::new();
        let plan = CapabilityPlan::build(&wanted, ALL, &mut warnings);
        assert_eq!((plan.inheritable, plan.ambient), (0, 0));
        assert_eq!((plan.permitted, plan.effective), (1 << 5, 1 << 5));
        assert_eq!(plan.drop, ALL.bounding & !(1 << 5 | 1));
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_cannot_be_granted_is_a_warning() {
        let wanted = Capabilities {
            bounding: names(&["CAP_NEW", "CAP_SYS_RESOURCE", "CAP_KILL"]),
            permitted: names(&["CAP_KILL"]),
            effective: names(&["CAP_KILL", "CAP_CHOWN"]),
            inheritable: names(&["CAP_CHOWN"]),
            ambient: names(&["CAP_KILL"]),
        };
        let grantable = Grantable { bounding: ALL.bounding & !(1 << 24), ..ALL };
        let mut warnings = Vec::new();
        let plan = CapabilityPlan::build(&wanted, grantable, &mut warnings);
        assert_eq!(warnings.len(), 5, "{warnings:?}");
        assert_eq!((plan.effective, plan.inheritable, plan.ambient), (1 << 5, 0, 0));
        assert_eq!(plan.drop & (1 << 24), 0, "what is not there is not dropped");
    }
}
