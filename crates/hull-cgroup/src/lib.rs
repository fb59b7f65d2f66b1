//! Control groups: v1, v2, hybrid, and systemd scopes.
