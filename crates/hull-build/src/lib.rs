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

use std::sync::atomic::AtomicBool;

use hull_dockerfile::Excerpt;
use hull_engine::{Engine, RunConfig};
use hull_oci::Digest;
use hull_oci::image::Platform;

use graph::NodeId;
use sources::Sources;

/// What a build made.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// An image for each platform, in the order asked for.
    pub images: Vec<BuiltImage>,
    /// What should be said.
    pub warnings: Vec<observer::Warning>,
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
    let result = build_noted(engine, defaults, request, &recorder, cancel);
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
    cancel: &AtomicBool,
) -> Result<Built, Failure> {
    let transfer = engine.images.begin().map_err(Error::from)?;
    let files = files::Sources::new(engine).with_secrets(&request.secrets).with_ssh(&request.ssh);
    let sources = Sources::new(engine, request, observer, &transfer, &files);
    let definition = sources.definition()?;
    let of_it = |error: Error| {
        let excerpt =
            error.lines().map(|lines| Excerpt { file: &definition.name, source: &definition.text, lines }.to_string());
        Failure { error, excerpt }
    };
    let (file, _) = hull_dockerfile::parse(&definition.text).map_err(|error| of_it(error.into()))?;
    let report = call::warnings(engine, request, &sources, &definition.text);
    let warnings: Vec<observer::Warning> = report.findings.iter().map(call::warning).collect();
    warnings.iter().for_each(|warning| observer.warning(warning));
    let exports = remote::Exports::new(request)?;
    let imports = remote::Imports::new(&request.cache_from, &request.platforms, observer)?;
    let plan = match (plan::plan(&file, request, &sources), report.error) {
        // Where both find a defect, the rules name it and its line as BuildKit does.
        (Err(Error::Instruction { .. }), Some(error)) => return Err(of_it(error.into())),
        // Otherwise defects are the plan's to tell; what counts is whether the file says that findings are errors.
        (Ok(_), Some(error)) if report.denied => return Err(of_it(error.into())),
        (plan, _) => plan.map_err(of_it)?,
    };
    let certificates = request.certificates.as_deref().map(run::certificates).transpose()?;
    let solver = Solver {
        engine,
        defaults,
        transfer: &transfer,
        files: &files,
        secrets: &request.secrets,
        certificates: certificates.as_deref(),
        ssh: &request.ssh,
        cancel,
        explain: request.explain,
        imports: &imports,
    };
    let targets: Vec<NodeId> = plan.results.iter().map(|planned| planned.node).collect();
    let steps: Vec<NodeId> = plan.results.iter().flat_map(config::steps).collect();
    let solve::Solved { snapshots, made: known, keys } =
        solve::solve_asking(&solver, &plan.graph, &targets, &steps, observer).map_err(of_it)?;
    let mut ready = Vec::with_capacity(snapshots.len());
    for (planned, snapshot) in plan.results.iter().zip(snapshots) {
        let mut made = known.clone();
        if !config::all_made(planned, &snapshot.layers) && config::steps(planned).any(|step| !made.contains_key(&step))
        {
            // Some steps changed nothing, and the records of some are gone: they are done again.
            let mut graph = plan.graph.clone();
            graph.nodes.iter_mut().for_each(|node| node.ignore_cache = false);
            let steps: Vec<NodeId> = config::steps(planned).collect();
            let results = solve(&solver, &graph, &steps, &observer::Silent).map_err(of_it)?;
            made.extend(steps.into_iter().zip(results.into_iter().map(|result| result.added)));
        }
        let config = config::assemble(planned, &snapshot.layers, &output::made_by(&made));
        let mut config = config::bytes(&config)?;
        if exports.inline {
            let results: Vec<NodeId> = config::steps(planned).collect();
            let steps = remote::Steps { graph: &plan.graph, keys: &keys, results: &results };
            config = remote::inline(&transfer, &steps, &snapshot.layers, config)?;
        }
        ready.push(output::Ready { planned, layers: snapshot.layers, config });
    }
    let exporter =
        output::Exporter { engine, request, observer, sources: &sources, transfer: &transfer, files: &files };
    let images = exporter.export(&ready).map_err(of_it)?;
    let results = remote::Steps { graph: &plan.graph, keys: &keys, results: &steps };
    exports.write(&transfer, &results, &sources, observer)?;
    Ok(Built { images, warnings })
}
