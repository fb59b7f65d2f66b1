//! Applying plans in child processes.
