//! `POST /build`: a context as a tar archive in, lines out.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use prost::Message as _;
use serde_json::{Value, json};

use super::output::{self, Classic};
use super::params;
use super::process::{Ended, Process, Said};
use super::work::Work;
use crate::api::Api;
use crate::http::{Body, Reply, Request};
use crate::images;
use crate::lines::{self, Lines};
use crate::refusal::Refusal;

pub(super) fn build(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let mut command = params::words(&request.query, &api.options.labels)?;
    let work = Work::new(&api.engine)?;
    let iidfile = work.file("id");
    command.flag("iidfile", &iidfile);
    let known = crate::registry::configs(request.header("x-registry-config")).into_iter();
    let known = known.filter_map(|(host, auth)| Some((host, auth.credential()?))).collect();
    super::credentials(&mut command, &work, &known)?;
    let remote = request.query.text("remote").to_owned();
    if remote == "client-session" {
        return Err(Refusal::bad("builds of a session go through /grpc"));
    }
    command.word("--");
    command.piped = remote.is_empty();
    command.word(if remote.is_empty() { "-" } else { remote.as_str() });
    let body = request.body();
    let tags = request.query.all("t").filter(|tag| !tag.is_empty());
    let tags = tags.map(|tag| Ok(images::reference(tag)?.or_latest().familiar()));
    let asked = Asked {
        id: request.query.text("buildid").to_owned(),
        tags: tags.collect::<Result<Vec<_>, Refusal>>()?,
        quiet: request.query.truth("q"),
        traced: request.query.text("version") == "2",
        dockerfile: request.query.text("dockerfile").to_owned(),
    };
    let process = command.start(&api.engine)?;
    let api = Arc::clone(api);
    lines::reply("build", move |lines| {
        let ended = run(&api, process, body, &asked, lines)?;
        if !ended.success {
            return Err(refusal(&asked, &ended.reason));
        }
        let id = std::fs::read_to_string(&iidfile).unwrap_or_default();
        drop(work);
        let id = id.trim();
        if asked.quiet {
            lines.say(&json!({ "stream": format!("{id}\n") }));
        } else if asked.traced {
            lines.say(&json!({ "id": "moby.image.id", "aux": { "ID": id } }));
        } else if !id.is_empty() {
            output::done(id, &asked.tags).iter().for_each(|line| lines.say(line));
        }
        Ok(())
    })
}

struct Asked {
    id: String,
    tags: Vec<String>,
    quiet: bool,
    /// Changes as BuildKit says them.
    traced: bool,
    dockerfile: String,
}

/// Runs a build to its end, or until its client goes.
fn run(api: &Api, mut process: Process, body: Body, asked: &Asked, lines: &Lines) -> Result<Ended, Refusal> {
    let ender = Arc::new(process.ender()?);
    if !asked.id.is_empty() {
        api.builds.lock().insert(asked.id.clone(), Arc::clone(&ender));
    }
    let input = process.input();
    let watched = lines.clone();
    let ended = std::thread::scope(|scope| {
        let end = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (over, watcher) = (Arc::clone(&end), Arc::clone(&ender));
        // Who sends no more of its context, or has gone, is seen where the body is read; later the lines tell.
        let feeding = Arc::clone(&ender);
        if let Some(mut input) = input {
            let mut body = body;
            scope.spawn(move || match io::copy(&mut body, &mut input) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => feeding.end(),
                // The build needs no more of it; the client gets its answer when it has sent the rest.
                Err(_) => body.drain(1 << 30),
                Ok(_) => {}
            });
        }
        scope.spawn(move || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                if watched.is_gone() {
                    return watcher.end();
                }
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
        });
        let (mut classic, mut kept) = (Classic::default(), Vec::new());
        let ended = process.follow(&mut |said| match asked.quiet {
            true => keep(&mut classic, said, &mut kept),
            false => say(asked, &mut classic, said, lines),
        });
        end.store(true, std::sync::atomic::Ordering::Relaxed);
        // A quiet build that fails is not quiet.
        if !ended.success && !asked.traced {
            kept.iter().for_each(|line| lines.say(line));
        }
        ended
    });
    if !asked.id.is_empty() {
        api.builds.lock().remove(&asked.id);
    }
    Ok(ended)
}

/// Lines of a quiet build that are kept for the case that it fails.
const MOST_KEPT: usize = 4096;

fn keep(classic: &mut Classic, said: Said, kept: &mut Vec<Value>) {
    let Said::Status(status) = said else { return };
    kept.extend(classic.lines(&status));
    kept.truncate(MOST_KEPT);
}

fn say(asked: &Asked, classic: &mut Classic, said: Said, lines: &Lines) {
    let Said::Status(status) = said else { return };
    if asked.traced {
        let bytes = crate::buildkit::status::message(&status).encode_to_vec();
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        return lines.say(&json!({ "id": "moby.buildkit.trace", "aux": text }));
    }
    classic.lines(&status).iter().for_each(|line: &Value| lines.say(line));
}

/// What a failed build is answered with; only before its first line the status counts.
fn refusal(asked: &Asked, reason: &str) -> Refusal {
    let (text, code) = output::failure(reason);
    if text.contains("failed to read dockerfile") && !asked.traced {
        let name = if asked.dockerfile.is_empty() { "Dockerfile" } else { &asked.dockerfile };
        return Refusal::failed(format!("Cannot locate specified Dockerfile: {}", hull_oci::spec::one_line(name)));
    }
    let wrong = ["dockerfile parse error", "target stage", "cannot be empty", "invalid reference format", "nul byte"];
    let flags = ["invalid value ", "invalid argument ", "invalid size: "];
    if wrong.iter().chain(&flags).any(|part| text.contains(part)) {
        return Refusal::bad(text);
    }
    Refusal { code: code.filter(|_| !asked.traced), ..Refusal::failed(text) }
}
