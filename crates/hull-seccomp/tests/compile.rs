//! Programs against an interpreter and an independent evaluation of the profile.

mod common;

use common::{ALLOW, AUDIT_X86, AUDIT_X86_64, Call, ERRNO, evaluate, run};
use hull_oci::spec::{Arg, ArgOperator, Seccomp, SyscallRule};
use hull_seccomp::{Arch, Error, Filter, compile_for, default_profile};
use proptest::prelude::*;

const NAMES: &[(&str, u32)] = &[
    ("read", 0),
    ("write", 1),
    ("open", 2),
    ("close", 3),
    ("mmap", 9),
    ("ioctl", 16),
    ("socket", 41),
    ("clone", 56),
    ("personality", 135),
    ("mount", 165),
    ("openat", 257),
    ("clone3", 435),
    ("file_setattr", 469),
];

fn number(name: &str) -> Option<u32> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn rule(name: &str, action: &str, args: Vec<Arg>) -> SyscallRule {
    SyscallRule { names: vec![name.to_owned()], action: action.to_owned(), errno_ret: None, args }
}

fn arg(index: u32, op: ArgOperator, value: u64, value_two: u64) -> Arg {
    Arg { index, value, value_two, op }
}

fn profile(default: &str, syscalls: Vec<SyscallRule>) -> Seccomp {
    Seccomp { default_action: default.to_owned(), syscalls, ..Seccomp::default() }
}

fn compile(profile: &Seccomp) -> Filter {
    let filter = compile_for(profile, Arch::X86_64).expect("the profile compiles");
    filter.verify().expect("the program verifies");
    filter
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..4,
        Just(u64::from(u32::MAX)),
        Just(1 << 32),
        Just((1 << 32) + 1),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(0x7e02_0000),
        any::<u64>()
    ]
}

fn operator() -> impl Strategy<Value = ArgOperator> {
    use ArgOperator::{Eq, Ge, Gt, Le, Lt, MaskedEq, Ne};
    prop::sample::select(vec![Ne, Lt, Le, Eq, Ge, Gt, MaskedEq])
}

fn action() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_LOG",
    ])
}

fn any_rule() -> impl Strategy<Value = SyscallRule> {
    let names = prop::collection::vec(prop::sample::select(NAMES).prop_map(|(name, _)| name.to_owned()), 1..4);
    let args = prop::collection::vec((0u32..3, operator(), value(), value()), 0..4)
        .prop_map(|args| args.into_iter().map(|(index, op, one, two)| arg(index, op, one, two)).collect());
    (names, action(), args).prop_map(|(names, action, args)| SyscallRule {
        names,
        action: action.to_owned(),
        errno_ret: None,
        args,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_do_what_profiles_say(
        default in action(),
        rules in prop::collection::vec(any_rule(), 0..12),
        args in prop::collection::vec((value(), value(), value()), 12),
    ) {
        let mut profile = profile(default, rules);
        let near: Vec<u64> = profile
            .syscalls
            .iter()
            .flat_map(|rule| &rule.args)
            .flat_map(|arg| [arg.value, arg.value.wrapping_add(1), arg.value.wrapping_sub(1), arg.value_two])
            .collect();
        profile.architectures = vec!["SCMP_ARCH_X86_64".to_owned()];
        let filter = compile(&profile);
        let mut numbers: Vec<u32> = NAMES.iter().flat_map(|(_, number)| [*number, number + 1]).collect();
        numbers.extend([1000, 0x3fff_ffff, 0x4000_0000, 0x4000_0200, u32::MAX - 1, u32::MAX]);
        let sets = args.iter().copied().chain(near.iter().map(|value| (*value, *value, *value)));
        for (first, second, third) in sets {
            for &number_ in &numbers {
                let call = Call { number: number_, arch: AUDIT_X86_64, args: [first, second, third, 0, 0, 0] };
                prop_assert_eq!(run(filter.program(), &call).0, evaluate(&profile, &call, number), "{:?}", call);
            }
        }
        let foreign = Call { arch: 1, ..Call::new(0) };
        prop_assert_eq!(run(filter.program(), &foreign).0, 0);
    }

    #[test]
    fn any_document_compiles_to_a_sound_program_or_an_error(text in "\\PC{0,200}", rules in prop::collection::vec(any_rule(), 0..60)) {
        // The invariant of the fuzz target `profile_to_filter`.
        if let Ok(profile) = serde_json::from_str::<Seccomp>(&text)
            && let Ok(filter) = hull_seccomp::compile(&profile)
        {
            filter.verify().unwrap();
        }
        let arches = ["X86_64", "X86", "X32", "ARM", "S390X"].map(|name| format!("SCMP_ARCH_{name}")).to_vec();
        let profile = Seccomp { architectures: arches, ..profile("SCMP_ACT_ERRNO", rules) };
        for native in [Arch::X86_64, Arch::Aarch64] {
            compile_for(&profile, native).unwrap().verify().unwrap();
        }
    }

    #[test]
    fn spec_parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "[\\[\\]{}\":,a-z0-9]{0,200}") {
        // The invariant of the fuzz target `spec_to_plan`, as far as parsing goes.
        let _ = hull_oci::Spec::parse(&bytes);
        let _ = hull_oci::Spec::parse(text.as_bytes());
    }
}

#[test]
fn every_operator_at_its_boundaries() {
    use ArgOperator::{Eq, Ge, Gt, Le, Lt, MaskedEq, Ne};
    let values = [0, 1, 2, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, u64::MAX - 1, u64::MAX];
    for op in [Ne, Lt, Le, Eq, Ge, Gt, MaskedEq] {
        for wanted in values {
            // The second rule keeps the general path; without it, intervals are used.
            for general in [false, true] {
                let mut rules = vec![rule("read", "SCMP_ACT_ALLOW", vec![arg(0, op, wanted, wanted & 1)])];
                if general {
                    rules.push(rule("read", "SCMP_ACT_ALLOW", vec![arg(5, Eq, 77, 0)]));
                }
                let profile = profile("SCMP_ACT_ERRNO", rules);
                let filter = compile(&profile);
                for actual in values {
                    let call = Call::new(0).arg(0, actual);
                    let expected = evaluate(&profile, &call, number);
                    assert_eq!(run(filter.program(), &call).0, expected, "{actual} {op:?} {wanted}");
                }
            }
        }
    }
}

#[test]
fn architectures_are_told_apart() {
    let mut profile = profile("SCMP_ACT_ERRNO", vec![rule("getpid", "SCMP_ACT_ALLOW", Vec::new())]);
    let native_only = compile(&profile);
    let on = |filter: &Filter, arch, number| run(filter.program(), &Call { arch, ..Call::new(number) }).0;
    assert_eq!(on(&native_only, AUDIT_X86_64, 39), ALLOW);
    assert_eq!(on(&native_only, AUDIT_X86_64, 39 | 0x4000_0000), 0);
    assert_eq!(on(&native_only, AUDIT_X86, 20), 0);
    profile.architectures = ["X86", "X32", "MIPS64"].map(|name| format!("SCMP_ARCH_{name}")).to_vec();
    let all = compile(&profile);
    assert_eq!(on(&all, AUDIT_X86_64, 39), ALLOW);
    assert_eq!(on(&all, AUDIT_X86_64, 39 | 0x4000_0000), ALLOW);
    assert_eq!(on(&all, AUDIT_X86_64, 38 | 0x4000_0000), ERRNO | 1);
    assert_eq!(on(&all, AUDIT_X86, 20), ALLOW);
    assert_eq!(on(&all, AUDIT_X86, 19), ERRNO | 1);
    assert_eq!(on(&all, 0xc000_00b7, 172), 0);
    let arm = compile_for(&profile, Arch::Aarch64).unwrap();
    assert_eq!(on(&arm, 0xc000_00b7, 172), ALLOW);
}

#[test]
fn a_masked_comparison_masks_both_sides() {
    let masked = vec![arg(0, ArgOperator::MaskedEq, 0xff, 0x1_0000_0101)];
    let filter = compile(&profile("SCMP_ACT_ERRNO", vec![rule("read", "SCMP_ACT_ALLOW", masked)]));
    assert_eq!(run(filter.program(), &Call::new(0).arg(0, 0x7701)).0, ALLOW);
    assert_eq!(run(filter.program(), &Call::new(0).arg(0, 0x7702)).0, ERRNO | 1);
}

#[test]
fn a_long_program_keeps_its_jumps() {
    // More than 255 instructions between the branches of one tree.
    let rules = (0..60)
        .map(|value| {
            let args = (0..6).map(|index| arg(index, ArgOperator::MaskedEq, u64::MAX, value * 7 + 1)).collect();
            rule(NAMES[value as usize % NAMES.len()].0, "SCMP_ACT_ALLOW", args)
        })
        .collect();
    let profile = profile("SCMP_ACT_ERRNO", rules);
    let filter = compile(&profile);
    assert!(filter.instructions() > 1000);
    for value in 0..60 {
        for (_, number_) in NAMES {
            let call = Call { args: [value * 7 + 1; 6], ..Call::new(*number_) };
            assert_eq!(run(filter.program(), &call).0, evaluate(&profile, &call, number), "{call:?}");
        }
    }
}

#[test]
fn too_long_a_program_is_an_error() {
    let rules = (0..400)
        .map(|value| {
            rule("read", "SCMP_ACT_ALLOW", (0..6).map(|index| arg(index, ArgOperator::Gt, value, 0)).collect())
        })
        .collect();
    let refused = compile_for(&profile("SCMP_ACT_ERRNO", rules), Arch::X86_64);
    assert!(matches!(refused, Err(Error::TooLong { instructions }) if instructions > 4096), "{refused:?}");
}

#[test]
fn bad_profiles_are_refused_with_the_field() {
    let refuse = |profile: &Seccomp| compile_for(profile, Arch::X86_64).unwrap_err().to_string();
    assert!(refuse(&profile("SCMP_ACT_MAYBE", Vec::new())).contains("defaultAction"));
    assert!(refuse(&profile("", Vec::new())).contains("defaultAction"));
    assert!(refuse(&profile("SCMP_ACT_NOTIFY", Vec::new())).contains("SCMP_ACT_NOTIFY"));
    let with = |rule| profile("SCMP_ACT_ERRNO", vec![rule]);
    assert!(refuse(&with(rule("read", "ALLOW", Vec::new()))).contains("syscalls[0].action"));
    assert!(refuse(&with(rule("", "SCMP_ACT_ALLOW", Vec::new()))).contains("names"));
    assert!(refuse(&with(rule("read", "SCMP_ACT_ALLOW", vec![arg(6, ArgOperator::Eq, 0, 0)]))).contains("index 6"));
    assert!(refuse(&with(rule("read", "SCMP_ACT_NOTIFY", Vec::new()))).contains("listenerPath"));
    assert!(refuse(&with(rule("write", "SCMP_ACT_NOTIFY", Vec::new()))).contains("write"));
    let errno = |action: &str, errno| SyscallRule { errno_ret: Some(errno), ..rule("read", action, Vec::new()) };
    assert!(refuse(&with(errno("SCMP_ACT_ERRNO", 4096))).contains("4096"));
    assert!(refuse(&with(errno("SCMP_ACT_ALLOW", 1))).contains("takes no errno"));
    let base = profile("SCMP_ACT_ALLOW", Vec::new());
    assert!(refuse(&Seccomp { flags: vec!["X".into()], ..base.clone() }).contains("flags"));
    assert!(refuse(&Seccomp { architectures: vec!["X".into()], ..base.clone() }).contains("architectures"));
    assert!(refuse(&Seccomp { listener_metadata: "m".into(), ..base }).contains("listenerMetadata"));
}

#[test]
fn notify_asks_for_a_listener() {
    let flags = ["TSYNC", "WAIT_KILLABLE_RECV"].map(|name| format!("SECCOMP_FILTER_FLAG_{name}")).to_vec();
    let mut profile = profile("SCMP_ACT_ALLOW", vec![rule("mount", "SCMP_ACT_NOTIFY", Vec::new())]);
    profile.flags = flags;
    profile.listener_path = "/run/agent.sock".into();
    let filter = compile(&profile);
    assert!(filter.notify());
    assert_eq!(filter.flags(), 1 | 1 << 3 | 1 << 4 | 1 << 5);
    profile.syscalls.clear();
    let filter = compile(&profile);
    assert_eq!((filter.notify(), filter.flags()), (false, 1));
}

#[test]
fn names_unknown_to_every_table_are_reported_only() {
    let names = ["read", "frobnicate", "riscv_flush_icache", "breakpoint", "frobnicate"];
    let rule = SyscallRule { names: names.map(str::to_owned).to_vec(), ..rule("", "SCMP_ACT_ALLOW", Vec::new()) };
    assert_eq!(compile(&profile("SCMP_ACT_ERRNO", vec![rule])).unknown_calls(), ["frobnicate"]);
}

#[test]
fn compatible_sockets_are_filtered_inside_socketcall() {
    let on = |filter: &Filter, call| run(filter.program(), &Call { arch: AUDIT_X86, ..Call::new(102) }.arg(0, call)).0;
    let family = vec![arg(0, ArgOperator::Eq, 38, 0)];
    let mut deny = profile("SCMP_ACT_ALLOW", vec![rule("socket", "SCMP_ACT_ERRNO", family.clone())]);
    deny.architectures = vec!["SCMP_ARCH_X86".into()];
    let filter = compile(&deny);
    assert_eq!((on(&filter, 1), on(&filter, 2)), (ERRNO | 1, ALLOW));
    let mut permit = profile("SCMP_ACT_ERRNO", vec![rule("socket", "SCMP_ACT_ALLOW", family)]);
    permit.architectures = vec!["SCMP_ARCH_X86".into()];
    assert_eq!(on(&compile(&permit), 1), ERRNO | 1);
}

#[test]
fn the_default_document_survives_json() {
    let profile = default_profile(&["CAP_SYS_ADMIN".to_owned()], &[Arch::X86_64, Arch::X86, Arch::X32]);
    let text = serde_json::to_string(&profile).unwrap();
    assert_eq!(serde_json::from_str::<Seccomp>(&text).unwrap(), profile);
    assert!(compile(&profile).instructions() < 1000);
}
