//! Any `config.json` either is refused or becomes a specification whose parts can be read; nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = hull_oci::Spec::parse(bytes) else { return };
    if let Some(profile) = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) {
        let _ = hull_seccomp::compile(profile);
    }
});
