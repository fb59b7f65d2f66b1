//! Decision trees: over the architecture, the call's number, and its arguments.

use std::collections::BTreeMap;

use hull_oci::spec::{Arg, ArgOperator};

use super::Error;
use super::arch::{Arch, X32_BIT};
use super::bpf::{AND, Assembler, JEQ, JGE, JGT, LOAD, Range, Target, decide, merge};
use super::rules::{Calls, KILL_THREAD, Rule, Rules};

/// Offset of `seccomp_data.nr`.
const NUMBER: u32 = 0;
/// Offset of `seccomp_data.arch`.
const ARCH: u32 = 4;

/// Offset of one half of an argument.
const fn offset(index: u32, high: bool) -> u32 {
    16 + 8 * index + if high == cfg!(target_endian = "little") { 4 } else { 0 }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
const fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

/// Writes the whole program.
pub(super) fn generate(rules: &Rules) -> Result<Vec<u8>, Error> {
    let mut assembler = Assembler::default();
    let mut entry = Target::Return(KILL_THREAD);
    // Written last, so tested first: the native architecture, the smallest of its family in the enumeration.
    let mut by_audit: Vec<(u32, Vec<&Calls>)> = Vec::new();
    for calls in &rules.arches {
        let audit = calls.arch.audit().ok_or(Error::NoTable)?;
        match by_audit.iter_mut().find(|(known, _)| *known == audit) {
            Some((_, group)) => group.push(calls),
            None => by_audit.push((audit, vec![calls])),
        }
    }
    for (audit, group) in by_audit.iter().rev() {
        let mut ranges = numbers(&mut assembler, rules, group);
        merge(&mut ranges);
        let tree = decide(&mut assembler, &ranges);
        let tree = assembler.then(LOAD, NUMBER, tree);
        entry = assembler.branch(JEQ, *audit, tree, entry);
    }
    let entry = assembler.then(LOAD, ARCH, entry);
    Ok(assembler.finish(entry)?.into_iter().flat_map(super::bpf::Instruction::to_bytes).collect())
}

/// Cuts the numbers of all architectures that share an audit value into stretches.
fn numbers(assembler: &mut Assembler, rules: &Rules, group: &[&Calls]) -> Vec<Range> {
    let default = Target::Return(rules.default);
    let newer = Target::Return(rules.newer);
    let mut ranges = Vec::new();
    for calls in group {
        // A profile that names no call of the architecture says nothing about how new it is.
        let first_newer = calls.newest.map_or(u32::MAX, |number| number + 1);
        let gap = |ranges: &mut Vec<Range>, from: u32, to: u32| {
            if from < first_newer && from < to {
                ranges.push(Range { first: from, target: default });
            }
            if first_newer < to {
                ranges.push(Range { first: from.max(first_newer), target: newer });
            }
        };
        let mut written = BTreeMap::new();
        let mut next = if calls.arch == Arch::X32 { X32_BIT } else { 0 };
        for (&number, indices) in &calls.by_number {
            if number > next {
                gap(&mut ranges, next, number);
            }
            let target =
                *written.entry(indices).or_insert_with(|| call(assembler, rules, indices, calls.arch.is_32_bit()));
            ranges.push(Range { first: number, target });
            next = number + 1;
        }
        gap(&mut ranges, next, u32::MAX);
    }
    if let [Calls { arch: Arch::X86_64, .. }] = group {
        ranges.push(Range { first: X32_BIT, target: Target::Return(KILL_THREAD) });
    }
    // A tracer asks to skip a call by making its number -1.
    ranges.push(Range { first: u32::MAX, target: default });
    ranges
}

/// Writes the rules of one call.
fn call(assembler: &mut Assembler, rules: &Rules, indices: &[usize], narrow: bool) -> Target {
    let chosen = || indices.iter().filter_map(|index| rules.rules.get(*index));
    if let Some(unconditional) = chosen().find(|rule| rule.comparisons.is_empty()) {
        return Target::Return(unconditional.action);
    }
    let list: Vec<Rule> = chosen().map(|rule| if narrow { narrowed(rule) } else { rule.clone() }).collect();
    let default = Target::Return(rules.default);
    if let Some(index) = single_argument(&list) {
        return intervals(assembler, &list, index, default);
    }
    list.iter().rev().fold(default, |otherwise, rule| {
        let holds = Target::Return(rule.action);
        rule.comparisons.iter().rev().fold(holds, |next, arg| compare(assembler, arg, next, otherwise))
    })
}

fn narrowed(rule: &Rule) -> Rule {
    let low = |value: u64| u64::from(halves(value).1);
    let comparisons = rule
        .comparisons
        .iter()
        .map(|arg| Arg { value: low(arg.value), value_two: low(arg.value_two), ..arg.clone() })
        .collect();
    Rule { action: rule.action, comparisons }
}

/// The argument that all rules compare, when each makes one comparison that is no mask.
fn single_argument(rules: &[Rule]) -> Option<u32> {
    let index = rules.first()?.comparisons.first()?.index;
    let simple = |rule: &Rule| matches!(rule.comparisons.as_slice(), [arg] if arg.index == index && arg.op != ArgOperator::MaskedEq);
    rules.iter().all(simple).then_some(index)
}

/// Whether an unmasked comparison holds.
fn holds(arg: &Arg, value: u64) -> bool {
    match arg.op {
        ArgOperator::Ne => value != arg.value,
        ArgOperator::Lt => value < arg.value,
        ArgOperator::Le => value <= arg.value,
        ArgOperator::Eq => value == arg.value,
        ArgOperator::Ge => value >= arg.value,
        ArgOperator::Gt => value > arg.value,
        ArgOperator::MaskedEq => value & arg.value == arg.value_two & arg.value,
    }
}

/// Rules over one argument cut its values into intervals, which need one tree over each half.
fn intervals(assembler: &mut Assembler, rules: &[Rule], index: u32, default: Target) -> Target {
    let mut cuts = vec![0];
    for arg in rules.iter().flat_map(|rule| &rule.comparisons) {
        cuts.push(arg.value);
        cuts.extend(arg.value.checked_add(1));
        let (high, _) = halves(arg.value);
        cuts.push(u64::from(high) << 32);
        cuts.extend(high.checked_add(1).map(|next| u64::from(next) << 32));
    }
    cuts.sort_unstable();
    cuts.dedup();
    let target = |value: u64| {
        let rule = rules.iter().find(|rule| rule.comparisons.iter().all(|arg| holds(arg, value)));
        rule.map_or(default, |rule| Target::Return(rule.action))
    };
    let mut highs: Vec<Range> = Vec::new();
    for group in cuts.chunk_by(|left, right| halves(*left).0 == halves(*right).0) {
        let mut lows: Vec<Range> =
            group.iter().map(|&value| Range { first: halves(value).1, target: target(value) }).collect();
        merge(&mut lows);
        let tree = decide(assembler, &lows);
        let tree = if lows.len() > 1 { assembler.then(LOAD, offset(index, false), tree) } else { tree };
        highs.extend(group.first().map(|&value| Range { first: halves(value).0, target: tree }));
    }
    merge(&mut highs);
    let tree = decide(assembler, &highs);
    if highs.len() > 1 { assembler.then(LOAD, offset(index, true), tree) } else { tree }
}

/// Writes one comparison of 64 bits as two of 32.
fn compare(assembler: &mut Assembler, arg: &Arg, yes: Target, no: Target) -> Target {
    let (high, low) = halves(arg.value);
    let load_low = offset(arg.index, false);
    let load_high = offset(arg.index, true);
    if arg.op == ArgOperator::MaskedEq {
        let (wanted_high, wanted_low) = halves(arg.value_two);
        let next = masked_half(assembler, load_low, low, wanted_low, yes, no);
        return masked_half(assembler, load_high, high, wanted_high, next, no);
    }
    // The low half decides when the high halves are equal; otherwise the order of the high halves does.
    let (code, on_true, on_false) = match arg.op {
        ArgOperator::Eq | ArgOperator::MaskedEq => (JEQ, yes, no),
        ArgOperator::Ne => (JEQ, no, yes),
        ArgOperator::Gt => (JGT, yes, no),
        ArgOperator::Le => (JGT, no, yes),
        ArgOperator::Ge => (JGE, yes, no),
        ArgOperator::Lt => (JGE, no, yes),
    };
    let low_part = assembler.branch(code, low, on_true, on_false);
    let low_part = assembler.then(LOAD, load_low, low_part);
    let greater = if code == JEQ { on_false } else { on_true };
    let unequal = assembler.branch(JGT, high, greater, on_false);
    let high_part = assembler.branch(JEQ, high, low_part, unequal);
    assembler.then(LOAD, load_high, high_part)
}

fn masked_half(assembler: &mut Assembler, load: u32, mask: u32, wanted: u32, yes: Target, no: Target) -> Target {
    let wanted = wanted & mask;
    if mask == 0 {
        return yes;
    }
    let test = assembler.branch(JEQ, wanted, yes, no);
    let test = if mask == u32::MAX { test } else { assembler.then(AND, mask, test) };
    assembler.then(LOAD, load, test)
}
