//! Documents of the API. What clients send may be `null`, absent or more than is known everywhere.

pub(crate) mod create;
pub(crate) mod network;
pub(crate) mod unreadable;
pub(crate) mod volume;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// An object, or `null` for an empty one. Without this a list would do, as its fields in their order.
pub(crate) fn null_object<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            let name = std::any::type_name::<T>();
            write!(formatter, "struct {}", name.rsplit("::").next().unwrap_or(name))
        }

        fn visit_unit<E>(self) -> Result<T, E> {
            Ok(T::default())
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(Object(PhantomData))
}

/// A map of objects, each of which may be `null`.
pub(crate) fn null_objects<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    struct Given<T>(T);
    impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Given<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            null_object(deserializer).map(Self)
        }
    }
    let map: Option<BTreeMap<String, Given<T>>> = Option::deserialize(deserializer)?;
    Ok(map.unwrap_or_default().into_iter().map(|(name, Given(one))| (name, one)).collect())
}
