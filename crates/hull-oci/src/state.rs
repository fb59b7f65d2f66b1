//! The state document (runtime-spec `runtime.md`, "State").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is running.
    Creating,
    /// `create` is done; the user's program has not started.
    Created,
    /// The user's program runs.
    Running,
    /// All processes are frozen (runc's extension of the specification).
    Paused,
    /// The container's first process has ended.
    Stopped,
}

impl Status {
    /// The word that the state document carries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The state document that hooks get on standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's ID, unique below one state root.
    pub id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Process ID of the first process as the runtime sees it; 0 once stopped.
    #[serde(default)]
    pub pid: i32,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// The configuration's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a seccomp agent gets over `listenerPath` together with the notify descriptor ("Container Process State").
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProcessState {
    /// Version of the specification.
    pub oci_version: String,
    /// Names of the descriptors sent, in order; always `["seccompFd"]`.
    pub fds: Vec<String>,
    /// Process ID that the filter was loaded into, as the runtime sees it.
    pub pid: i32,
    /// `linux.seccomp.listenerMetadata`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// The container's state.
    pub state: State,
}
