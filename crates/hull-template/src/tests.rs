//! Known results: what Docker's own client 28.5 answers for the same templates and data.

use proptest::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::*;

mod known;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    id: &'static str,
    args: [&'static str; 2],
    state: State,
    name: &'static str,
    config: Config,
    mounts: [&'static str; 0],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: &'static str,
    running: bool,
    pid: i32,
    exit_code: i32,
    health: Option<()>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: BTreeMap<&'static str, &'static str>,
    env: [&'static str; 2],
    exposed_ports: BTreeMap<&'static str, Nothing>,
}

#[derive(Serialize)]
struct Nothing {}

fn typed() -> Value {
    Value::of(&Document {
        id: "abc",
        args: ["-c", "x y"],
        state: State { status: "running", running: true, pid: 12, exit_code: 0, health: None },
        name: "/web",
        config: Config {
            labels: BTreeMap::from([("a", "1"), ("b.c", "2")]),
            env: ["A=b", "C=d"],
            exposed_ports: BTreeMap::from([("80/tcp", Nothing {})]),
        },
        mounts: [],
    })
    .expect("serialises")
}

/// The same and more, without types.
fn untyped() -> Value {
    Value::from(&json!({
        "Id": "abc", "Args": ["-c", "x y"], "Name": "/web", "Mounts": [],
        "State": {"Status": "running", "Running": true, "Pid": 12, "ExitCode": 0, "Health": null},
        "Config": {"Labels": {"a": "1", "b.c": "2"}, "Env": ["A=b", "C=d"], "ExposedPorts": {"80/tcp": {}}},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}},
        "Extra": {
            "s": "str", "n": 5, "f": 1.5, "null": null, "list": [1, "two", null, true], "m": {"b": 1, "a": "x"},
            "html": "<a href='x'>\"&</a>\0", "empty": [],
        },
    }))
}

/// As `inspect` does it: typed data first, then without types and strictly.
fn inspect(text: &str) -> String {
    let result = Template::parse(text).and_then(|template| {
        template.render(&typed()).or_else(|_| template.execute(&untyped(), MissingKey::Error, FunctionSet::Values))
    });
    result.unwrap_or_else(|error| format!("template parsing error: {error}"))
}

#[test]
fn results_are_those_of_dockers_client() {
    let wrong: Vec<String> = known::KNOWN
        .iter()
        .filter_map(|(text, expected)| {
            let got = inspect(text);
            (got != *expected).then(|| format!("{text}\n  expected {expected}\n  got      {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), known::KNOWN.len(), wrong.join("\n"));
}

/// A row as `ps` has them.
struct Row;

impl Object for Row {
    fn type_name(&self) -> String {
        "*formatter.ContainerContext".to_owned()
    }
    fn names(&self) -> Vec<String> {
        vec!["ID".to_owned(), "Names".to_owned()]
    }
    fn field(&self, name: &str) -> Option<Value> {
        match name {
            "ID" => Some(Value::from("4c01db0b339c")),
            "Names" => Some(Value::from("web<&>")),
            _ => None,
        }
    }
    fn arity(&self, name: &str) -> Option<usize> {
        (name == "Label").then_some(1)
    }
    fn call(&self, _: &str, args: &[std::rc::Rc<str>]) -> Value {
        Value::from(format!("<{}>", args.join(",")))
    }
}

#[test]
fn objects_have_fields_and_methods() {
    let row = Value::Object(std::rc::Rc::new(Row));
    let render = |text: &str| {
        let result = Template::parse(text).and_then(|template| template.render(&row));
        result.unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(render(r#"{{.ID}}: {{.Label "com.example"}} {{"x" | .Label}}"#), "4c01db0b339c: <com.example> <x>");
    assert_eq!(render("{{json .}}"), r#"{"ID":"4c01db0b339c","Names":"web\u003c\u0026\u003e"}"#);
    assert_eq!(
        render("{{.Foo}}"),
        r#"template: :1:2: executing "" at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext"#
    );
    assert_eq!(
        render("{{.Label}}"),
        r#"template: :1:2: executing "" at <.Label>: wrong number of args for Label: want 1 got 0"#
    );
    assert_eq!(render("{{.Label 5}}"), r#"template: :1:9: executing "" at <5>: expected string; found 5"#);
    assert_eq!(
        render("{{.ID.x}}"),
        r#"template: :1:5: executing "" at <.ID.x>: can't evaluate field x in type string"#
    );
}

#[test]
fn typed_data_keeps_its_order_and_forgives_missing_keys() {
    let render = |text: &str| {
        let result = Template::parse(text).and_then(|template| template.render(&typed()));
        result.unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(render("{{json .State}}"), r#"{"Status":"running","Running":true,"Pid":12,"ExitCode":0,"Health":null}"#);
    assert_eq!(render("{{.State}}"), "{running true 12 0 <nil>}");
    assert_eq!(render(r#"{{index .Config.Labels "zz"}}|{{.Config.Labels.zz}}"#), "|<no value>");
    assert!(render("{{.Nope}}").contains("can't evaluate field Nope in type"), "{}", render("{{.Nope}}"));
}

#[test]
fn headers_are_not_changed() {
    let template = Template::parse("{{upper .Names}} {{.ID | truncate}} {{json .ID}}").unwrap();
    let data = Value::map([("Names".to_owned(), "Names".into()), ("ID".to_owned(), "Container Id".into())]);
    let error = template.execute(&data, MissingKey::NoValue, FunctionSet::Headers).unwrap_err();
    assert!(error.to_string().contains("wrong number of args for truncate"), "{error}");
    let template = Template::parse("{{upper .Names}} {{truncate .ID 3}} {{json .ID}}").unwrap();
    let text = template.execute(&data, MissingKey::NoValue, FunctionSet::Headers).unwrap();
    assert_eq!(text, "Names Container Id Container Id");
}

#[test]
fn work_output_and_depth_are_bounded() {
    let fails = |text: &str, part: &str| {
        let error = Template::parse(text).and_then(|template| template.render(&typed())).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    fails(&format!("{{{{{}", "(".repeat(100_000)), "nested deeper");
    fails(&format!("{}{}", "{{if 1}}".repeat(10_000), "{{end}}".repeat(10_000)), "nested deeper");
    fails(r#"{{define "r"}}{{template "r"}}{{end}}{{template "r"}}"#, "exceeded maximum template depth");
    fails("{{range 1000000}}{{range 1000000}}{{end}}{{end}}", "steps");
    fails(r#"{{$x := "0123456789"}}{{range 100}}{{$x = printf "%s%s" $x $x}}{{end}}"#, "longer than");
    fails(r#"{{$x := pad "x" 1000000 0}}{{range 100}}{{$x}}{{end}}"#, "writes more than");
    fails(r#"{{pad "x" 9223372036854775807 9223372036854775807}}"#, "longer than");
    fails(
        r#"{{printf "%999999d%999999d%1000000000d" 1 2 3 | printf "%9999999s%.99999f" 1.5 | len | nope}}"#,
        "not defined",
    );
    fails(&" ".repeat(MAX_TEMPLATE + 1), "longer");
}

/// Pieces of templates, so that random texts get past the parser.
fn piece() -> impl Strategy<Value = String> {
    let fixed = proptest::sample::select(
        [
            "{{",
            "}}",
            "{{-",
            "-}}",
            " ",
            "(",
            ")",
            "|",
            ".",
            ".Id",
            ".Args",
            ".State.Pid",
            "$",
            "$x",
            ":=",
            "=",
            ",",
            "if",
            "else",
            "end",
            "range",
            "with",
            "define",
            "template",
            "block",
            "break",
            r#""a""#,
            "`r`",
            "'c'",
            "1",
            "-1",
            "1.5",
            "0x1p4",
            "true",
            "nil",
            "index",
            "slice",
            "len",
            "printf",
            "print",
            "html",
            "js",
            "urlquery",
            "eq",
            "lt",
            "and",
            "or",
            "not",
            "call",
            "json",
            "join",
            "split",
            "pad",
            "truncate",
            "title",
            "%",
            "%5d",
            "{{if .Id}}",
            "{{range .Args}}",
            "{{end}}",
            "{{else}}",
            "{{.Id}}",
            "/*",
            "*/",
            "\\",
            "é",
            "\n",
        ]
        .as_slice(),
    );
    prop_oneof![8 => fixed.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(pieces in prop::collection::vec(piece(), 0..40)) {
        let joined = pieces.concat();
        let spaced = pieces.join(" ");
        for text in [joined, spaced] {
            inspect(&text);
        }
    }

    #[test]
    fn no_call_makes_it_panic(
        name in proptest::sample::select(
            ["index", "slice", "printf", "pad", "truncate", "eq", "lt", "le", "join", "split", "html", "js", "len"].as_slice(),
        ),
        args in prop::collection::vec(
            proptest::sample::select(
                ["nil", "0", "-1", "9223372036854775807", r#""%5.3d|%q""#, r#""é""#, ".Args", ".Config", ".", "1.5", "true", r#""""#]
                    .as_slice(),
            ),
            0..5,
        ),
    ) {
        inspect(&format!("{{{{{name} {}}}}}", args.join(" ")));
    }

    #[test]
    fn formats_of_printf_do_not_panic(format in r"[%a-zA-Z0-9.*+# \[\]-]{0,24}", number in any::<i64>(), float in any::<f64>()) {
        let args = [Value::from(format), Value::from(number), Value::Float(float), Value::from("text")];
        let _ = printf::printf(&args);
    }

    #[test]
    fn quoting_can_be_undone(text in any::<String>()) {
        prop_assert_eq!(strings::unquote(&strings::quote(&text)), Some(text));
    }
}
