//! Relations between packages (deb-control(5)): `a (>= 1) | b:any, c`.

use std::cmp::Ordering;
use std::fmt;

use crate::version;

/// How a version must compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`, and the obsolete `<`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`, and the obsolete `>`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    fn as_str(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        }
    }
}

/// One package name with an optional bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'t> {
    /// Name of a package, real or virtual.
    pub name: &'t str,
    /// Bound of its version.
    pub bound: Option<(Operator, &'t str)>,
}

impl Relation<'_> {
    /// Whether a version lies within the bound.
    #[must_use]
    pub fn accepts(&self, found: &str) -> bool {
        let Some((operator, bound)) = self.bound else { return true };
        let order = version::compare(found, bound);
        match operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }

    /// Whether something provided satisfies the relation: without a version only what has no bound (deb-control(5)).
    #[must_use]
    pub fn accepts_provided(&self, provided: Option<&str>) -> bool {
        self.bound.is_none() || provided.is_some_and(|version| self.accepts(version))
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)?;
        if let Some((operator, bound)) = self.bound {
            write!(formatter, " ({} {bound})", operator.as_str())?;
        }
        Ok(())
    }
}

/// The alternatives of each relation of a field. What cannot be read is left out as a relation that nothing satisfies:
/// its name is the text itself.
#[must_use]
pub fn parse(field: &str) -> Vec<Vec<Relation<'_>>> {
    field
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(|group| group.split('|').map(|one| parse_one(one.trim())).collect())
        .collect()
}

fn parse_one(text: &str) -> Relation<'_> {
    let end = text.find(|one: char| one.is_whitespace() || "([<".contains(one)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    // `any` and `native` say nothing for one architecture.
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    let Some(open) = rest.find('(') else { return Relation { name, bound: None } };
    let Some(close) = rest.find(')').filter(|close| *close > open) else { return Relation { name: text, bound: None } };
    let inner = rest[open + 1..close].trim();
    let digits = inner.find(|one: char| !"<>=".contains(one)).unwrap_or(inner.len());
    let (operator, bound) = inner.split_at(digits);
    let operator = match operator {
        "<<" => Operator::Earlier,
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return Relation { name: text, bound: None },
    };
    Relation { name, bound: Some((operator, bound.trim())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_bounds_and_architectures() {
        let all = parse("libc6 (>= 2.36), debconf (>= 0.5) | debconf-2.0 , python3:any,x(<<1~), ");
        let text: Vec<String> =
            all.iter().map(|group| group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")).collect();
        assert_eq!(text, ["libc6 (>= 2.36)", "debconf (>= 0.5) | debconf-2.0", "python3", "x (<< 1~)"]);
    }

    #[test]
    fn bounds() {
        let one = |text| parse_one(text);
        assert!(one("a (>= 1)").accepts("1") && !one("a (>> 1)").accepts("1") && one("a (<< 1)").accepts("1~"));
        assert!(one("a").accepts_provided(None) && !one("a (= 1)").accepts_provided(None));
        assert!(one("a (= 1)").accepts_provided(Some("1")));
    }

    #[test]
    fn nonsense_is_a_name_that_no_package_has() {
        for text in ["a (>= 1", "a (~ 1)", "a ()"] {
            assert_eq!(parse_one(text), Relation { name: text, bound: None });
        }
    }
}
