//! `hull oci`: the runtime's command line and everything that a specification can ask for.

mod bad_input;
mod cli;
mod hooks;
mod io;
mod linux;
mod mounts;
mod process;
mod seccomp;
