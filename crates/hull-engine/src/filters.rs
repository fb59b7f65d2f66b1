//! Filters with Docker's rules, and what they choose: values of one filter are alternatives, labels must all be there.
//!
//! The command line makes them of `--filter NAME=VALUE`, the Engine API of a document. What is wrong with a value is said
//! in the words of Docker's engine.

mod containers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use hull_image::{Image, LabelFilter};
use hull_network::Network;
use hull_oci::Reference;
use hull_oci::spec::one_line;

use crate::records::Engine;
use crate::volumes::Volume;
use crate::{Error, pattern, time};

pub use containers::Containers;

/// What lists of images take.
pub const OF_IMAGES: [&str; 7] = ["before", "dangling", "label", "label!", "reference", "since", "until"];

/// What lists of networks take.
pub const OF_NETWORKS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

/// What lists of containers take.
pub const OF_CONTAINERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// Values by filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl FromIterator<(String, BTreeSet<String>)> for Filters {
    fn from_iter<T: IntoIterator<Item = (String, BTreeSet<String>)>>(given: T) -> Self {
        Self(given.into_iter().collect())
    }
}

impl Filters {
    /// One more value of a filter.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().insert(value.to_owned());
    }

    /// A filter that is none of these.
    #[must_use]
    pub fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|name| !known.contains(name))
    }

    /// Whether a filter has values.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|values| !values.is_empty())
    }

    /// Its values.
    pub fn values<'f>(&'f self, name: &str) -> impl Iterator<Item = &'f str> + use<'f> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Whether there is no such filter, or one of its values fits.
    pub fn any(&self, name: &str, fits: impl FnMut(&str) -> bool) -> bool {
        !self.has(name) || self.values(name).any(fits)
    }

    /// Whether an object with these labels has all of `label`, and not all of `label!`.
    #[must_use]
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let fits = |wanted: &str| match wanted.split_once('=') {
            None => labels.contains_key(wanted),
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        };
        self.values("label").all(fits) && !(self.has("label!") && self.values("label!").all(fits))
    }

    /// Labels, as the store of images takes them.
    #[must_use]
    pub fn label_filters(&self) -> Vec<LabelFilter> {
        let label = |text: &str, negated| {
            let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
            LabelFilter { key: key.to_owned(), value, negated }
        };
        let with = self.values("label").map(|text| label(text, false));
        with.chain(self.values("label!").map(|text| label(text, true))).collect()
    }

    /// A filter that says yes or no, such as `dangling`.
    ///
    /// # Errors
    /// When it says neither, or both.
    pub fn truth(&self, name: &str) -> Result<Option<bool>, Error> {
        let says = |words: [&str; 2]| self.values(name).any(|value| words.contains(&value));
        match (self.has(name), says(["1", "true"]), says(["0", "false"])) {
            (false, ..) => Ok(None),
            (true, yes, no) if yes != no => Ok(Some(yes)),
            _ => {
                let values = self.values(name).collect::<Vec<_>>().join(" ");
                Err(Error::Refused(format!("invalid filter '{name}=[{}]'", one_line(&values))))
            }
        }
    }

    /// Nanoseconds since 1970 of `until`, which is given once.
    ///
    /// # Errors
    /// When it is no moment, or there are several.
    pub fn until(&self) -> Result<Option<u64>, Error> {
        let mut values = self.values("until");
        let first = values.next().map(|text| time::moment(text, now())).transpose().map_err(Error::Refused)?;
        match values.next() {
            Some(_) => Err(Error::Refused("more than one until filter specified".to_owned())),
            None => Ok(first),
        }
    }

    /// All filters with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0.iter().map(|(name, values)| (name.as_str(), values))
    }

    /// Refuses a value that is none of these.
    fn one_of(&self, name: &str, what: &str, known: &[&str]) -> Result<(), Error> {
        let Some(bad) = self.values(name).find(|value| !known.contains(value)) else { return Ok(()) };
        let (known, bad) = (known.join(", "), one_line(bad));
        let why = format!("invalid value for {what} ({bad}): must be one of {known}");
        Err(Error::Refused(format!("invalid filter '{name}={bad}': {why}")))
    }

    /// Whether a network is in the list.
    ///
    /// # Errors
    /// When a value is wrong, or the records cannot be read.
    pub fn network(&self, engine: &Engine, network: &Network) -> Result<bool, Error> {
        if let Some(bad) = self.values("type").find(|kind| !matches!(*kind, "custom" | "builtin")) {
            return Err(Error::Refused(format!("invalid filter: 'type'='{}'", one_line(bad))));
        }
        let dangling = self.truth("dangling")?;
        let fits = self.any("driver", |driver| network.driver.as_str() == driver)
            && self.any("id", |id| pattern::matches(id, &network.id))
            && self.any("name", |name| pattern::matches(name, &network.name))
            && self.any("scope", |scope| scope == "local")
            && self.any("type", |kind| (kind == "builtin") == network.predefined())
            && self.labels(&network.labels);
        match dangling.filter(|_| fits) {
            None => Ok(fits),
            Some(wanted) => {
                let unused = !network.predefined() && engine.networks().endpoints(network)?.is_empty();
                Ok(unused == wanted)
            }
        }
    }

    /// Whether a volume is in the list, but for `dangling`.
    #[must_use]
    pub fn volume(&self, volume: &Volume) -> bool {
        self.any("driver", |driver| volume.driver == driver)
            && self.any("name", |name| volume.name.contains(name))
            && self.labels(&volume.labels)
    }

    /// The images that fit, newest first, each with those of its names that a pattern asks for; `more` are patterns beside
    /// those of the filter.
    ///
    /// # Errors
    /// When a value is wrong, names no image, or the store cannot be read.
    pub fn images(&self, engine: &Engine, more: Option<&str>) -> Result<Vec<Image>, Error> {
        let dangling = self.truth("dangling")?;
        let created = |name: &str| Ok::<_, Error>(engine.images.find(name)?.created);
        let before = self.values("before").map(created).collect::<Result<Vec<_>, _>>()?;
        let since = self.values("since").map(created).collect::<Result<Vec<_>, _>>()?;
        let moment = |text: &str| time::moment(text, now()).map_err(Error::Refused);
        let until = self.values("until").map(moment).collect::<Result<Vec<_>, _>>()?;
        let patterns: Vec<&str> = self.values("reference").chain(more).collect();
        let mut images = engine.images.list()?;
        images.retain_mut(|image| {
            // What a name means on another platform is shown with that name.
            if image.names.is_empty() && !image.variant_of.is_empty() {
                return false;
            }
            if !patterns.is_empty() {
                image.names.retain(|name| patterns.iter().any(|pattern| pattern::names(pattern, name)));
                image.repo_digests.retain(|(repository, digest)| {
                    let name = format!("{repository}@{digest}").parse::<Reference>();
                    name.is_ok_and(|name| patterns.iter().any(|pattern| pattern::names(pattern, &name)))
                });
                if image.is_dangling() {
                    return false;
                }
            }
            let made = u64::try_from(image.created).unwrap_or(0).saturating_mul(1_000_000_000);
            dangling.is_none_or(|wanted| image.is_dangling() == wanted)
                && before.iter().all(|created| image.created < *created)
                && since.iter().all(|created| image.created > *created)
                && until.iter().all(|moment| made < *moment)
                && self.labels(&image.config.config.labels)
        });
        Ok(images)
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(given: &[(&str, &str)]) -> Filters {
        let mut filters = Filters::default();
        given.iter().for_each(|(name, value)| filters.add(name, value));
        filters
    }

    #[test]
    fn values_are_alternatives_and_labels_are_not() {
        let filters = filters(&[("name", "a"), ("name", "b"), ("label", "x"), ("label", "y=1")]);
        assert!(filters.any("name", |name| name == "b") && !filters.any("name", |name| name == "c"));
        assert!(filters.any("other", |_| false));
        let labels = |pairs: &[(&str, &str)]| {
            filters.labels(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        assert!(labels(&[("x", ""), ("y", "1")]) && !labels(&[("x", "")]) && !labels(&[("x", ""), ("y", "2")]));
        assert_eq!((filters.unknown(&["name", "label"]), filters.unknown(&["name"])), (None, Some("label")));
    }

    #[test]
    fn truths_are_one_of_four_words() {
        let said = |values: &[&str]| {
            let given: Vec<(&str, &str)> = values.iter().map(|value| ("dangling", *value)).collect();
            filters(&given).truth("dangling").map_err(|error| error.to_string())
        };
        assert_eq!((said(&[]), said(&["1"]), said(&["false", "0"])), (Ok(None), Ok(Some(true)), Ok(Some(false))));
        assert_eq!(said(&["maybe"]), Err("invalid filter 'dangling=[maybe]'".to_owned()));
        assert_eq!(said(&["true", "false"]), Err("invalid filter 'dangling=[false true]'".to_owned()));
    }
}
