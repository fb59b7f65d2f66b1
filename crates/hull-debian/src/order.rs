//! In which steps packages are installed.
//!
//! The base packages' files are in place before any of their scripts runs, so they are one step, but for `base-passwd`:
//! the others want users. Of the rest all is one step too, except what a pre-dependency wants configured before.

use std::collections::{BTreeMap, BTreeSet};

use crate::relation::{self, Relation};

/// What the order depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Field of the package.
    pub pre_depends: String,
    /// Field of the package.
    pub depends: String,
    /// Field of the package.
    pub provides: String,
}

/// Packages that are unpacked together and then configured together, by index into the list of members.
pub type Step = Vec<usize>;

/// The steps that install `members`, of which `base` are extracted already.
#[must_use]
pub fn steps(members: &[Member], base: &BTreeSet<&str>) -> Vec<Step> {
    let mut order = Order { members, by_name: BTreeMap::new(), done: vec![false; members.len()], steps: Vec::new() };
    for (index, member) in members.iter().enumerate() {
        order.by_name.entry(&member.name).or_default().push((index, Some(&member.version)));
        for provided in relation::parse(&member.provides).into_iter().flatten() {
            order.by_name.entry(provided.name).or_default().push((index, provided.bound.map(|(_, version)| version)));
        }
    }
    let is_base = |index: &usize| base.contains(members[*index].name.as_str());
    let (first, rest): (Vec<usize>, Vec<usize>) =
        (0..members.len()).filter(is_base).partition(|index| members[*index].name == "base-passwd");
    order.step(first);
    order.step(rest);
    let rest: Vec<usize> = (0..members.len()).filter(|index| !is_base(index)).collect();
    order.install(rest, &mut BTreeSet::new());
    order.steps
}

struct Order<'m> {
    members: &'m [Member],
    by_name: BTreeMap<&'m str, Vec<(usize, Option<&'m str>)>>,
    done: Vec<bool>,
    steps: Vec<Step>,
}

impl<'m> Order<'m> {
    fn step(&mut self, step: Step) {
        if !step.is_empty() {
            step.iter().for_each(|index| self.done[*index] = true);
            self.steps.push(step);
        }
    }

    /// Installs packages after what they pre-depend on. `open` breaks cycles.
    fn install(&mut self, wanted: Vec<usize>, open: &mut BTreeSet<usize>) {
        for index in &wanted {
            for group in relation::parse(&self.members[*index].pre_depends) {
                if let Some(before) = self.answer(&group).filter(|before| !self.done[*before] && open.insert(*before)) {
                    let closure = self.closure(before);
                    self.install(closure, open);
                }
            }
        }
        let step = wanted.into_iter().filter(|index| !self.done[*index]).collect();
        self.step(step);
    }

    /// A package and all that it depends on, as far as it is not installed.
    fn closure(&self, start: usize) -> Vec<usize> {
        let mut found = BTreeSet::from([start]);
        let mut queue = vec![start];
        while let Some(index) = queue.pop() {
            let member = &self.members[index];
            let groups = relation::parse(&member.pre_depends).into_iter().chain(relation::parse(&member.depends));
            for next in groups.filter_map(|group| self.answer(&group)) {
                if !self.done[next] && found.insert(next) {
                    queue.push(next);
                }
            }
        }
        found.into_iter().collect()
    }

    /// The member that satisfies a relation; an installed one is preferred.
    fn answer(&self, group: &[Relation<'_>]) -> Option<usize> {
        let mut all = group.iter().flat_map(|relation| {
            let known = self.by_name.get(relation.name).into_iter().flatten();
            known.filter(|(_, version)| relation.accepts_provided(*version)).map(|(index, _)| *index)
        });
        let first = all.next()?;
        Some(std::iter::once(first).chain(all).find(|index| self.done[*index]).unwrap_or(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, pre_depends: &str, depends: &str) -> Member {
        let own = str::to_owned;
        Member {
            name: own(name),
            version: own("1"),
            pre_depends: own(pre_depends),
            depends: own(depends),
            provides: String::new(),
        }
    }

    fn names(members: &[Member], base: &[&str]) -> Vec<Vec<String>> {
        let steps = steps(members, &base.iter().copied().collect());
        steps.into_iter().map(|step| step.into_iter().map(|index| members[index].name.clone()).collect()).collect()
    }

    #[test]
    fn base_first_then_what_pre_dependencies_want() {
        let members = [
            member("app", "tool", "lib"),
            member("base-passwd", "", ""),
            member("dpkg", "libc", ""),
            member("lib", "", ""),
            member("libc", "", ""),
            member("tool", "", "lib2"),
            member("lib2", "init", ""),
            member("init", "", ""),
        ];
        assert_eq!(
            names(&members, &["base-passwd", "dpkg", "libc"]),
            [vec!["base-passwd"], vec!["dpkg", "libc"], vec!["init"], vec!["tool", "lib2"], vec!["app", "lib"]]
        );
    }

    #[test]
    fn cycles_end() {
        let members = [member("aa", "bb", ""), member("bb", "aa", ""), member("cc", "cc", "aa")];
        let all: Vec<String> = names(&members, &[]).concat();
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn each_package_is_in_one_step() {
        let members: Vec<Member> = (0..50)
            .map(|n| {
                member(&format!("p{n:02}"), &format!("p{:02}", (n * 7 + 3) % 50), &format!("p{:02}", (n * 13) % 50))
            })
            .collect();
        let mut all: Vec<String> = names(&members, &["p01", "p02"]).concat();
        all.sort();
        let expected: Vec<String> = members.iter().map(|one| one.name.clone()).collect();
        assert_eq!(all, expected);
    }
}
