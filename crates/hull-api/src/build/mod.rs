//! Builds that clients ask for. Each is a process, `hull build`, which ends when its client goes.
//!
//! * [`classic`]: `POST /build` with its parameters, answered by lines.
//! * [`process`], [`work`]: the process, and where its files are.

mod classic;
mod output;
mod params;
pub(crate) mod process;
pub(crate) mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use hull_registry::credentials::Credential;
use serde_json::{Value, json};

use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::router::Route;
use crate::server::Api;
use process::{Command, Ender};
use work::Work;

pub(crate) const ROUTES: &[Route] = &[
    Route::new("POST", "/build", classic::build),
    Route::new("POST", "/build/prune", prune),
    Route::new("POST", "/build/cancel", cancel),
];

/// Builds that clients gave a name, so that they can be ended by it.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<BTreeMap<String, Arc<Ender>>>);

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Ender>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cancel(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let id = request.query.text("id");
    if id.is_empty() {
        return Err(Refusal::bad("build ID not provided"));
    }
    if let Some(ender) = api.builds.lock().get(id) {
        ender.end();
    }
    Ok(Reply::empty(204))
}

/// Empties the build cache by `hull builder prune`; returns what went, and how many bytes.
pub(crate) fn pruned(api: &Api, all: bool, keep: i64, space: i64) -> Result<(Vec<String>, u64), Refusal> {
    let mut words = Vec::new();
    if all {
        words.push("--all".to_owned());
    }
    // Nanoseconds.
    if keep > 0 {
        words.push(format!("--filter=until={}s", keep / 1_000_000_000));
    }
    if space > 0 {
        words.push(format!("--keep-storage={space}"));
    }
    run_prune(api, &words)
}

fn run_prune(api: &Api, words: &[String]) -> Result<(Vec<String>, u64), Refusal> {
    let mut command = crate::step::own(&api.engine);
    command.args(["builder", "prune", "--force"]).args(words).stdin(std::process::Stdio::null());
    let failed = |reason: &str| Refusal::failed(format!("prune the build cache: {}", hull_oci::spec::one_line(reason)));
    let output = command.output().map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(failed(words.lines().next_back().unwrap_or("it ended without a word")));
    }
    Ok(listed(&String::from_utf8_lossy(&output.stdout)))
}

/// `POST /build/prune`.
fn prune(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let known = ["description", "id", "inuse", "parent", "private", "shared", "type", "unused-for", "until"];
    let filters = request.query.filters(&known)?;
    let mut words = Vec::new();
    if request.query.truth("all") {
        words.push("--all".to_owned());
    }
    if let Some(until) = filters.values("until").chain(filters.values("unused-for")).next() {
        words.push(format!("--filter=until={until}"));
    }
    for name in ["keep-storage", "reserved-space"] {
        if let Some(space) = request.query.number::<u64>(name)?.filter(|space| *space > 0) {
            words.push(format!("--keep-storage={space}"));
        }
    }
    let (removed, size) = run_prune(api, &words)?;
    let removed = if removed.is_empty() { Value::Null } else { json!(removed) };
    Ok(Reply::json(200, &json!({ "CachesDeleted": removed, "SpaceReclaimed": size })))
}

/// What the command printed: an ID for each entry, and the sum.
fn listed(text: &str) -> (Vec<String>, u64) {
    let total = text.lines().find_map(|line| line.strip_prefix("Total")?.split_once(':').map(|(_, size)| size.trim()));
    let words = text.lines().filter_map(|line| line.split_whitespace().next());
    let entries = words.filter(|word| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    (entries.map(str::to_owned).collect(), total.map_or(0, bytes))
}

/// `1.5MB` as a number.
fn bytes(text: &str) -> u64 {
    let end = text.find(|one: char| !(one.is_ascii_digit() || one == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => 1.0,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of disks")]
    number.parse::<f64>().map_or(0, |number| (number * factor) as u64)
}

/// Gives a build the credentials that its client sent, and takes those of who runs the server away.
pub(crate) fn credentials(
    command: &mut Command,
    work: &Work,
    known: &BTreeMap<String, Credential>,
) -> Result<(), Refusal> {
    use base64::Engine as _;
    let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    let entry = |credential: &Credential| match credential {
        Credential::Password { username, password } => json!({ "auth": encode(format!("{username}:{password}")) }),
        Credential::Identity(token) => json!({ "identitytoken": token }),
        Credential::Bearer(token) => json!({ "registrytoken": token }),
    };
    let auths: BTreeMap<&String, Value> = known.iter().map(|(host, one)| (host, entry(one))).collect();
    work.secret("config.json", json!({ "auths": auths }).to_string().as_bytes())?;
    let directory: PathBuf = work.secrets().to_owned();
    for name in ["DOCKER_CONFIG", "XDG_RUNTIME_DIR"] {
        command.variables.push((name.to_owned(), directory.clone().into()));
    }
    command.variables.push(("REGISTRY_AUTH_FILE".to_owned(), directory.join("config.json").into()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prune_prints_is_read() {
        let text = "ID\tRECLAIMABLE\tSIZE\nabcdefghijkl01234\ttrue\t12MB\nTotal:\t1.5MB\n";
        assert_eq!(listed(text), (vec!["abcdefghijkl01234".to_owned()], 1_500_000));
        assert_eq!(listed("Total:\t0B\n"), (Vec::new(), 0));
        assert_eq!(bytes("12kB"), 12_000);
    }
}
