//! Any file of patterns either is refused or judges paths alike, step by step and at once, and prunes nothing that counts.
#![no_main]

use hull_dockerfile::ignore::{Ignore, Verdict};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (path, file) = bytes.split_at(bytes.len().min(40));
    let path = String::from_utf8_lossy(path);
    let path = path.trim_matches('/');
    let Ok(ignore) = Ignore::parse(file) else { return };
    let (mut verdict, mut pruned) = (Verdict::default(), false);
    for (at, _) in path.match_indices('/') {
        verdict = ignore.verdict(verdict, &path[..at]);
        pruned |= ignore.prunes(verdict, &path[..at]);
    }
    let last = ignore.verdict(verdict, path);
    assert_eq!(last.excluded, ignore.excludes(path));
    assert!(!pruned || last.excluded);
});
