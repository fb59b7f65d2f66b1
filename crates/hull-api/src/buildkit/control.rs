//! The calls that clients make: `moby.buildkit.v1.Control` and `moby.buildkit.v1.frontend.LLBBridge`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hull_oci::image::Platform;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::builds::{Build, Made};
use super::grpc::{Call, Connection, Failure, code, end};
use super::{history, pb, solve};
use crate::api::Api;

/// What goes with each call of a client's frontend.
const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// The version of BuildKit that is spoken; clients decide by it what they may ask for.
const VERSION: &str = "v0.25.1";

/// What the bridge can do, in BuildKit's words.
const FRONTEND_CAPS: [&str; 13] = [
    "solve.base",
    "solve.inlinereturn",
    "return",
    "returnmap",
    "proto.refarray",
    "importcaches",
    "frontend.caps",
    "frontend.inputs",
    "reference.output",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
];

/// What builds can do, in BuildKit's words.
const LLB_CAPS: [&str; 18] = [
    "source.image",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.git",
    "source.http",
    "exec.meta.base",
    "exec.meta.ulimit",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exporter.multiple",
    "constraints",
    "platform",
    "meta.ignorecache",
];

fn version() -> pb::BuildkitVersion {
    pb::BuildkitVersion {
        package: "github.com/moby/buildkit".to_owned(),
        version: VERSION.to_owned(),
        revision: String::new(),
    }
}

fn worker(api: &Api) -> pb::WorkerRecord {
    let native = Platform::native();
    let platform =
        pb::Platform { architecture: native.architecture, os: native.os, variant: native.variant.unwrap_or_default() };
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut labels = BTreeMap::from([
        ("org.mobyproject.buildkit.worker.executor".to_owned(), "hull".to_owned()),
        ("org.mobyproject.buildkit.worker.hostname".to_owned(), name),
        // It says to clients that images are kept whole, with manifests and for any platform.
        ("org.mobyproject.buildkit.worker.snapshotter".to_owned(), "overlayfs".to_owned()),
    ]);
    let gateway = api.engine.networks().find("bridge").ok();
    if let Some(address) = gateway.and_then(|network| hull_network::host_gateways(&network).into_iter().next()) {
        labels.insert("org.mobyproject.buildkit.worker.moby.host-gateway-ip".to_owned(), address.to_string());
    }
    pb::WorkerRecord { id: "hull".to_owned(), labels, platforms: vec![platform], buildkit_version: Some(version()) }
}

/// Answers a call, however it ends.
pub(super) async fn answer(api: Arc<Api>, mut call: Call) {
    let unknown = |path: &str| Failure::new(code::UNIMPLEMENTED, format!("unknown method {path}"));
    let Some(method) = call.path.rsplit_once('/').map(|(service, method)| (service.to_owned(), method.to_owned()))
    else {
        let failure = unknown(&call.path);
        return call.fail(&failure);
    };
    match (method.0.as_str(), method.1.as_str()) {
        ("/moby.buildkit.v1.Control", "ListWorkers") => {
            call.answer(Ok(pb::ListWorkersResponse { record: vec![worker(&api)] })).await;
        }
        ("/moby.buildkit.v1.Control", "Info") => {
            call.answer(Ok(pb::InfoResponse { buildkit_version: Some(version()) })).await;
        }
        ("/moby.buildkit.v1.Control", "DiskUsage") => disk_usage(&api, call).await,
        ("/moby.buildkit.v1.Control", "Prune") => prune(&api, call).await,
        ("/moby.buildkit.v1.Control", "ListenBuildHistory") => history::listen(&api, call).await,
        ("/moby.buildkit.v1.Control", "UpdateBuildHistory") => history::update(&api, call).await,
        ("/moby.buildkit.v1.Control", "Session") => session(&api, call).await,
        ("/moby.buildkit.v1.Control", "Status") => status(&api, call).await,
        ("/moby.buildkit.v1.Control", "Solve") => {
            let result = match call.message::<pb::SolveRequest>().await {
                Err(failure) => Err(failure),
                Ok(request) => tokio::select! {
                    // A client that gives up takes its build with it: what runs ends where it is dropped.
                    () = call.abandoned() => return,
                    result = asked(&api, request) => result,
                },
            };
            call.answer(result.map(|made| pb::SolveResponse { exporter_response: made })).await;
        }
        ("/moby.buildkit.v1.frontend.LLBBridge", name) => bridge(&api, call, name).await,
        _ => {
            let failure = unknown(&call.path);
            call.fail(&failure);
        }
    }
}

/// Marks a build as ended, whatever becomes of the call that asked for it.
struct Ending(Arc<Build>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.ended = Some(Instant::now());
            state.kept.clear();
        });
    }
}

/// `Solve`: the build itself, or what becomes of what the client's own frontend returns.
async fn asked(api: &Arc<Api>, request: pb::SolveRequest) -> Result<Made, Failure> {
    let build = api.buildkit.of(&request.reference)?;
    let reference = request.reference.clone();
    let ending = Ending(Arc::clone(&build));
    let result = solved(api, &build, request).await;
    if build.look(|state| state.record.is_none()) {
        return result;
    }
    let (api, kept) = (Arc::clone(api), Arc::clone(&build));
    let keep = move || {
        history::keep(&api, &reference, &kept, &result);
        result
    };
    let result = tokio::task::spawn_blocking(keep).await;
    drop(ending);
    result.map_err(|_| Failure::unknown("the build broke off"))?
}

async fn solved(api: &Arc<Api>, build: &Arc<Build>, request: pb::SolveRequest) -> Result<Made, Failure> {
    let request = Arc::new(request);
    build.change(|state| {
        state.request = Some(Arc::clone(&request));
        state.began = Some(SystemTime::now());
    });
    if request.definition.as_ref().is_some_and(|definition| !definition.def.is_empty()) {
        return Err(Failure::new(code::UNIMPLEMENTED, "builds of raw LLB are not supported: give a Dockerfile"));
    }
    if request.frontend.is_empty() {
        let returned = build.wait(|state| state.returned.clone()).await??;
        let made = |reference: String| build.wait(move |state| Some(state.made.get(&reference).cloned()));
        match returned {
            Some(reference) => made(reference).await.map(Option::unwrap_or_default),
            None => Ok(Made::new()),
        }
    } else {
        let asked = solve::Asked {
            frontend: &request.frontend,
            options: &request.frontend_attrs,
            inputs: &request.frontend_inputs,
            imports: &[],
        };
        let record = history::begun(&request.reference, build, None);
        build.change(|state| state.record = Some(record));
        solve::frontend(api, build, &asked).await.map(|solved| solved.made)
    }
}

/// `Status`: everything that a build says, from its beginning to its end.
async fn status(api: &Arc<Api>, mut call: Call) {
    let reference = match call.message::<pb::StatusRequest>().await {
        Ok(request) => request.reference,
        Err(failure) => return call.fail(&failure),
    };
    let own = (Arc::clone(api), reference.clone());
    if let Ok(Some(said)) = tokio::task::spawn_blocking(move || history::said(&own.0, &own.1)).await {
        let Ok(mut out) = call.begin() else { return };
        for message in said {
            if out.send(&message).await.is_err() {
                return;
            }
        }
        return end(&mut out, &Ok(()));
    }
    let build = match api.buildkit.of(&reference) {
        Ok(build) => build,
        Err(failure) => return call.fail(&failure),
    };
    let Ok(mut out) = call.begin() else { return };
    let mut heard = 0;
    loop {
        let next = tokio::select! {
            () = out.abandoned() => return,
            next = build.next(heard) => next,
        };
        let Some(said) = next else { return end(&mut out, &Ok(())) };
        heard += said.len();
        for message in said {
            if out.send(&*message).await.is_err() {
                return;
            }
        }
    }
}

/// `Session`: what `POST /session` is, as a call whose messages are the bytes of the connection.
async fn session(api: &Arc<Api>, mut call: Call) {
    let (id, methods) = match super::offer(&call.headers) {
        Ok(offer) => offer,
        Err(refusal) => return call.fail(&Failure::new(code::INVALID_ARGUMENT, refusal.message)),
    };
    let Ok((ours, theirs)) = tokio::net::UnixStream::pair() else {
        return call.fail(&Failure::unknown("no connection can be made"));
    };
    let Ok(mut out) = call.begin() else { return };
    let (mut reader, mut writer) = ours.into_split();
    let api = Arc::clone(api);
    let served = tokio::spawn(async move { super::client(&api, Connection::of(theirs), id, methods).await });
    let mut buffer = vec![0; 32 << 10];
    loop {
        tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(length) if length > 0 => {
                    let message = pb::BytesMessage { data: buffer[..length].to_vec() };
                    if out.send(&message).await.is_err() {
                        break;
                    }
                }
                _ => break,
            },
            message = call.incoming.next::<pb::BytesMessage>() => match message {
                Ok(Some(message)) if writer.write_all(&message.data).await.is_ok() => {}
                _ => break,
            },
        }
    }
    drop((reader, writer));
    let _ = served.await;
    end(&mut out, &Ok(()));
}

/// `DiskUsage`.
async fn disk_usage(api: &Arc<Api>, call: Call) {
    let own = Arc::clone(api);
    let listed = tokio::task::spawn_blocking(move || crate::build::cached(&own)).await;
    let record = |one: serde_json::Value| {
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let time = |name: &str| {
            let nanoseconds = hull_engine::time::date(&text(name))?;
            Some(pb::Timestamp { seconds: i64::try_from(nanoseconds / 1_000_000_000).ok()?, nanos: 0 })
        };
        pb::UsageRecord {
            id: text("ID"),
            mutable: one["Mutable"] == true,
            in_use: false,
            size: one["Size"].as_i64().unwrap_or(0),
            created_at: time("CreatedAt"),
            last_used_at: time("LastUsedAt"),
            usage_count: one["UsageCount"].as_i64().unwrap_or(0),
            description: text("Description"),
            record_type: text("Type"),
            shared: one["Shared"] == true,
        }
    };
    let result = match listed {
        Ok(Ok(list)) => Ok(pb::DiskUsageResponse { record: list.into_iter().map(record).collect() }),
        Ok(Err(refusal)) => Err(Failure::unknown(refusal.message)),
        Err(_) => Err(Failure::unknown("the measuring broke off")),
    };
    call.answer(result).await;
}

/// `Prune`, which streams what it removed.
async fn prune(api: &Arc<Api>, mut call: Call) {
    let request: Result<pb::PruneRequest, Failure> = call.message().await;
    let removed = match request {
        Err(failure) => Err(failure),
        Ok(request) => {
            let api = Arc::clone(api);
            let work = move || crate::build::pruned(&api, request.all, request.keep_duration, request.reserved_space);
            let done = tokio::task::spawn_blocking(work).await;
            let failed = |_| Failure::unknown("the removal broke off");
            done.map_err(failed).and_then(|done| done.map_err(|refusal| Failure::unknown(refusal.message)))
        }
    };
    let (removed, size) = match removed {
        Err(failure) => return call.fail(&failure),
        Ok(done) => done,
    };
    let Ok(mut out) = call.begin() else { return };
    // Sizes are known of all together only.
    let mut size = i64::try_from(size).unwrap_or(i64::MAX);
    for id in removed {
        let record = pb::UsageRecord { id, size: std::mem::take(&mut size), ..pb::UsageRecord::default() };
        if out.send(&record).await.is_err() {
            return;
        }
    }
    end(&mut out, &Ok(()));
}

/// The calls of a client's own frontend.
async fn bridge(api: &Arc<Api>, mut call: Call, method: &str) {
    let name = call.metadata(BUILD_ID).unwrap_or_default().to_owned();
    let build = match api.buildkit.of(&name) {
        Ok(build) => build,
        Err(failure) => return call.fail(&failure),
    };
    match method {
        "Ping" => {
            let caps = |names: &[&str]| {
                names.iter().map(|name| pb::ApiCap { id: (*name).to_owned(), enabled: true }).collect::<Vec<_>>()
            };
            let pong = pb::PongResponse {
                frontend_caps: caps(&FRONTEND_CAPS),
                llb_caps: caps(&LLB_CAPS),
                workers: vec![worker(api)],
            };
            call.answer(Ok(pong)).await;
        }
        "Solve" => {
            let result = match call.message::<pb::BridgeSolveRequest>().await {
                Err(failure) => Err(failure),
                Ok(request) => tokio::select! {
                    () = call.abandoned() => return,
                    // When the build's own call ends, nobody wants this one's result.
                    _ = build.wait(|state| state.ended) => return,
                    result = bridged(api, &build, &name, request) => result,
                },
            };
            call.answer(result).await;
        }
        "Return" => {
            let result = match call.message::<pb::ReturnRequest>().await {
                Err(failure) => Err(failure),
                Ok(request) => {
                    let returned = match request.error {
                        Some(error) => {
                            Err(Failure { details: error.details, ..Failure::new(error.code, error.message) })
                        }
                        None => {
                            let reference = request.result.and_then(|result| result.reference).map(|one| one.id);
                            Ok(reference.filter(|id| !id.is_empty()))
                        }
                    };
                    build.change(|state| state.returned = Some(returned));
                    Ok(pb::Empty {})
                }
            };
            call.answer(result).await;
        }
        // What is solved is evaluated; of no other frontend there is any input; warnings are said by the build itself.
        "Evaluate" | "Inputs" | "Warn" => call.answer(Ok(pb::Empty {})).await,
        _ => {
            let text = format!("{method} is not supported: only the Dockerfile frontend is");
            call.fail(&Failure::new(code::UNIMPLEMENTED, text));
        }
    }
}

/// `LLBBridge.Solve`.
async fn bridged(
    api: &Arc<Api>,
    build: &Arc<Build>,
    name: &str,
    request: pb::BridgeSolveRequest,
) -> Result<pb::BridgeSolveResponse, Failure> {
    if request.frontend.is_empty() {
        // Nothing is asked for: an empty result.
        if request.definition.is_none_or(|definition| definition.def.is_empty()) {
            return Ok(pb::BridgeSolveResponse { result: Some(pb::BridgeResult::default()), ..Default::default() });
        }
        return Err(Failure::new(code::UNIMPLEMENTED, "builds of raw LLB are not supported: give a Dockerfile"));
    }
    let asked = solve::Asked {
        frontend: &request.frontend,
        options: &request.frontend_opt,
        inputs: &request.frontend_inputs,
        imports: &request.cache_imports,
    };
    // What is only asked for something is no build.
    if request.frontend_opt.get("requestid").is_none_or(String::is_empty) {
        let record = history::begun(name, build, Some((&request.frontend, &request)));
        build.change(|state| state.record = Some(record));
    }
    let solved = solve::frontend(api, build, &asked).await?;
    let definition = solved.kept.as_ref().map(|_| super::result::definition(&solved.reference));
    let reference = pb::BridgeRef { id: solved.reference.clone(), definition };
    build.change(|state| {
        state.kept.extend(solved.kept.map(|kept| (solved.reference.clone(), kept)));
        state.made.insert(solved.reference, solved.made);
    });
    let result = pb::BridgeResult { reference: Some(reference), metadata: solved.metadata };
    Ok(pb::BridgeSolveResponse { result: Some(result), ..Default::default() })
}
