//! Tar streams: what GNU tar and the `tar` crate make of them, hostile ones, and directories of the machine.

mod archive;
mod builder;
mod directory;
mod fuzzed;
mod gnu;
mod hostile;
mod round_trip;
mod seen;
