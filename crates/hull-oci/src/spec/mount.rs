//! Root file system, mounts and hooks (`config.md`).

use serde::{Deserialize, Serialize};

use super::{IdMapping, null_default};

/// The root file system.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Directory, absolute or relative to the bundle.
    pub path: String,
    /// Whether the container sees it read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
}

/// One mount.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Target inside the container. Relative targets count from `/` (1.2).
    pub destination: String,
    /// File system type; `bind` or absent with a `bind`/`rbind` option for bind mounts.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Device, directory or file; relative bind sources count from the bundle.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Mount options as fstab spells them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub options: Vec<String>,
    /// Own user mapping of an idmapped mount.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// Own group mapping of an idmapped mount.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub gid_mappings: Vec<IdMapping>,
}

/// Programs run at the six points of a container's life.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Deprecated form of `createRuntime`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub prestart: Vec<Hook>,
    /// During `create`, in the runtime's namespaces, before `pivot_root`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub create_runtime: Vec<Hook>,
    /// During `create`, in the container's namespaces, before `pivot_root`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub create_container: Vec<Hook>,
    /// During `start`, in the container, before the program.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub start_container: Vec<Hook>,
    /// After `start`, in the runtime's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub poststart: Vec<Hook>,
    /// After `delete`, in the runtime's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path of the program.
    pub path: String,
    /// Arguments, the program's own name first; absent means only that.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub args: Vec<String>,
    /// Environment; absent means empty.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// Seconds after which the hook is killed and has failed; must be positive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
