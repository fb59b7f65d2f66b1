//! Command lines: `hull` and `hull oci`.
//!
//! [`main`] decides by the program's name and first word. `hull oci`, and Hull called as `runc`, speak the command line
//! of OCI runtimes and live in [`oci`]; everything else is a file of [`commands`] each: it turns flags into the engine's
//! plain data, calls the engine once, and prints. Errors are one line on standard error, `hull: ...`.

mod commands;
pub(crate) mod oci;
mod output;

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
    if name == hull_engine::monitor::NAME {
        // A monitor that has shed its memory: there is nobody to tell what fails.
        return ExitCode::from(u8::from(hull_engine::monitor::resume(&args.split_off(1)).is_err()));
    }
    if name == hull_build::run::NAME {
        return ExitCode::from(hull_build::run::main(&args.split_off(1)));
    }
    if name == hull_engine::init::NAME {
        return ExitCode::from(hull_engine::init::run(&args.split_off(1)));
    }
    if args.get(1).is_some_and(|word| word == "oci") {
        return oci::main(&args.split_off(2), "hull oci");
    }
    commands::main(&args)
}

/// Understands a command line, a word a line without the program's name, and does nothing: for fuzzing.
pub fn understand(text: &[u8]) {
    use std::os::unix::ffi::OsStrExt as _;
    let words = text.split(|byte| *byte == b'\n').map(|word| OsStr::from_bytes(word).to_owned());
    let args: Vec<OsString> = std::iter::once("hull".into()).chain(words).collect();
    if args[1] == "oci" {
        oci::understand(&args[2..]);
    } else {
        commands::understand(&args);
    }
}
