//! What answers are made from: the engine, how the server is run, and what lives as long as the server does.

use std::collections::BTreeMap;
use std::sync::Arc;

use hull_engine::{Container, Engine};

use crate::build::running::Running;
use crate::buildkit::builds::Builds;
use crate::buildkit::session::Sessions;
use crate::containers::kept::Documents;
use crate::containers::waiting::Waiting;
use crate::options::Options;
use crate::refusal::Refusal;

/// What answers are made from.
#[derive(Debug)]
pub struct Api {
    /// Containers, images, volumes, networks.
    pub engine: Engine,
    /// How the server is run.
    pub options: Options,
    /// Containers' documents that were asked for.
    pub(crate) documents: Documents,
    /// Who waits for the start of a container.
    pub(crate) waiting: Waiting,
    /// Builds that can be ended by name.
    pub(crate) builds: Running,
    /// Builds through BuildKit's protocol, and the clients that serve them.
    pub(crate) buildkit: Builds,
    pub(crate) sessions: Sessions,
}

impl Api {
    /// Nothing but the records is needed.
    #[must_use]
    pub fn new(engine: Engine, options: Options) -> Self {
        Self {
            engine: engine.keeping(),
            options,
            documents: Documents::default(),
            waiting: Waiting::default(),
            builds: Running::default(),
            buildkit: Builds::default(),
            sessions: Sessions::default(),
        }
    }

    /// A container by name or ID, if this socket sees it.
    ///
    /// # Errors
    /// In Docker's words when there is none.
    pub fn container(&self, name: &str) -> Result<Arc<Container>, Refusal> {
        let plain = name.strip_prefix('/').unwrap_or(name);
        if plain.is_empty() {
            return Err(Refusal::bad("invalid name or ID supplied: \"\""));
        }
        match self.engine.find_shared(plain) {
            Ok(container) if self.sees(&container.config.labels) => Ok(container),
            Ok(_) => Err(Refusal::no_container(name)),
            Err(hull_engine::Error::NoContainer(_)) => Err(Refusal::no_container(name)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an object with these labels is seen through this socket.
    #[must_use]
    pub fn sees(&self, labels: &BTreeMap<String, String>) -> bool {
        self.options.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
