//! `cargo xtask package`: the Debian package, of the release binary, the manual and the completions that it writes itself.

use std::path::Path;
use std::process::Command;

use crate::{Result, cargo, check, release, workspace};

const USAGE: &str = "usage: cargo xtask package [--no-build]";

/// The shells whose completions are in the package.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Builds the package, of which cargo-deb prints the path; `--no-build` takes the release binary that is there.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let hull = match arguments {
        [] => release::build()?,
        [word] if word == "--no-build" => release::built()?,
        _ => return Err(USAGE.into()),
    };
    if !cargo(&["deb", "--version"]).output()?.status.success() {
        return Err("cargo-deb is not installed; use 'cargo install cargo-deb --locked'".into());
    }
    // Where crates/hull/Cargo.toml looks for them, wherever cargo builds. Pages of commands that are gone must not stay.
    let directory = workspace().join("target/package");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(directory.join("completions"))?;
    check(Command::new(&hull).arg("man").arg(directory.join("man")))?;
    for shell in SHELLS {
        completion(&hull, shell, &directory.join("completions").join(shell))?;
    }
    check(
        cargo(&[
            "deb",
            "--quiet",
            "--package",
            "hull",
            "--no-build",
            "--no-strip",
            "--target",
            release::TARGET,
            "--output",
        ])
        .arg(&directory),
    )
}

fn completion(hull: &Path, shell: &str, to: &Path) -> Result<()> {
    let output = Command::new(hull).args(["completion", shell]).output()?;
    if !output.status.success() {
        return Err(format!("hull completion {shell}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(std::fs::write(to, output.stdout)?)
}
