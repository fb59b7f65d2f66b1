//! `hull build`.

mod plain;
mod progress;
mod raw;
mod request;
mod squash;
mod terminal;
mod verify;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ArgAction;
use hull_build::{BuildRequest, Built};
use hull_engine::Engine;
use serde_json::json;

use super::{Done, Failure};
use crate::output::print;

/// Exit code of a build that was interrupted.
const INTERRUPTED: u8 = 130;

/// Build an image from a Dockerfile
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  hull build -t app .\n  hull build -f Dockerfile.test --target test --build-arg VERSION=1.2 .\n  hull build --secret id=token,env=TOKEN --output type=local,dest=out .\n  hull build --check ."
)]
pub(super) struct Args {
    /// Print help
    #[arg(long, short = 'h', action = ArgAction::Help)]
    help: Option<bool>,
    /// Name of the image, NAME[:TAG]; may be given several times
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    tags: Vec<String>,
    /// The Dockerfile [default: Dockerfile of the context]; '-' is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE", default_value = "", hide_default_value = true)]
    target: String,
    /// Value of an ARG, NAME=VALUE; without '=' that of this process's variable
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Another context, NAME=VALUE: a directory, docker-image://, oci-layout://, target:, or an address
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    contexts: Vec<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Annotation of the image
    #[arg(long = "annotation", value_name = "[TYPE:]KEY=VALUE")]
    annotations: Vec<String>,
    /// Secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// Let programs of RUN steps trust this machine's certificate authorities, or those of a file, while they run
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "host")]
    host_certificates: Option<PathBuf>,
    /// Agent's socket or key for RUN --mount=type=ssh: default or ID[=SOCKET|KEY,...]
    #[arg(long, value_name = "ID[=PATH]")]
    ssh: Vec<String>,
    /// Line of /etc/hosts of every step, HOST:ADDRESS
    #[arg(long = "add-host", value_name = "HOST:ADDRESS")]
    hosts: Vec<String>,
    /// Network of RUN steps: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default", hide_default_value = true)]
    network: String,
    /// Allow what is dangerous: network.host, security.insecure
    #[arg(long, value_name = "WHAT")]
    allow: Vec<String>,
    /// Do every step again
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    no_cache: bool,
    /// Do every step of these stages again
    #[arg(long, value_name = "STAGE,...", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Ask registries for base images even if they are here
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pull: bool,
    /// Platform to build for; several with commas
    #[arg(long, value_name = "OS/ARCH,...", value_delimiter = ',')]
    platform: Vec<String>,
    /// What is made: type=image|docker|oci|local|tar|registry|cacheonly[,dest=PATH]...; a path is a directory
    #[arg(short, long = "output", value_name = "OUTPUT")]
    outputs: Vec<String>,
    /// As --output=type=docker
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    load: bool,
    /// As --output=type=registry
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    push: bool,
    /// Results of other builds: NAME, type=registry,ref=NAME, type=local,src=DIRECTORY or type=gha[,scope=NAME]
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Where results are put for other builds: type=registry,ref=NAME, type=local,dest=DIRECTORY, type=gha or type=inline,
    /// each with mode=max for all steps
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Merge the layers that this build adds into one
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    squash: bool,
    /// Security of each step, as of 'hull run': seccomp=, apparmor=, label=, no-new-privileges
    #[arg(long = "security-opt", value_name = "OPTION")]
    security_options: Vec<String>,
    /// Write the image's ID to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Print only the image's ID
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    quiet: bool,
    /// How progress is shown: auto, plain, tty, rawjson, quiet or none
    #[arg(long, value_name = "HOW")]
    progress: Option<String>,
    /// Say of each step that is not in the cache what differs
    #[arg(long)]
    explain: bool,
    /// Times of files: fixed (the same inputs give the same image) or keep (as they are)
    #[arg(long, value_name = "HOW", default_value = "fixed", value_parser = ["fixed", "keep"], hide_default_value = true, hide_possible_values = true)]
    timestamps: String,
    /// Leave layers of RUN as they are: with logs, machine IDs and times of package managers
    #[arg(long, alias = "no-normalize")]
    no_normalise: bool,
    /// Write what the build is made of to hull.lock, beside the Dockerfile; one that is there is kept up to date anyway
    #[arg(long, conflicts_with = "locked")]
    lock: bool,
    /// Build only of what hull.lock has
    #[arg(long)]
    locked: bool,
    /// Where the lock is instead
    #[arg(long, value_name = "FILE")]
    lock_file: Option<PathBuf>,
    /// Build IMAGE again, with nothing of the cache, and tell which steps and files differ
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["outputs", "push", "load"])]
    verify: Option<String>,
    /// How it was built, kept with the image and pushed along: true, false, mode=min or mode=max; said expressly, it is
    /// also put beside the image in an index that is pushed or written
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "HOW")]
    provenance: Option<String>,
    /// Put a list of the image's packages (SPDX) beside it in an index that is pushed or written
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    sbom: Option<String>,
    /// What is put beside the image: type=provenance[,mode=max] or type=sbom
    #[arg(long, value_name = "ATTESTATION")]
    attest: Vec<String>,
    /// Sign what was pushed with this private key, as cosign does; COSIGN_PASSWORD is its password
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Check the Dockerfile and build nothing
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    check: bool,
    /// What is done: build, check, outline or targets[,format=json]
    #[arg(long, value_name = "METHOD", default_value = "build", hide_default_value = true)]
    call: String,
    /// Bytes of /dev/shm of every step
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// Limit of every step, NAME=SOFT[:HARD]
    #[arg(long = "ulimit", value_name = "LIMIT")]
    ulimits: Vec<String>,
    /// Memory of each step
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory and swap of each step, or -1
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// CPUs of each step
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Share of the CPUs when they are scarce
    #[arg(short, long, value_name = "NUMBER")]
    cpu_shares: Option<String>,
    /// Length of a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<String>,
    /// Time on CPUs in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<String>,
    /// CPUs that may be used: 0-3,5
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that may be used
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,
    /// Limits of each step: memory=2g,cpu-quota=50000,...
    #[arg(long, value_name = "LIMIT=VALUE,...")]
    resource: Vec<String>,
    /// Control group above those of the steps
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Isolation of the steps: compat, standard or hardened
    #[arg(long, value_name = "LEVEL")]
    security: Option<String>,
    /// Accepted for compatibility: there is one builder
    #[arg(long, value_name = "NAME", hide = true)]
    builder: Option<String>,
    /// Accepted for compatibility
    #[arg(short = 'D', long, hide = true)]
    debug: bool,
    /// Accepted for compatibility: nothing is left of steps
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set, hide = true)]
    rm: bool,
    /// Accepted for compatibility
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide = true)]
    force_rm: bool,
    /// Accepted for compatibility
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set, hide = true)]
    compress: bool,
    /// Accepted for compatibility
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set, hide = true)]
    disable_content_trust: bool,
    /// Accepted for compatibility
    #[arg(long, value_name = "ISOLATION", hide = true)]
    isolation: Option<String>,
    /// The context: a directory, an address of an archive or a Git repository, or '-' for standard input
    #[arg(value_name = "PATH|URL|-")]
    context: Option<String>,
}

impl Args {
    /// What can be made of them without looking at the machine.
    pub(super) fn understand(&self) {
        drop(request::defaults(self));
        drop(request::Call::parse(&self.call, self.check));
    }
}

pub(super) fn main(engine: &Engine, args: Args) -> Done {
    let way = progress::Way::choose(args.progress.as_deref(), args.quiet)?;
    let (iidfile, metadata_file) = (args.iidfile.clone(), args.metadata_file.clone());
    let call = request::Call::parse(&args.call, args.check)?;
    let mut request = request::request(engine, &args).map_err(failed)?;
    let squash = args.squash.then(|| squash::Squash::of(&mut request)).transpose().map_err(failed)?;
    let defaults = request::defaults(&args).map_err(failed)?;
    let key = args.sign_key.as_deref().map(super::verify::signing_key).transpose().map_err(failed)?;
    if key.is_some()
        && !request.outputs.iter().any(|one| one.attributes.get("push").is_some_and(|push| push != "false"))
    {
        return Err(failed(Failure::new("--sign-key: signatures are beside what is pushed: add --push")));
    }
    if let Some(call) = call {
        return call.main(engine, &request);
    }
    let cancel = Arc::new(AtomicBool::new(false));
    watch_signals(&cancel)?;
    let shown = way.show();
    if let Some(image) = &args.verify {
        let result = hull_build::verify(engine, &defaults, &request, image, &*shown, &cancel);
        shown.finish(result.is_err());
        return match result {
            Ok(differences) => Ok(verify::tell(image, &differences)),
            Err(failure) => Err(told(failure)),
        };
    }
    let result = hull_build::build(engine, &defaults, &request, &*shown, &cancel);
    shown.finish(result.is_err());
    match result {
        Ok(mut built) => {
            if let Some(squash) = squash {
                squash.apply(engine, &mut request, &mut built)?;
            }
            if let Some(key) = &key {
                let client = hull_registry::Client::from_environment();
                for (name, digest) in &built.pushed {
                    hull_image::registry::sign(&client, name, digest, key).map_err(|error| failed(error.into()))?;
                }
            }
            write_files(&request, &built, iidfile, metadata_file)?;
            if let (progress::Way::Quiet, Some(image)) = (way, built.images.first()) {
                print(format_args!("{}\n", image.id));
            }
            Ok(0)
        }
        Err(failure) if cancel.load(Ordering::Relaxed) => {
            say(&format!("ERROR: failed to build: failed to solve: {failure}"));
            Err(Failure { code: INTERRUPTED, ..Failure::new("") })
        }
        Err(failure) => Err(told(failure)),
    }
}

/// Says why a build failed, in the words of `docker build`.
fn told(failure: hull_build::Failure) -> Failure {
    if let Some(excerpt) = &failure.excerpt {
        say(excerpt.trim_end());
    }
    let reason = hull_oci::spec::one_line(&failure.to_string());
    say(&format!("ERROR: failed to build: failed to solve: {reason}{}", super::rights(&reason)));
    Failure::new("")
}

/// What is wrong with the command line, in the words of `docker build`.
fn failed(failure: Failure) -> Failure {
    say(&format!("ERROR: failed to build: {}", hull_oci::spec::one_line(&failure.message)));
    Failure { message: String::new(), ..failure }
}

/// Writes to standard error.
fn say(text: &str) {
    // Only whoever closed standard error could be told.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The first signal that asks for an end gives up the build, the second one this process.
fn watch_signals(cancel: &Arc<AtomicBool>) -> Result<(), Failure> {
    use std::os::fd::AsFd as _;
    let signals = hull_sys::signal::redirect().map_err(|errno| Failure::new(format!("take over signals: {errno}")))?;
    let cancel = Arc::clone(cancel);
    let watch = move || {
        let mut ready = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
        loop {
            if rustix::event::poll(&mut ready, None).is_err() {
                continue;
            }
            while let Ok(Some(received)) = hull_sys::signal::next(signals.as_fd()) {
                // Interrupt, terminate, hang up, quit.
                if matches!(received.signal, 1 | 2 | 3 | 15) && cancel.swap(true, Ordering::Relaxed) {
                    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(watch);
    thread.map(drop).map_err(|error| Failure::new(format!("start a thread: {error}")))
}

/// `--iidfile` and `--metadata-file`.
fn write_files(
    request: &BuildRequest,
    built: &Built,
    iidfile: Option<PathBuf>,
    metadata: Option<PathBuf>,
) -> Result<(), Failure> {
    let Some(first) = built.images.first() else { return Ok(()) };
    let write = |path: &PathBuf, text: &str| {
        let failed = |error: std::io::Error| Failure::new(format!("write {}: {error}", path.display()));
        std::fs::write(path, text).map_err(failed)
    };
    if let Some(path) = iidfile {
        write(&path, &first.id.to_string())?;
    }
    if let Some(path) = metadata {
        let digest = built.index.as_ref().or(first.manifest.as_ref()).unwrap_or(&first.id).to_string();
        let names: Vec<String> = request.tags.iter().map(ToString::to_string).collect();
        let mut document = json!({
            "containerimage.config.digest": first.id.to_string(),
            "containerimage.digest": digest,
        });
        if let Some(fields) = document.as_object_mut().filter(|_| !names.is_empty()) {
            fields.insert("image.name".to_owned(), json!(names.join(",")));
        }
        let text = serde_json::to_string_pretty(&document).unwrap_or_default();
        write(&path, &text)?;
    }
    Ok(())
}
