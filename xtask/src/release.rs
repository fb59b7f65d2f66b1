//! `cargo xtask release`: the binary that users get, and what it promises: static, and not grown past its budget.

use std::path::{Path, PathBuf};

use crate::{Result, cargo, check, target_directory};

/// The most the release binary may weigh, in bytes. SQLite, TLS and OpenPGP, command lines, builds and the Engine API are
/// the large parts; pages of them that a command does not touch are never read.
const MOST_BYTES: u64 = 20 << 20;

/// The target that `.cargo/config.toml` names: the machine's own, which this program is built for too.
pub(crate) const TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// The program header type (PT_INTERP) that a static executable lacks.
const PT_INTERP: u32 = 3;

/// Builds and checks the release binary and prints its size.
pub(crate) fn run() -> Result<()> {
    let path = build()?;
    let size = std::fs::metadata(&path)?.len();
    if let Some(loader) = interpreter(&std::fs::read(&path)?)? {
        return Err(format!("{}: not static: it asks for the loader {loader}", path.display()).into());
    }
    if size > MOST_BYTES {
        return Err(format!("{}: {size} bytes, more than the budget of {MOST_BYTES}", path.display()).into());
    }
    println!("release: {} is static, {size} bytes of {MOST_BYTES}", path.display());
    Ok(())
}

/// Builds the release binary.
pub(crate) fn build() -> Result<PathBuf> {
    check(&mut cargo(&["build", "--release", "--locked", "--package", "hull"]))?;
    built()
}

/// The release binary that was built last.
pub(crate) fn built() -> Result<PathBuf> {
    let path = target_directory().join(TARGET).join("release/hull");
    if Path::new(&path).is_file() { Ok(path) } else { Err(format!("{}: not built", path.display()).into()) }
}

/// The dynamic loader that a 64-bit little-endian ELF file asks for.
fn interpreter(elf: &[u8]) -> Result<Option<String>> {
    if elf.get(..6) != Some(b"\x7fELF\x02\x01".as_slice()) {
        return Err("not a 64-bit little-endian ELF file".into());
    }
    let number = |at: usize, width: usize| -> Result<usize> {
        let bytes = elf.get(at..at + width).ok_or("truncated ELF file")?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
    };
    let (table, entry, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in (0..count).map(|index| table + index * entry) {
        if number(header, 4)? == PT_INTERP as usize {
            let (offset, length) = (number(header + 8, 8)?, number(header + 32, 8)?);
            let name = elf.get(offset..offset + length).ok_or("truncated ELF file")?;
            return Ok(Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one program header of the given type that covers the text `/lib/ld.so`.
    fn elf(kind: u8) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[32], file[54], file[56]) = (64, 56, 1);
        (file[64], file[64 + 8], file[64 + 32]) = (kind, 120, 11);
        file.extend_from_slice(b"/lib/ld.so\0");
        file
    }

    #[test]
    fn a_loader_is_named_and_its_absence_is_static() {
        assert_eq!(interpreter(&elf(3)).unwrap().as_deref(), Some("/lib/ld.so"));
        assert_eq!(interpreter(&elf(1)).unwrap(), None);
    }

    #[test]
    fn what_is_no_elf_file_is_an_error() {
        assert!(interpreter(b"#!/bin/sh\n").is_err());
        assert!(interpreter(b"\x7fELF\x02\x01").is_err());
    }
}
