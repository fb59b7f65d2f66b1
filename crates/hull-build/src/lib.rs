//! Builds: from a Dockerfile and a context to an image, or whatever else was asked for.
//!
//! ```text
//! hull_dockerfile::ast ── plan ──> graph ── solve ──> layers ── output ──> image, archive, directory, registry
//!                          │                  │  └─ cache   results by content, in the store
//!                          │                  ├─ files      contexts, downloads, repositories; COPY and ADD to layers
//!                          │                  └─ run        a step is a container
//!                          └─ what is asked for: request
//! ```
//!
//! * [`request`]: what is asked for, as plain data.
//! * [`graph`]: steps and what they need; everything is decided there except contents.
//! * [`solve`](mod@solve): every step to its layers.
//! * [`files`]: contexts and other sources; `COPY`, `ADD` and `WORKDIR` to layers.
//! * [`plan`](mod@plan): from a Dockerfile and a request to that graph.
//! * [`cache`]: results of steps, kept from build to build.
//! * [`remote`]: results that machines share.
//! * [`run`]: a step is a container.
//! * [`call`]: what is done with a Dockerfile instead of building it.
//! * [`record`]: what a build was made of: locks, provenance, and whether it comes out the same again.
//! * [`history`]: what was built.
//! * [`observer`]: what is told while it runs.

pub mod cache;
pub mod call;
mod config;
pub mod error;
pub mod files;
pub mod graph;
pub mod history;
pub mod observer;
mod output;
pub mod plan;
pub mod record;
pub mod remote;
pub mod request;
pub mod run;
pub mod solve;
mod sources;

pub use error::Error;
pub use observer::Observer;
pub use request::BuildRequest;
pub use solve::{Snapshot, Solver, solve};
pub use sources::begins_archive;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use hull_dockerfile::Excerpt;
use hull_engine::{Engine, RunConfig};
use hull_image::registry::Predicate;
use hull_oci::Digest;
use hull_oci::image::Platform;

use graph::NodeId;
use request::Provenance;
use sources::Sources;

/// What a build made.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// An image for each platform, in the order asked for.
    pub images: Vec<BuiltImage>,
    /// Digest of the index of several platforms, if one was pushed.
    pub index: Option<Digest>,
    /// Names in registries that it was pushed under, and the manifest or index that each means now.
    pub pushed: Vec<(hull_oci::Reference, Digest)>,
    /// What should be said.
    pub warnings: Vec<observer::Warning>,
    /// What came into it from outside.
    pub inputs: record::Inputs,
    /// What steps added, as far as that was looked at, and what of their layers was normalised.
    pub steps: Vec<record::lock::Step>,
}

/// One image.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// For what.
    pub platform: Platform,
    /// Digest of its configuration.
    pub id: Digest,
    /// Digest of its manifest, where one was made.
    pub manifest: Option<Digest>,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Its layers that were there before: of the base image.
    pub base_layers: usize,
}

/// A build that failed.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// The lines of the Dockerfile that are to blame, with those around them.
    pub excerpt: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(formatter)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, excerpt: None }
    }
}

/// Builds what is asked for, and puts the result where it is asked for. Steps start from `defaults`, which is what
/// `hull run` makes of no flags; `cancel` ends everything.
///
/// # Errors
/// [`Failure`]: results of steps that were finished stay in the cache.
pub fn build(
    engine: &Engine,
    defaults: &RunConfig,
    request: &BuildRequest,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<Built, Failure> {
    let recorder = history::Recorder::new(observer);
    let result = build_noted(engine, defaults, request, &recorder, recorder.started(), cancel);
    let canceled = cancel.load(std::sync::atomic::Ordering::Relaxed);
    if recorder.finish(&engine.images, request, &result, canceled) {
        // What cannot go now goes after the next build.
        let _ = cache::Cache::new(&engine.images).collect();
    }
    result
}

fn build_noted(
    engine: &Engine,
    defaults: &RunConfig,
    request: &BuildRequest,
    observer: &dyn Observer,
    started: SystemTime,
    cancel: &AtomicBool,
) -> Result<Built, Failure> {
    let transfer = engine.images.begin().map_err(Error::from)?;
    // Held until the end of the build.
    let (_agents, ssh) = run::keys::Agents::start(&request.ssh)?;
    let files = files::Sources::new(engine).with_secrets(&request.secrets).with_ssh(&ssh);
    let locked = locked(request)?;
    let applied = locked.as_ref().map(|lock| lock.apply(request));
    let request = applied.as_ref().unwrap_or(request);
    let writes = record::lock_to_write(request);
    let sources = Sources::new(engine, request, observer, &transfer, &files, locked.as_ref());
    let definition = sources.definition()?;
    let stale = locked.as_ref().map(|lock| lock.stale(request, &definition.text)).unwrap_or_default();
    if !stale.is_empty() {
        return Err(record::lock::refused(&stale).into());
    }
    let of_it = |error: Error| {
        let excerpt =
            error.lines().map(|lines| Excerpt { file: &definition.name, source: &definition.text, lines }.to_string());
        Failure { error, excerpt }
    };
    let (file, _) = hull_dockerfile::parse(&definition.text).map_err(|error| of_it(error.into()))?;
    let report = call::warnings(engine, request, &sources, &definition.text);
    let mut warnings: Vec<observer::Warning> = report.findings.iter().map(call::warning).collect();
    warnings.iter().for_each(|warning| observer.warning(warning));
    let exports = remote::Exports::new(request, observer)?;
    let imports = remote::Imports::new(&request.cache_from, &request.platforms, observer)?;
    let plan = match (plan::plan(&file, request, &sources), report.error) {
        // Where both find a defect, the rules name it and its line as BuildKit does.
        (Err(Error::Instruction { .. }), Some(error)) => return Err(of_it(error.into())),
        // Otherwise defects are the plan's to tell; what counts is whether the file says that findings are errors.
        (Ok(_), Some(error)) if report.denied => return Err(of_it(error.into())),
        (plan, _) => plan.map_err(of_it)?,
    };
    let certificates = request.certificates.as_deref().map(run::certificates).transpose()?;
    let cache = cache::Cache::new(&engine.images);
    // Looking at names again takes time that a build in which nothing changed does not have.
    let thorough = writes.is_some() || request.explain || request.lock.locked;
    let watcher = record::Watcher::new(locked.as_ref(), cache.clone(), thorough);
    let solver = Solver {
        engine,
        defaults,
        transfer: &transfer,
        files: &files,
        secrets: &request.secrets,
        certificates: certificates.as_deref(),
        ssh: &ssh,
        cancel,
        explain: request.explain,
        imports: &imports,
        watch: Some(&watcher),
    };
    let targets: Vec<NodeId> = plan.results.iter().map(|planned| planned.node).collect();
    let asked: Vec<NodeId> = plan.results.iter().flat_map(config::steps).collect();
    let solve::Solved { snapshots, made: known, keys } =
        solve::solve_asking(&solver, &plan.graph, &targets, &asked, observer).map_err(of_it)?;
    let unwatched = Solver { watch: None, ..solver };
    let all_cached = snapshots.iter().all(|snapshot| snapshot.cached);
    let mut steps = Vec::new();
    let mut ready = Vec::with_capacity(snapshots.len());
    for (planned, snapshot) in plan.results.iter().zip(snapshots) {
        let mut made = known.clone();
        if !config::all_made(planned, &snapshot.layers) && config::steps(planned).any(|step| !made.contains_key(&step))
        {
            // Some steps changed nothing, and the records of some are gone: they are done again.
            let mut graph = plan.graph.clone();
            graph.nodes.iter_mut().for_each(|node| node.ignore_cache = false);
            let steps: Vec<NodeId> = config::steps(planned).collect();
            let results = solve(&unwatched, &graph, &steps, &observer::Silent).map_err(of_it)?;
            made.extend(steps.into_iter().zip(results.into_iter().map(|result| result.added)));
        }
        let made = output::made_by(&made);
        let of = (definition.text.as_slice(), &plan.graph);
        steps.extend(record::steps((&cache, &files), of, planned, &snapshot.layers, &made, writes.is_some())?);
        let config = config::assemble(planned, &snapshot.layers, &made);
        let mut config = config::bytes(&config)?;
        if exports.inline {
            let results: Vec<NodeId> = config::steps(planned).collect();
            let steps = remote::Steps { graph: &plan.graph, keys: &keys, results: &results };
            config = remote::inline(&transfer, &steps, &snapshot.layers, config)?;
        }
        ready.push(output::Ready { planned, layers: snapshot.layers, config });
    }
    if let Some(warning) = watcher.warning() {
        observer.warning(&warning);
        warnings.push(warning);
    }
    let mut inputs = watcher.inputs();
    let store = &engine.images;
    let told =
        |id: &Digest| Ok::<bool, Error>(request.provenance == Provenance::Off || store.provenance(id)?.is_some());
    let mut anew = !all_cached || request.provenance == Provenance::Max;
    for one in &ready {
        anew = anew || !told(&Digest::of(&one.config))?;
    }
    if anew || writes.is_some() {
        record::describe(&mut inputs, request, sources.head());
    }
    let subject = record::provenance::Subject {
        request,
        dockerfile: (&definition.name, &definition.text),
        inputs: &inputs,
        steps: &steps,
        started,
    };
    let attest = |id: &Digest, platform: &Platform| match anew && request.provenance != Provenance::Off {
        true => {
            let predicate = record::provenance::predicate(subject, request.provenance, platform);
            store.keep_provenance(id, &predicate).map_err(Error::from)
        }
        false => Ok(()),
    };
    let predicates = |one: &output::Ready<'_>| {
        let id = Digest::of(&one.config);
        let mut all = Vec::new();
        if request.attest.provenance {
            let known = if anew { None } else { store.provenance(&id).map_err(Error::from)? };
            let platform = &one.planned.platform;
            let value = known.unwrap_or_else(|| record::provenance::predicate(subject, request.provenance, platform));
            all.push(Predicate { kind: hull_image::provenance::PREDICATE.to_owned(), value });
        }
        if request.attest.sbom {
            let value = record::sbom::predicate(&files, &one.layers, &id, one.planned)?;
            all.push(Predicate { kind: record::sbom::PREDICATE.to_owned(), value });
        }
        Ok::<_, Error>(all)
    };
    let exporter = output::Exporter {
        engine,
        request,
        observer,
        sources: &sources,
        transfer: &transfer,
        files: &files,
        attest: &attest,
        predicates: &predicates,
    };
    let output::Exported { images, index, pushed } = exporter.export(&ready).map_err(of_it)?;
    let done = remote::Steps { graph: &plan.graph, keys: &keys, results: &asked };
    exports.write(&remote::Results { transfer: &transfer, steps: &done, sources: &sources, observer })?;
    let date = plan.results.first().map_or(plan::NO_DATE, |planned| planned.created);
    if let Some(path) = writes {
        let mut lock = record::Lock::new(request, &definition.text, date, inputs.clone());
        lock.steps.clone_from(&steps);
        lock.results = images.iter().map(|image| (image.platform.to_string(), image.id.to_string())).collect();
        lock.write(path)?;
    }
    Ok(Built { images, index, pushed, warnings, inputs, steps })
}

/// Builds an image again, with nothing of the cache, and says how what comes out differs from it.
///
/// # Errors
/// [`Failure`]: when there is no such image, or it cannot be built.
pub fn verify(
    engine: &Engine,
    defaults: &RunConfig,
    request: &BuildRequest,
    image: &str,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<record::verify::Differences, Failure> {
    let store = &engine.images;
    let several = || Error::Request("--verify: an image is for one platform: build for that one".to_owned());
    if request.platforms.len() > 1 {
        return Err(several().into());
    }
    let image = store.find(image).map_err(Error::from)?;
    let _pin = store.pin(&image.id).map_err(Error::from)?;
    let before = store.config_bytes(&image.id).map_err(Error::from)?;
    let mut request = request.clone();
    request.no_cache = true;
    request.tags.clear();
    request.outputs =
        vec![request::Output { kind: request::OutputKind::CacheOnly, destination: None, attributes: BTreeMap::new() }];
    request.lock.write = false;
    // What is in the image counts, what is beside it does not.
    request.cache_to.retain(|entry| entry.kind == "inline");
    request.lock.path = request.lock.path.filter(|_| request.lock.locked);
    if request.platforms.is_empty() {
        request.platforms.push(image.config.platform.clone());
    }
    let built = build(engine, defaults, &request, observer, cancel)?;
    let [now] = built.images.as_slice() else { return Err(several().into()) };
    let transfer = store.begin().map_err(Error::from)?;
    Ok(record::verify::compare(store, &transfer, &before, &now.config)?)
}

/// What nothing may differ from.
fn locked(request: &BuildRequest) -> Result<Option<record::Lock>, Error> {
    let options = &request.lock;
    if !options.locked {
        return Ok(None);
    }
    let missing = |place: &dyn std::fmt::Display| {
        Error::Request(format!("--locked: there is no {place}: write it with 'hull build --lock'"))
    };
    let Some(path) = &options.path else { return Err(missing(&"hull.lock")) };
    record::Lock::read(path)?.map(Some).ok_or_else(|| missing(&path.display()))
}
