//! System call numbers by architecture.

mod aarch64;
mod arm;
mod other;
mod x32;
mod x86;
mod x86_64;

use super::arch::{Arch, X32_BIT};

fn lookup(table: &[(&str, u32)], name: &str) -> Option<u32> {
    table.binary_search_by(|(known, _)| (*known).cmp(name)).ok().map(|found| table[found].1)
}

/// The number of a call, as `seccomp_data.nr` shows it; `None` where the architecture lacks it or has no table.
pub(crate) fn number(arch: Arch, name: &str) -> Option<u32> {
    match arch {
        Arch::X86_64 => lookup(x86_64::CALLS, name),
        Arch::X86 => lookup(x86::CALLS, name),
        Arch::X32 if x32::ABSENT.binary_search(&name).is_ok() => None,
        Arch::X32 => lookup(x32::OWN, name).or_else(|| lookup(x86_64::CALLS, name)).map(|number| number | X32_BIT),
        Arch::Aarch64 => lookup(aarch64::CALLS, name),
        Arch::Arm => lookup(arm::CALLS, name),
        _ => None,
    }
}

/// Whether any architecture of the kernel has a call of this name.
pub(crate) fn is_known(name: &str) -> bool {
    [x86_64::CALLS, x86::CALLS, aarch64::CALLS, arm::CALLS].iter().any(|table| lookup(table, name).is_some())
        || lookup(x32::OWN, name).is_some()
        || other::OTHER.binary_search(&name).is_ok()
}
