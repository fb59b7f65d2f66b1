//! A client's options as words of `hull build`, and what it hears of the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hull_oci::spec::one_line;
use serde_json::Value;

use super::super::grpc::{Failure, code};
use super::super::needs::Needs;
use super::super::pb;
use super::Solved;
use crate::build::process::{Command, Ended};
use crate::build::work::Work;

/// Where a result goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Export {
    /// It stays, or the build itself pushes it.
    Here,
    /// These bytes to the client.
    File(PathBuf),
    /// These files to the client.
    Directory(PathBuf),
}

/// `type=x,a=b`, with quotes where a comma would end a field.
pub(super) fn fields(kind: &str, attributes: &BTreeMap<String, String>) -> String {
    let field = |key: &str, value: &str| {
        let text = format!("{key}={value}");
        if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    let mut all = vec![field("type", kind)];
    all.extend(attributes.iter().map(|(key, value)| field(key, value)));
    all.join(",")
}

/// The options of the frontend.
pub(super) fn words(
    options: &BTreeMap<String, String>,
    request: &pb::SolveRequest,
    command: &mut Command,
) -> Result<(), Failure> {
    for (key, value) in options {
        if let Some(name) = key.strip_prefix("build-arg:") {
            command.flag("build-arg", format!("{name}={value}"));
        } else if let Some(name) = key.strip_prefix("label:") {
            command.flag("label", format!("{name}={value}"));
        } else if let Some(kind @ ("provenance" | "sbom")) = key.strip_prefix("attest:") {
            // What clients ask for by themselves is what is done anyway.
            if !value.split(',').any(|word| word == "inline-only=true") {
                let rest = if value.is_empty() { String::new() } else { format!(",{value}") };
                command.flag("attest", format!("type={kind}{rest}"));
            }
        }
    }
    let plain = [
        ("target", "target"),
        ("platform", "platform"),
        ("add-hosts", "add-host"),
        ("shm-size", "shm-size"),
        ("ulimit", "ulimit"),
        ("cgroup-parent", "cgroup-parent"),
        ("force-network-mode", "network"),
    ];
    for (key, flag) in plain {
        let Some(value) = options.get(key) else { continue };
        if matches!(flag, "add-host" | "ulimit") {
            value.split(',').filter(|one| !one.is_empty()).for_each(|one| command.flag(flag, one));
        } else {
            command.flag(flag, value);
        }
    }
    match options.get("no-cache").map(String::as_str) {
        None => {}
        Some("") => command.word("--no-cache"),
        Some(stages) => command.flag("no-cache-filter", stages),
    }
    if options.get("image-resolve-mode").is_some_and(|mode| mode == "pull") {
        command.word("--pull");
    }
    for what in &request.entitlements {
        command.flag("allow", what);
    }
    Ok(())
}

/// What becomes of the result: words for the build, and what is then sent.
pub(super) fn exports(
    request: &pb::SolveRequest,
    work: &Work,
    needs: &mut Needs,
    command: &mut Command,
) -> Result<Vec<Export>, Failure> {
    let old = pb::Exporter { kind: request.exporter.clone(), attrs: request.exporter_attrs.clone() };
    let wanted = match request.exporters.as_slice() {
        [] if old.kind.is_empty() => {
            command.flag("output", "type=cacheonly");
            return Ok(Vec::new());
        }
        [] => vec![old],
        all => all.to_vec(),
    };
    let mut exports = Vec::new();
    for (number, exporter) in wanted.into_iter().enumerate() {
        let mut attributes = exporter.attrs;
        let names: Vec<String> =
            attributes.get("name").into_iter().flat_map(|names| names.split(',')).map(str::to_owned).collect();
        // Only where the result stays can it be said where.
        attributes.remove("dest");
        attributes.remove("prefer-image-digest");
        let destination = |name: String, attributes: &mut BTreeMap<String, String>| {
            let path = work.file(&name);
            attributes.insert("dest".to_owned(), path.display().to_string());
            path
        };
        let (kind, export) = match exporter.kind.as_str() {
            "moby" | "image" => {
                names.iter().filter(|name| !name.is_empty()).for_each(|name| needs.image(name));
                ("image", Export::Here)
            }
            "oci" | "docker" | "tar" => {
                let path = destination(format!("output-{number}.tar"), &mut attributes);
                (exporter.kind.as_str(), Export::File(path))
            }
            "local" => {
                let path = destination(format!("output-{number}"), &mut attributes);
                ("local", Export::Directory(path))
            }
            other => {
                let text = format!("exporter {} could not be found", one_line(other));
                return Err(Failure::new(code::INVALID_ARGUMENT, text));
            }
        };
        command.flag("output", fields(kind, &attributes));
        exports.push(export);
    }
    Ok(exports)
}

/// What is asked for instead of a build.
pub(super) fn call(options: &BTreeMap<String, String>) -> Result<Option<String>, Failure> {
    let call = match options.get("requestid").map(String::as_str) {
        None | Some("") => return Ok(None),
        Some("frontend.lint") => "check",
        Some("frontend.outline") => "outline",
        Some("frontend.targets") => "targets",
        Some(other) => {
            let text = format!("unsupported request {}", one_line(other));
            return Err(Failure::new(code::UNIMPLEMENTED, text));
        }
    };
    Ok(Some(call.to_owned()))
}

/// What a call has printed, as the client's frontend takes it.
pub(super) fn called(call: &str, ended: &Ended, output: &[u8]) -> Result<Solved, Failure> {
    if output.is_empty() && !ended.success {
        return Err(Failure::unknown(ended.reason.clone()));
    }
    let name = if call == "check" { "frontend.lint" } else { "frontend.subrequest" };
    let status = if ended.success { "0" } else { "1" };
    let metadata = BTreeMap::from([
        ("result.json".to_owned(), output.to_vec()),
        ("result.txt".to_owned(), output.to_vec()),
        ("result.statuscode".to_owned(), status.as_bytes().to_vec()),
        ("version".to_owned(), b"1.0.0".to_vec()),
        ("name".to_owned(), name.as_bytes().to_vec()),
    ]);
    Ok(Solved { metadata, ..Solved::default() })
}

/// The lines of the Dockerfile that are to blame, as clients show them.
pub(super) fn source(ended: &Ended, dockerfile: &Path) -> Option<pb::Any> {
    use base64::Engine as _;
    let (first, last) = (*ended.lines.first()?, *ended.lines.last()?);
    let root = hull_fs::Root::open(dockerfile.parent()?).ok()?;
    let name = Path::new(dockerfile.file_name()?);
    let data = root.read_bounded(name, super::MAX_DOCKERFILE).ok()?;
    let data = base64::engine::general_purpose::STANDARD.encode(data);
    let document = serde_json::json!({
        "info": { "filename": name.to_string_lossy(), "data": data, "language": "Dockerfile" },
        "ranges": [{ "start": { "line": first }, "end": { "line": last } }],
    });
    let type_url = "github.com/moby/buildkit/errdefs.Source+json".to_owned();
    Some(pb::Any { type_url, value: document.to_string().into_bytes() })
}

/// What the exporters answer: what the build wrote of its result.
pub(super) fn made(iidfile: &Path, metadata: &Path, request: &pb::SolveRequest) -> BTreeMap<String, String> {
    use base64::Engine as _;
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut made = BTreeMap::new();
    if let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(&text(metadata)) {
        for (key, value) in fields {
            let value = match value {
                Value::String(text) => text,
                Value::Object(_) => base64::engine::general_purpose::STANDARD.encode(value.to_string()),
                other => other.to_string(),
            };
            made.insert(key, value);
        }
    }
    let id = text(iidfile).trim().to_owned();
    if !id.is_empty() {
        made.entry("containerimage.config.digest".to_owned()).or_insert_with(|| id.clone());
        made.entry("containerimage.digest".to_owned()).or_insert(id);
    }
    let exporters = request.exporters.iter().map(|exporter| &exporter.attrs).chain([&request.exporter_attrs]);
    if let Some(names) = exporters.filter_map(|attributes| attributes.get("name")).find(|names| !names.is_empty()) {
        made.entry("image.name".to_owned()).or_insert_with(|| names.clone());
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_words() {
        let options = map(&[
            ("build-arg:A", "b=c"),
            ("label:l", "v"),
            ("target", "t"),
            ("no-cache", ""),
            ("image-resolve-mode", "pull"),
            ("add-hosts", "a=1.2.3.4,b=::1"),
            ("frontend.caps", "x"),
        ]);
        let mut command = Command::default();
        words(&options, &pb::SolveRequest::default(), &mut command).expect("words");
        let expected = [
            "--build-arg=A=b=c",
            "--label=l=v",
            "--target=t",
            "--add-host=a=1.2.3.4",
            "--add-host=b=::1",
            "--no-cache",
            "--pull",
        ];
        assert_eq!(command.words, expected);
    }

    #[test]
    fn fields_with_commas_are_quoted() {
        assert_eq!(fields("image", &map(&[("name", "a,b"), ("push", "true")])), "type=image,\"name=a,b\",push=true");
        assert_eq!(fields("x", &map(&[("k", "a\"b")])), "type=x,\"k=a\"\"b\"");
    }

    #[test]
    fn results_go_where_they_are_wanted() {
        let home = tempfile::tempdir().expect("a directory");
        let engine = hull_engine::Engine::new(home.path().join("root"), home.path().join("state"));
        let work = Work::new(&engine).expect("places");
        let mut command = Command::default();
        let exporter = |kind: &str, attrs| pb::Exporter { kind: kind.to_owned(), attrs };
        let request = pb::SolveRequest {
            exporters: vec![
                exporter("moby", map(&[("name", "r.example/x")])),
                exporter("local", map(&[("dest", "/etc")])),
                exporter("tar", map(&[])),
            ],
            ..pb::SolveRequest::default()
        };
        let mut needs = Needs::default();
        let exports = exports(&request, &work, &mut needs, &mut command).expect("outputs");
        assert_eq!(exports[0], Export::Here);
        assert!(matches!(&exports[1], Export::Directory(path) if path.starts_with(home.path())));
        assert!(matches!(&exports[2], Export::File(path) if path.starts_with(home.path())));
        assert!(needs.registries.contains("r.example"));
        assert_eq!(command.words[0], "--output=type=image,name=r.example/x");
        assert!(!command.words[1].to_string_lossy().contains("/etc"));
        let wrong = pb::SolveRequest { exporter: "x".to_owned(), ..pb::SolveRequest::default() };
        assert!(super::exports(&wrong, &work, &mut needs, &mut command).is_err());
    }

    #[test]
    fn only_known_calls_are_made() {
        assert_eq!(call(&map(&[])), Ok(None));
        assert_eq!(call(&map(&[("requestid", "frontend.lint")])), Ok(Some("check".to_owned())));
        assert!(call(&map(&[("requestid", "other")])).is_err());
    }
}
