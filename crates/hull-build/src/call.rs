//! What is done with a Dockerfile instead of building it: checks, and lists of what it offers.

use hull_dockerfile::ignore::Ignore;
use hull_dockerfile::lint::{self, Base, Finding, Options, Report};
use hull_engine::Engine;
use hull_oci::image::Platform;

use crate::graph::Op;
use crate::observer::{Silent, Warning};
use crate::plan::{Inputs, Place};
use crate::request::BuildRequest;
use crate::sources::Sources;
use crate::{Error, Failure, files};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The rules of `--check`.
    Check,
    /// Arguments, secrets and sockets of a target.
    Outline,
    /// Targets.
    Targets,
}

/// What comes of it.
#[derive(Clone, Debug, Default)]
pub struct Called {
    /// For standard output.
    pub output: String,
    /// For standard error.
    pub error: String,
    /// There is something to complain about.
    pub failed: bool,
}

/// Does it.
///
/// # Errors
/// When the Dockerfile cannot be read, or cannot be understood.
pub fn call(engine: &Engine, request: &BuildRequest, method: Method, json: bool) -> Result<Called, Failure> {
    let transfer = engine.images.begin().map_err(Error::from)?;
    let files = files::Sources::new(engine).with_secrets(&request.secrets).with_ssh(&request.ssh);
    let sources = Sources::new(engine, request, &Silent, &transfer, &files, None);
    let definition = sources.definition()?;
    let text = &definition.text;
    let failed = |error: hull_dockerfile::Error| {
        let excerpt = error.excerpt(&definition.name, text).map(|excerpt| excerpt.to_string());
        Failure { error: error.into(), excerpt }
    };
    let plain = |output: String| Called { output, ..Called::default() };
    match method {
        Method::Targets => {
            let targets = lint::targets(text).map_err(failed)?;
            Ok(plain(if json { targets.json(text) } else { targets.text() }))
        }
        Method::Outline => {
            let outline = with_options(engine, request, &sources, |options| lint::outline(text, options));
            let outline = outline.map_err(failed)?;
            Ok(plain(if json { outline.json(text) } else { outline.text() }))
        }
        Method::Check => {
            let report = report(engine, request, &sources, text);
            let (output, error) = if json {
                (report.json(&definition.name, text), String::new())
            } else {
                let printed = report.text(&definition.name, text);
                (printed.findings, printed.error)
            };
            Ok(Called { output, error, failed: report.failed() })
        }
    }
}

/// What the rules say of the stages that are built.
pub(crate) fn warnings(engine: &Engine, request: &BuildRequest, sources: &Sources<'_>, text: &[u8]) -> Report {
    with_options(engine, request, sources, |options| lint::check_build(text, options))
}

/// What the rules say of a Dockerfile.
fn report(engine: &Engine, request: &BuildRequest, sources: &Sources<'_>, text: &[u8]) -> Report {
    with_options(engine, request, sources, |options| lint::check(text, options))
}

fn with_options<T>(
    engine: &Engine,
    request: &BuildRequest,
    sources: &Sources<'_>,
    work: impl FnOnce(&Options<'_>) -> T,
) -> T {
    let native = Platform::native().to_string();
    let platform = request.platforms.first().map_or_else(|| native.clone(), ToString::to_string);
    // What cannot be read is told by who needs it.
    let ignore = match sources.context("") {
        Ok(Some(Place::Source(Op::Local(local)))) => Ignore::new(local.ignore.iter().map(String::as_str)).ok(),
        _ => None,
    };
    let base = |name: &str, _: &str| Ok(engine.images.find(name).ok().map(of_image));
    let options = Options {
        build_args: &request.build_args,
        target: request.target.as_deref(),
        platform: &platform,
        build_platform: &native,
        ignore: ignore.as_ref(),
        base: &base,
    };
    work(&options)
}

fn of_image(image: hull_image::Image) -> Base {
    let config = image.config.config;
    let pair = |variable: &String| {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        (name.to_owned(), value.to_owned())
    };
    Base {
        env: config.env.iter().map(pair).collect(),
        shell: !config.shell.is_empty(),
        onbuild: config.on_build,
        platform: Some(image.config.platform.to_string()),
    }
}

/// A finding as builds tell it.
pub(crate) fn warning(finding: &Finding) -> Warning {
    let url = finding.rule.url();
    Warning {
        message: finding.short(),
        detail: Some(finding.rule.description().to_owned()),
        url: (!url.is_empty()).then_some(url),
        lines: Some(finding.lines),
    }
}
