//! The `hull` binary: everything is in [`hull_cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    hull_cli::main()
}
