//! `--chmod`: octal modes and chmod(1)'s symbolic ones, `u=rwX,go=rX`.
//!
//! A symbolic mode is applied as BSD's setmode(3) does it, with no umask: `+x` alone means everyone.

/// Set-user-ID, set-group-ID and all permissions, without the sticky bit.
const STANDARD: u32 = 0o6777;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;
/// Longest symbolic mode.
const MAX_LENGTH: usize = 4096;

/// A parsed mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode(Vec<Step>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Set(u32),
    Clear(u32),
    /// Sets these if the file is a directory or anyone may execute it.
    SetIfExecutable(u32),
    /// Permissions of the class at this shift go to the classes in the mask.
    Copy {
        from: u32,
        to: u32,
        operator: char,
    },
}

impl Mode {
    /// Parses `text`.
    ///
    /// # Errors
    /// It is neither an octal number up to 07777 nor a symbolic mode.
    pub fn parse(text: &str) -> Result<Self, String> {
        let octal = || format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(octal)?;
            return Ok(Self(vec![Step::Clear(STANDARD | STICKY), Step::Set(mode)]));
        }
        if text.len() > MAX_LENGTH {
            return Err("invalid syntax".into());
        }
        let mut steps = Vec::new();
        text.split(',').try_for_each(|clause| parse_clause(clause, &mut steps))?;
        Ok(Self(steps))
    }

    /// A file's mode bits after the change.
    #[must_use]
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        let executable = directory || mode & EXECUTE != 0;
        self.0.iter().fold(mode & 0o7777, |mode, step| match *step {
            Step::Set(bits) => mode | bits,
            Step::Clear(bits) => mode & !bits,
            Step::SetIfExecutable(bits) => mode | if executable { bits } else { 0 },
            Step::Copy { from, to, operator } => {
                // The class's three bits for every class, of which the mask takes those that are meant.
                let bits = ((mode >> from & 0o7) * 0o111) & to;
                match operator {
                    '-' => mode & !bits,
                    '=' => mode & !(to & 0o777) | bits,
                    _ => mode | bits,
                }
            }
        })
    }

    /// The mode if it does not depend on the file's.
    #[must_use]
    pub fn absolute(&self) -> Option<u32> {
        match self.0.as_slice() {
            [Step::Clear(bits), Step::Set(mode)] if *bits == STANDARD | STICKY => Some(*mode),
            _ => None,
        }
    }
}

/// `[ugoa...][+-=][rwxXstugo...]`, the operator and what follows it as often as one likes.
fn parse_clause(clause: &str, steps: &mut Vec<Step>) -> Result<(), String> {
    const SYNTAX: &str = "invalid syntax";
    let end = clause.find(|c| !matches!(c, 'a' | 'u' | 'g' | 'o')).ok_or(SYNTAX)?;
    let (classes, mut rest) = clause.split_at(end);
    let who = classes.chars().fold(0, |who, class| {
        who | match class {
            'a' => STANDARD,
            'u' => 0o4700,
            'g' => 0o2070,
            _ => 0o007,
        }
    });
    // Whoever is not named is everyone.
    let everyone = if who == 0 { STANDARD | STICKY } else { who };
    let others_only = who != 0 && who & !0o007 == 0;
    while !rest.is_empty() {
        let operator = rest.chars().next().filter(|c| matches!(c, '+' | '-' | '=')).ok_or(SYNTAX)?;
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        let (mut bits, mut executable, mut sticky, mut copies) = (0, 0, 0, Vec::new());
        for c in rest[1..end].chars() {
            match c {
                'r' => bits |= 0o444,
                'w' => bits |= 0o222,
                'x' => bits |= EXECUTE,
                'X' if operator == '-' => bits |= EXECUTE,
                'X' => executable = EXECUTE,
                's' if others_only => {}
                's' => bits |= 0o6000,
                't' if others_only => {}
                't' => sticky = STICKY,
                'u' => copies.push(6),
                'g' => copies.push(3),
                'o' => copies.push(0),
                _ => return Err(SYNTAX.into()),
            }
        }
        let bits = bits & everyone | sticky;
        match operator {
            '-' if bits != 0 => steps.push(Step::Clear(bits)),
            '+' if bits != 0 => steps.push(Step::Set(bits)),
            '=' if copies.is_empty() || bits != 0 => {
                steps.push(Step::Clear(if who == 0 { STANDARD } else { who } | sticky));
                steps.push(Step::Set(bits));
            }
            _ => {}
        }
        if executable != 0 {
            steps.push(Step::SetIfExecutable(executable & everyone));
        }
        let to = everyone & 0o777;
        steps.extend(copies.into_iter().map(|from| Step::Copy { from, to, operator }));
        rest = &rest[end..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(text: &str, mode: u32, directory: bool) -> u32 {
        Mode::parse(text).unwrap().apply(mode, directory)
    }

    #[test]
    fn symbolic_modes_do_what_chmod_does() {
        for (text, mode, expected) in [
            ("u=rwX,go=rX", 0o600, 0o644),
            ("u=rwX,go=rX", 0o700, 0o755),
            ("+x", 0o644, 0o755),
            ("a-w", 0o666, 0o444),
            ("go=", 0o777, 0o700),
            ("u+s,g+s,+t", 0o755, 0o7755),
            ("u=rw", 0o4755, 0o655),
            ("=r", 0o777, 0o444),
            ("g=u", 0o640, 0o660),
            ("go=u-w", 0o750, 0o755),
            ("o+g", 0o750, 0o755),
            ("ug-x,o+w", 0o755, 0o647),
            ("u+x-w", 0o644, 0o544),
            ("o+s", 0o644, 0o644),
            ("u=", 0o644, 0o044),
        ] {
            assert_eq!(apply(text, mode, false), expected, "{text} on {mode:o}: {:o}", apply(text, mode, false));
        }
        assert_eq!(apply("a=rX", 0o600, true), 0o555);
    }

    #[test]
    fn octal_modes_replace_everything() {
        assert_eq!(apply("0644", 0o7777, true), 0o644);
        assert_eq!(Mode::parse("1777").unwrap().absolute(), Some(0o1777));
        assert_eq!(Mode::parse("u+x").unwrap().absolute(), None);
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        let octal = "invalid chmod parameter: '999'. it should be octal string and between 0 and 07777";
        assert_eq!(Mode::parse("999").unwrap_err(), octal);
        for text in ["u+q", "", "u", "r", "u=r,", "u=r,,g=r", "+x,rw", "777777777777", "10000"] {
            assert!(Mode::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[ugoa+=rwxXst,0-9-]{0,20}", mode in 0u32..0o10000) {
            if let Ok(parsed) = Mode::parse(&text) {
                proptest::prop_assert!(parsed.apply(mode, false) <= 0o7777);
            }
        }
    }
}
