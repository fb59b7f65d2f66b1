//! `checkpoint` and `restore`.

use super::args::Parsed;
use super::{CommandError, Globals, id};

/// Saves a running container.
pub(super) fn checkpoint(_globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    Err(CommandError::new(format!("checkpoint container {}: this build has no checkpoint support", id(parsed)?)))
}

/// Runs a saved container.
pub(super) fn restore(_globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    Err(CommandError::new(format!("restore container {}: this build has no checkpoint support", id(parsed)?)))
}
