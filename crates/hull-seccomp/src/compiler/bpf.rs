//! Classic BPF, assembled from the last instruction to the first.
//!
//! Jumps only go forward, so a program that is written backwards knows every distance when it writes a jump.

use super::Error;

pub(crate) const LOAD: u16 = 0x20;
pub(crate) const AND: u16 = 0x54;
pub(crate) const JUMP: u16 = 0x05;
pub(crate) const JEQ: u16 = 0x15;
pub(crate) const JGT: u16 = 0x25;
pub(crate) const JGE: u16 = 0x35;
pub(crate) const RETURN: u16 = 0x06;

/// The kernel's limit (`BPF_MAXINSNS`).
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) value: u32,
}

impl Instruction {
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        bytes[2] = self.if_true;
        bytes[3] = self.if_false;
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; 8]) -> Self {
        let [code0, code1, if_true, if_false, value @ ..] = bytes;
        Self { code: u16::from_ne_bytes([code0, code1]), if_true, if_false, value: u32::from_ne_bytes(value) }
    }
}

/// Where control goes: to an action, or to an instruction counted from the program's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Return(u32),
    At(usize),
}

/// A program that grows at its front.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    reversed: Vec<Instruction>,
    /// Nearest `ret` of each action.
    returns: Vec<(u32, usize)>,
}

impl Assembler {
    fn push(&mut self, code: u16, if_true: u8, if_false: u8, value: u32) -> usize {
        self.reversed.push(Instruction { code, if_true, if_false, value });
        self.reversed.len() - 1
    }

    fn distance(&self, to: usize) -> usize {
        self.reversed.len() - to - 1
    }

    fn resolve(&self, target: Target) -> Option<usize> {
        match target {
            Target::At(position) => Some(position),
            Target::Return(action) => {
                self.returns.iter().find(|(known, _)| *known == action).map(|(_, position)| *position)
            }
        }
    }

    /// Makes the target reachable by an 8-bit jump from the next instruction.
    fn reach(&mut self, target: Target) -> usize {
        let near = self.resolve(target).filter(|position| self.distance(*position) <= usize::from(u8::MAX));
        if let Some(position) = near {
            return position;
        }
        match target {
            Target::Return(action) => {
                let position = self.push(RETURN, 0, 0, action);
                self.returns.retain(|(known, _)| *known != action);
                self.returns.push((action, position));
                position
            }
            Target::At(position) => {
                let distance = u32::try_from(self.distance(position)).unwrap_or(u32::MAX);
                self.push(JUMP, 0, 0, distance)
            }
        }
    }

    /// Writes a conditional jump; nothing at all when both ways lead to the same place.
    pub(crate) fn branch(&mut self, code: u16, value: u32, if_true: Target, if_false: Target) -> Target {
        if if_true == if_false {
            return if_true;
        }
        let mut to_true = if_true;
        let mut to_false = if_false;
        // Reaching one target may add an instruction and so push the other just out of reach.
        loop {
            let before = self.reversed.len();
            let at_true = self.reach(to_true);
            let at_false = self.reach(to_false);
            if let (Ok(jump_true), Ok(jump_false)) =
                (u8::try_from(self.distance(at_true)), u8::try_from(self.distance(at_false)))
            {
                return Target::At(self.push(code, jump_true, jump_false, value));
            }
            debug_assert!(self.reversed.len() > before, "an unreachable target always adds an instruction");
            to_true = if matches!(to_true, Target::At(_)) { Target::At(at_true) } else { to_true };
            to_false = if matches!(to_false, Target::At(_)) { Target::At(at_false) } else { to_false };
        }
    }

    /// Writes an instruction that is followed by `next`.
    pub(crate) fn then(&mut self, code: u16, value: u32, next: Target) -> Target {
        let position = match next {
            Target::At(position) => position,
            Target::Return(_) => self.reach(next),
        };
        if self.distance(position) > 0 {
            let distance = u32::try_from(self.distance(position)).unwrap_or(u32::MAX);
            self.push(JUMP, 0, 0, distance);
        }
        Target::At(self.push(code, 0, 0, value))
    }

    /// The program that starts at `entry`.
    pub(crate) fn finish(mut self, entry: Target) -> Result<Vec<Instruction>, Error> {
        let entry = self.reach(entry);
        // Nothing jumps to what lies before the entry.
        self.reversed.truncate(entry + 1);
        if self.reversed.len() > MAX_INSTRUCTIONS {
            return Err(Error::TooLong { instructions: self.reversed.len() });
        }
        self.reversed.reverse();
        Ok(self.reversed)
    }
}

/// One stretch of a 32-bit value and where it leads; the last stretch ends at `u32::MAX`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// First value. The stretch ends before the next one's.
    pub(crate) first: u32,
    pub(crate) target: Target,
}

/// Joins neighbours of equal target.
pub(crate) fn merge(ranges: &mut Vec<Range>) {
    ranges.dedup_by(|next, kept| next.target == kept.target);
}

/// Writes a balanced decision over the accumulator. `ranges` are sorted, merged, and start at the least value that can
/// get here.
pub(crate) fn decide(assembler: &mut Assembler, ranges: &[Range]) -> Target {
    match ranges {
        [] => Target::Return(0),
        [only] => only.target,
        [before, one, after] if before.target == after.target && after.first - one.first == 1 => {
            assembler.branch(JEQ, one.first, one.target, before.target)
        }
        _ => {
            // An odd left half keeps the pattern "one value differs", which costs a single comparison.
            let half = ranges.len() / 2;
            let middle = if half.is_multiple_of(2) { half + 1 } else { half };
            let middle = middle.min(ranges.len() - 1);
            let (low, high) = ranges.split_at(middle);
            // The far side is written first.
            let high_target = decide(assembler, high);
            let low_target = decide(assembler, low);
            assembler.branch(JGE, high[0].first, high_target, low_target)
        }
    }
}

/// Checks what the kernel would check and what Hull promises: known instructions, loads inside `seccomp_data`, every
/// jump inside the program, a return at the end, at most 4096 instructions.
pub(crate) fn verify(program: &[u8]) -> Result<(), Error> {
    let (instructions, rest) = program.as_chunks::<8>();
    let count = instructions.len();
    if count > MAX_INSTRUCTIONS {
        return Err(Error::TooLong { instructions: count });
    }
    let invalid = |at: usize, what: &'static str| Err(Error::Invalid { at, what });
    if !rest.is_empty() || count == 0 {
        return invalid(count, "the program is no whole number of instructions");
    }
    for (at, bytes) in instructions.iter().enumerate() {
        let instruction = Instruction::from_bytes(*bytes);
        let left = count - at - 1;
        match instruction.code {
            LOAD if instruction.value < 64 && instruction.value.is_multiple_of(4) => {}
            LOAD => return invalid(at, "the load is outside seccomp_data"),
            AND | RETURN => {}
            JUMP if (instruction.value as usize) < left => {}
            JEQ | JGT | JGE if usize::from(instruction.if_true.max(instruction.if_false)) < left => {}
            JUMP | JEQ | JGT | JGE => return invalid(at, "the jump leaves the program"),
            _ => return invalid(at, "the instruction is unknown"),
        }
        if left == 0 && instruction.code != RETURN {
            return invalid(at, "the program does not end in a return");
        }
    }
    Ok(())
}
