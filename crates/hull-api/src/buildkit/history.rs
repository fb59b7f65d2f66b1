//! What was built through BuildKit's protocol: `docker buildx history` asks for it.
//!
//! ```text
//! ROOT/build/asked/REF    the record and then everything that the build said: messages, each behind its length
//! ```
//!
//! A file is written whole when a build has ended, and the oldest go when there are more than [`KEPT`]. A socket that
//! shows only what has certain labels shows and keeps no builds: they have none.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use prost::Message as _;

use super::builds::{Build, Made};
use super::grpc::{Call, Failure, code, end};
use super::pb::{self, HistoryEvent, HistoryRecord, history};
use crate::api::Api;

/// So many builds are remembered.
const KEPT: usize = 50;

/// What a build said is remembered up to so many bytes.
const MAX_SAID: usize = 4 << 20;

/// How often those who stay look for what has ended.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

fn directory(api: &Api) -> Option<PathBuf> {
    api.options.labels.is_empty().then(|| api.engine.root().join("build/asked"))
}

/// The file of a build. Names come from clients.
fn path(api: &Api, reference: &str) -> Option<PathBuf> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_safe = !reference.is_empty() && reference.len() <= 128 && reference.bytes().all(is_name);
    is_safe.then(|| directory(api)).flatten().map(|directory| directory.join(reference))
}

/// The time now.
fn now() -> Option<pb::Timestamp> {
    time(SystemTime::now())
}

fn time(at: SystemTime) -> Option<pb::Timestamp> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(pb::Timestamp {
        seconds: i64::try_from(since.as_secs()).ok()?,
        nanos: i32::try_from(since.subsec_nanos()).ok()?,
    })
}

/// What is known of a build while it runs.
pub(super) fn begun(
    reference: &str,
    build: &Build,
    frontend: Option<(&str, &pb::BridgeSolveRequest)>,
) -> HistoryRecord {
    build.look(|state| {
        let request = state.request.as_deref().cloned().unwrap_or_default();
        let (name, attrs) = match frontend {
            Some((name, asked)) => (name.to_owned(), asked.frontend_opt.clone()),
            None => (request.frontend, request.frontend_attrs),
        };
        HistoryRecord {
            reference: reference.to_owned(),
            frontend: name,
            frontend_attrs: attrs,
            exporters: request.exporters,
            created: state.began.and_then(time),
            ..HistoryRecord::default()
        }
    })
}

/// Remembers a build that has ended; nothing if it was only asked for something that is no build.
pub(super) fn keep(api: &Api, reference: &str, build: &Build, result: &Result<Made, Failure>) {
    let Some(path) = path(api, reference) else { return };
    let Some(mut record) = build.look(|state| state.record.clone()) else { return };
    let said = build.look(|state| state.said.clone());
    record.completed = now();
    match result {
        Ok(made) => record.exporter_response.clone_from(made),
        Err(failure) => {
            let (code, message) = (failure.code, failure.message.clone());
            record.error = Some(pb::Status { code, message, details: Vec::new() });
        }
    }
    let mut steps = std::collections::BTreeMap::new();
    for vertex in said.iter().flat_map(|message| &message.vertexes) {
        steps.insert(&vertex.digest, (vertex.cached, vertex.completed.is_some()));
    }
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    record.total_steps = count(steps.len());
    record.cached_steps = count(steps.values().filter(|(cached, _)| *cached).count());
    record.completed_steps = count(steps.values().filter(|(_, completed)| *completed).count());
    record.warnings = count(said.iter().map(|message| message.warnings.len()).sum());
    let mut bytes = record.encode_length_delimited_to_vec();
    for message in said {
        let message = message.encode_length_delimited_to_vec();
        if bytes.len() + message.len() > MAX_SAID {
            break;
        }
        bytes.extend_from_slice(&message);
    }
    // A build does not fail because it cannot be remembered.
    if let Some(directory) = path.parent()
        && fs::create_dir_all(directory).is_ok()
        && hull_fs::atomic::write_path(&path, &bytes, 0o600).is_ok()
    {
        forget_oldest(directory);
    }
}

fn forget_oldest(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut all: Vec<(SystemTime, PathBuf)> =
        entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    all.sort();
    let surplus = all.len().saturating_sub(KEPT);
    for (_, path) in all.into_iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
}

fn read(path: &Path) -> Option<(HistoryRecord, Vec<pb::StatusResponse>)> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(2 * MAX_SAID as u64).read_to_end(&mut bytes).ok()?;
    let mut rest = &bytes[..];
    let record = HistoryRecord::decode_length_delimited(&mut rest).ok()?;
    let mut said = Vec::new();
    while !rest.is_empty() {
        said.push(pb::StatusResponse::decode_length_delimited(&mut rest).ok()?);
    }
    Some((record, said))
}

/// What a build that has ended said.
pub(super) fn said(api: &Api, reference: &str) -> Option<Vec<pb::StatusResponse>> {
    read(&path(api, reference)?).map(|(_, said)| said)
}

/// Builds that have ended, the newest first.
fn ended(api: &Api) -> Vec<HistoryRecord> {
    let Some(directory) = directory(api) else { return Vec::new() };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut all: Vec<HistoryRecord> =
        entries.filter_map(|entry| read(&entry.path()).map(|(record, _)| record)).collect();
    all.sort_by_key(|record| {
        std::cmp::Reverse(record.created.as_ref().map(|time| (time.seconds, time.nanos)).unwrap_or_default())
    });
    all
}

/// Those of a client's filters that are understood: `status=running|completed|error|canceled`.
fn fits(record: &HistoryRecord, filters: &[String]) -> bool {
    let status = match (&record.completed, &record.error) {
        (None, _) => "running",
        (_, None) => "completed",
        (_, Some(error)) if error.code == code::CANCELED => "canceled",
        _ => "error",
    };
    // One that is not understood hides nothing; clients filter again.
    let wanted = |filter: &String| match filter.split_once("!=").or_else(|| filter.split_once("==")) {
        Some(("status", value)) => (status == value) != filter.contains("!="),
        _ => true,
    };
    filters.iter().all(wanted)
}

/// `ListenBuildHistory`.
pub(super) async fn listen(api: &Arc<Api>, mut call: Call) {
    let request = match call.message::<pb::HistoryRequest>().await {
        Ok(request) => request,
        Err(failure) => return call.fail(&failure),
    };
    let Ok(mut out) = call.begin() else { return };
    let mut told = std::collections::BTreeSet::new();
    let mut is_first = true;
    loop {
        let own = Arc::clone(api);
        let wants_ended = !request.active_only;
        let look = move || {
            let active = if own.options.labels.is_empty() { own.buildkit.active() } else { Vec::new() };
            let ended = if wants_ended { ended(&own) } else { Vec::new() };
            let active = active.into_iter().map(|record| (history::STARTED, record));
            active.chain(ended.into_iter().map(|record| (history::COMPLETE, record))).collect::<Vec<_>>()
        };
        let all = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let wanted = |record: &HistoryRecord| {
            (request.reference.is_empty() || request.reference == record.reference) && fits(record, &request.filter)
        };
        let most = usize::try_from(request.limit).ok().filter(|most| is_first && *most > 0).unwrap_or(usize::MAX);
        for (kind, record) in all.into_iter().filter(|(_, record)| wanted(record)).take(most) {
            if told.insert((kind, record.reference.clone()))
                && out.send(&HistoryEvent { kind, record: Some(record) }).await.is_err()
            {
                return;
            }
        }
        is_first = false;
        if request.early_exit {
            return end(&mut out, &Ok(()));
        }
        tokio::select! {
            () = out.abandoned() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// `UpdateBuildHistory`: forgets a build.
pub(super) async fn update(api: &Arc<Api>, mut call: Call) {
    let result = match call.message::<pb::UpdateHistoryRequest>().await {
        Err(failure) => Err(failure),
        Ok(request) => match path(api, &request.reference) {
            _ if request.pinned => {
                Err(Failure::new(code::UNIMPLEMENTED, "builds are not pinned: the last 50 are kept"))
            }
            Some(path) if request.delete => match fs::remove_file(path) {
                Ok(()) => Ok(pb::Empty {}),
                Err(_) => {
                    let told = hull_oci::spec::one_line(&request.reference);
                    Err(Failure::new(code::NOT_FOUND, format!("no record of build {told}")))
                }
            },
            Some(_) => Ok(pb::Empty {}),
            None => Err(Failure::new(code::NOT_FOUND, "no record of this build")),
        },
    };
    call.answer(result).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_remembered_with_what_it_said_until_it_is_the_oldest() {
        let home = tempfile::tempdir().expect("a directory");
        let engine = hull_engine::Engine::new(home.path().join("root"), home.path().join("state"));
        let api = Api::new(engine, crate::Options::default());
        let build = api.buildkit.of("first").expect("a build");
        let record = HistoryRecord { reference: "first".to_owned(), created: now(), ..HistoryRecord::default() };
        build.change(|state| state.record = Some(record.clone()));
        let vertex = pb::Vertex { digest: "d".to_owned(), cached: true, completed: now(), ..pb::Vertex::default() };
        build.say(pb::StatusResponse { vertexes: vec![vertex], ..pb::StatusResponse::default() });
        keep(&api, "first", &build, &Ok(Made::from([("k".to_owned(), "v".to_owned())])));
        let all = ended(&api);
        assert_eq!((all.len(), all[0].cached_steps, all[0].exporter_response["k"].as_str()), (1, 1, "v"));
        assert_eq!(said(&api, "first").map(|said| said.len()), Some(1));
        assert!(fits(&all[0], &["status==completed".to_owned()]) && !fits(&all[0], &["status==error".to_owned()]));
        for number in 0..KEPT {
            keep(&api, &format!("other-{number}"), &build, &Err(Failure::unknown("x")));
        }
        assert_eq!(ended(&api).len(), KEPT);
        assert!(path(&api, "../x").is_none() && path(&api, "").is_none());
    }
}
