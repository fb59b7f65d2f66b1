//! Command lines: `hull` and `hull oci`.

pub(crate) mod oci;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Dispatches on argv and returns the exit code of the process.
#[must_use]
pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().map(Path::new).and_then(Path::file_name).unwrap_or(OsStr::new("hull"));
    if name == "runc" {
        return oci::main(&args.split_off(1), "runc");
    }
    if args.get(1).is_some_and(|word| word == "oci") {
        return oci::main(&args.split_off(2), "hull oci");
    }
    ExitCode::SUCCESS
}
