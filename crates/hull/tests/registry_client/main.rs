//! `hull pull`, `push` and their kin as a client of registries that fail, lie and redirect, of mirrors, and of other
//! machines: everything through the command line.

mod commands;
mod configuration;
mod credentials;
mod faults;
mod lists;
mod signatures;
mod ssh;
mod world;
