//! Builds that clients ask for. Each is a process, `hull build`, which ends when its client goes.
//!
//! * [`classic`]: `POST /build` with its parameters, answered by lines.
//! * [`process`], [`work`]: the process, and where its files are.

mod classic;
mod output;
mod params;
pub(crate) mod process;
pub(crate) mod running;
pub(crate) mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use hull_registry::credentials::Credential;
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::route::Route;
use process::Command;
use work::Work;

pub(crate) const ROUTES: &[Route] = &[
    Route::new("POST", "/build", classic::build),
    Route::new("POST", "/build/prune", prune),
    Route::new("POST", "/build/cancel", cancel),
];

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
    command.args(["builder", "prune", "--force", "--format=json"]).args(words).stdin(std::process::Stdio::null());
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
    let failed = |refusal: Refusal| {
        let message = format!("failed to prune build cache: {}", refusal.message);
        Refusal { message, ..refusal }
    };
    let filters = request.query.filters(&known).map_err(failed)?;
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

/// What the command printed: a document for each entry, and one with the sum.
fn listed(text: &str) -> (Vec<String>, u64) {
    let documents: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ids = documents.iter().filter_map(|one| one["ID"].as_str().map(str::to_owned)).collect();
    (ids, documents.iter().find_map(|one| one["Reclaimed"].as_u64()).unwrap_or(0))
}

/// What the build cache has, a document for each entry.
pub(crate) fn cached(api: &Api) -> Result<Vec<Value>, Refusal> {
    let mut command = crate::step::own(&api.engine);
    command.args(["builder", "du", "--format=json"]).stdin(std::process::Stdio::null());
    let output = command.output().map_err(|error| Refusal::failed(format!("measure the build cache: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut all: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for one in &mut all {
        one["Parents"] = Value::Null;
    }
    Ok(all)
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
        let text = "{\"ID\":\"r1\",\"Size\":7}\n{\"Reclaimed\":1500000}\n";
        assert_eq!(listed(text), (vec!["r1".to_owned()], 1_500_000));
        assert_eq!(listed(""), (Vec::new(), 0));
    }
}
