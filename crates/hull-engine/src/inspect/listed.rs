//! A container as lists have it, in Docker's shape.
//!
//! What a list needs from the database is read once for all of its containers, and only if one of them needs it.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::SystemTime;

use hull_image::Image;
use hull_network::{Endpoint, Overview};
use serde_json::{Value, json};

use super::network::{Port, all_ports, attached, exposed, has_ports};
use super::{full_status, health, host, image_name, mounts, phase};
use crate::network::has_networks;
use crate::records::{Container, Engine, Phase, State};

/// A list that is being made.
#[derive(Debug)]
pub struct Listed<'e> {
    engine: &'e Engine,
    now: SystemTime,
    networks: OnceCell<Overview>,
    images: RefCell<HashMap<String, Option<Rc<Image>>>>,
}

fn port(port: &Port) -> Value {
    let mut document = json!({ "PrivatePort": port.private, "Type": port.protocol });
    if let Some((address, number)) = port.public {
        document["IP"] = address.to_string().into();
        document["PublicPort"] = number.into();
    }
    document
}

/// The words as a shell's line, where it matters.
fn command(args: &[String]) -> String {
    let quote = |word: &String| {
        if word.contains([' ', '\t', '\n']) { format!("'{}'", word.replace('\'', "'\\''")) } else { word.clone() }
    };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}

impl<'e> Listed<'e> {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(engine: &'e Engine) -> Self {
        Self { engine, now: SystemTime::now(), networks: OnceCell::new(), images: RefCell::default() }
    }

    /// What cannot be read is not shown: a list has no place for it.
    fn networks(&self) -> &Overview {
        self.networks.get_or_init(|| self.engine.networks().overview().unwrap_or_default())
    }

    fn endpoints(&self, container: &Container, state: &State) -> &[Endpoint] {
        if state.phase != Phase::Running || !has_networks(&container.config) {
            return &[];
        }
        self.networks().endpoints.get(&container.id).map(Vec::as_slice).unwrap_or_default()
    }

    fn image(&self, id: &str) -> Option<Rc<Image>> {
        if let Some(found) = self.images.borrow().get(id) {
            return found.clone();
        }
        let found = Some(id).filter(|id| !id.is_empty()).and_then(|id| self.engine.images.find(id).ok()).map(Rc::new);
        self.images.borrow_mut().insert(id.to_owned(), found.clone());
        found
    }

    fn ports(&self, container: &Container, state: &State) -> Vec<Port> {
        if !has_ports(container, state) {
            return Vec::new();
        }
        let image = self.image(&container.image_id);
        let exposed = exposed(container, image.as_ref().map(|image| &image.config.config));
        if exposed.is_empty() {
            return Vec::new();
        }
        let published = self.networks().ports.get(&container.id).cloned().unwrap_or_default();
        all_ports(exposed, published)
    }

    /// One container of the list; `sized` tells its size too.
    #[must_use]
    pub fn document(&self, container: &Container, state: &State, sized: bool) -> Value {
        let engine = self.engine;
        let word = phase(engine, container, state);
        let status = full_status(state, word, health(engine, container, state), self.now);
        let id_of = |name: &str| self.networks().ids.get(name).cloned();
        let mut document = json!({
            "Id": container.id,
            "Names": [format!("/{}", container.name)],
            "Image": image_name(container),
            "ImageID": container.image_id,
            "Command": command(&container.args),
            "Created": container.created / 1_000_000_000,
            "Ports": self.ports(container, state).iter().map(port).collect::<Vec<_>>(),
            "Labels": container.config.labels,
            "State": word,
            "Status": status,
            "HostConfig": { "NetworkMode": host::network_mode(container) },
            "NetworkSettings": { "Networks": attached(container, state, self.endpoints(container, state), &id_of) },
            "Mounts": mounts(engine, &container.config),
        });
        if sized {
            let written = engine.written(&container.id);
            let image = self.image(&container.image_id);
            let below: u64 = image.map_or(0, |image| image.layers.iter().map(|layer| layer.size).sum());
            document["SizeRw"] = written.into();
            document["SizeRootFs"] = written.saturating_add(below).into();
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_blanks_are_quoted() {
        let words = |list: &[&str]| command(&list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["sh", "-c", "echo it's"]), "sh -c 'echo it'\\''s'");
        assert_eq!(words(&["true"]), "true");
    }
}
