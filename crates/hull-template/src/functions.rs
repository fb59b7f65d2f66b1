//! The functions: Go's own and Docker's.

use std::fmt::Write as _;
use std::rc::Rc;

use crate::MAX_OUTPUT;
use crate::printf;
use crate::value::Value;

type Done = Result<Value, String>;

/// Which of Docker's functions a template is executed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FunctionSet {
    /// For data.
    #[default]
    Values,
    /// For the headers of a table: what changes a text leaves headers as they are.
    Headers,
}

/// What a function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Param {
    Any,
    String,
    Int,
    List,
}

impl Param {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::String => "string",
            Self::Int => "int",
            Self::List => "[]string",
        }
    }
}

/// A function: what it takes first, what any number of further arguments are, and what it does.
pub(crate) struct Function {
    name: &'static str,
    pub(crate) params: &'static [Param],
    pub(crate) rest: Option<Param>,
    pub(crate) call: fn(&[Value]) -> Done,
}

const ANY: Option<Param> = Some(Param::Any);

const FUNCTIONS: &[Function] = &[
    // The executor has its own way with these three.
    Function { name: "and", params: &[Param::Any], rest: ANY, call: |_| Ok(Value::NoValue) },
    Function { name: "or", params: &[Param::Any], rest: ANY, call: |_| Ok(Value::NoValue) },
    Function { name: "call", params: &[Param::Any], rest: ANY, call: |_| Ok(Value::NoValue) },
    Function { name: "not", params: &[Param::Any], rest: None, call: |args| Ok(Value::Bool(!args[0].truth())) },
    Function { name: "eq", params: &[Param::Any], rest: ANY, call: eq },
    Function {
        name: "ne",
        params: &[Param::Any; 2],
        rest: None,
        call: |args| Ok(Value::Bool(!equal(&args[0], &args[1])?)),
    },
    Function {
        name: "lt",
        params: &[Param::Any; 2],
        rest: None,
        call: |args| Ok(Value::Bool(less(&args[0], &args[1])?)),
    },
    Function { name: "le", params: &[Param::Any; 2], rest: None, call: |args| Ok(Value::Bool(at_most(args)?)) },
    Function { name: "gt", params: &[Param::Any; 2], rest: None, call: |args| Ok(Value::Bool(!at_most(args)?)) },
    Function {
        name: "ge",
        params: &[Param::Any; 2],
        rest: None,
        call: |args| Ok(Value::Bool(!less(&args[0], &args[1])?)),
    },
    Function { name: "html", params: &[], rest: ANY, call: |args| escaped(args, html) },
    Function { name: "js", params: &[], rest: ANY, call: |args| escaped(args, js) },
    Function { name: "urlquery", params: &[], rest: ANY, call: |args| escaped(args, urlquery) },
    Function { name: "index", params: &[Param::Any], rest: ANY, call: index },
    Function { name: "slice", params: &[Param::Any], rest: ANY, call: slice },
    Function { name: "len", params: &[Param::Any], rest: None, call: len },
    Function { name: "print", params: &[], rest: ANY, call: |args| Ok(Value::from(print(args)?)) },
    Function { name: "println", params: &[], rest: ANY, call: println },
    Function {
        name: "printf",
        params: &[Param::String],
        rest: ANY,
        call: |args| printf::printf(args).map(Value::from),
    },
    Function { name: "json", params: &[Param::Any], rest: None, call: |args| Ok(Value::from(args[0].json())) },
    Function { name: "split", params: &[Param::String; 2], rest: None, call: split },
    Function { name: "join", params: &[Param::List, Param::String], rest: None, call: join },
    Function { name: "title", params: &[Param::String], rest: None, call: title },
    Function {
        name: "lower",
        params: &[Param::String],
        rest: None,
        call: |args| Ok(Value::from(args[0].to_string().to_lowercase())),
    },
    Function {
        name: "upper",
        params: &[Param::String],
        rest: None,
        call: |args| Ok(Value::from(args[0].to_string().to_uppercase())),
    },
    Function { name: "pad", params: &[Param::String, Param::Int, Param::Int], rest: None, call: pad },
    Function { name: "truncate", params: &[Param::String, Param::Int], rest: None, call: truncate },
];

/// What Docker puts in the place of functions that would change a header.
const HEADERS: &[Function] = &[
    Function { name: "json", params: &[Param::String], rest: None, call: |args| Ok(args[0].clone()) },
    Function { name: "title", params: &[Param::String], rest: None, call: |args| Ok(args[0].clone()) },
    Function { name: "lower", params: &[Param::String], rest: None, call: |args| Ok(args[0].clone()) },
    Function { name: "upper", params: &[Param::String], rest: None, call: |args| Ok(args[0].clone()) },
    Function { name: "truncate", params: &[Param::String, Param::Int], rest: None, call: |args| Ok(args[0].clone()) },
];

/// Whether there is a function of this name.
pub(crate) fn exists(name: &str) -> bool {
    FUNCTIONS.iter().any(|function| function.name == name)
}

pub(crate) fn find(name: &str, set: FunctionSet) -> Option<&'static Function> {
    let headers = HEADERS.iter().filter(|_| set == FunctionSet::Headers);
    headers.chain(FUNCTIONS).find(|function| function.name == name)
}

fn text(value: &Value) -> Rc<str> {
    match value {
        Value::String(text) => text.clone(),
        other => Rc::from(other.to_string()),
    }
}

/// What can be compared.
fn basic(value: &Value) -> Option<u8> {
    match value {
        Value::Bool(_) => Some(0),
        Value::Int(_) => Some(1),
        Value::Float(_) => Some(2),
        Value::String(_) => Some(3),
        _ => None,
    }
}

fn is_nothing(value: &Value) -> bool {
    matches!(value, Value::NoValue | Value::Nil | Value::NilPointer)
}

fn incompatible(one: &Value, other: &Value) -> String {
    format!("incompatible types for comparison: {} and {}", one.type_name(), other.type_name())
}

fn equal(one: &Value, other: &Value) -> Result<bool, String> {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => Ok(one == other),
        (Value::Int(one), Value::Int(other)) => Ok(one == other),
        (Value::Float(one), Value::Float(other)) => Ok(one == other),
        (Value::String(one), Value::String(other)) => Ok(one == other),
        _ if is_nothing(one) || is_nothing(other) => Ok(is_nothing(one) && is_nothing(other)),
        _ if basic(one) != basic(other) => Err(incompatible(one, other)),
        _ => Err(format!("non-comparable type {one}: {}", one.type_name())),
    }
}

fn eq(args: &[Value]) -> Done {
    if args.len() < 2 {
        return Err("missing argument for comparison".to_owned());
    }
    for other in &args[1..] {
        if equal(&args[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn less(one: &Value, other: &Value) -> Result<bool, String> {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => Ok(one < other),
        (Value::Float(one), Value::Float(other)) => Ok(one < other),
        (Value::String(one), Value::String(other)) => Ok(one < other),
        _ if basic(one).is_none() || basic(other).is_none() || basic(one) == basic(other) => {
            Err("invalid type for comparison".to_owned())
        }
        _ => Err(incompatible(one, other)),
    }
}

fn at_most(args: &[Value]) -> Result<bool, String> {
    Ok(less(&args[0], &args[1])? || equal(&args[0], &args[1])?)
}

/// Appends to a text of bounded length.
pub(crate) fn push(out: &mut String, text: &str) -> Result<(), String> {
    if out.len() + text.len() > MAX_OUTPUT {
        return Err(format!("the result is longer than {MAX_OUTPUT} bytes"));
    }
    out.push_str(text);
    Ok(())
}

/// Go's `Sprint`: a space between operands of which neither is a text.
fn print(args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    for (index, value) in args.iter().enumerate() {
        let texts = |value: &Value| matches!(value, Value::String(_));
        if index > 0 && !texts(value) && !texts(&args[index - 1]) {
            out.push(' ');
        }
        push(&mut out, &text(value))?;
    }
    Ok(out)
}

fn println(args: &[Value]) -> Done {
    let mut out = String::new();
    for (index, value) in args.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        push(&mut out, &text(value))?;
    }
    out.push('\n');
    Ok(Value::from(out))
}

fn escaped(args: &[Value], escape: fn(&str, &mut String)) -> Done {
    let plain = print(args)?;
    // No escape is longer than nine bytes for each byte.
    if plain.len() > MAX_OUTPUT / 9 {
        return Err(format!("the text is longer than {} bytes", MAX_OUTPUT / 9));
    }
    let mut out = String::with_capacity(plain.len());
    escape(&plain, &mut out);
    Ok(Value::from(out))
}

fn html(text: &str, out: &mut String) {
    for one in text.chars() {
        match one {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            _ => out.push(one),
        }
    }
}

fn js(text: &str, out: &mut String) {
    for one in text.chars() {
        match one {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                let _ = write!(out, "\\u{:04X}", u32::from(one));
            }
            _ if one.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(one));
            }
            _ => out.push(one),
        }
    }
}

fn urlquery(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// An index into something with room for `room` elements.
fn position(index: &Value, room: usize) -> Result<usize, String> {
    match index {
        Value::Int(number) => match usize::try_from(*number) {
            Ok(position) if position <= room => Ok(position),
            _ => Err(format!("index out of range: {number}")),
        },
        Value::NoValue | Value::Nil => Err("cannot index slice/array with nil".to_owned()),
        other => Err(format!("cannot index slice/array with type {}", other.type_name())),
    }
}

/// Room that Go's decoder would have allocated for a list.
fn room(length: usize) -> usize {
    if length == 0 { 0 } else { length.next_power_of_two() }
}

fn index(args: &[Value]) -> Done {
    let mut item = args[0].clone();
    if matches!(item, Value::NoValue | Value::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    for key in &args[1..] {
        item = match &item {
            Value::List(list) => {
                let position = position(key, room(list.len()))?;
                list.get(position).cloned().ok_or("reflect: slice index out of range")?
            }
            Value::String(text) => {
                let position = position(key, text.len())?;
                let byte = text.as_bytes().get(position).ok_or("reflect: string index out of range")?;
                Value::Int(i128::from(*byte))
            }
            Value::Map(map) => match key {
                Value::String(key) => map.entries.get(key.as_ref()).unwrap_or(&map.zero).clone(),
                Value::NoValue | Value::Nil => return Err("value is nil; should be of type string".to_owned()),
                other => return Err(format!("value has type {}; should be string", other.type_name())),
            },
            Value::Unmade(text) if text.starts_with("map") => Value::NoValue,
            Value::Unmade(_) => return Err("reflect: slice index out of range".to_owned()),
            Value::NoValue | Value::Nil | Value::NilPointer => return Err("index of nil pointer".to_owned()),
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(item)
}

fn slice(args: &[Value]) -> Done {
    let (item, indexes) = (&args[0], &args[1..]);
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let (length, room) = match item {
        Value::NoValue | Value::Nil => return Err("slice of untyped nil".to_owned()),
        Value::String(_) if indexes.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Value::String(text) => (text.len(), text.len()),
        Value::List(list) => (list.len(), room(list.len())),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut bounds = [0, length, room];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, room)?;
    }
    let [from, to, most] = bounds;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    if indexes.len() == 3 && to > most {
        return Err(format!("invalid slice index: {to} > {most}"));
    }
    Ok(match item {
        // Bytes, as in Go; what is no text any more is replaced.
        Value::String(text) => Value::from(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()),
        Value::List(list) => {
            Value::List(list.iter().cloned().chain(std::iter::repeat(Value::Nil)).take(to).skip(from).collect())
        }
        _ => Value::NoValue,
    })
}

fn len(args: &[Value]) -> Done {
    let length = match &args[0] {
        Value::String(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.entries.len(),
        Value::Unmade(_) => 0,
        Value::NoValue | Value::Nil => return Err("reflect: call of reflect.Value.Type on zero Value".to_owned()),
        Value::NilPointer => return Err("len of nil pointer".to_owned()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(length as i128))
}

fn split(args: &[Value]) -> Done {
    let (whole, separator) = (text(&args[0]), text(&args[1]));
    if separator.is_empty() {
        return Ok(Value::List(whole.chars().map(|one| Value::from(one.to_string())).collect()));
    }
    Ok(Value::strings(whole.split(separator.as_ref())))
}

fn join(args: &[Value]) -> Done {
    let Value::List(list) = &args[0] else { return Ok(Value::from("")) };
    let separator = text(&args[1]);
    let mut out = String::new();
    for (index, value) in list.iter().enumerate() {
        if index > 0 {
            push(&mut out, &separator)?;
        }
        push(&mut out, &text(value))?;
    }
    Ok(Value::from(out))
}

fn title(args: &[Value]) -> Done {
    let whole = text(&args[0]);
    let mut out = String::with_capacity(whole.len());
    let mut begins = true;
    for one in whole.chars() {
        if begins {
            out.extend(one.to_uppercase());
        } else {
            out.push(one);
        }
        begins = if one.is_ascii() { !(one.is_ascii_alphanumeric() || one == '_') } else { one.is_whitespace() };
    }
    Ok(Value::from(out))
}

fn count(value: &Value) -> usize {
    if let Value::Int(number) = value { usize::try_from(*number).unwrap_or(0) } else { 0 }
}

fn pad(args: &[Value]) -> Done {
    let whole = text(&args[0]);
    if whole.is_empty() {
        return Ok(args[0].clone());
    }
    if [&args[1], &args[2]].iter().any(|one| matches!(one, Value::Int(i128::MIN..0))) {
        return Err("strings: negative Repeat count".to_owned());
    }
    let (before, after) = (count(&args[1]), count(&args[2]));
    if before.saturating_add(after) > MAX_OUTPUT {
        return Err(format!("the result is longer than {MAX_OUTPUT} bytes"));
    }
    Ok(Value::from(format!("{}{whole}{}", " ".repeat(before), " ".repeat(after))))
}

fn truncate(args: &[Value]) -> Done {
    let whole = text(&args[0]);
    if matches!(args[1], Value::Int(i128::MIN..0)) {
        return Err(format!("runtime error: slice bounds out of range [:{}]", args[1]));
    }
    let most = count(&args[1]);
    if whole.len() < most {
        return Ok(args[0].clone());
    }
    Ok(Value::from(String::from_utf8_lossy(&whole.as_bytes()[..most]).into_owned()))
}
