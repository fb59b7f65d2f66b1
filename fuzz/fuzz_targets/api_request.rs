//! Any request to the Engine API either is refused or becomes a configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hull_api::understand(bytes));
