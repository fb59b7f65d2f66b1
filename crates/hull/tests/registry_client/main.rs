//! `hull pull`, `push` and their kin as a client of registries that fail, lie and redirect, of mirrors, and of other
//! machines: everything through the command line.

mod configuration;
mod credentials;
mod faults;
mod lists;
mod ssh;
mod world;
