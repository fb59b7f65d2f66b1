//! Progress as JSON, a line for each change: BuildKit's `SolveStatus`, which other programs read.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use hull_build::observer::{Event, Observer, StepId, Stream, Warning};
use hull_oci::Digest;
use serde_json::{Map, Value, json};

use super::progress::Shown;

#[derive(Debug, Default)]
pub(super) struct Raw(Mutex<BTreeMap<StepId, Step>>);

#[derive(Debug)]
struct Step {
    digest: String,
    name: String,
    started: String,
    parts: BTreeMap<String, String>,
}

fn now() -> String {
    hull_oci::time::rfc3339_nanos(SystemTime::now())
}

fn encoded(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn write(key: &str, value: Value) {
    let mut document = Map::new();
    document.insert(key.to_owned(), json!([value]));
    let line = format!("{}\n", Value::Object(document));
    // Only whoever closed standard error could be told.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

impl Step {
    fn vertex(&self, fields: &[(&str, Value)]) {
        let mut vertex = Map::new();
        vertex.insert("digest".to_owned(), json!(self.digest));
        vertex.insert("name".to_owned(), json!(self.name));
        vertex.insert("started".to_owned(), json!(self.started));
        for (key, value) in fields {
            vertex.insert((*key).to_owned(), value.clone());
        }
        write("vertexes", Value::Object(vertex));
    }
}

impl Observer for Raw {
    fn step(&self, id: StepId, event: Event<'_>) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::Started { name } | Event::Cached { name } = event
            && !name.is_empty()
        {
            steps.entry(id).or_insert_with(|| Step {
                digest: Digest::of(format!("{id:?} {name}").as_bytes()).to_string(),
                name: name.to_owned(),
                started: now(),
                parts: BTreeMap::new(),
            });
        }
        let Some(step) = steps.get_mut(&id) else { return };
        match event {
            Event::Started { .. } => step.vertex(&[]),
            Event::Cached { .. } => step.vertex(&[("completed", json!(now())), ("cached", json!(true))]),
            Event::Log { stream, data } => {
                let stream = if stream == Stream::Output { 1 } else { 2 };
                write(
                    "logs",
                    json!({"vertex": step.digest, "stream": stream, "data": encoded(data), "timestamp": now()}),
                );
            }
            Event::Status { id: part, current, total, done } => {
                let started = step.parts.entry(part.to_owned()).or_insert_with(now);
                let mut status = json!({
                    "id": part, "vertex": step.digest, "name": part, "current": current, "timestamp": now(),
                    "started": started,
                });
                if let Some(fields) = status.as_object_mut() {
                    if total > 0 {
                        fields.insert("total".to_owned(), json!(total));
                    }
                    if done {
                        fields.insert("completed".to_owned(), json!(now()));
                    }
                }
                write("statuses", status);
            }
            Event::Done => step.vertex(&[("completed", json!(now()))]),
            Event::Failed { reason } => step.vertex(&[("completed", json!(now())), ("error", json!(reason))]),
            Event::Canceled => step.vertex(&[("completed", json!(now())), ("error", json!("context canceled"))]),
        }
    }

    fn warning(&self, warning: &Warning) {
        let _order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let detail: Vec<String> = warning.detail.iter().map(|text| encoded(text.as_bytes())).collect();
        let mut document = json!({"level": 1, "short": encoded(warning.message.as_bytes()), "detail": detail});
        if let (Some(fields), Some(lines)) = (document.as_object_mut(), warning.lines) {
            fields.insert("range".to_owned(), json!([{"start": {"line": lines.start}, "end": {"line": lines.end}}]));
        }
        if let (Some(fields), Some(url)) = (document.as_object_mut(), &warning.url) {
            fields.insert("url".to_owned(), json!(url));
        }
        write("warnings", document);
    }
}

impl Shown for Raw {
    fn finish(&self, _: bool) {}
}
