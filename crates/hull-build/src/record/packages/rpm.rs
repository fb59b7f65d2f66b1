//! Packages of rpm's databases: `rpmdb.sqlite`, and `Packages.db` as SUSE has it.
//!
//! Either holds a header for each package: counts of index entries and of bytes, the entries (tag, type, offset, count),
//! and then the bytes, all numbers big-endian. Berkeley's databases of older systems are not read.

use hull_oci::spec::one_line;

use super::Package;
use super::sqlite::{self, Value};

/// A header with more entries is none.
const MAX_ENTRIES: usize = 65_536;
/// The longest text that is taken.
const MAX_TEXT: usize = 4096;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCHITECTURE: u32 = 1022;
const SHA1: u32 = 269;
const SHA256: u32 = 273;
const INT32: u32 = 4;
const STRING: u32 = 6;

/// Keys that are trusted are listed as packages.
const KEYS: &str = "gpg-pubkey";

/// The packages of `rpmdb.sqlite`.
pub(super) fn sqlite(bytes: &[u8]) -> Vec<Package> {
    let rows = sqlite::rows(bytes, "Packages").unwrap_or_default();
    let header = |row: &Vec<Value>| match row.get(1) {
        Some(Value::Bytes(bytes)) => package(bytes),
        _ => None,
    };
    rows.iter().filter_map(header).collect()
}

/// The packages of `Packages.db`: slots of 16 bytes after a header of 32, each with the place of a blob in blocks of 16
/// bytes; numbers of these are little-endian.
pub(super) fn ndb(bytes: &[u8]) -> Vec<Package> {
    const MAX_PAGES: u32 = 2048;
    let word = |at: usize| bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map(u32::from_le_bytes);
    if bytes.get(..4) != Some(b"RpmP") {
        return Vec::new();
    }
    let pages = word(12).filter(|pages| *pages <= MAX_PAGES).unwrap_or(0);
    let slots = (pages as usize * 256).saturating_sub(2);
    // Slots may name one blob, and it may be long.
    let mut left = bytes.len();
    let one = |slot: usize| {
        let at = 32 + slot * 16;
        let index = word(at + 4).filter(|index| *index != 0)?;
        let blob = (bytes.get(at..at + 4)? == b"Slot").then_some(word(at + 8)? as usize)?.checked_mul(16)?;
        (bytes.get(blob..blob + 4)? == b"BlbS" && word(blob + 4)? == index).then_some(())?;
        let length = word(blob + 12)? as usize;
        left = left.checked_sub(length)?;
        package(bytes.get(blob + 16..(blob + 16).checked_add(length)?)?)
    };
    (0..slots).filter_map(one).collect()
}

/// The package of a header.
fn package(header: &[u8]) -> Option<Package> {
    let word = |at: usize| header.get(at..at + 4).and_then(|part| part.try_into().ok()).map(u32::from_be_bytes);
    let entries = word(0)? as usize;
    let data = header.get(8 + entries.checked_mul(16).filter(|_| entries <= MAX_ENTRIES)?..)?;
    let find = |tag: u32, kind: u32| {
        let place = (0..entries).map(|entry| 8 + entry * 16).find(|at| word(*at) == Some(tag))?;
        (word(place + 4)? == kind).then_some(())?;
        data.get(word(place + 8)? as usize..)
    };
    let text = |tag: u32| {
        let bytes = find(tag, STRING)?;
        let end = bytes.iter().take(MAX_TEXT).position(|byte| *byte == 0)?;
        Some(one_line(&String::from_utf8_lossy(bytes.get(..end)?))).filter(|text| !text.is_empty())
    };
    let name = text(NAME).filter(|name| name != KEYS)?;
    let epoch = find(EPOCH, INT32).and_then(|bytes| Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?)));
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let release = text(RELEASE).map(|release| format!("-{release}")).unwrap_or_default();
    Some(Package {
        kind: "rpm".to_owned(),
        name,
        version: format!("{epoch}{}{release}", text(VERSION)?),
        architecture: text(ARCHITECTURE).unwrap_or_default(),
        hash: text(SHA256).map(|hex| format!("sha256:{hex}")).or_else(|| text(SHA1).map(|hex| format!("sha1:{hex}"))),
        before: None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header as rpm keeps it: the region first, then the tags in order.
    pub(crate) fn header(name: &str, epoch: Option<u32>, version: &str, sha256: &str) -> Vec<u8> {
        let mut entries: Vec<[u32; 4]> = vec![[63, 7, 0, 16]];
        let mut data = vec![0; 16];
        let mut add = |tag: u32, kind: u32, bytes: &[u8]| {
            while kind == INT32 && !data.len().is_multiple_of(4) {
                data.push(0);
            }
            entries.push([tag, kind, u32::try_from(data.len()).unwrap(), 1]);
            data.extend_from_slice(bytes);
        };
        add(SHA256, STRING, format!("{sha256}\0").as_bytes());
        add(NAME, STRING, format!("{name}\0").as_bytes());
        add(VERSION, STRING, format!("{version}\0").as_bytes());
        add(RELEASE, STRING, b"3.fc40\0");
        if let Some(epoch) = epoch {
            add(EPOCH, INT32, &epoch.to_be_bytes());
        }
        add(ARCHITECTURE, STRING, b"x86_64\0");
        let mut bytes = Vec::new();
        for word in [u32::try_from(entries.len()).unwrap(), u32::try_from(data.len()).unwrap()] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend(entries.iter().flatten().flat_map(|word| word.to_be_bytes()));
        bytes.extend_from_slice(&data);
        bytes
    }

    #[test]
    fn headers_are_packages() {
        let found = package(&header("bash", Some(2), "5.2", "ab")).unwrap();
        assert_eq!((found.name.as_str(), found.version.as_str()), ("bash", "2:5.2-3.fc40"));
        assert_eq!((found.architecture.as_str(), found.hash.as_deref()), ("x86_64", Some("sha256:ab")));
        assert_eq!(package(&header("dash", None, "1", "ab")).unwrap().version, "1-3.fc40");
        assert!(package(&header("gpg-pubkey", None, "1", "ab")).is_none());
        let whole = header("bash", Some(2), "5.2", "ab");
        for length in 0..whole.len() {
            let _ = package(&whole[..length]);
        }
        for place in 0..whole.len() {
            let mut bad = whole.clone();
            bad[place] = 0xff;
            let _ = package(&bad);
        }
    }

    #[test]
    fn databases_of_both_kinds_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rpmdb.sqlite");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        let table = "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)";
        connection.execute_batch(table).unwrap();
        let long = "d".repeat(3000);
        for (name, sha256) in [("bash", "ab"), ("zlib", long.as_str())] {
            let sql = "INSERT INTO Packages (blob) VALUES (?1)";
            connection.execute(sql, [header(name, None, "1.3", sha256)]).unwrap();
        }
        connection.close().unwrap();
        let found = sqlite(&std::fs::read(path).unwrap());
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["bash", "zlib"]);
        assert_eq!(found[1].hash.as_ref().map(String::len), Some(3007));

        let blob = header("libzypp", None, "17", "cd");
        let mut bytes = b"RpmP".to_vec();
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        bytes.extend(words(&[0, 1, 1, 0, 0, 0, 0]));
        bytes.extend(b"Slot");
        bytes.extend(words(&[7, 256, u32::try_from(blob.len() / 16 + 2).unwrap()]));
        bytes.resize(4096, 0);
        bytes.extend(b"BlbS");
        bytes.extend(words(&[7, 1, u32::try_from(blob.len()).unwrap()]));
        bytes.extend(&blob);
        let found = ndb(&bytes);
        assert_eq!((found.len(), found[0].name.as_str()), (1, "libzypp"));
        for length in (0..bytes.len()).step_by(13) {
            let _ = ndb(&bytes[..length]);
        }
    }
}
