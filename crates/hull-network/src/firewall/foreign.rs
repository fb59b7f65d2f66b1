//! Other programs' forward chains that drop what they do not know: ufw, firewalld, dockerd leave such behind.
//!
//! An `accept` here does not overrule a `drop` there: each chain of a hook has its say. Where such a chain is found, two
//! rules go into it: what comes from Hull's bridges and what goes to them is accepted, for Hull's own table has said
//! already what may pass. They stand at the end, so that everything the administrator wrote is asked first; before the last
//! rule where that drops or rejects everything; at the start in firewalld's table, whose policies end in a rejection. They are written so that
//! `iptables` can show them, carry a comment, and are removed when the last bridge goes.

use hull_netlink::nft::{
    Base, Batch, ChainFound, Expression, Family, Hook, MetaKey, Place, RuleFound, Socket, Verdict,
};

use super::layout::{PREFIX, TABLE};
use crate::Error;

/// Comment of the two rules.
const COMMENT: &str = "hull: containers";

/// A chain that drops what it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) family: Family,
    pub(crate) table: String,
    pub(crate) chain: String,
    /// Where the rules go.
    place: Place,
    /// Handles of rules that are there.
    ours: Vec<u64>,
    /// Names that are served, with `*` for a prefix.
    served: Vec<String>,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {} {}", self.family.as_str(), self.table, self.chain)
    }
}

fn comment(name: &str) -> String {
    format!("{COMMENT} {name}")
}

/// Whether the rule ends the chain for every packet.
fn is_last_word(rule: &RuleFound) -> bool {
    let names: Vec<&str> =
        rule.expressions.iter().map(String::as_str).filter(|name| !matches!(*name, "counter" | "log")).collect();
    matches!(names.as_slice(), ["reject" | "immediate"])
}

fn drops(chain: &ChainFound, rules: &[RuleFound]) -> Option<Place> {
    let base: Base = chain.base?;
    if base.hook != Hook::Forward
        || chain.family == Family::Bridge
        || (chain.family == Family::Inet && chain.table == TABLE)
    {
        return None;
    }
    let last = rules.iter().rev().find(|rule| !rule.comment.starts_with(COMMENT));
    // An unconditional jump looks the same as a verdict here; with a drop policy the end is the right place anyhow.
    let rejects = last.filter(|rule| is_last_word(rule) && rule.expressions.iter().any(|name| name == "reject"));
    if chain.table == "firewalld" && (base.drop || rejects.is_some()) {
        return Some(Place::First);
    }
    match rejects {
        Some(rule) => Some(Place::Before(rule.handle)),
        None => base.drop.then_some(Place::Last),
    }
}

/// Every chain in the way, and every one with rules of ours in it.
pub(crate) fn obstacles(socket: &mut Socket) -> Result<(Vec<Obstacle>, Vec<Obstacle>), Error> {
    let (mut there, mut former) = (Vec::new(), Vec::new());
    for chain in socket.chains()? {
        if chain.base.is_none_or(|base| base.hook != Hook::Forward)
            || (chain.family, chain.table.as_str()) == (Family::Inet, TABLE)
        {
            continue;
        }
        let rules = socket.rules(chain.family, &chain.table, Some(&chain.name))?;
        let ours: Vec<&RuleFound> = rules.iter().filter(|rule| rule.comment.starts_with(COMMENT)).collect();
        let place = drops(&chain, &rules);
        let mut served: Vec<String> = ours
            .iter()
            .filter_map(|rule| rule.comment.strip_prefix(COMMENT))
            .map(|name| name.trim().to_owned())
            .collect();
        served.sort();
        // Both directions or none.
        let mut pairs = Vec::new();
        for name in &served {
            if served.iter().filter(|other| *other == name).count() == 2 && !pairs.contains(name) {
                pairs.push(name.clone());
            }
        }
        let obstacle = Obstacle {
            family: chain.family,
            table: chain.table.clone(),
            chain: chain.name.clone(),
            place: place.unwrap_or(Place::Last),
            ours: ours.iter().map(|rule| rule.handle).collect(),
            served: pairs,
        };
        if place.is_some() {
            there.push(obstacle);
        } else if !obstacle.ours.is_empty() {
            former.push(obstacle);
        }
    }
    Ok((there, former))
}

/// The names that must be served: all of Hull's at once, and those that users chose.
pub(crate) fn names<'a>(devices: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> =
        devices.map(|name| if name.starts_with(PREFIX) { format!("{PREFIX}*") } else { name.to_owned() }).collect();
    names.sort();
    names.dedup();
    names
}

/// Puts rules where they are needed and missing, and takes them out where they are not needed any more. Gives a line for
/// the user for each chain that was changed.
pub(crate) fn serve(socket: &mut Socket, names: &[String]) -> Result<Vec<String>, Error> {
    let (there, former) = obstacles(socket)?;
    let mut said = Vec::new();
    for obstacle in there {
        if obstacle.served == names && obstacle.ours.len() == names.len() * 2 {
            continue;
        }
        let mut batch = Batch::new(obstacle.family, &obstacle.table);
        for handle in &obstacle.ours {
            batch.delete_rule(&obstacle.chain, *handle);
        }
        for name in names {
            for key in [MetaKey::OifName, MetaKey::IifName] {
                let device = match name.strip_suffix('*') {
                    Some(prefix) => Expression::interface_prefix(key, prefix),
                    None => Expression::interface(key, false, name),
                };
                let steps = [device, Expression::Counter, Expression::Verdict(Verdict::Accept)];
                batch.add_rule(&obstacle.chain, obstacle.place, &comment(name), &steps);
            }
        }
        match socket.commit(batch) {
            Ok(()) if names.is_empty() => said.push(format!("removed the rules for containers from {obstacle}")),
            Ok(()) => said.push(format!(
                "{obstacle} drops what it does not know: added rules that accept what comes from or goes to {}",
                names.join(", ")
            )),
            // A table that belongs to a running program.
            Err(error) => said.push(format!("{obstacle} drops what it does not know, and cannot be changed: {error}")),
        }
    }
    for obstacle in former {
        let mut batch = Batch::new(obstacle.family, &obstacle.table);
        for handle in &obstacle.ours {
            batch.delete_rule(&obstacle.chain, *handle);
        }
        if socket.commit(batch).is_ok() {
            said.push(format!("removed the rules for containers from {obstacle}"));
        }
    }
    Ok(said)
}

/// Chains that drop what containers send, in words; for `doctor`.
pub(crate) fn unserved(socket: &mut Socket, names: &[String]) -> Result<Vec<Obstacle>, Error> {
    Ok(obstacles(socket)?
        .0
        .into_iter()
        .filter(|obstacle| names.iter().any(|name| !obstacle.served.contains(name)))
        .collect())
}
