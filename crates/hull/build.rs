//! Link options of the binary.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=start.ld");
    // Relative relocations in their packed form: the table that each start walks through shrinks from 31 pages to one.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    if std::env::var_os("CARGO_CFG_TARGET_ARCH").is_some_and(|arch| arch == "x86_64") {
        // Where the kernel begins: `hull_sys::entry`, which goes on to the C library's `_start`.
        println!("cargo::rustc-link-arg-bins=-Wl,-e,hull_start");
    }
    // What a start runs lies together, so that it touches few pages. Names that no longer exist are ignored.
    if std::env::var_os("PROFILE").is_some_and(|profile| profile == "release")
        && let Some(directory) = std::env::var_os("CARGO_MANIFEST_DIR")
    {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", Path::new(&directory).join("start.ld").display());
    }
}
