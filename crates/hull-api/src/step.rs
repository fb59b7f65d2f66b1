//! What needs a process with a single thread, done by another process of the same binary.

use std::process::Command;

use hull_engine::Engine;

use crate::Refusal;

/// First word of the command line of a step, which is no command for users.
pub const COMMAND: &str = "api-step";

/// A command line of this binary on the same directories.
pub(crate) fn own(engine: &Engine) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(engine.root()).arg("--state").arg(engine.state_root());
    command
}

/// Does a step in this process, and returns its exit code.
#[must_use]
pub fn step(_engine: &Engine, _words: &[String]) -> u8 {
    let _: Option<Refusal> = None;
    125
}
