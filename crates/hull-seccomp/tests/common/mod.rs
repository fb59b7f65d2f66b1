//! A BPF interpreter and an evaluator of profiles that shares nothing with the compiler but the number tables.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test binary uses a part; tests may panic")]

use hull_oci::spec::{Arg, ArgOperator, Seccomp, SyscallRule};

pub const ALLOW: u32 = 0x7fff_0000;
pub const ERRNO: u32 = 0x0005_0000;
pub const AUDIT_X86_64: u32 = 0xc000_003e;
pub const AUDIT_X86: u32 = 0x4000_0003;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Call {
    pub const fn new(number: u32) -> Self {
        Self { number, arch: AUDIT_X86_64, args: [0; 6] }
    }

    pub const fn arg(mut self, index: usize, value: u64) -> Self {
        self.args[index] = value;
        self
    }

    fn word(&self, offset: u32) -> u32 {
        let mut bytes = Vec::new();
        bytes.extend(self.number.to_ne_bytes());
        bytes.extend(self.arch.to_ne_bytes());
        bytes.extend(0u64.to_ne_bytes());
        self.args.iter().for_each(|arg| bytes.extend(arg.to_ne_bytes()));
        let at = offset as usize;
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

/// Runs a program as the kernel would; the second result counts executed instructions.
pub fn run(program: &[u8], call: &Call) -> (u32, usize) {
    let mut accumulator = 0u32;
    let mut at = 0;
    for steps in 1.. {
        let bytes = &program[at * 8..at * 8 + 8];
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let (yes, no) = (usize::from(bytes[2]), usize::from(bytes[3]));
        let value = u32::from_ne_bytes(bytes[4..].try_into().unwrap());
        at += 1;
        let mut branch = |holds: bool| at += if holds { yes } else { no };
        match code {
            0x20 => accumulator = call.word(value),
            0x54 => accumulator &= value,
            0x05 => at += value as usize,
            0x15 => branch(accumulator == value),
            0x25 => branch(accumulator > value),
            0x35 => branch(accumulator >= value),
            0x06 => return (value, steps),
            _ => panic!("code {code:#x}"),
        }
    }
    unreachable!()
}

fn action(name: &str, errno: Option<u32>) -> u32 {
    match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => ERRNO | errno.unwrap_or(1),
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno.unwrap_or(1),
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        other => panic!("{other}"),
    }
}

fn compare(arg: &Arg, actual: u64) -> bool {
    match arg.op {
        ArgOperator::Ne => actual != arg.value,
        ArgOperator::Lt => actual < arg.value,
        ArgOperator::Le => actual <= arg.value,
        ArgOperator::Eq => actual == arg.value,
        ArgOperator::Ge => actual >= arg.value,
        ArgOperator::Gt => actual > arg.value,
        ArgOperator::MaskedEq => actual & arg.value == arg.value_two & arg.value,
    }
}

fn holds(rule: &SyscallRule, call: &Call) -> bool {
    let repeated = (0..6).any(|index| rule.args.iter().filter(|arg| arg.index == index).count() > 1);
    let mut results = rule.args.iter().map(|arg| compare(arg, call.args[arg.index as usize]));
    if repeated { results.any(|result| result) } else { results.all(|result| result) }
}

/// What a profile for x86-64 alone says of a call, rule by rule. `numbers` resolves names.
pub fn evaluate(profile: &Seccomp, call: &Call, numbers: impl Fn(&str) -> Option<u32>) -> u32 {
    let default = action(&profile.default_action, profile.default_errno_ret);
    if call.arch != AUDIT_X86_64 {
        return 0;
    }
    if call.number == u32::MAX {
        return default;
    }
    if call.number >= 0x4000_0000 {
        return 0;
    }
    let mut conditional = None;
    for rule in &profile.syscalls {
        let result = action(&rule.action, rule.errno_ret);
        if result == default || !rule.names.iter().any(|name| numbers(name) == Some(call.number)) {
            continue;
        }
        if rule.args.is_empty() {
            return result;
        }
        if conditional.is_none() && holds(rule, call) {
            conditional = Some(result);
        }
    }
    let newest = profile.syscalls.iter().flat_map(|rule| &rule.names).filter_map(|name| numbers(name)).max();
    let denies = !matches!(default & 0xffff_0000, ALLOW | 0x7ffc_0000 | 0x7ff0_0000);
    match (conditional, newest) {
        (Some(result), _) => result,
        (None, Some(newest)) if call.number > newest && denies => ERRNO | 38,
        _ => default,
    }
}
