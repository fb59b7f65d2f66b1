//! Which containers a list shows.

use std::borrow::Borrow;

use hull_oci::spec::one_line;

use super::Filters;
use crate::config::{MountConfig, NamespaceChoice};
use crate::inspect::network::{Port, ports};
use crate::inspect::{health, image_name, phase};
use crate::records::{Container, Engine, Phase, State};
use crate::volumes::mounts::clean;
use crate::{Error, pattern};

/// First and last port, and protocol.
type Range = (u16, u16, String);

/// Filters of containers, understood.
#[derive(Debug)]
pub struct Containers<'f> {
    engine: &'f Engine,
    filters: &'f Filters,
    all: bool,
    exited: Vec<i32>,
    task: Option<bool>,
    published: Vec<Range>,
    exposed: Vec<Range>,
    /// Places in the list, which is from newest to oldest: it gives containers of one second an order too.
    before: Vec<usize>,
    since: Vec<usize>,
    /// Names of images, with their IDs where they are known.
    ancestors: Vec<(&'f str, String)>,
}

/// `80`, `8000-8010/udp`.
fn ranges(filters: &Filters, name: &str) -> Result<Vec<Range>, Error> {
    let parse = |text: &str| {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok((first, last, protocol.to_owned())),
            _ => {
                let text = one_line(text);
                Err(Error::Refused(format!("invalid filter '{name}={text}': expected PORT[-PORT][/PROTOCOL]")))
            }
        }
    };
    filters.values(name).map(parse).collect()
}

fn in_range(port: &Port, number: u16, ranges: &[Range]) -> bool {
    ranges.iter().any(|(first, last, protocol)| *protocol == port.protocol && (*first..=*last).contains(&number))
}

/// Whether a container has a volume of that name, or a mount of that source or at that place.
fn has_mount(container: &Container, wanted: &str) -> bool {
    container.config.mounts.iter().any(|mount| match mount {
        MountConfig::Volume { name, target, .. } => name == wanted || clean(target) == wanted,
        MountConfig::Bind { source, target, .. } => source.as_os_str() == wanted || clean(target) == wanted,
        MountConfig::Tmpfs { .. } | MountConfig::Image { .. } => false,
    })
}

fn on_network(engine: &Engine, container: &Container, wanted: &str) -> bool {
    let config = &container.config;
    let name = engine.networks().find(wanted).map_or_else(|_| wanted.to_owned(), |network| network.name);
    match &config.namespaces.network {
        NamespaceChoice::Host => name == "host",
        NamespaceChoice::Private if config.networks.is_empty() => name == "none",
        NamespaceChoice::Container(_) | NamespaceChoice::Path(_) => false,
        NamespaceChoice::Private => config.networks.iter().any(|one| one.name == wanted || one.name == name),
    }
}

impl<'f> Containers<'f> {
    /// Understands filters of a list of the engine's containers; `all` are shown, or else only those that run, unless a
    /// filter asks for others.
    ///
    /// # Errors
    /// When a value is wrong or names no container.
    pub fn new(
        engine: &'f Engine,
        filters: &'f Filters,
        all: bool,
        list: &[(impl Borrow<Container>, State)],
    ) -> Result<Self, Error> {
        filters.one_of("health", "health", &["none", "starting", "healthy", "unhealthy"])?;
        let states = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
        filters.one_of("status", "state", &states)?;
        let exited = filters.values("exited").map(|value| {
            let wrong = || {
                let value = one_line(value);
                let why = format!("strconv.Atoi: parsing \"{value}\": invalid syntax");
                Error::Refused(format!("invalid filter 'exited={value}': {why}"))
            };
            value.parse::<i32>().map_err(|_| wrong())
        });
        let exited = exited.collect::<Result<Vec<_>, _>>()?;
        let place = |name: &str| -> Result<usize, Error> {
            let found = engine.find(name)?;
            Ok(list.iter().position(|(container, _)| container.borrow().id == found.id).unwrap_or(list.len()))
        };
        let ancestor =
            |name: &'f str| (name, engine.images.find(name).map(|image| image.id.to_string()).unwrap_or_default());
        Ok(Self {
            engine,
            filters,
            all: all || filters.has("status") || !exited.is_empty(),
            task: filters.truth("is-task")?,
            published: ranges(filters, "publish")?,
            exposed: ranges(filters, "expose")?,
            before: filters.values("before").map(place).collect::<Result<_, _>>()?,
            since: filters.values("since").map(place).collect::<Result<_, _>>()?,
            ancestors: filters.values("ancestor").map(ancestor).collect(),
            exited,
        })
    }

    /// Whether the container at this place of the list is shown.
    #[must_use]
    pub fn fits(&self, place: usize, container: &Container, state: &State) -> bool {
        let (engine, filters) = (self.engine, self.filters);
        (self.all || matches!(state.phase, Phase::Running | Phase::Restarting))
            && self.before.iter().all(|other| place > *other)
            && self.since.iter().all(|other| place < *other)
            && (self.exited.is_empty() || state.phase == Phase::Exited && self.exited.contains(&state.exit_code))
            && filters.any("id", |id| container.id.starts_with(id))
            && filters.any("name", |name| {
                pattern::matches(name, &container.name) || pattern::matches(name, &format!("/{}", container.name))
            })
            && filters.any("status", |status| phase(engine, container, state) == status)
            && filters.any("network", |name| on_network(engine, container, name))
            && filters.any("health", |wanted| wanted == health(engine, container, state))
            && self.task != Some(true)
            && filters.any("isolation", |isolation| matches!(isolation, "" | "default"))
            && filters.any("volume", |volume| has_mount(container, volume))
            && (self.published.is_empty() || {
                let ports = ports(engine, container, state, None);
                // By the number on the machine, as dockerd has it.
                ports.iter().any(|port| port.public.is_some_and(|(_, number)| in_range(port, number, &self.published)))
            })
            && (self.exposed.is_empty() || {
                let image = engine.images.find(&container.image_id).ok();
                let ports = ports(engine, container, state, image.as_ref().map(|image| &image.config.config));
                ports.iter().any(|port| in_range(port, port.private, &self.exposed))
            })
            && (self.ancestors.is_empty()
                || self
                    .ancestors
                    .iter()
                    .any(|(name, id)| image_name(container) == *name || !id.is_empty() && container.image_id == *id))
            && filters.labels(&container.config.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_ranges_of_a_protocol() {
        let mut filters = Filters::default();
        filters.add("expose", "400-500");
        let wanted = ranges(&filters, "expose").expect("parses");
        let port = |private, protocol: &str| Port { private, protocol: protocol.to_owned(), public: None };
        assert!(in_range(&port(443, "tcp"), 443, &wanted));
        assert!(!in_range(&port(443, "udp"), 443, &wanted) && !in_range(&port(80, "tcp"), 80, &wanted));
        filters.add("expose", "x");
        assert!(ranges(&filters, "expose").is_err());
    }
}
