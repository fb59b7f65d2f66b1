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
        format!("*formatter.{}", self.kind)
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
const MAPS: [&str; 13] = [
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

/// A document as Go's client sees it: structs, except where keys are anyone's choice.
pub(crate) fn typed(document: &serde_json::Value) -> Value {
    match document {
        serde_json::Value::Null => Value::NilPointer,
        serde_json::Value::Array(list) => Value::List(list.iter().map(typed).collect()),
        serde_json::Value::Object(object) => {
            let entry = |(key, value): (&String, &serde_json::Value)| {
                let value = match value {
                    serde_json::Value::Object(entries) if MAPS.contains(&key.as_str()) => map(entries),
                    value => typed(value),
                };
                (key.clone(), value)
            };
            Value::Struct(Rc::new(Struct { name: "struct".to_owned(), fields: object.iter().map(entry).collect() }))
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
            Ok(out)
        }
    }
}

/// What `info` and `version` print of their one document by a template.
///
/// # Errors
/// As [`documents`].
pub(crate) fn document(format: &str, document: &serde_json::Value) -> Result<String, String> {
    if format == "json" {
        return Ok(format!("{document}\n"));
    }
    let template = Template::parse(format).map_err(|error| wrong(&error))?;
    Ok(format!("{}\n", template.render(&typed(document)).map_err(|error| wrong(&error))?))
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
    template.render(&typed(document)).or_else(|_| {
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
        assert!(document("{{.Nope}}", &list[0]).is_err());
    }
}
