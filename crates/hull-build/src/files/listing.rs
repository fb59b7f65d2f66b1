//! What was taken, file by file: for saying which one differs from the last time.

use sha2::{Digest as _, Sha256};

use super::select::Selected;

/// Every file with a stamp of what counts of it, sorted by path. Names that are no text are shown as they can be.
pub(super) fn listing(selected: &Selected) -> Vec<(String, String)> {
    let mut list = Vec::new();
    for one in &selected.matches {
        for pick in one.picks.iter().filter(|pick| !pick.implied) {
            let mut hasher = Sha256::new();
            hasher.update(format!("{:?} {:o} {}\n", pick.meta.kind, pick.meta.mode, pick.target.len()));
            hasher.update(&pick.target);
            hasher.update(pick.digest.unwrap_or_default());
            for (name, value) in &pick.xattrs {
                hasher.update([name.as_slice(), b"=", value.as_slice(), b"\n"].concat());
            }
            let bytes: [u8; 32] = hasher.finalize().into();
            let stamp = bytes[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            let path = hull_oci::spec::one_line(&String::from_utf8_lossy(&one.path_of(pick)));
            list.push((path, stamp));
        }
    }
    list.sort();
    list
}
