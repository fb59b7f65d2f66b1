//! The OCI runtime: spec to plan to clone to exec.
