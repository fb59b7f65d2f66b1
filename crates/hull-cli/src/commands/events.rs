//! `hull events`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::rc::Rc;

use hull_engine::events::{self, Event, FILTERS, Query};
use hull_engine::{Engine, time};
use hull_oci::spec::one_line;
use hull_template::{FunctionSet, MissingKey, Object, Template, Value};

use super::filter::{self, Filter};
use super::{Done, Failure, moment};

/// Show what happens to containers, images, volumes and networks
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull events\n  hull events --since 1h --until 0s --filter type=container\n  hull events --filter event=die --format '{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}'"
)]
pub(super) struct Args {
    /// Show only events that fit: container, event, image, label, network, scope, type, volume, ...
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = filter::parse)]
    filters: Vec<Filter>,
    /// Print by a template, or 'json'
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    format: String,
    /// Begin with what was after a time, or a duration such as 10m ago
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// End at a time, or a duration such as 10m ago
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
}

/// An event as templates see it: the names of Go and those of JSON.
#[derive(Debug)]
struct Shown(Event);

impl Shown {
    /// What older clients read.
    fn legacy(&self) -> (&str, &str, &str) {
        let event = &self.0;
        let from = event.actor.attributes.get("image").map_or("", String::as_str);
        match event.kind.as_str() {
            "container" => (&event.action, &event.actor.id, from),
            "image" => (&event.action, &event.actor.id, ""),
            _ => ("", "", ""),
        }
    }
}

impl Object for Shown {
    fn type_name(&self) -> String {
        "events.Message".to_owned()
    }

    fn names(&self) -> Vec<String> {
        let (status, id, from) = self.legacy();
        let legacy = [("status", status), ("id", id), ("from", from)];
        let legacy = legacy.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, _)| name);
        legacy.chain(["Type", "Action", "Actor", "scope", "time", "timeNano"]).map(str::to_owned).collect()
    }

    fn field(&self, name: &str) -> Option<Value> {
        let event = &self.0;
        let (status, id, from) = self.legacy();
        let text = |text: &str| Value::from(one_line(text));
        Some(match name {
            "status" | "Status" => text(status),
            "id" | "ID" => text(id),
            "from" | "From" => text(from),
            "Type" => text(&event.kind),
            "Action" => text(&event.action),
            "scope" | "Scope" => text(&event.scope),
            "time" | "Time" => Value::Int(event.time.into()),
            "timeNano" | "TimeNano" => Value::Int(event.time_nano.into()),
            "Actor" => {
                let entries = event.actor.attributes.iter().map(|(key, value)| (one_line(key), text(value)));
                let attributes = hull_template::Map { entries: entries.collect(), zero: Value::from("") };
                let fields = vec![
                    ("ID".to_owned(), text(&event.actor.id)),
                    ("Attributes".to_owned(), Value::Map(Rc::new(attributes))),
                ];
                Value::Struct(Rc::new(hull_template::Struct {
                    name: "events.Actor".to_owned(),
                    fields,
                    absent: Vec::new(),
                }))
            }
            _ => return None,
        })
    }
}

/// `TIME TYPE ACTION ID (KEY=VALUE, ...)`.
fn line(event: &Event) -> String {
    let mut line = format!("{} {} {} {}", time::fixed(event.time_nano), event.kind, event.action, event.actor.id);
    if !event.actor.attributes.is_empty() {
        let pairs: Vec<String> = event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        line.push_str(&format!(" ({})", pairs.join(", ")));
    }
    one_line(&line)
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let filters = filter::all(&args.filters, &FILTERS)?;
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in FILTERS {
        values.insert(name.to_owned(), filters.values(name).map(str::to_owned).collect());
    }
    let since = moment("", args.since.as_deref())?;
    let until = moment("", args.until.as_deref())?;
    let format = match args.format.as_str() {
        "" => None,
        "json" => Some("{{json .}}"),
        format => Some(format),
    };
    let wrong = |error: hull_template::Error| format!("template parsing error: {error}");
    let template = format.map(Template::parse).transpose().map_err(|error| Failure::new(wrong(error)))?;
    let mut failed = None;
    let query = Query { since, until, filters: values };
    events::read(engine, &query, &mut |event| {
        let text = match &template {
            None => line(event),
            Some(template) => {
                let value = Value::Object(Rc::new(Shown(event.clone())));
                match template.execute(&value, MissingKey::NoValue, FunctionSet::Values) {
                    Ok(text) => text,
                    Err(error) => {
                        failed = Some(wrong(error));
                        return false;
                    }
                }
            }
        };
        // Whoever reads may have seen enough.
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
    })?;
    failed.map_or(Ok(0), |failed| Err(Failure::new(failed)))
}

#[cfg(test)]
mod tests {
    use hull_engine::events::Actor;

    use super::*;

    fn event() -> Event {
        let attributes = [("name", "web"), ("image", "alpine")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Event {
            kind: "container".to_owned(),
            action: "start".to_owned(),
            actor: Actor { id: "abc".to_owned(), attributes },
            scope: "local".to_owned(),
            time: 1_709_210_096,
            time_nano: 1_709_210_096_120_000_000,
        }
    }

    #[test]
    fn lines_are_docker_s() {
        assert_eq!(line(&event()), "2024-02-29T12:34:56.120000000Z container start abc (image=alpine, name=web)");
    }

    #[test]
    fn templates_see_both_names_of_fields() {
        let show = |text: &str| {
            let value = Value::Object(Rc::new(Shown(event())));
            Template::parse(text).and_then(|one| one.execute(&value, MissingKey::NoValue, FunctionSet::Values))
        };
        assert_eq!(
            show("{{.Status}} {{.ID}} {{.From}} {{.Actor.Attributes.name}} {{.Time}}").ok().as_deref(),
            Some("start abc alpine web 1709210096")
        );
        let json = r#"{"status":"start","id":"abc","from":"alpine","Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"alpine","name":"web"}},"scope":"local","time":1709210096,"timeNano":1709210096120000000}"#;
        assert_eq!(show("{{json .}}").ok().as_deref(), Some(json));
    }
}
