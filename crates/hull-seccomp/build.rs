//! Compiles the default profile's filters for the usual capability sets, so that a container's start does not.

use std::fmt::Write;

#[path = "src/compiler/mod.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "the library uses the rest")]
mod compiler;
#[path = "src/profile.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "the library uses the rest")]
mod profile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/compiler");
    println!("cargo::rerun-if-changed=src/profile.rs");
    let target = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    let arch = compiler::arch::Arch::from_target(&target).ok_or(format!("no system call table for {target}"))?;
    // None, the usual default, all.
    let sets = [0, profile::gates(&["CAP_SYS_CHROOT"]), profile::gates(&profile::gated().collect::<Vec<_>>())];
    let mut source = String::from("static PREPARED: &[(u32, &[u8])] = &[\n");
    for gates in sets {
        let compiled = compiler::compile_for(&profile::document(gates, &[arch]), arch)?;
        writeln!(source, "    ({gates}, &{:?}),", compiled.program)?;
    }
    source.push_str("];\n");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    std::fs::write(out.join("prepared.rs"), source)?;
    Ok(())
}
