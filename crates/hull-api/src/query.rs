//! Parameters of a request: what stands behind `?` in its address, and the filters in it.

use std::collections::{BTreeMap, BTreeSet};

use hull_engine::filters::Filters;

use crate::refusal::Refusal;

/// Parameters, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// More parameters are refused.
const MOST: usize = 10_000;

/// `%41+b` to `A b`, where a plus sign is a space in a query and itself in a path. What is not UTF-8 is replaced.
pub(crate) fn decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus => b' ',
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

impl Query {
    /// From what stands behind the question mark. What cannot be decoded is left out, as Go does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(key, true)?, decode(value, true)?))
        };
        Self(text.split('&').filter(|part| !part.is_empty()).take(MOST).filter_map(pair).collect())
    }

    /// The first value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value, or nothing.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Every value.
    pub fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is there and says anything but no.
    #[must_use]
    pub fn truth(&self, name: &str) -> bool {
        let value = self.text(name).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// As [`Self::truth`], with what holds when it is not given at all.
    #[must_use]
    pub fn truth_or(&self, name: &str, absent: bool) -> bool {
        if self.get(name).is_some() { self.truth(name) } else { absent }
    }

    /// A number; nothing when it is absent or empty.
    ///
    /// # Errors
    /// When it is no number, in Go's words.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = || Refusal::bad(format!("strconv.Atoi: parsing {text:?}: invalid syntax"));
        text.parse().map(Some).map_err(|_| wrong())
    }

    /// The parameter `filters`.
    ///
    /// # Errors
    /// When it is not one of the two shapes, or names a filter that is not `known`.
    pub fn filters(&self, known: &[&str]) -> Result<Filters, Refusal> {
        let filters = filters(self.text("filters"))?;
        match filters.unknown(known) {
            Some(name) => Err(Refusal::bad(format!("invalid filter '{}'", hull_oci::spec::one_line(name)))),
            None => Ok(filters),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Values {
    Map(BTreeMap<String, bool>),
    List(Vec<String>),
    None(()),
}

/// `{"label":{"a=b":true}}` as Go's clients say it, or `{"label":["a=b"]}`.
///
/// # Errors
/// When it is neither.
pub(crate) fn filters(text: &str) -> Result<Filters, Refusal> {
    if text.is_empty() {
        return Ok(Filters::default());
    }
    let parsed: Option<BTreeMap<String, Values>> =
        serde_json::from_str(text).map_err(|_| Refusal::bad("invalid filter"))?;
    let values = |values| match values {
        Values::Map(map) => map.into_iter().filter(|(_, wanted)| *wanted).map(|(value, _)| value).collect(),
        Values::List(list) => list.into_iter().collect(),
        Values::None(()) => BTreeSet::new(),
    };
    Ok(parsed.unwrap_or_default().into_iter().map(|(name, list)| (name, values(list))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_docker_s() {
        let query = Query::parse("a=1&b=True&c=0&d=no&e=&f=None&g=x&h=%20False+&i");
        let truths: Vec<bool> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].map(|name| query.truth(name)).into();
        assert_eq!(truths, [true, true, false, false, false, false, true, false, false, false]);
        assert!(query.truth_or("j", true) && !query.truth_or("c", true));
    }

    #[test]
    fn both_shapes_of_filters_mean_the_same() {
        let go = filters(r#"{"label":{"a=b":true,"c":true,"d":false},"name":{"x":true}}"#).unwrap();
        let python = filters(r#"{"label":["a=b","c"],"name":["x"]}"#).unwrap();
        assert_eq!(go, python);
        let labels = [("a", "b"), ("c", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert!(go.labels(&labels));
        assert!(!filters(r#"{"label":["a=c"]}"#).unwrap().labels(&labels));
        for wrong in ["{", "[]", r#"{"a":1}"#, r#"{"a":[1]}"#, "x"] {
            assert!(filters(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            Query::parse("filters=%7B%22zz%22%3A%5B%221%22%5D%7D").filters(&["a"]).unwrap_err().message,
            "invalid filter 'zz'"
        );
    }

    #[test]
    fn what_cannot_be_decoded_is_left_out() {
        let query = Query::parse("a=%zz&b=%41&%=1&c=%e4");
        assert_eq!((query.get("a"), query.get("b"), query.get("c")), (None, Some("A"), Some("\u{fffd}")));
        assert_eq!(query.number::<i64>("b").unwrap_err().status, 400);
    }
}
