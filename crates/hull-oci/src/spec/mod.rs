//! `config.json` (runtime-spec 1.3: `config.md` and `config-linux.md`).
//!
//! Field meanings are the specification's; comments here state only units and what differs. Numbers keep the
//! specification's width, so that an absurd size is a parse error rather than a wrapped value.

mod linux;
mod mount;
mod process;
mod resources;
mod seccomp;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use linux::{
    Device, IdMapping, IntelRdt, Linux, MemoryPolicy, Namespace, NamespaceType, NetDevice, Personality, TimeOffset,
};
pub use mount::{Hook, Hooks, Mount, Root};
pub use process::{
    CAPABILITIES, Capabilities, ConsoleSize, CpuAffinity, IoPriority, IoPriorityClass, Process, Rlimit, Scheduler, User,
};
pub use resources::{
    BlockIo, Cpu, DeviceRule, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma, Resources, ThrottleDevice,
    WeightDevice,
};
pub use seccomp::{Arg, ArgOperator, Seccomp, SyscallRule};

/// The specification that this crate speaks.
pub const VERSION: &str = "1.3.0";

/// A configuration of at most this many bytes is read. Docker's own are about 20 KB.
pub const MAX_CONFIG_BYTES: usize = 16 << 20;

/// The whole document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Semantic version of the specification that the document follows.
    pub oci_version: String,
    /// The container's root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Mounts, in the order they are made.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub mounts: Vec<Mount>,
    /// The program to run; may be absent until `start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Host name; needs a UTS namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// NIS domain name; needs a UTS namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// Programs run at points of the container's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free metadata, shown in the state.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub annotations: BTreeMap<String, String>,
    /// The Linux section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
    /// Virtual machine section: present is an error here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<serde_json::Value>,
}

/// Why a configuration was refused before anything was done.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// More than [`MAX_CONFIG_BYTES`].
    #[error("config is {0} bytes, more than the {MAX_CONFIG_BYTES} that are read")]
    TooLarge(usize),
    /// Not JSON at all.
    #[error("config is not valid JSON: {0}")]
    Syntax(serde_json::Error),
    /// JSON, but a field has the wrong type or an unknown value.
    #[error("config field `{field}`: {reason}")]
    Field {
        /// Path of the field, such as `linux.resources.pids.limit`; its names are the document's, so control
        /// characters are escaped.
        field: String,
        /// What was found and what was expected, control characters escaped too.
        reason: String,
    },
}

/// Parses any document of the specification, naming the field in errors.
///
/// # Errors
/// See [`ParseError`].
pub fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ParseError> {
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(ParseError::TooLarge(bytes.len()));
    }
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        // A number where a word belongs counts as bad syntax there, though the document is JSON.
        Err(error) if !error.is_data() && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_err() => {
            Err(ParseError::Syntax(error))
        }
        // Only a refused document pays for tracking the path of each field.
        Err(error) => {
            let mut deserializer = serde_json::Deserializer::from_slice(bytes);
            match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
                Ok(_) => Err(ParseError::Syntax(error)),
                Err(tracked) => Err(ParseError::Field {
                    field: one_line(&tracked.path().to_string()),
                    reason: one_line(&tracked.into_inner().to_string()),
                }),
            }
        }
    }
}

impl Spec {
    /// Parses `config.json`.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        parse(bytes)
    }

    /// The Linux section's namespace of this type, if the document lists one.
    #[must_use]
    pub fn namespace(&self, kind: NamespaceType) -> Option<&Namespace> {
        self.linux.as_ref()?.namespaces.iter().find(|namespace| namespace.kind == kind)
    }
}

/// Text of a document as it may stand in a message: a line break or a terminal's escape sequence in it is spelled out.
#[must_use]
pub fn one_line(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut line, character| {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
        line
    })
}

/// Go writers emit `null` for empty lists and maps; it means the same as absence.
pub fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_word_stays_on_its_line() {
        let document = br#"{"linux": {"namespaces": [{"type": "a\nb\u001b[2J"}]}}"#;
        let message = Spec::parse(document).expect_err("no such namespace").to_string();
        assert!(message.contains(r"linux.namespaces[0].type") && message.contains(r"a\nb\u{1b}[2J"), "{message}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}
