//! A container's files. One that does not run is looked at from a mount namespace of its own, which only a process of
//! its own can have.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use hull_engine::cp::PathStat;
use hull_engine::diff::ChangeKind;
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::step;

type Answer = Result<Reply, Refusal>;

pub(super) fn changes(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    let kind = |kind| match kind {
        ChangeKind::Changed => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    };
    let changes: Vec<Value> = api
        .engine
        .diff(&container)?
        .into_iter()
        .map(|change| json!({ "Path": change.path.to_string_lossy(), "Kind": kind(change.kind) }))
        .collect();
    Ok(Reply::json(200, &if changes.is_empty() { Value::Null } else { json!(changes) }))
}

pub(super) fn export(api: &Arc<Api>, request: &mut Request) -> Answer {
    let container = api.container(request.param("id"))?;
    let child = step::spawn(&api.engine, &["export", &container.id], Stdio::null())?;
    let (_, child, rest) = head(child)?;
    api.engine.tell(&container, "export", &[]);
    Ok(Reply::stream("application/octet-stream", move |stream| pass(child, rest, stream)))
}

/// The bits that Go has for a mode.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        0o020_000 => (1 << 26) | (1 << 21),
        _ => 0,
    };
    let bits = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special: u32 = bits.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go).sum();
    kind | special | (mode & 0o777)
}

/// What the header says of a path.
pub(crate) fn described(stat: &PathStat) -> Value {
    let (seconds, nanoseconds) = stat.modified;
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(u64::try_from(seconds).unwrap_or(0), nanoseconds);
    json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": hull_oci::time::rfc3339_nanos(time),
        "linkTarget": stat.target,
    })
}

fn header(stat: &Value) -> String {
    base64::engine::general_purpose::STANDARD.encode(stat.to_string())
}

fn path(request: &Request) -> Result<String, Refusal> {
    match request.query.text("path") {
        "" => Err(Refusal::bad("bad parameter: pathcannot be empty")),
        path => Ok(path.to_owned()),
    }
}

const HEADER: &str = "x-docker-container-path-stat";

pub(super) fn stat(api: &Arc<Api>, request: &mut Request) -> Answer {
    let path = path(request)?;
    let container = api.container(request.param("id"))?;
    let stat = step::ask(&api.engine, &["archive-stat", &container.id, &path])?;
    Ok(Reply::empty(200).with(HEADER, header(&stat)))
}

pub(super) fn get(api: &Arc<Api>, request: &mut Request) -> Answer {
    let path = path(request)?;
    let container = api.container(request.param("id"))?;
    let child = step::spawn(&api.engine, &["archive-get", &container.id, &path], Stdio::null())?;
    let (stat, child, rest) = head(child)?;
    let reply = Reply::stream("application/x-tar", move |stream| pass(child, rest, stream));
    Ok(reply.with(HEADER, header(&stat)))
}

pub(super) fn put(api: &Arc<Api>, request: &mut Request) -> Answer {
    let path = path(request)?;
    let container = api.container(request.param("id"))?;
    let flag = |name: &str| if request.query.truth(name) { "1" } else { "0" };
    let (kinds, own) = (flag("noOverwriteDirNonDir"), flag("copyUIDGID"));
    let mut child = step::spawn(&api.engine, &["archive-put", &container.id, &path, kinds, own], Stdio::piped())?;
    let mut body = request.body();
    if let Some(mut input) = child.stdin.take() {
        // A step that refuses does not read to the end; what it says counts.
        let _ = io::copy(&mut body, &mut input);
    }
    let (_, child, _) = head(child)?;
    drop(child);
    body.drain(1 << 20);
    Ok(Reply::empty(200))
}

/// The first line of what a step says: a document, or why there is none.
fn head(mut child: Child) -> Result<(Value, step::Reaped, impl Read + Send), Refusal> {
    let gone = || Refusal::failed("the step has no output");
    let mut output = BufReader::with_capacity(16 << 10, child.stdout.take().ok_or_else(gone)?);
    let child = step::Reaped(child);
    let mut line = Vec::new();
    (&mut output).take(1 << 20).read_until(b'\n', &mut line).map_err(|error| Refusal::failed(error.to_string()))?;
    Ok((step::answer(&line)?, child, output))
}

fn pass(mut child: step::Reaped, mut rest: impl Read, stream: &mut crate::http::Stream) -> io::Result<()> {
    io::copy(&mut rest, stream)?;
    stream.flush()?;
    // A part must not be taken for the whole.
    if child.0.wait()?.success() { Ok(()) } else { Err(io::Error::other("the archive is not whole")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_go_s() {
        assert_eq!(go_mode(0o040_755), (1 << 31) | 0o755);
        assert_eq!(go_mode(0o120_777), (1 << 27) | 0o777);
        assert_eq!(go_mode(0o104_755), (1 << 23) | 0o755);
        assert_eq!(go_mode(0o041_777), (1 << 31) | (1 << 20) | 0o777);
        assert_eq!(go_mode(0o020_666), (1 << 26) | (1 << 21) | 0o666);
        assert_eq!(go_mode(0o100_644), 0o644);
    }
}
