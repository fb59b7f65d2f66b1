//! `--filter NAME=VALUE`.

pub(super) use hull_engine::filters::Filters;

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

/// All filters of a command; names that it does not know are refused.
pub(super) fn all(given: &[Filter], known: &[&str]) -> Result<Filters, Failure> {
    let mut filters = Filters::default();
    given.iter().for_each(|Filter { name, value }| filters.add(name, value));
    match filters.unknown(known) {
        Some(name) => Err(Failure::new(format!("invalid filter '{name}'; use one of {}", known.join(", ")))),
        None => Ok(filters),
    }
}

/// Seconds since 1970 of `until`.
pub(super) fn until(filters: &Filters) -> Result<Option<i64>, Failure> {
    Ok(filters.until()?.map(|moment| i64::try_from(moment / 1_000_000_000).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_known_are_refused() {
        let given: Vec<Filter> = ["Name = a", "label=y=1"].iter().map(|text| parse(text).expect("parses")).collect();
        let filters = all(&given, &["name", "label"]).expect("known");
        assert_eq!(filters.values("name").chain(filters.values("label")).collect::<Vec<_>>(), ["a", "y=1"]);
        assert!(parse("foo").is_err());
        let error = all(&given, &["name"]).expect_err("unknown");
        assert!(error.message.starts_with("invalid filter 'label'"), "{}", error.message);
    }
}
