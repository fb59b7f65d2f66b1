//! What a build says, as Docker's first builder said it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::process::{Status, Vertex};

/// Turns changes into lines.
#[derive(Debug, Default)]
pub(super) struct Classic {
    /// Steps that were said, by their digests: whether the cache was said too.
    said: BTreeMap<String, bool>,
}

fn stream(text: impl Into<String>) -> Value {
    json!({ "stream": text.into() })
}

/// `[builder 2/5] RUN make` is the second of five, `RUN make`.
fn step(name: &str) -> Option<(&str, &str)> {
    let (bracket, instruction) = name.strip_prefix('[')?.split_once("] ")?;
    let number = bracket.rsplit(' ').next()?;
    let (at, of) = number.split_once('/')?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (plain(at) && plain(of)).then_some((number, instruction))
}

impl Classic {
    /// The lines for a change.
    pub(super) fn lines(&mut self, status: &Status) -> Vec<Value> {
        let mut lines = Vec::new();
        status.vertexes.iter().for_each(|vertex| self.vertex(vertex, &mut lines));
        for log in &status.logs {
            // What is not of a step is about the build itself.
            if self.said.contains_key(&log.vertex) {
                lines.push(stream(String::from_utf8_lossy(&log.bytes())));
            }
        }
        lines
    }

    fn vertex(&mut self, vertex: &Vertex, lines: &mut Vec<Value>) {
        let Some((number, instruction)) = step(&vertex.name) else { return };
        if vertex.started.is_none() && !vertex.cached && vertex.completed.is_none() {
            return;
        }
        let cached = match self.said.get_mut(&vertex.digest) {
            Some(cached) => cached,
            None => {
                let instruction = hull_oci::spec::one_line(instruction);
                lines.push(stream(format!("Step {number} : {instruction}\n")));
                self.said.entry(vertex.digest.clone()).or_insert(false)
            }
        };
        if vertex.cached && !*cached {
            *cached = true;
            lines.push(stream(" ---> Using cache\n"));
        }
    }
}

/// The last lines of a build that made an image.
pub(super) fn done(id: &str, tags: &[String]) -> Vec<Value> {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    let short = hex.get(..12).unwrap_or(hex);
    let mut lines = vec![json!({ "aux": { "ID": id } }), stream(format!("Successfully built {short}\n"))];
    lines.extend(tags.iter().map(|tag| stream(format!("Successfully tagged {tag}\n"))));
    lines
}

/// Why a build failed, in the words of the first builder, and the exit code of the program that failed.
pub(super) fn failure(reason: &str) -> (String, Option<i64>) {
    let failed = reason.strip_prefix("process \"").and_then(|rest| {
        let (program, code) = rest.rsplit_once("\" did not complete successfully: exit code: ")?;
        Some((program, code.trim().parse::<i64>().ok()?))
    });
    match failed {
        Some((program, code)) => (format!("The command '{program}' returned a non-zero code: {code}"), Some(code)),
        None => (reason.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_said_once() {
        assert_eq!(step("[2/3] RUN x"), Some(("2/3", "RUN x")));
        assert_eq!(step("[linux/amd64 builder 2/13] COPY a b"), Some(("2/13", "COPY a b")));
        for other in ["[internal] load build context", "exporting to image", "[x] y", ""] {
            assert_eq!(step(other), None, "{other}");
        }
        let mut classic = Classic::default();
        let vertex = |started: bool, cached| Vertex {
            digest: "d".to_owned(),
            name: "[1/1] RUN x".to_owned(),
            started: started.then(String::new),
            cached,
            ..Vertex::default()
        };
        let mut of = |vertex| {
            let status = Status { vertexes: vec![vertex], ..Status::default() };
            classic
                .lines(&status)
                .iter()
                .map(|line| line["stream"].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        assert!(of(vertex(false, false)).is_empty());
        assert_eq!(of(vertex(true, false)), ["Step 1/1 : RUN x\n"]);
        assert_eq!(of(vertex(true, true)), [" ---> Using cache\n"]);
        assert!(of(vertex(true, true)).is_empty());
    }

    #[test]
    fn clients_find_the_image_and_the_code() {
        let id = format!("sha256:{}", "ab".repeat(32));
        let lines = done(&id, &["x:latest".to_owned()]);
        assert_eq!(lines[0]["aux"]["ID"], id);
        assert_eq!(lines[1]["stream"], "Successfully built abababababab\n");
        assert_eq!(lines[2]["stream"], "Successfully tagged x:latest\n");
        let reason = "process \"/bin/sh -c exit 7\" did not complete successfully: exit code: 7";
        assert_eq!(
            failure(reason),
            ("The command '/bin/sh -c exit 7' returned a non-zero code: 7".to_owned(), Some(7))
        );
        assert_eq!(failure("other"), ("other".to_owned(), None));
    }
}
