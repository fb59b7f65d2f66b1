//! Any seccomp document either is refused or becomes a program that the kernel would run to an end.
#![no_main]

use hull_seccomp::Arch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(profile) = serde_json::from_slice(bytes) else { return };
    for native in [Arch::X86_64, Arch::Aarch64] {
        if let Ok(filter) = hull_seccomp::compile_for(&profile, native) {
            filter.verify().expect("a compiled filter verifies");
        }
    }
});
