//! Values to and from serde: what serialises becomes a value, a value becomes JSON.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::rc::Rc;

use serde::ser::{self, Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

use crate::value::{Map, Struct, Value};

pub(crate) fn value<T: Serialize + ?Sized>(value: &T) -> Result<Value, crate::Error> {
    value.serialize(ToValue)
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::NoValue | Self::Nil | Self::NilPointer | Self::Unmade(_) => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => serializer.serialize_i64(value),
                (_, Ok(value)) => serializer.serialize_u64(value),
                #[expect(clippy::cast_precision_loss, reason = "JSON has no wider integers")]
                _ => serializer.serialize_f64(*value as f64),
            },
            // Go writes 1.0 as 1.
            #[expect(clippy::cast_possible_truncation, reason = "checked to be exact")]
            Self::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => serializer.serialize_i64(*value as i64),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::String(text) => serializer.serialize_str(text),
            Self::List(list) => {
                let mut seq = serializer.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|value| seq.serialize_element(value))?;
                seq.end()
            }
            Self::Map(map) => {
                let mut out = serializer.serialize_map(Some(map.entries.len()))?;
                map.entries.iter().try_for_each(|(key, value)| out.serialize_entry(key, value))?;
                out.end()
            }
            Self::Struct(one) => {
                let mut out = serializer.serialize_map(Some(one.fields.len()))?;
                one.fields.iter().try_for_each(|(key, value)| out.serialize_entry(key, value))?;
                out.end()
            }
            Self::Object(object) => {
                let names = object.names();
                let mut out = serializer.serialize_map(Some(names.len()))?;
                names.iter().try_for_each(|name| out.serialize_entry(name, &object.field(name).unwrap_or_default()))?;
                out.end()
            }
        }
    }
}

impl ser::Error for crate::Error {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The zero value of a map's elements, told by the first of them; a map without any is taken to be one of texts.
fn zero(entries: &BTreeMap<String, Value>) -> Value {
    match entries.values().next() {
        None | Some(Value::String(_)) => Value::from(""),
        Some(Value::Bool(_)) => Value::Bool(false),
        Some(Value::Int(_)) => Value::Int(0),
        Some(Value::Float(_)) => Value::Float(0.0),
        Some(Value::List(_)) => Value::List(Rc::from([])),
        _ => Value::NoValue,
    }
}

struct ToValue;

struct Sequence(Vec<Value>, Option<&'static str>);

struct Entries {
    entries: BTreeMap<String, Value>,
    key: Option<String>,
}

struct Fields {
    one: Struct,
    variant: Option<&'static str>,
}

/// An enum's variant with data, as serde's JSON shows it.
fn tagged(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(name) => Value::map([(name.to_owned(), value)]),
        None => value,
    }
}

type Done = Result<Value, crate::Error>;

impl Serializer for ToValue {
    type Ok = Value;
    type Error = crate::Error;
    type SerializeSeq = Sequence;
    type SerializeTuple = Sequence;
    type SerializeTupleStruct = Sequence;
    type SerializeTupleVariant = Sequence;
    type SerializeMap = Entries;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    fn serialize_bool(self, value: bool) -> Done {
        Ok(Value::Bool(value))
    }
    fn serialize_i8(self, value: i8) -> Done {
        Ok(Value::Int(value.into()))
    }
    fn serialize_i16(self, value: i16) -> Done {
        Ok(Value::Int(value.into()))
    }
    fn serialize_i32(self, value: i32) -> Done {
        Ok(Value::Int(value.into()))
    }
    fn serialize_i64(self, value: i64) -> Done {
        Ok(Value::Int(value.into()))
    }
    fn serialize_i128(self, value: i128) -> Done {
        Ok(Value::Int(value))
    }
    fn serialize_u8(self, value: u8) -> Done {
        Ok(Value::Int(value.into()))
    }
    fn serialize_u16(self, value: u16) -> Done {
        Ok(Value::Int(value.into()))
    }
    fn serialize_u32(self, value: u32) -> Done {
        Ok(Value::Int(value.into()))
    }
    fn serialize_u64(self, value: u64) -> Done {
        Ok(Value::Int(value.into()))
    }
    fn serialize_f32(self, value: f32) -> Done {
        Ok(Value::Float(value.into()))
    }
    fn serialize_f64(self, value: f64) -> Done {
        Ok(Value::Float(value))
    }
    fn serialize_char(self, value: char) -> Done {
        Ok(Value::from(value.to_string()))
    }
    fn serialize_str(self, value: &str) -> Done {
        Ok(Value::from(value))
    }
    fn serialize_bytes(self, value: &[u8]) -> Done {
        Ok(Value::List(value.iter().map(|byte| Value::Int((*byte).into())).collect()))
    }
    fn serialize_none(self) -> Done {
        Ok(Value::NilPointer)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Done {
        Ok(Value::Nil)
    }
    fn serialize_unit_struct(self, name: &'static str) -> Done {
        Ok(Value::Struct(Rc::new(Struct { name: name.to_owned(), fields: Vec::new(), absent: Vec::new() })))
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Done {
        Ok(Value::from(variant))
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Done {
        Ok(tagged(Some(variant), value.serialize(self)?))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Sequence, crate::Error> {
        Ok(Sequence(Vec::new(), None))
    }
    fn serialize_tuple(self, _: usize) -> Result<Sequence, crate::Error> {
        Ok(Sequence(Vec::new(), None))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Sequence, crate::Error> {
        Ok(Sequence(Vec::new(), None))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Sequence, crate::Error> {
        Ok(Sequence(Vec::new(), Some(variant)))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Entries, crate::Error> {
        Ok(Entries { entries: BTreeMap::new(), key: None })
    }
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Fields, crate::Error> {
        Ok(Fields { one: Struct { name: name.to_owned(), fields: Vec::new(), absent: Vec::new() }, variant: None })
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Fields, crate::Error> {
        Ok(Fields {
            one: Struct { name: name.to_owned(), fields: Vec::new(), absent: Vec::new() },
            variant: Some(variant),
        })
    }
}

impl Sequence {
    fn done(self) -> Value {
        tagged(self.1, Value::List(self.0.into()))
    }
}

impl ser::SerializeSeq for Sequence {
    type Ok = Value;
    type Error = crate::Error;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), crate::Error> {
        self.0.push(value.serialize(ToValue)?);
        Ok(())
    }
    fn end(self) -> Done {
        Ok(self.done())
    }
}

impl ser::SerializeTuple for Sequence {
    type Ok = Value;
    type Error = crate::Error;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), crate::Error> {
        ser::SerializeSeq::serialize_element(self, value)
    }
    fn end(self) -> Done {
        Ok(self.done())
    }
}

impl ser::SerializeTupleStruct for Sequence {
    type Ok = Value;
    type Error = crate::Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), crate::Error> {
        ser::SerializeSeq::serialize_element(self, value)
    }
    fn end(self) -> Done {
        Ok(self.done())
    }
}

impl ser::SerializeTupleVariant for Sequence {
    type Ok = Value;
    type Error = crate::Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), crate::Error> {
        ser::SerializeSeq::serialize_element(self, value)
    }
    fn end(self) -> Done {
        Ok(self.done())
    }
}

impl ser::SerializeMap for Entries {
    type Ok = Value;
    type Error = crate::Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), crate::Error> {
        self.key = Some(key.serialize(ToValue)?.to_string());
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), crate::Error> {
        let key = self.key.take().unwrap_or_default();
        self.entries.insert(key, value.serialize(ToValue)?);
        Ok(())
    }
    fn end(self) -> Done {
        let zero = zero(&self.entries);
        Ok(Value::Map(Rc::new(Map { entries: self.entries, zero })))
    }
}

impl Fields {
    fn push<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), crate::Error> {
        self.one.fields.push((key.to_owned(), value.serialize(ToValue)?));
        Ok(())
    }
    fn done(self) -> Value {
        tagged(self.variant, Value::Struct(Rc::new(self.one)))
    }
}

impl ser::SerializeStruct for Fields {
    type Ok = Value;
    type Error = crate::Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), crate::Error> {
        self.push(key, value)
    }
    fn end(self) -> Done {
        Ok(self.done())
    }
}

impl ser::SerializeStructVariant for Fields {
    type Ok = Value;
    type Error = crate::Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), crate::Error> {
        self.push(key, value)
    }
    fn end(self) -> Done {
        Ok(self.done())
    }
}
