//! What a build says, as BuildKit's messages.

use crate::build::process::{Progress, Status, Vertex, Warning, base64_bytes};
use crate::buildkit::pb;

fn time(text: Option<&String>) -> Option<pb::Timestamp> {
    let nanoseconds = hull_engine::time::date(text?)?;
    Some(pb::Timestamp {
        seconds: i64::try_from(nanoseconds / 1_000_000_000).ok()?,
        nanos: i32::try_from(nanoseconds % 1_000_000_000).ok()?,
    })
}

fn vertex(vertex: &Vertex) -> pb::Vertex {
    pb::Vertex {
        digest: vertex.digest.clone(),
        inputs: vertex.inputs.clone(),
        name: vertex.name.clone(),
        cached: vertex.cached,
        started: time(vertex.started.as_ref()),
        completed: time(vertex.completed.as_ref()),
        error: vertex.error.clone(),
    }
}

fn progress(one: &Progress) -> pb::VertexStatus {
    pb::VertexStatus {
        id: one.id.clone(),
        vertex: one.vertex.clone(),
        name: one.name.clone(),
        current: one.current,
        total: one.total,
        timestamp: time(one.timestamp.as_ref()),
        started: time(one.started.as_ref()),
        completed: time(one.completed.as_ref()),
    }
}

fn warning(one: &Warning) -> pb::VertexWarning {
    let position = |at: crate::build::process::Position| pb::Position { line: at.line, character: at.character };
    pb::VertexWarning {
        vertex: one.vertex.clone(),
        level: one.level,
        short: base64_bytes(&one.short),
        detail: one.detail.iter().map(|detail| base64_bytes(detail)).collect(),
        url: one.url.clone(),
        info: one.source.as_ref().map(|source| pb::SourceInfo {
            filename: source.filename.clone(),
            data: base64_bytes(&source.data),
            language: "Dockerfile".to_owned(),
        }),
        ranges: one
            .range
            .iter()
            .map(|range| pb::Range { start: Some(position(range.start)), end: Some(position(range.end)) })
            .collect(),
    }
}

/// A change.
pub(crate) fn message(status: &Status) -> pb::StatusResponse {
    pb::StatusResponse {
        vertexes: status.vertexes.iter().map(vertex).collect(),
        statuses: status.statuses.iter().map(progress).collect(),
        logs: status
            .logs
            .iter()
            .map(|log| pb::VertexLog {
                vertex: log.vertex.clone(),
                timestamp: time(log.timestamp.as_ref()),
                stream: log.stream,
                msg: log.bytes(),
            })
            .collect(),
        warnings: status.warnings.iter().map(warning).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_bytes_are_kept() {
        let text = r#"{"vertexes":[{"digest":"d","name":"n","started":"1970-01-01T00:00:01.5Z","cached":true}],
                       "logs":[{"vertex":"d","stream":2,"data":"aGk=","timestamp":"1970-01-01T00:00:02Z"}]}"#;
        let message = message(&serde_json::from_str(text).expect("parses"));
        assert_eq!(message.vertexes[0].started, Some(pb::Timestamp { seconds: 1, nanos: 500_000_000 }));
        assert!(message.vertexes[0].cached && message.vertexes[0].completed.is_none());
        assert_eq!((message.logs[0].msg.as_slice(), message.logs[0].stream), (b"hi".as_slice(), 2));
    }
}
