//! Values as Go's reflection sees them.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::rc::Rc;

use serde::Serialize;

use crate::strings::float;

/// What a template works on. Cheap to clone.
#[derive(Clone, Default)]
pub enum Value {
    /// Nothing at all: a key that is missing. Prints as `<no value>`.
    #[default]
    NoValue,
    /// JSON's null, where the type is not known. Prints as `<no value>`, inside others as `<nil>`.
    Nil,
    /// A pointer to nothing. Prints as `<nil>`.
    NilPointer,
    /// A list or a map that was never made: it prints as an empty one, `[]` or `map[]`, and is null as JSON.
    Unmade(&'static str),
    /// True or false.
    Bool(bool),
    /// A number without a fraction.
    Int(i128),
    /// A number.
    Float(f64),
    /// Text.
    String(Rc<str>),
    /// A list.
    List(Rc<[Value]>),
    /// Keys that may be there or not, sorted.
    Map(Rc<Map>),
    /// Fields that are always there, in their order.
    Struct(Rc<Struct>),
    /// Fields that are computed.
    Object(Rc<dyn Object>),
}

/// A map.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// The entries.
    pub entries: BTreeMap<String, Value>,
    /// What `index` gives for a key that is missing: the zero value of the elements' type, if there is a type.
    pub zero: Value,
}

/// A struct.
#[derive(Clone, Debug, Default)]
pub struct Struct {
    /// The type's name, for messages.
    pub name: String,
    /// The fields.
    pub fields: Vec<(String, Value)>,
    /// Fields that are there but not shown as JSON, as Go leaves out empty ones that are marked so.
    pub absent: Vec<(String, Value)>,
}

/// A row whose fields are computed when asked for.
pub trait Object {
    /// The type's name, for messages.
    fn type_name(&self) -> String;
    /// The names that `json` shows.
    fn names(&self) -> Vec<String>;
    /// One field.
    fn field(&self, name: &str) -> Option<Value>;
    /// How many arguments, all strings, the method of this name takes, if there is one.
    fn arity(&self, _name: &str) -> Option<usize> {
        None
    }
    /// Calls a method with as many arguments as [`Object::arity`] said.
    fn call(&self, _name: &str, _args: &[Rc<str>]) -> Value {
        Value::NoValue
    }
}

impl Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue => f.write_str("NoValue"),
            Self::Nil => f.write_str("Nil"),
            Self::NilPointer => f.write_str("NilPointer"),
            Self::Object(object) => write!(f, "Object({})", object.type_name()),
            _ => write!(f, "{} {self}", self.type_name()),
        }
    }
}

/// As Go's `%v`.
impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue | Self::Nil | Self::NilPointer => f.write_str("<nil>"),
            Self::Unmade(text) => f.write_str(text),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => f.write_str(&float(*value)),
            Self::String(text) => f.write_str(text),
            Self::List(list) => {
                f.write_str("[")?;
                for (index, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if index > 0 { " " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("map[")?;
                for (index, (key, value)) in map.entries.iter().enumerate() {
                    write!(f, "{}{key}:{value}", if index > 0 { " " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Struct(one) => {
                f.write_str("{")?;
                for (index, (_, value)) in one.fields.iter().chain(&one.absent).enumerate() {
                    write!(f, "{}{value}", if index > 0 { " " } else { "" })?;
                }
                f.write_str("}")
            }
            Self::Object(object) => {
                f.write_str("{")?;
                for (index, name) in object.names().iter().enumerate() {
                    let value = object.field(name).unwrap_or_default();
                    write!(f, "{}{value}", if index > 0 { " " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

impl Value {
    /// A value of anything that serialises: structs keep their order, maps sort.
    ///
    /// # Errors
    /// If it cannot be serialised, as maps whose keys are no text.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, crate::Error> {
        crate::serialize::value(value)
    }

    /// A list of texts.
    pub fn strings<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| Self::from(text.as_ref())).collect())
    }

    /// Every struct in it as a map, as data is that was read without a type.
    #[must_use]
    pub fn untyped(&self) -> Self {
        match self {
            Self::NilPointer | Self::Unmade(_) => Self::Nil,
            Self::List(list) => Self::List(list.iter().map(Self::untyped).collect()),
            Self::Map(map) => Self::map(map.entries.iter().map(|(key, value)| (key.clone(), value.untyped()))),
            Self::Struct(one) => Self::map(one.fields.iter().map(|(key, value)| (key.clone(), value.untyped()))),
            Self::Object(object) => Self::map(object.names().into_iter().map(|name| {
                let value = object.field(&name).unwrap_or_default().untyped();
                (name, value)
            })),
            other => other.clone(),
        }
    }

    /// A map without a type.
    #[must_use]
    pub fn map(entries: impl IntoIterator<Item = (String, Self)>) -> Self {
        Self::Map(Rc::new(Map { entries: entries.into_iter().collect(), zero: Self::NoValue }))
    }

    /// JSON as Docker's `json` prints it. Rows are escaped for HTML, other data is not: so Docker does it.
    #[must_use]
    pub fn json(&self) -> String {
        // Values hold nothing that JSON cannot: infinite floats become null.
        let text = serde_json::to_string(self).unwrap_or_default();
        let text = text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
        if !matches!(self, Self::Object(_)) {
            return text;
        }
        text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    }

    /// Go's name of the type.
    pub(crate) fn type_name(&self) -> String {
        match self {
            Self::NoValue | Self::Nil => "interface {}".to_owned(),
            Self::NilPointer => "*struct".to_owned(),
            Self::Unmade(text) if text.starts_with("map") => "map[string]interface {}".to_owned(),
            Self::Unmade(_) => "[]interface {}".to_owned(),
            Self::Bool(_) => "bool".to_owned(),
            Self::Int(_) => "int".to_owned(),
            Self::Float(_) => "float64".to_owned(),
            Self::String(_) => "string".to_owned(),
            Self::List(_) => "[]interface {}".to_owned(),
            Self::Map(map) => match map.zero {
                Self::String(_) => "map[string]string".to_owned(),
                _ => "map[string]interface {}".to_owned(),
            },
            Self::Struct(one) => one.name.clone(),
            Self::Object(object) => object.type_name(),
        }
    }

    /// Whether conditions take it as true.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::NoValue | Self::Nil | Self::NilPointer | Self::Unmade(_) => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::String(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.entries.is_empty(),
            Self::Struct(_) | Self::Object(_) => true,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(Rc::from(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(Rc::from(text))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(i128::from(value))
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(i128::from(value))
    }
}

/// JSON of which no type is known: objects are maps, null is nil.
impl From<&serde_json::Value> for Value {
    fn from(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), ..) => Self::from(value),
                (_, Some(value), _) => Self::from(value),
                (.., value) => Self::Float(value.unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::from(text.as_str()),
            serde_json::Value::Array(list) => Self::List(list.iter().map(Self::from).collect()),
            serde_json::Value::Object(map) => {
                Self::map(map.iter().map(|(key, value)| (key.clone(), Self::from(value))))
            }
        }
    }
}
