//! Any words are a command line, or are refused in one line: no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hull_cli::understand(bytes));
