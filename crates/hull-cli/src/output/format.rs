//! `--format`: rows as tables, JSON or by a template; documents by a template.

use std::collections::BTreeMap;
use std::rc::Rc;

use hull_oci::spec::one_line;
use hull_template::{FunctionSet, Map, MissingKey, Object, Struct, Template, Value};

use super::tabs;

/// What is wrong with a template, in Docker's words.
fn wrong(error: &hull_template::Error) -> String {
    format!("template parsing error: {error}")
}

/// One line of a listing: fields by their names in templates.
#[derive(Debug, Default)]
pub(crate) struct Row {
    kind: &'static str,
    fields: Vec<(&'static str, Value)>,
    labels: Option<BTreeMap<String, String>>,
}

impl Row {
    /// A row of a type that messages name.
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Adds a field. What comes from an image may hold anything, and goes to a terminal: control characters are shown.
    pub(crate) fn with(mut self, name: &'static str, text: impl AsRef<str>) -> Self {
        self.fields.push((name, Value::from(one_line(text.as_ref()))));
        self
    }

    /// Adds a field that is no text.
    pub(crate) fn with_value(mut self, name: &'static str, value: Value) -> Self {
        self.fields.push((name, value));
        self
    }

    /// Replaces a field.
    pub(crate) fn replacing(mut self, name: &'static str, text: impl AsRef<str>) -> Self {
        self.fields.retain(|(known, _)| *known != name);
        self.with(name, text)
    }

    /// Adds `.Labels` and `.Label`.
    pub(crate) fn with_labels(mut self, labels: BTreeMap<String, String>) -> Self {
        let shown: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.labels = Some(labels);
        self.with("Labels", shown.join(","))
    }
}

impl Object for Row {
    fn type_name(&self) -> String {
        let package = if self.kind.contains('.') { "" } else { "formatter." };
        format!("*{package}{}", self.kind)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.fields.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.sort();
        names
    }

    fn field(&self, name: &str) -> Option<Value> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    fn arity(&self, name: &str) -> Option<usize> {
        (name == "Label" && self.labels.is_some()).then_some(1)
    }

    fn call(&self, _: &str, args: &[Rc<str>]) -> Value {
        let found = args.first().zip(self.labels.as_ref()).and_then(|(key, labels)| labels.get(key.as_ref()));
        Value::from(one_line(found.map_or("", String::as_str)))
    }
}

/// The headers of a table; what has none is `<no value>`.
struct Headers(&'static [(&'static str, &'static str)]);

impl Object for Headers {
    fn type_name(&self) -> String {
        "formatter.SubHeaderContext".to_owned()
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn field(&self, name: &str) -> Option<Value> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        Some(found.map_or(Value::NoValue, |(_, header)| Value::from(*header)))
    }

    fn arity(&self, name: &str) -> Option<usize> {
        (name == "Label").then_some(1)
    }

    /// `com.example.some-label` is shown as `some label`.
    fn call(&self, _: &str, args: &[Rc<str>]) -> Value {
        let last = args.first().and_then(|name| name.rsplit('.').next()).unwrap_or_default();
        Value::from(last.replace(['-', '_'], " "))
    }
}

/// One row by a template that is taken as it is.
///
/// # Errors
/// What is wrong, without Docker's words before it.
pub(crate) fn row(format: &str, row: Row) -> Result<String, String> {
    let text = format.replace("\\t", "\t").replace("\\n", "\n");
    let template = Template::parse(&text).map_err(|error| error.to_string())?;
    template.render(&Value::Object(Rc::new(row))).map_err(|error| error.to_string())
}

/// How rows are printed: what the user gave, and what the command has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing<'a> {
    /// `--format`; empty if it was not given.
    pub(crate) format: &'a str,
    /// The usual columns, as a template.
    pub(crate) table: &'a str,
    /// What `--format raw` is short for.
    pub(crate) raw: Option<&'a str>,
    /// Names of the fields as headers.
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

impl Listing<'_> {
    /// Whether it is a table, and the template of its rows.
    fn template(&self) -> (bool, String) {
        let (table, text) = match self.format {
            "" | "table" => (true, self.table),
            "json" => (false, "{{json .}}"),
            "raw" if self.raw.is_some() => (false, self.raw.unwrap_or_default()),
            given => given.strip_prefix("table").map_or((false, given), |columns| (true, columns)),
        };
        (table, text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n"))
    }

    /// Whether rows need a field that costs something to find out.
    pub(crate) fn mentions(&self, field: &str) -> bool {
        let (_, text) = self.template();
        text.contains(field) || text.contains("json .}}")
    }

    /// The text of all rows.
    ///
    /// # Errors
    /// Docker's message of what is wrong with the template.
    pub(crate) fn render(&self, rows: impl IntoIterator<Item = Row>) -> Result<String, String> {
        let (table, text) = self.template();
        let template = Template::parse(&text).map_err(|error| wrong(&error))?;
        let mut out = String::new();
        if table {
            let headers = Value::Object(Rc::new(Headers(self.headers)));
            // As with Docker, a header that cannot be made is an empty line.
            let header = template.execute(&headers, MissingKey::NoValue, FunctionSet::Headers).unwrap_or_default();
            out.push_str(&header);
            out.push('\n');
        }
        for row in rows {
            let line = template.render(&Value::Object(Rc::new(row))).map_err(|error| wrong(&error))?;
            out.push_str(&line);
            out.push('\n');
        }
        Ok(if table { tabs::align(&out) } else { out })
    }
}

/// Keys of documents whose objects have any keys: a missing one is no error.
const MAPS: [&str; 15] = [
    "Runtimes",
    "Containers",
    "Labels",
    "Annotations",
    "Sysctls",
    "Ports",
    "Networks",
    "ExposedPorts",
    "Volumes",
    "LogOpts",
    "Tmpfs",
    "StorageOpt",
    "PortBindings",
    "Options",
    "Data",
];

/// Keys of documents whose values are lists, also where there is none.
const LISTS: [&str; 22] = [
    "Aliases",
    "Authorization",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "MaskedPaths",
    "OnBuild",
    "ReadonlyPaths",
    "SecurityOpt",
    "VolumesFrom",
    "Warnings",
];

/// Fields that a document may lack and Go's types have, by the key of what they are in; `""` is the document itself.
const ABSENT: [(&str, &str, Absent); 17] = [
    ("", "SizeRw", Absent::Pointer),
    ("", "SizeRootFs", Absent::Pointer),
    ("Config", "Healthcheck", Absent::Pointer),
    ("Config", "StopTimeout", Absent::Pointer),
    ("Config", "ExposedPorts", Absent::Made("map[]")),
    ("Config", "StopSignal", Absent::Text),
    ("Config", "Shell", Absent::Made("[]")),
    ("Config", "MacAddress", Absent::Text),
    ("HostConfig", "Annotations", Absent::Made("map[]")),
    ("HostConfig", "Init", Absent::Pointer),
    ("HostConfig", "Mounts", Absent::Made("[]")),
    ("HostConfig", "StorageOpt", Absent::Made("map[]")),
    ("HostConfig", "Sysctls", Absent::Made("map[]")),
    ("HostConfig", "Tmpfs", Absent::Made("map[]")),
    ("Mounts", "Driver", Absent::Text),
    ("Mounts", "Name", Absent::Text),
    ("State", "Health", Absent::Pointer),
];

/// What Go has in place of a field that was left out.
#[derive(Clone, Copy)]
enum Absent {
    Pointer,
    Made(&'static str),
    Text,
}

/// Names of fields in JSON, and what templates call them.
const SPELT: [(&str, &str); 3] =
    [("ApiVersion", "APIVersion"), ("CpuCfsPeriod", "CPUCfsPeriod"), ("CpuCfsQuota", "CPUCfsQuota")];

/// The order of fields where a whole struct is printed often.
const ORDER: [(&str, &[&str]); 6] = [
    (
        "State",
        &[
            "Status",
            "Running",
            "Paused",
            "Restarting",
            "OOMKilled",
            "Dead",
            "Pid",
            "ExitCode",
            "Error",
            "StartedAt",
            "FinishedAt",
        ],
    ),
    ("LogConfig", &["Type", "Config"]),
    ("RestartPolicy", &["Name", "MaximumRetryCount"]),
    ("Healthcheck", &["Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"]),
    ("Devices", &["PathOnHost", "PathInContainer", "CgroupPermissions"]),
    ("Ulimits", &["Name", "Hard", "Soft"]),
];

/// A document as Go's client sees it: structs, except where keys are anyone's choice.
pub(crate) fn typed(document: &serde_json::Value) -> Value {
    of(document, "")
}

/// The part of a document that has this key.
fn of(document: &serde_json::Value, parent: &str) -> Value {
    match document {
        serde_json::Value::Null => Value::NilPointer,
        serde_json::Value::Array(list) => Value::List(list.iter().map(|one| of(one, parent)).collect()),
        serde_json::Value::Object(object) => {
            let is_map = |key: &str| MAPS.contains(&key) || (parent, key) == ("LogConfig", "Config");
            let entry = |(key, value): (&String, &serde_json::Value)| {
                let value = match value {
                    serde_json::Value::Object(entries) if is_map(key) => map(entries),
                    // A map or a list that was never made prints as an empty one.
                    serde_json::Value::Null if is_map(key) => Value::Unmade("map[]"),
                    serde_json::Value::Null if LISTS.contains(&key.as_str()) => Value::Unmade("[]"),
                    value => of(value, key),
                };
                (key.clone(), value)
            };
            let mut fields: Vec<(String, Value)> = object.iter().map(entry).collect();
            let mut unset = Vec::new();
            if parent == "Config" && !object.contains_key("Hostname") {
                // An image's: Go leaves out what is not set.
                (unset, fields) = fields.into_iter().partition(|(_, value)| {
                    matches!(value, Value::Unmade(_) | Value::NilPointer)
                        || matches!(value, Value::String(text) if text.is_empty())
                });
            }
            if let Some((_, order)) = ORDER.iter().find(|(of, _)| *of == parent) {
                fields.sort_by_key(|(name, _)| order.iter().position(|one| one == name).unwrap_or(order.len()));
            }
            let lacks = |(of, key, _): &&(&str, &str, Absent)| *of == parent && !object.contains_key(*key);
            let absent = ABSENT.iter().filter(lacks).map(|(_, key, kind)| {
                let value = match kind {
                    Absent::Pointer => Value::NilPointer,
                    Absent::Made(text) => Value::Unmade(text),
                    Absent::Text => Value::from(""),
                };
                ((*key).to_owned(), value)
            });
            let spelt = |(json, go): &(&str, &str)| Some(((*go).to_owned(), of(object.get(*json)?, json)));
            // Only a container's document has all of them.
            let mut absent: Vec<(String, Value)> =
                if parent.is_empty() && !object.contains_key("HostConfig") { Vec::new() } else { absent.collect() };
            absent.extend(SPELT.iter().filter_map(spelt));
            absent.extend(unset);
            Value::Struct(Rc::new(Struct { name: "struct".to_owned(), fields, absent }))
        }
        plain => Value::from(plain),
    }
}

fn map(entries: &serde_json::Map<String, serde_json::Value>) -> Value {
    let entries: BTreeMap<String, Value> = entries.iter().map(|(key, value)| (key.clone(), typed(value))).collect();
    let zero = match entries.values().next() {
        None | Some(Value::String(_)) => Value::from(""),
        Some(Value::List(_)) => Value::List(Rc::from([])),
        _ => Value::NoValue,
    };
    Value::Map(Rc::new(Map { entries, zero }))
}

/// What `inspect` prints of documents: all of them as JSON, or each by the template.
///
/// # Errors
/// Docker's message of what is wrong with the template.
pub(crate) fn documents(format: Option<&str>, documents: &[serde_json::Value]) -> Result<String, String> {
    match format {
        None | Some("") => Ok(indented(documents)),
        Some("json") => Ok(format!("{}\n", serde_json::Value::from(documents.to_vec()))),
        Some(text) => {
            let template = Template::parse(text).map_err(|error| wrong(&error))?;
            let mut out = String::new();
            for document in documents {
                out.push_str(&render(&template, document)?);
                out.push('\n');
            }
            Ok(if out.is_empty() { "\n".to_owned() } else { out })
        }
    }
}

/// The template of an inspection; none where whole documents are printed.
///
/// # Errors
/// When it is none.
pub(crate) fn inspecting(format: Option<&str>) -> Result<Option<Template>, String> {
    let text = format.filter(|text| !text.is_empty() && *text != "json");
    text.map(|text| Template::parse(text).map_err(|error| wrong(&error))).transpose()
}

/// The line of one document by such a template.
///
/// # Errors
/// When the document has not what is asked for.
pub(crate) fn line(template: &Template, document: &serde_json::Value) -> Result<String, String> {
    render(template, document).map(|line| line + "\n")
}

/// What `info` and `version` print of their one document by a template.
///
/// # Errors
/// As [`documents`].
pub(crate) fn document(format: &str, document: &serde_json::Value) -> Result<String, String> {
    named(format, document, "struct")
}

/// The same; messages call the document's type by this name.
///
/// # Errors
/// As [`documents`].
pub(crate) fn named(format: &str, document: &serde_json::Value, name: &str) -> Result<String, String> {
    if format == "json" {
        return Ok(format!("{document}\n"));
    }
    let template = Template::parse(format).map_err(|error| wrong(&error))?;
    let shown = template
        .render(&typed(document))
        .map_err(|error| wrong(&error).replace("type struct", &format!("type {name}")))?;
    Ok(format!("{shown}\n"))
}

/// A value by a template.
///
/// # Errors
/// As [`documents`].
pub(crate) fn value(format: &str, value: &Value) -> Result<String, String> {
    if format == "json" {
        return Ok(format!("{}\n", value.json()));
    }
    let template = Template::parse(format).map_err(|error| wrong(&error))?;
    Ok(format!("{}\n", template.render(value).map_err(|error| wrong(&error))?))
}

/// With types first; then without, where the error is the strict one.
fn render(template: &Template, document: &serde_json::Value) -> Result<String, String> {
    template.render(&typed(document)).or_else(|error| {
        // The one document that Docker's client has no other form of.
        if document.get("Mountpoint").is_some() {
            return Err(wrong(&error).replace("type struct", "type volume.Volume"));
        }
        let untyped = Value::from(document);
        template.execute(&untyped, MissingKey::Error, FunctionSet::Values).map_err(|error| wrong(&error))
    })
}

/// JSON indented by four spaces.
fn indented(documents: &[serde_json::Value]) -> String {
    use serde::Serialize as _;
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // Writing JSON values to memory does not fail.
    let _ = documents.serialize(&mut serializer);
    format!("{}\n", String::from_utf8_lossy(&out))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEADERS: &[(&str, &str)] = &[("ID", "CONTAINER ID"), ("Names", "NAMES"), ("Ports", "PORTS")];

    fn rows() -> Vec<Row> {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b.c".to_owned(), "2".to_owned())]);
        vec![
            Row::new("ContainerContext")
                .with("ID", "4c01db0b339c")
                .with("Names", "web")
                .with("Ports", "0.0.0.0:8080->80/tcp")
                .with_labels(labels),
            Row::new("ContainerContext")
                .with("ID", "5c01db0b339c")
                .with("Names", "db")
                .with("Ports", "")
                .with_labels(BTreeMap::new()),
        ]
    }

    fn listing(format: &str) -> Result<String, String> {
        Listing { format, table: "{{.ID}}\t{{.Names}}", raw: Some("name: {{.Names}}\n"), headers: HEADERS }
            .render(rows())
    }

    #[track_caller]
    fn check(format: &str, expected: &str) {
        assert_eq!(listing(format).unwrap_or_else(|error| error), expected);
    }

    #[test]
    fn listings_are_those_of_docker() {
        let table = "CONTAINER ID   NAMES\n4c01db0b339c   web\n5c01db0b339c   db\n";
        check("", table);
        check("table", table);
        check("table {{.ID}}\\t{{.Names}}", table);
        check(
            r#"table {{.Names}}\t{{.Label "com.x.y-z"}}\t{{.Ports}}"#,
            "NAMES     y z       PORTS\nweb                 0.0.0.0:8080->80/tcp\ndb                  \n",
        );
        check("table {{upper .Names}}|{{.ID}}", "NAMES|CONTAINER ID\nWEB|4c01db0b339c\nDB|5c01db0b339c\n");
        check(r#"{{.Label "a"}}{{.Labels}}\n{{.Names}}"#, "1a=1,b.c=2\nweb\n\ndb\n");
        check("raw", "name: web\n\nname: db\n\n");
        check("pretty", "pretty\npretty\n");
        let json = listing("json").expect("renders");
        let first = r#"{"ID":"4c01db0b339c","Labels":"a=1,b.c=2","Names":"web","Ports":"0.0.0.0:8080-\u003e80/tcp"}"#;
        assert_eq!(json.lines().next(), Some(first));
        assert!(listing("table {{json .}}").expect("renders").starts_with('\n') || !json.is_empty());
        check(
            "{{.Foo}}",
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type \
             *formatter.ContainerContext",
        );
        check("{{.", "template parsing error: template: :1: illegal number syntax: \".\"");
    }

    #[test]
    fn hostile_words_cannot_move_the_cursor() {
        let row = Row::new("x").with("Names", "a\x1b[2Jb\nc");
        let listing = Listing { format: "{{.Names}}", table: "", raw: None, headers: &[] };
        assert_eq!(listing.render([row]).expect("renders"), "a\\u{1b}[2Jb\\nc\n");
    }

    #[test]
    fn documents_are_typed_first() {
        let list = [json!({"Id": "abc", "State": {"Health": null}, "Config": {"Labels": {"a": "1"}}})];
        let show = |text: &str| documents(Some(text), &list).unwrap_or_else(|error| error);
        assert_eq!(show("{{.Id}} {{.State.Health}} {{.Config.Labels}}"), "abc <nil> map[a:1]\n");
        assert_eq!(show(r#"{{index .Config.Labels "z"}}|{{.Config.Labels.z}}"#), "|<no value>\n");
        assert_eq!(
            show("{{.Foo}}"),
            r#"template parsing error: template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo""#
        );
        assert!(documents(None, &list).expect("renders").starts_with("[\n    {\n        \"Config\""));
        assert_eq!(documents(None, &[]).expect("renders"), "[]\n");
        assert!(named("{{.Nope}}", &list[0], "x.y").is_err_and(|error| error.contains("type x.y")));
    }
}
