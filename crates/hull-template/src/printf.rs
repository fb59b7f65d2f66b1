//! Go's `Sprintf`.

use crate::functions::push;
use crate::strings::{float, quoted};
use crate::value::Value;

/// Widest field and most digits, as Go has it.
const MAX_WIDTH: usize = 1_000_000;

#[derive(Clone, Copy, Default)]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// A format being read and the arguments it takes.
struct Printer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    args: &'a [Value],
    next: usize,
    /// An argument was taken by its number: the rest may stay unused.
    reordered: bool,
    out: String,
}

/// The first argument is the format.
pub(crate) fn printf(args: &[Value]) -> Result<String, String> {
    let format = args[0].to_string();
    let args = &args[1..];
    let mut printer = Printer { chars: format.chars().peekable(), args, next: 0, reordered: false, out: String::new() };
    while let Some(one) = printer.chars.next() {
        if one == '%' {
            printer.directive()?;
        } else {
            push(&mut printer.out, one.encode_utf8(&mut [0; 4]))?;
        }
    }
    if !printer.reordered && printer.next < args.len() {
        let extra = args[printer.next..].iter().map(|value| match value {
            Value::NoValue | Value::Nil => "<nil>".to_owned(),
            value => format!("{}={value}", value.type_name()),
        });
        push(&mut printer.out, &format!("%!(EXTRA {})", extra.collect::<Vec<_>>().join(", ")))?;
    }
    Ok(printer.out)
}

impl<'a> Printer<'a> {
    fn directive(&mut self) -> Result<(), String> {
        let mut flags = Flags::default();
        while let Some(flag) = self.chars.next_if(|one| "-+# 0".contains(*one)) {
            match flag {
                '-' => flags.minus = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                ' ' => flags.space = true,
                _ => flags.zero = true,
            }
        }
        let mut good = self.position();
        flags.width = if self.chars.next_if_eq(&'*').is_some() {
            let width = self.argument_number("%!(BADWIDTH)");
            flags.minus |= width.is_some_and(|width| width < 0);
            width.and_then(|width| usize::try_from(width.unsigned_abs()).ok())
        } else {
            self.number("%!(BADWIDTH)")
        };
        if self.chars.next_if_eq(&'.').is_some() {
            good &= self.position();
            flags.precision = if self.chars.next_if_eq(&'*').is_some() {
                self.argument_number("%!(BADPREC)").and_then(|digits| usize::try_from(digits).ok())
            } else {
                Some(self.number("%!(BADPREC)").unwrap_or(0))
            };
        }
        good &= self.position();
        let Some(verb) = self.chars.next() else { return push(&mut self.out, "%!(NOVERB)") };
        if verb == '%' {
            return push(&mut self.out, "%");
        }
        if !good {
            return push(&mut self.out, &format!("%!{verb}(BADINDEX)"));
        }
        match self.argument() {
            Some(value) => show(value, verb, flags, &mut self.out),
            None => push(&mut self.out, &format!("%!{verb}({})", if self.reordered { "BADINDEX" } else { "MISSING" })),
        }
    }

    fn argument(&mut self) -> Option<&'a Value> {
        let value = self.args.get(self.next)?;
        self.next += 1;
        Some(value)
    }

    /// `[N]`: the argument that comes next. False if there is no such argument.
    fn position(&mut self) -> bool {
        if self.chars.next_if_eq(&'[').is_none() {
            return true;
        }
        self.reordered = true;
        let mut digits = String::new();
        while let Some(one) = self.chars.next_if(|one| *one != ']' && digits.len() < 8) {
            digits.push(one);
        }
        let closed = self.chars.next_if_eq(&']').is_some();
        match digits.parse::<usize>() {
            Ok(number) if closed && (1..=self.args.len()).contains(&number) => {
                self.next = number - 1;
                true
            }
            _ => false,
        }
    }

    fn argument_number(&mut self, bad: &str) -> Option<i128> {
        match self.argument() {
            Some(Value::Int(number)) if number.unsigned_abs() <= MAX_WIDTH as u128 => Some(*number),
            _ => {
                self.out.push_str(bad);
                None
            }
        }
    }

    fn number(&mut self, bad: &str) -> Option<usize> {
        let mut value = None;
        while let Some(digit) = self.chars.peek().and_then(|one| one.to_digit(10)) {
            self.chars.next();
            value = Some(value.unwrap_or(0usize).saturating_mul(10).saturating_add(digit as usize));
        }
        if value.is_some_and(|value| value > MAX_WIDTH) {
            self.out.push_str(bad);
            return None;
        }
        value
    }
}

/// Pads a text; numbers may be padded with zeros behind their sign.
fn pad(text: &str, flags: Flags, number: bool, out: &mut String) -> Result<(), String> {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if flags.minus {
        push(out, text)?;
        return push(out, &" ".repeat(missing));
    }
    if flags.zero && number {
        let (sign, digits) = match text.chars().next() {
            Some('-' | '+' | ' ') => text.split_at(1),
            _ => ("", text),
        };
        push(out, sign)?;
        push(out, &"0".repeat(missing))?;
        return push(out, digits);
    }
    push(out, &" ".repeat(missing))?;
    push(out, text)
}

fn bad(value: &Value, verb: char, out: &mut String) -> Result<(), String> {
    match value {
        Value::NoValue | Value::Nil | Value::NilPointer => push(out, &format!("%!{verb}(<nil>)")),
        value => push(out, &format!("%!{verb}({}={value})", value.type_name())),
    }
}

fn signed(text: String, flags: Flags) -> String {
    if text.starts_with('-') {
        text
    } else if flags.plus {
        format!("+{text}")
    } else if flags.space {
        format!(" {text}")
    } else {
        text
    }
}

fn show(value: &Value, verb: char, flags: Flags, out: &mut String) -> Result<(), String> {
    if verb == 'T' {
        let name = if matches!(value, Value::NoValue | Value::Nil) { "<nil>".to_owned() } else { value.type_name() };
        return pad(&name, flags, false, out);
    }
    match value {
        Value::NoValue | Value::Nil | Value::NilPointer if verb == 'v' => pad("<nil>", flags, false, out),
        Value::Unmade(text) => pad(text, flags, false, out),
        Value::Bool(value) if matches!(verb, 'v' | 't') => pad(&value.to_string(), flags, false, out),
        Value::Int(number) => match integer(*number, verb, flags) {
            Some(text) => pad(&text, Flags { zero: flags.zero && verb != 'c' && verb != 'q', ..flags }, true, out),
            None => bad(value, verb, out),
        },
        Value::Float(number) => match fraction(*number, verb, flags) {
            Some(text) => pad(&signed(text, flags), flags, number.is_finite(), out),
            None => bad(value, verb, out),
        },
        Value::String(text) => match string(text, verb, flags) {
            Some(text) => pad(&text, flags, false, out),
            None => bad(value, verb, out),
        },
        Value::List(list) => {
            push(out, "[")?;
            for (index, value) in list.iter().enumerate() {
                push(out, if index > 0 { " " } else { "" })?;
                show(value, verb, flags, out)?;
            }
            push(out, "]")
        }
        Value::Map(map) => {
            push(out, "map[")?;
            for (index, (key, value)) in map.entries.iter().enumerate() {
                push(out, if index > 0 { " " } else { "" })?;
                show(&Value::from(key.as_str()), verb, flags, out)?;
                push(out, ":")?;
                show(value, verb, flags, out)?;
            }
            push(out, "]")
        }
        Value::Struct(one) => {
            push(out, "{")?;
            for (index, (name, value)) in one.fields.iter().enumerate() {
                push(out, if index > 0 { " " } else { "" })?;
                if flags.plus && verb == 'v' {
                    push(out, &format!("{name}:"))?;
                }
                show(value, verb, flags, out)?;
            }
            push(out, "}")
        }
        Value::Object(_) if matches!(verb, 'v' | 's') => pad(&value.to_string(), flags, false, out),
        _ => bad(value, verb, out),
    }
}

fn integer(number: i128, verb: char, flags: Flags) -> Option<String> {
    let magnitude = number.unsigned_abs();
    let digits = match verb {
        'v' | 'd' => magnitude.to_string(),
        'b' => format!("{}{magnitude:b}", if flags.sharp { "0b" } else { "" }),
        'o' => format!("{}{magnitude:o}", if flags.sharp { "0" } else { "" }),
        'O' => format!("0o{magnitude:o}"),
        'x' => format!("{}{magnitude:x}", if flags.sharp { "0x" } else { "" }),
        'X' => format!("{}{magnitude:X}", if flags.sharp { "0X" } else { "" }),
        'c' | 'q' | 'U' => {
            let one = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
            return Some(match verb {
                'c' => one.to_string(),
                'q' => quoted(one.encode_utf8(&mut [0; 4]), '\'', flags.plus),
                _ => format!("U+{magnitude:04X}"),
            });
        }
        _ => return None,
    };
    let zeros = flags.precision.unwrap_or(0).saturating_sub(digits.len());
    let sign = if number < 0 { "-" } else { "" };
    Some(signed(format!("{sign}{}{digits}", "0".repeat(zeros)), flags))
}

fn string(text: &str, verb: char, flags: Flags) -> Option<String> {
    let cut: String = match flags.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let hex = |upper: bool| -> String {
        let separator = if flags.space { " " } else { "" };
        let bytes = cut.bytes().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") });
        bytes.collect::<Vec<_>>().join(separator)
    };
    match verb {
        'v' if flags.sharp => Some(quoted(&cut, '"', false)),
        'v' | 's' => Some(cut),
        'q' if flags.sharp && !cut.contains('`') && !cut.contains(|one: char| one.is_control() && one != '\t') => {
            Some(format!("`{cut}`"))
        }
        'q' => Some(quoted(&cut, '"', flags.plus)),
        'x' => Some(hex(false)),
        'X' => Some(hex(true)),
        _ => None,
    }
}

/// `e` notation with Go's exponents of two digits at least.
fn exponent(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn fraction(number: f64, verb: char, flags: Flags) -> Option<String> {
    // A double has no more digits than this.
    let precision = |usual: usize| flags.precision.unwrap_or(usual).min(1100);
    let text = match verb {
        _ if !number.is_finite() && "vgGeEfF".contains(verb) => float(number).trim_start_matches('+').to_owned(),
        'v' | 'g' | 'G' => match flags.precision {
            None => float(number),
            Some(_) => shortened(number, precision(6).max(1)),
        },
        'e' | 'E' => exponent(&format!("{number:.*e}", precision(6))),
        'f' | 'F' => format!("{number:.*}", precision(6)),
        _ => return None,
    };
    Some(if verb.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text })
}

/// `%g` with so many significant digits.
fn shortened(number: f64, digits: usize) -> String {
    let scientific = format!("{number:.*e}", digits - 1);
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let trimmed = |text: &str| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
    };
    if power < -4 || power >= i32::try_from(digits).unwrap_or(i32::MAX) {
        return exponent(&format!("{}e{power}", trimmed(mantissa)));
    }
    let decimals = usize::try_from(i32::try_from(digits).unwrap_or(0) - 1 - power).unwrap_or(0);
    trimmed(&format!("{number:.decimals$}"))
}
