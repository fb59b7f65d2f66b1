//! Identifiers, and names for containers that got none.

use std::fs;

use crate::error::Error;
use crate::records::{Engine, is_id};

const FIRST: [&str; 32] = [
    "amber", "brave", "bright", "calm", "clear", "coral", "crisp", "deep", "eager", "early", "fair", "fresh", "gentle",
    "golden", "grand", "happy", "keen", "kind", "light", "lively", "lucky", "mellow", "merry", "noble", "proud",
    "quick", "quiet", "silver", "steady", "sunny", "swift", "warm",
];

const SECOND: [&str; 32] = [
    "anchor", "barge", "beacon", "bosun", "bow", "breeze", "brig", "buoy", "canoe", "clipper", "cutter", "deck",
    "dinghy", "ferry", "frigate", "galley", "harbor", "helm", "keel", "ketch", "mast", "oar", "pier", "pilot", "quay",
    "rudder", "sail", "schooner", "skiff", "sloop", "tide", "wharf",
];

/// 32 random bytes: the container's ID and the source of its name.
pub(crate) fn random() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::io("read", "random numbers"))?;
    Ok(bytes)
}

/// As lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// `swift_harbor_3f`: few enough words to remember, digits enough for a thousand containers.
pub(crate) fn generated(random: &[u8; 32]) -> String {
    let [.., first, second, third, fourth] = random;
    let pick = |list: &[&'static str; 32], byte: u8| list[usize::from(byte) % 32];
    format!("{}_{}_{}", pick(&FIRST, *first), pick(&SECOND, *second), hex(&[*third, *fourth]))
}

impl Engine {
    /// The names of all containers, each with its ID, sorted; no record is read.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(&self) -> Result<Vec<(String, String)>, Error> {
        let root = self.root().join("names");
        let entries = match fs::read_dir(&root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", &root))?,
        };
        let pair = |entry: fs::DirEntry| {
            let id = fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok()?;
            Some((entry.file_name().into_string().ok()?, id))
        };
        let mut names: Vec<(String, String)> = entries.flatten().filter_map(pair).filter(|(_, id)| is_id(id)).collect();
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_names() {
        let bytes = random().unwrap();
        assert_eq!(hex(&bytes).len(), 64);
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
        assert!(crate::flags::container_name(&generated(&bytes)).is_ok());
    }
}
