//! Command lines: `hull` and `hull oci`.

use std::process::ExitCode;

/// Dispatches on argv and returns the exit code of the process.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
