//! Which devices a group may use: rules, the v1 white list they fold to, and the v2 program they compile to.
//!
//! Rules apply in order and the last one that matches decides, for each of read, write and mknod on its own. The
//! program (bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`) walks them from the last to the first and keeps the access that is
//! still undecided in a register. A v1 group can only hold exceptions from one default, so some lists do not fit there.

use hull_oci::spec::DeviceRule;
use hull_sys::bpf::Instruction;

use crate::error::Error;

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = 7;

/// Kind of a device, as the kernel numbers it for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Block = 1,
    Char = 2,
}

/// One rule; `None` is any number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    allow: bool,
    kind: Kind,
    major: Option<i32>,
    minor: Option<i32>,
    access: u8,
}

/// Rules in order, with everything before the last rule for all devices folded into `allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    allow: bool,
    list: Vec<Rule>,
}

/// What every container may use: mknod of anything, and null, zero, full, random, urandom, tty, ptmx, the terminals of
/// devpts, and tun.
const DEFAULT: [(Option<i32>, Option<i32>); 9] = [
    (Some(1), Some(3)),
    (Some(1), Some(5)),
    (Some(1), Some(7)),
    (Some(1), Some(8)),
    (Some(1), Some(9)),
    (Some(5), Some(0)),
    (Some(5), Some(2)),
    (Some(136), None),
    (Some(10), Some(200)),
];

impl Rules {
    /// The configured rules after a default of nothing, then the devices that every container may use.
    pub(crate) fn parse(configured: &[DeviceRule]) -> Result<Self, Error> {
        let mut rules = Self { allow: false, list: Vec::with_capacity(configured.len() + 11) };
        for (index, rule) in configured.iter().enumerate() {
            rules.push(rule, &format!("devices[{index}]"))?;
        }
        if !(rules.allow && rules.list.is_empty()) {
            for kind in [Kind::Char, Kind::Block] {
                rules.list.push(Rule { allow: true, kind, major: None, minor: None, access: MKNOD });
            }
            for (major, minor) in DEFAULT {
                rules.list.push(Rule { allow: true, kind: Kind::Char, major, minor, access: ALL });
            }
        }
        Ok(rules)
    }

    /// Whether every device may be used, which needs no program.
    pub(crate) fn allow_all(&self) -> bool {
        self.allow && self.list.is_empty()
    }

    fn push(&mut self, rule: &DeviceRule, field: &str) -> Result<(), Error> {
        let number =
            |number: Option<i64>, name: &str| match number {
                None | Some(-1) => Ok(None),
                Some(value) => i32::try_from(value).ok().filter(|&value| value >= 0).map(Some).ok_or_else(|| {
                    Error::invalid(format!("{field}.{name}"), format!("{value} is not a device number"))
                }),
            };
        let (major, minor) = (number(rule.major, "major")?, number(rule.minor, "minor")?);
        let mut access = 0;
        for letter in rule.access.chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => {
                    let reason = format!("{:?} has letters other than `rwm`", rule.access);
                    return Err(Error::invalid(format!("{field}.access"), reason));
                }
            };
        }
        if access == 0 {
            access = ALL;
        }
        let kinds: &[Kind] = match rule.kind.as_str() {
            "" | "a" if major.is_none() && minor.is_none() && access == ALL => {
                self.allow = rule.allow;
                self.list.clear();
                return Ok(());
            }
            "" | "a" => &[Kind::Char, Kind::Block],
            "c" | "u" => &[Kind::Char],
            "b" => &[Kind::Block],
            other => {
                return Err(Error::invalid(format!("{field}.type"), format!("{other:?} is none of `a`, `c`, `b`")));
            }
        };
        self.list.extend(kinds.iter().map(|&kind| Rule { allow: rule.allow, kind, major, minor, access }));
        Ok(())
    }

    /// The program that answers 1 for allowed access and 0 otherwise.
    pub(crate) fn program(&self) -> Vec<Instruction> {
        let mut program = Vec::with_capacity(self.list.len() * 6 + 8);
        let mut emit = |code, registers, offset, immediate| {
            program.push(Instruction { code, registers, offset, immediate });
        };
        // r2: kind, r3: undecided access, r4: major, r5: minor.
        emit(LOAD, 0x12, 0, 0);
        emit(MOVE_REGISTER, 0x23, 0, 0);
        emit(AND, 2, 0, 0xffff);
        emit(SHIFT_RIGHT, 3, 0, 16);
        emit(LOAD, 0x14, 4, 0);
        emit(LOAD, 0x15, 8, 0);
        for rule in self.list.iter().rev() {
            let body: i16 = match (rule.allow, rule.access) {
                (_, ALL) => 2,
                (true, _) => 4,
                (false, _) => 5,
            };
            let mut after = body + i16::from(rule.major.is_some()) + i16::from(rule.minor.is_some());
            emit(JUMP_NOT_EQUAL, 2, after, rule.kind as i32);
            for (register, number) in [(4, rule.major), (5, rule.minor)] {
                if let Some(number) = number {
                    after -= 1;
                    emit(JUMP_NOT_EQUAL, register, after, number);
                }
            }
            match (rule.allow, rule.access) {
                (_, ALL) => {}
                (true, access) => {
                    emit(AND, 3, 0, i32::from(ALL & !access));
                    emit(JUMP_NOT_EQUAL, 3, 2, 0);
                }
                (false, access) => {
                    emit(MOVE_REGISTER, 0x36, 0, 0);
                    emit(AND, 6, 0, i32::from(access));
                    emit(JUMP_EQUAL, 6, 2, 0);
                }
            }
            emit(MOVE, 0, 0, i32::from(rule.allow));
            emit(EXIT, 0, 0, 0);
        }
        emit(MOVE, 0, 0, i32::from(self.allow));
        emit(EXIT, 0, 0, 0);
        program
    }

    /// The exceptions of a v1 group whose default is `self.allow`.
    fn exceptions(&self) -> Result<Vec<Rule>, Error> {
        let covers = |outer: Option<i32>, inner: Option<i32>| outer.is_none() || outer == inner;
        let meets = |one: Option<i32>, other: Option<i32>| one.is_none() || other.is_none() || one == other;
        let mut exceptions: Vec<Rule> = Vec::with_capacity(self.list.len());
        for rule in &self.list {
            if rule.allow != self.allow {
                let same =
                    |one: &&mut Rule| one.kind == rule.kind && one.major == rule.major && one.minor == rule.minor;
                match exceptions.iter_mut().find(same) {
                    Some(one) => one.access |= rule.access,
                    None => exceptions.push(rule.clone()),
                }
                continue;
            }
            for one in &mut exceptions {
                if one.kind != rule.kind || one.access & rule.access == 0 {
                    continue;
                }
                if covers(rule.major, one.major) && covers(rule.minor, one.minor) {
                    one.access &= !rule.access;
                } else if meets(rule.major, one.major) && meets(rule.minor, one.minor) {
                    let reason = format!("cgroup v1 cannot except {} from {}", line(rule), line(one));
                    return Err(Error::unsupported("devices", reason));
                }
            }
            exceptions.retain(|one| one.access != 0);
        }
        Ok(exceptions)
    }

    /// The white list as pairs of `DeviceAllow`; `None` where systemd cannot express it and our own filter has to do.
    pub(crate) fn systemd(&self) -> Option<Vec<(String, String)>> {
        let exceptions = self.exceptions().ok().filter(|_| !self.allow)?;
        let pair = |rule: &Rule| {
            let kind = if rule.kind == Kind::Char { "char" } else { "block" };
            let name = match (rule.major, rule.minor) {
                (None, None) => format!("{kind}-*"),
                (Some(major), None) => format!("{kind}-{major}"),
                (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
                (None, Some(_)) => return None,
            };
            Some((name, letters(rule.access)))
        };
        exceptions.iter().map(pair).collect()
    }

    /// Writes that bring a v1 group from `old` (`None`: just created, below a group that allows what it allows) to these
    /// rules: file and line. Between equal defaults only the differences are written, so nothing is denied meanwhile.
    pub(crate) fn v1_writes(&self, old: Option<&Self>) -> Result<Vec<(&'static str, String)>, Error> {
        let exceptions = self.exceptions()?;
        let (except, revoke) = if self.allow { (DENY, PERMIT) } else { (PERMIT, DENY) };
        let mut writes = Vec::with_capacity(exceptions.len() + 1);
        let before = match old {
            Some(old) if old.allow == self.allow => old.exceptions()?,
            None if self.allow => Vec::new(),
            _ => {
                writes.push((revoke, "a".to_owned()));
                Vec::new()
            }
        };
        let added = exceptions.iter().filter(|rule| !before.contains(rule));
        writes.extend(added.map(|rule| (except, line(rule))));
        for gone in before.iter().filter(|rule| !exceptions.contains(rule)) {
            let kept =
                exceptions.iter().find(|one| (one.kind, one.major, one.minor) == (gone.kind, gone.major, gone.minor));
            let access = gone.access & !kept.map_or(0, |one| one.access);
            if access != 0 {
                writes.push((revoke, line(&Rule { access, ..gone.clone() })));
            }
        }
        Ok(writes)
    }
}

const DENY: &str = "devices.deny";
const PERMIT: &str = "devices.allow";

const LOAD: u8 = 0x61;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// A rule as v1 and systemd write it.
fn line(rule: &Rule) -> String {
    let number = |number: Option<i32>| number.map_or("*".to_owned(), |number| number.to_string());
    let kind = if rule.kind == Kind::Char { 'c' } else { 'b' };
    format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), letters(rule.access))
}

fn letters(access: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')].iter().filter(|(bit, _)| access & bit != 0).map(|one| one.1).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs the few operations that the generator uses.
    fn interpret(program: &[Instruction], context: [u32; 3]) -> u32 {
        let mut registers = [0_u32; 11];
        let mut at = 0_usize;
        for _ in 0..10_000 {
            let one = program[at];
            let (to, from) = (usize::from(one.registers & 15), usize::from(one.registers >> 4));
            let jump = usize::try_from(one.offset).unwrap_or(0);
            let value = one.immediate.cast_unsigned();
            at += 1;
            match one.code {
                LOAD => registers[to] = context[jump / 4],
                MOVE => registers[to] = value,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_EQUAL if registers[to] == value => at += jump,
                JUMP_NOT_EQUAL if registers[to] != value => at += jump,
                JUMP_EQUAL | JUMP_NOT_EQUAL => {}
                EXIT => return registers[0],
                other => panic!("operation {other:#x}"),
            }
        }
        panic!("endless program")
    }

    fn rule(allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
        DeviceRule { allow, kind: kind.into(), major, minor, access: access.into() }
    }

    /// The rules as they are written, for one bit of access.
    fn naive(rules: &[DeviceRule], kind: u32, major: u32, minor: u32, bit: u8) -> bool {
        let mut allowed = false;
        for rule in rules {
            let number =
                |wanted: Option<i64>, value: u32| wanted.is_none_or(|one| one == -1 || one == i64::from(value));
            let kinds = match rule.kind.as_str() {
                "c" => kind == 2,
                "b" => kind == 1,
                _ => true,
            };
            let letter = [(MKNOD, 'm'), (READ, 'r'), (WRITE, 'w')].iter().find(|one| one.0 == bit).unwrap().1;
            let access = rule.access.is_empty() || rule.access.contains(letter);
            if kinds && number(rule.major, major) && number(rule.minor, minor) && access {
                allowed = rule.allow;
            }
        }
        allowed
    }

    fn any_rule() -> impl Strategy<Value = DeviceRule> {
        let number = || prop_oneof![Just(None), Just(Some(-1)), (0_i64..4).prop_map(Some)];
        (
            any::<bool>(),
            prop::sample::select(vec!["", "a", "b", "c"]),
            number(),
            number(),
            prop::sample::select(vec!["", "r", "w", "m", "rw", "rm", "wm", "rwm"]),
        )
            .prop_map(|(allow, kind, major, minor, access)| rule(allow, kind, major, minor, access))
    }

    proptest! {
        #[test]
        fn program_agrees_with_the_rules(rules in prop::collection::vec(any_rule(), 0..12)) {
            let mut compiled = Rules { allow: false, list: Vec::new() };
            for rule in &rules {
                compiled.push(rule, "devices").unwrap();
            }
            let program = compiled.program();
            for kind in [1_u32, 2] {
                for (major, minor) in (0..5).flat_map(|major| (0..5).map(move |minor| (major, minor))) {
                    for access in 1..8_u32 {
                        let wanted = [MKNOD, READ, WRITE].iter().filter(|&&bit| access & u32::from(bit) != 0)
                            .all(|&bit| naive(&rules, kind, major, minor, bit));
                        let answer = interpret(&program, [access << 16 | kind, major, minor]);
                        prop_assert_eq!(answer == 1, wanted, "kind {} {}:{} access {}", kind, major, minor, access);
                    }
                }
            }
        }
    }

    #[test]
    fn v1_white_list() {
        let rules = Rules::parse(&[rule(false, "a", None, None, "rwm"), rule(true, "b", Some(8), None, "r")]).unwrap();
        let writes = rules.v1_writes(None).unwrap();
        assert_eq!(writes[0], (DENY, "a".to_owned()));
        assert_eq!(writes[1], (PERMIT, "b 8:* r".to_owned()));
        assert!(writes.contains(&(PERMIT, "c 136:* rwm".to_owned())));
        let pairs = rules.systemd().unwrap();
        assert_eq!(pairs[0], ("block-8".to_owned(), "r".to_owned()));
        assert!(pairs.contains(&("/dev/char/1:3".to_owned(), "rwm".to_owned())));
        let wider = Rules::parse(&[rule(true, "b", Some(8), None, "rw")]).unwrap();
        assert_eq!(wider.v1_writes(Some(&rules)).unwrap(), [(PERMIT, "b 8:* rw".to_owned())]);
        assert_eq!(
            rules.v1_writes(Some(&wider)).unwrap(),
            [(PERMIT, "b 8:* r".to_owned()), (DENY, "b 8:* w".to_owned())]
        );
    }

    #[test]
    fn privileged_needs_nothing() {
        let rules =
            Rules::parse(&[rule(false, "", None, None, ""), rule(true, "a", Some(-1), Some(-1), "rwm")]).unwrap();
        assert!(rules.allow_all() && rules.v1_writes(None).unwrap().is_empty());
    }

    #[test]
    fn refused() {
        let holes = [rule(true, "c", Some(9), None, "rwm"), rule(false, "c", Some(9), Some(3), "w")];
        let error = Rules::parse(&holes).unwrap().v1_writes(None).unwrap_err().to_string();
        assert!(error.contains("c 9:3 w"), "{error}");
        for bad in
            [rule(true, "x", None, None, ""), rule(true, "c", Some(-5), None, ""), rule(true, "c", None, None, "q")]
        {
            assert!(Rules::parse(&[bad]).is_err());
        }
    }
}
