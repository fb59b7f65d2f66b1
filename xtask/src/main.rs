//! Developer commands.
//!
//! ```text
//! cargo xtask test [NEXTEST ARGUMENT...]   every test of the workspace, with the skips counted
//! cargo xtask layers                       crate dependencies point down; fences on libc, unsafe code and file size
//! cargo xtask release                      the release binary, checked to be static and within its size budget
//! cargo xtask bench [OPTION...]            Hull and its peers measured alternately; writes docs/benchmarks.md
//! cargo xtask compare [OPTION...]          the same command lines against a real Docker and against Hull
//! cargo xtask clients [OPTION...]          client libraries and Compose against Hull, and against a real Docker
//! cargo xtask load [OPTION...]             many clients that mix all calls, against Hull
//! cargo xtask screenshots [OPTION...]      the README's pictures, of a real terminal; writes docs/img
//! cargo xtask package                      the Debian package, with cargo-deb; --no-build takes the binary that is there
//! cargo xtask start-order                  which functions a start runs, for the linker; writes crates/hull/start.ld
//! ```

mod bench;
mod clients;
mod compare;
mod http;
mod layers;
mod load;
mod package;
mod release;
mod screenshots;
mod served;
mod sources;
mod start_order;
mod test;
#[cfg(test)]
mod walk;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What a developer command ends with: a message for a person.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: cargo xtask test [NEXTEST ARGUMENT...] | layers | release | package | bench [--help] | compare | clients | load | screenshots | start-order";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let done = match command.as_str() {
        "test" => test::run(&rest),
        "layers" => layers::run(),
        "release" => release::run(),
        "package" => package::run(&rest),
        "bench" => bench::run(&rest),
        "compare" => compare::run(&rest),
        "clients" => clients::run(&rest),
        "load" => load::run(&rest),
        "screenshots" => screenshots::run(&rest),
        "start-order" => start_order::run(),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => Err(format!("unknown command {other:?}\n{USAGE}").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's directory, known when this program was built.
fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// A `cargo` invocation in the workspace.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace());
    command
}

/// Where cargo puts what it builds.
fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace().join(directory),
        None => workspace().join("target"),
    }
}

/// Runs a command and turns an unsuccessful end into an error that names it.
fn check(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if status.success() { Ok(()) } else { Err(format!("{:?}: {status}", command.get_program()).into()) }
}
