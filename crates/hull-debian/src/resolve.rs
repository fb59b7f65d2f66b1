//! Which packages make a system: seeds, and what they need.
//!
//! Of each name the latest version of all archives is taken. Dependencies with one answer are followed first; then, one
//! at a time, those with alternatives that nothing chosen satisfies: the first alternative that fits is taken, of the
//! packages that provide a virtual one the most important. When a choice conflicts with what must be there, it is
//! forbidden and everything starts again. The result depends on nothing but the indexes and the request.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::error::{Error, one_line};
use crate::index::Package;
use crate::relation::{self, Relation};
use crate::version;

/// How often a choice may turn out wrong.
const MAX_RESTARTS: usize = 100;

/// How much is installed beside what is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// Essential and required packages, and the package tool.
    #[default]
    Minbase,
    /// Also important and standard ones.
    Standard,
}

/// What a system should have.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// How much is taken by itself.
    pub variant: Variant,
    /// Further packages by name.
    pub include: Vec<String>,
    /// Packages that must not be chosen.
    pub exclude: Vec<String>,
}

/// The packages of a system.
#[derive(Clone, Debug)]
pub struct Solution<'p, 't> {
    /// By name.
    pub packages: BTreeMap<&'t str, &'p Package<'t>>,
    /// Names of the packages that the rest is installed with: the essential and required ones, and what they need.
    pub base: BTreeSet<&'t str>,
}

/// The packages by name, and who provides what.
#[derive(Debug)]
pub struct Universe<'p, 't> {
    best: BTreeMap<&'t str, &'p Package<'t>>,
    providers: HashMap<&'t str, Vec<(&'p Package<'t>, Option<&'t str>)>>,
}

/// Importance of a priority; less is more.
fn rank(priority: &str) -> u8 {
    match priority {
        "required" => 0,
        "important" => 1,
        "standard" => 2,
        "optional" => 3,
        _ => 4,
    }
}

impl<'p, 't> Universe<'p, 't> {
    /// Takes the latest version of each package.
    #[must_use]
    pub fn new(packages: &'p [Package<'t>]) -> Self {
        let mut best: BTreeMap<&'t str, &'p Package<'t>> = BTreeMap::new();
        for package in packages {
            let other = best.entry(package.name).or_insert(package);
            if version::compare(package.version, other.version).is_gt() {
                *other = package;
            }
        }
        let mut providers: HashMap<&'t str, Vec<(&'p Package<'t>, Option<&'t str>)>> = HashMap::new();
        for package in best.values() {
            for provided in relation::parse(package.provides).into_iter().flatten() {
                let version = provided.bound.map(|(_, version)| version);
                providers.entry(provided.name).or_default().push((package, version));
            }
        }
        for list in providers.values_mut() {
            list.sort_by_key(|(package, _)| (rank(package.priority), package.name));
        }
        Self { best, providers }
    }

    /// A package by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'p Package<'t>> {
        self.best.get(name).copied()
    }

    /// Packages that satisfy a relation, the preferred first.
    fn candidates(&self, relation: &Relation<'_>) -> Vec<&'p Package<'t>> {
        let real = self.get(relation.name).filter(|package| relation.accepts(package.version));
        let virtually = self.providers.get(relation.name).into_iter().flatten();
        let virtually =
            virtually.filter(|(_, version)| relation.accepts_provided(*version)).map(|(package, _)| *package);
        real.into_iter().chain(virtually).collect()
    }

    /// Chooses the packages of a system.
    ///
    /// # Errors
    /// [`Error::Dependencies`] naming the package and the relation that nothing satisfies.
    pub fn solve(&self, request: &Request) -> Result<Solution<'p, 't>, Error> {
        let mut forbidden: BTreeSet<&str> = request.exclude.iter().map(String::as_str).collect();
        for _ in 0..MAX_RESTARTS {
            let mut attempt =
                Attempt { universe: self, forbidden: &forbidden, chosen: BTreeMap::new(), free: Vec::new() };
            let outcome = attempt.run(request);
            let free = std::mem::take(&mut attempt.free);
            let chosen = attempt.chosen;
            match outcome {
                Ok(base) => return Ok(Solution { packages: chosen, base }),
                Err(Failure::Final(reason)) => return Err(Error::Dependencies(one_line(&reason))),
                Err(Failure::Conflict { reason, one, other }) => {
                    // Of the two, the one that was chosen among alternatives gives way.
                    let wrong = [one, other].into_iter().find(|name| free.contains(name));
                    match wrong {
                        Some(name) => forbidden.insert(name),
                        None => return Err(Error::Dependencies(one_line(&reason))),
                    };
                }
            }
        }
        Err(Error::Dependencies("too many conflicts between alternatives: name the wanted ones with --include".into()))
    }
}

enum Failure<'t> {
    Final(String),
    Conflict { reason: String, one: &'t str, other: &'t str },
}

struct Attempt<'a, 'p, 't> {
    universe: &'a Universe<'p, 't>,
    forbidden: &'a BTreeSet<&'a str>,
    chosen: BTreeMap<&'t str, &'p Package<'t>>,
    /// Chosen though there was an alternative.
    free: Vec<&'t str>,
}

impl<'p, 't> Attempt<'_, 'p, 't> {
    fn run(&mut self, request: &Request) -> Result<BTreeSet<&'t str>, Failure<'t>> {
        let allowed = |package: &&'p Package<'t>| !self.forbidden.contains(package.name);
        let all = self.universe.best.values().copied();
        let base: Vec<_> =
            all.clone().filter(|one| one.essential || one.priority == "required").filter(allowed).collect();
        // Either of usrmerge and this satisfies the base system; the directories are merged from the start.
        let merged = self.universe.get("usr-is-merged").filter(allowed);
        let extra: Vec<_> = match request.variant {
            Variant::Minbase => self.universe.get("apt").into_iter().filter(allowed).collect(),
            Variant::Standard => {
                all.filter(|one| rank(one.priority) <= 2 || one.name == "apt").filter(allowed).collect()
            }
        };
        let mut included = Vec::new();
        for name in &request.include {
            let relation = Relation { name, bound: None };
            let found = self.universe.candidates(&relation).into_iter().find(allowed);
            let Some(found) = found else {
                return Err(Failure::Final(format!("--include: no package {name:?} in the archive")));
            };
            included.push(found);
        }
        if base.is_empty() {
            return Err(Failure::Final(
                "the archive has no essential or required package for this architecture".into(),
            ));
        }
        // What is asked for decides alternatives of the base system.
        let asked: BTreeMap<&'t str, &'p Package<'t>> = included.iter().map(|one| (one.name, *one)).collect();
        self.close(base.into_iter().chain(merged).collect(), &asked)?;
        let names = self.chosen.keys().copied().collect();
        self.close(extra.into_iter().chain(included).collect(), &asked)?;
        Ok(names)
    }

    /// Adds packages and all that they need.
    fn close(
        &mut self,
        seeds: Vec<&'p Package<'t>>,
        asked: &BTreeMap<&'t str, &'p Package<'t>>,
    ) -> Result<(), Failure<'t>> {
        let mut queue: VecDeque<&'p Package<'t>> = VecDeque::new();
        for seed in seeds {
            self.add(seed, &mut queue)?;
        }
        let mut open: VecDeque<(&'p Package<'t>, Vec<Relation<'t>>)> = VecDeque::new();
        loop {
            while let Some(package) = queue.pop_front() {
                for group in package.dependencies() {
                    match self.options(&group)[..] {
                        [] => return Err(self.unsatisfied(package, &group)),
                        [only] => self.add(only, &mut queue)?,
                        _ => open.push_back((package, group)),
                    }
                }
            }
            let Some((package, group)) = open.pop_front() else { return Ok(()) };
            let options = self.options(&group);
            if options.iter().any(|one| self.chosen.contains_key(one.name)) {
                continue;
            }
            let fits = |one: &&&'p Package<'t>| self.conflict(one).is_none();
            let wanted = options.iter().filter(fits).find(|one| asked.contains_key(one.name));
            let Some(next) = wanted.or_else(|| options.iter().find(fits)).or(options.first()).copied() else {
                return Err(self.unsatisfied(package, &group));
            };
            self.free.push(next.name);
            self.add(next, &mut queue)?;
        }
    }

    /// The packages that satisfy any alternative; each once.
    fn options(&self, group: &[Relation<'t>]) -> Vec<&'p Package<'t>> {
        let mut options: Vec<&'p Package<'t>> = Vec::new();
        for relation in group {
            for candidate in self.universe.candidates(relation) {
                if !self.forbidden.contains(candidate.name) && !options.iter().any(|one| one.name == candidate.name) {
                    options.push(candidate);
                }
            }
        }
        options
    }

    fn unsatisfied(&self, package: &Package<'t>, group: &[Relation<'t>]) -> Failure<'t> {
        let text: Vec<String> = group.iter().map(ToString::to_string).collect();
        let why = group.iter().find_map(|relation| {
            if self.forbidden.contains(relation.name) {
                return Some(format!("{} is excluded", relation.name));
            }
            self.universe.get(relation.name).map(|found| format!("the archive has {} {}", found.name, found.version))
        });
        let why = why.unwrap_or_else(|| "no package of the archive is or provides it".to_owned());
        Failure::Final(format!("{} {} depends on {}: {why}", package.name, package.version, text.join(" | ")))
    }

    fn add(&mut self, package: &'p Package<'t>, queue: &mut VecDeque<&'p Package<'t>>) -> Result<(), Failure<'t>> {
        if self.chosen.contains_key(package.name) {
            return Ok(());
        }
        if let Some((other, reason)) = self.conflict(package) {
            return Err(Failure::Conflict { reason, one: package.name, other });
        }
        self.chosen.insert(package.name, package);
        queue.push_back(package);
        Ok(())
    }

    /// A chosen package that cannot be beside this one.
    fn conflict(&self, package: &Package<'t>) -> Option<(&'t str, String)> {
        let excludes = |one: &Package<'t>, other: &Package<'t>| {
            let relations = relation::parse(one.conflicts).into_iter().chain(relation::parse(one.breaks)).flatten();
            relations.into_iter().any(|relation| meets(&relation, other))
        };
        self.chosen.values().find_map(|other| {
            if other.name == package.name {
                return None;
            }
            let (one, two) = if excludes(package, other) {
                (package, *other)
            } else if excludes(other, package) {
                (*other, package)
            } else {
                return None;
            };
            Some((other.name, format!("{} {} conflicts with {} {}", one.name, one.version, two.name, two.version)))
        })
    }
}

/// Whether a relation is about a package: by name or by what it provides.
fn meets(relation: &Relation<'_>, package: &Package<'_>) -> bool {
    if relation.name == package.name {
        return relation.accepts(package.version);
    }
    // Most names are not provided by most packages, and parsing is slow.
    package.provides.contains(relation.name)
        && relation::parse(package.provides).into_iter().flatten().any(|provided| {
            provided.name == relation.name && relation.accepts_provided(provided.bound.map(|(_, version)| version))
        })
}

#[cfg(test)]
mod tests;
