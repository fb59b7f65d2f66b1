//! `--filter NAME=VALUE`, with Docker's rules: values of one name are alternatives, labels must all be there.

use std::collections::BTreeMap;

pub(super) use hull_engine::pattern::matches;

use super::Failure;

/// One `--filter` as given.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    name: String,
    value: String,
}

/// For the command line's parser.
pub(super) fn parse(text: &str) -> Result<Filter, String> {
    let (name, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
    Ok(Filter { name: name.trim().to_lowercase(), value: value.trim().to_owned() })
}

/// All filters of a command.
#[derive(Debug, Default)]
pub(super) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Takes what was given; names that the command does not know are refused.
    pub(super) fn new(given: &[Filter], known: &[&str]) -> Result<Self, Failure> {
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for Filter { name, value } in given {
            if !known.contains(&name.as_str()) {
                return Err(Failure::new(format!("invalid filter '{name}'; use one of {}", known.join(", "))));
            }
            filters.entry(name.clone()).or_default().push(value.clone());
        }
        Ok(Self(filters))
    }

    /// The values of a name.
    pub(super) fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether there is no filter of this name, or one whose value is accepted.
    pub(super) fn any(&self, name: &str, mut accept: impl FnMut(&str) -> bool) -> bool {
        self.0.get(name).is_none_or(|values| values.iter().any(|value| accept(value)))
    }

    /// The yes or no of a filter that is given once.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Failure> {
        let mut answer = None;
        for value in self.values(name) {
            let one = match value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => return Err(Failure::new(format!("invalid filter '{name}=[{value}]'; use true or false"))),
            };
            if answer.is_some_and(|answer| answer != one) {
                return Err(Failure::new(format!("invalid filter '{name}': it is given as true and as false")));
            }
            answer = Some(one);
        }
        Ok(answer)
    }

    /// `label=KEY`, `label=KEY=VALUE` and their opposite `label!`.
    pub(super) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |text: &String| match text.split_once('=') {
            None => labels.contains_key(text),
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_alternatives_and_labels_are_not() {
        let given: Vec<Filter> =
            ["name=a", "name=b", "label=x", "label=y=1"].iter().map(|text| parse(text).expect("parses")).collect();
        let filters = Filters::new(&given, &["name", "label"]).expect("known");
        assert!(filters.any("name", |name| name == "b") && !filters.any("name", |name| name == "c"));
        assert!(filters.any("other", |_| false));
        let labels = |pairs: &[(&str, &str)]| {
            filters.labels(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        assert!(labels(&[("x", ""), ("y", "1")]) && !labels(&[("x", "")]) && !labels(&[("x", ""), ("y", "2")]));
        assert!(parse("foo").is_err());
        let error = Filters::new(&given, &["name"]).expect_err("unknown");
        assert!(error.message.starts_with("invalid filter 'label'"), "{}", error.message);
    }
}
