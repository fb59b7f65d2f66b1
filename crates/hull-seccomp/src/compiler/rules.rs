//! Profiles, checked and given numbers.

use std::collections::{BTreeMap, BTreeSet};

use hull_oci::spec::{Arg, ArgOperator, Seccomp, SyscallRule};

use super::arch::Arch;
use super::{Error, multiplex, tables};

const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
/// Kills the calling thread only; what an unlisted architecture gets.
pub(super) const KILL_THREAD: u32 = 0;
/// Number of the errno action with `ENOSYS`.
pub(super) const RETURN_ENOSYS: u32 = ERRNO | 38;
const EPERM: u32 = 1;

/// Action names and the filter's return values (`linux/seccomp.h`).
pub(crate) static ACTIONS: &[(&str, u32)] = &[
    ("SCMP_ACT_KILL", KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_KILL_THREAD", KILL_THREAD),
    ("SCMP_ACT_TRAP", 0x0003_0000),
    ("SCMP_ACT_ERRNO", ERRNO),
    ("SCMP_ACT_TRACE", TRACE),
    ("SCMP_ACT_ALLOW", ALLOW),
    ("SCMP_ACT_LOG", LOG),
    ("SCMP_ACT_NOTIFY", NOTIFY),
];

/// Flags of profiles and of `seccomp(2)`.
pub(crate) static FLAGS: &[(&str, u32)] = &[
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 1 << 2),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", WAIT_KILLABLE_RECV),
];
const TSYNC: u32 = 1;
const NEW_LISTENER: u32 = 1 << 3;
const TSYNC_ESRCH: u32 = 1 << 4;
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Where ARM's private calls start; they say nothing about how new a profile is.
const PRIVATE_CALLS: u32 = 0xf_0000;

/// Comparisons joined by "and", and the action when all hold.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) action: u32,
    pub(super) comparisons: Vec<Arg>,
}

/// The calls of one architecture.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) arch: Arch,
    /// By number: indices of rules, in the order of the profile.
    pub(super) by_number: BTreeMap<u32, Vec<usize>>,
    /// Newest call that the profile names.
    pub(super) newest: Option<u32>,
}

/// A checked profile.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) default: u32,
    /// Action for calls newer than the profile.
    pub(super) newer: u32,
    pub(super) rules: Vec<Rule>,
    pub(super) arches: Vec<Calls>,
    pub(super) flags: u32,
    pub(super) notify: bool,
    pub(super) unknown: Vec<String>,
}

fn action(name: &str, errno: Option<u32>, field: impl Fn() -> String) -> Result<u32, Error> {
    let Some((_, action)) = ACTIONS.iter().find(|(known, _)| *known == name) else {
        return Err(Error::UnknownAction { field: field(), name: name.to_owned() });
    };
    let max = match *action {
        ERRNO => 4095,
        TRACE => 0xffff,
        _ if errno.is_some() => return Err(Error::ErrnoNotTaken { field: field(), action: name.to_owned() }),
        _ => return Ok(*action),
    };
    let errno = errno.unwrap_or(EPERM);
    if errno > max {
        return Err(Error::ErrnoTooLarge { field: field(), errno, max });
    }
    Ok(action | errno)
}

/// The kernel's own order of actions: as signed numbers, less is stricter.
fn is_stricter(action: u32, than: u32) -> bool {
    (action & 0xffff_0000).cast_signed() < (than & 0xffff_0000).cast_signed()
}

impl Rules {
    pub(super) fn parse(profile: &Seccomp, native: Arch) -> Result<Self, Error> {
        if native.audit().is_none() {
            return Err(Error::NoTable);
        }
        let default = action(&profile.default_action, profile.default_errno_ret, || "defaultAction".to_owned())?;
        if default == NOTIFY {
            return Err(Error::NotifyRefused { field: "defaultAction".to_owned(), what: "the default action" });
        }
        let permissive = matches!(default & 0xffff_0000, ALLOW | LOG | TRACE);
        let mut arches = BTreeSet::from([native]);
        for name in &profile.architectures {
            let arch = Arch::from_name(name).ok_or_else(|| Error::UnknownArch(name.clone()))?;
            if arch.runs_on(native) {
                arches.insert(arch);
            }
        }
        let arches = arches.into_iter().map(|arch| Calls { arch, by_number: BTreeMap::new(), newest: None }).collect();
        let newer = if permissive { default } else { RETURN_ENOSYS };
        let mut parsed =
            Self { default, newer, rules: Vec::new(), arches, flags: 0, notify: false, unknown: Vec::new() };
        for (index, rule) in profile.syscalls.iter().enumerate() {
            parsed.add(index, rule)?;
        }
        parsed.set_flags(profile)?;
        Ok(parsed)
    }

    fn set_flags(&mut self, profile: &Seccomp) -> Result<(), Error> {
        for name in &profile.flags {
            let known = FLAGS.iter().find(|(known, _)| known == name);
            self.flags |= known.ok_or_else(|| Error::UnknownFlag(name.clone()))?.1;
        }
        if profile.listener_path.is_empty() {
            if self.notify {
                return Err(Error::NoListener);
            }
            if !profile.listener_metadata.is_empty() {
                return Err(Error::MetadataWithoutListener);
            }
        }
        if self.notify {
            self.flags |= NEW_LISTENER;
            if self.flags & TSYNC != 0 {
                // Both results of the call would be a positive number.
                self.flags |= TSYNC_ESRCH;
            }
        } else {
            // Means nothing without a listener, and the kernel refuses it.
            self.flags &= !WAIT_KILLABLE_RECV;
        }
        Ok(())
    }

    fn add(&mut self, index: usize, rule: &SyscallRule) -> Result<(), Error> {
        let field = || format!("syscalls[{index}].action");
        let action = action(&rule.action, rule.errno_ret, field)?;
        if rule.args.len() > 6 {
            return Err(Error::TooManyArgs { rule: index, count: rule.args.len() });
        }
        let mut seen = [false; 6];
        let mut twice = false;
        for arg in &rule.args {
            let slot = seen.get_mut(arg.index as usize).ok_or(Error::ArgIndex { rule: index, index: arg.index })?;
            twice |= std::mem::replace(slot, true);
        }
        if action == NOTIFY {
            // The runtime itself writes after the filter is in place, and nobody would answer.
            if rule.names.iter().any(|name| name == "write") {
                return Err(Error::NotifyRefused { field: field(), what: "the write system call" });
            }
            self.notify = true;
        }
        let redundant = action == self.default;
        let first = self.rules.len();
        if !redundant {
            if twice {
                let split = rule.args.iter().map(|arg| Rule { action, comparisons: vec![arg.clone()] });
                self.rules.extend(split);
            } else {
                self.rules.push(Rule { action, comparisons: rule.args.clone() });
            }
        }
        let added = first..self.rules.len();
        for name in &rule.names {
            if name.is_empty() {
                return Err(Error::EmptyName { rule: index });
            }
            let mut found = false;
            for calls in &mut self.arches {
                let Some(number) = tables::number(calls.arch, name) else { continue };
                found = true;
                if number < PRIVATE_CALLS || calls.arch == Arch::X32 {
                    calls.newest = calls.newest.max(Some(number));
                }
                if !redundant {
                    calls.by_number.entry(number).or_default().extend(added.clone());
                }
            }
            if !found && !tables::is_known(name) && !self.unknown.contains(name) {
                self.unknown.push(name.clone());
            }
            if !redundant && (rule.args.is_empty() || is_stricter(action, self.default)) {
                self.add_multiplexed(name, action);
            }
        }
        Ok(())
    }

    fn add_multiplexed(&mut self, name: &str, action: u32) {
        let Some(calls) = self.arches.iter_mut().find(|calls| calls.arch == Arch::X86) else { return };
        let Some((multiplexer, selector)) = multiplex::multiplexer(name) else { return };
        let Some(number) = tables::number(Arch::X86, multiplexer) else { return };
        let comparison = Arg { index: 0, value: selector.into(), value_two: 0, op: ArgOperator::Eq };
        calls.by_number.entry(number).or_default().push(self.rules.len());
        self.rules.push(Rule { action, comparisons: vec![comparison] });
    }
}
