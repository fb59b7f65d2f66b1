//! Doing the same with several containers.

use hull_engine::{Container, Engine, Error};

use super::Done;
use crate::output;

/// Calls `act` for each named container; all are tried, each failure is one line, and one makes the command fail.
pub(super) fn each(
    engine: &Engine,
    names: &[String],
    mut act: impl FnMut(&str, &Container) -> Result<(), Error>,
) -> Done {
    let mut failed = false;
    for name in names {
        if let Err(error) = engine.find(name).and_then(|container| act(name, &container)) {
            output::error(error);
            failed = true;
        }
    }
    Ok(u8::from(failed))
}
