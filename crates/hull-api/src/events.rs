//! `GET /events`.

use std::collections::BTreeMap;
use std::sync::Arc;

use hull_engine::events::{self, Event, Query};
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;
use crate::route::Route;

pub(crate) const ROUTES: &[Route] = &[Route::new("GET", "/events", follow)];

/// An event, with what older clients read.
fn document(event: &Event) -> Value {
    let mut document = json!(event);
    let from = event.actor.attributes.get("image").map_or("", String::as_str);
    let legacy = match event.kind.as_str() {
        "container" => vec![("status", event.action.as_str()), ("id", &event.actor.id), ("from", from)],
        "image" => vec![("status", event.action.as_str()), ("id", &event.actor.id)],
        _ => Vec::new(),
    };
    for (name, text) in legacy.into_iter().filter(|(_, text)| !text.is_empty()) {
        document[name] = text.into();
    }
    document
}

fn follow(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    // As Docker: a filter that nobody knows filters nothing.
    let filters = crate::query::filters(request.query.text("filters"))?;
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, list) in filters.iter() {
        values.insert(name.to_owned(), list.iter().cloned().collect());
    }
    let moment = |name: &str| crate::containers::moment(request.query.text(name));
    let query = Query { since: moment("since")?, until: moment("until")?, filters: values };
    if let (Some(since), Some(until)) = (query.since, query.until)
        && since > until
    {
        let [since, until] = ["since", "until"].map(|name| hull_oci::spec::one_line(request.query.text(name)));
        return Err(Refusal::bad(format!("`since` time ({since}) cannot be after `until` time ({until})")));
    }
    let api = Arc::clone(api);
    Ok(Reply::stream("application/json", move |stream| {
        let stream = std::cell::RefCell::new(stream);
        let mut each =
            |event: &Event| !api.sees(&event.actor.attributes) || stream.borrow_mut().line(&document(event)).is_ok();
        let mut going = || !stream.borrow().is_gone();
        events::follow(&api.engine, &query, &mut each, &mut going).map_err(std::io::Error::other)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_clients_find_what_they_read() {
        let actor =
            events::Actor { id: "abc".to_owned(), attributes: [("image".to_owned(), "busybox".to_owned())].into() };
        let event = |kind: &str| Event {
            kind: kind.to_owned(),
            action: "start".to_owned(),
            actor: actor.clone(),
            scope: "local".to_owned(),
            time: 1,
            time_nano: 1_000_000_000,
        };
        let document = |kind| super::document(&event(kind));
        assert_eq!(document("container")["status"], "start");
        assert_eq!(document("container")["from"], "busybox");
        assert_eq!(document("volume")["id"], Value::Null);
        assert_eq!(document("volume")["Actor"]["ID"], "abc");
    }
}
