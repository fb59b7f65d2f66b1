//! The names of a network: one small text file, written by whoever connects or disconnects a container, read in place by
//! every container's monitor.
//!
//! ```text
//! ! 0000000211
//! 2.0.18.172.in-addr.arpa PTR web.backend 4f2a91c0d3e7
//! _http._tcp.web SRV 80:web 4f2a91c0d3e7
//! web A 172.18.0.2 4f2a91c0d3e7
//! web AAAA fd00:18::2 4f2a91c0d3e7
//! = 0d3b6c11aa02
//! db A 172.18.0.3 0d3b6c11aa02
//! ```
//!
//! One record a line: name, kind, value, and the container that it belongs to. The first line says where the sorted lines
//! end; in those a name is found by halving the file with `pread(2)`. What comes after, at most [`MAX_TAIL`] bytes, was
//! appended: a block for each container that came or went since, which begins with `= CONTAINER` and is all that the
//! container has from then on, whatever stands before. So nobody who comes reads or writes what the others have. When the
//! blocks are too many, the file is replaced by rename with one in which everything is sorted. A reader keeps the file open
//! that it reads, so an inode number that is seen again is the same file.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::answer::Record;

/// Longer lines are not written and not read.
pub(super) const MAX_LINE: usize = 640;
/// The first line begins so; a decimal number of ten digits and the line's end follow.
const FIRST: &[u8] = b"! ";
/// The first line's bytes.
pub(super) const HEADER: usize = 13;
/// Bytes of blocks behind the sorted lines.
pub(super) const MAX_TAIL: usize = 16 << 10;
/// A block begins so; the container and the line's end follow.
const BLOCK: &[u8] = b"= ";
/// Holds the end of one line and the whole next one.
const WINDOW: usize = 2 * MAX_LINE;

/// A file that others replace.
#[derive(Debug)]
pub(super) struct Followed {
    path: PathBuf,
    seen: Option<Identity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    seconds: i64,
    nanoseconds: i64,
}

impl From<rustix::fs::Stat> for Identity {
    #[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast, reason = "the fields' types differ by architecture")]
    fn from(stat: rustix::fs::Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            seconds: stat.st_mtime as i64,
            nanoseconds: stat.st_mtime_nsec as i64,
        }
    }
}

impl Followed {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file if it is not the one that was seen last.
    pub(super) fn changed(&mut self) -> Result<Option<OwnedFd>, Errno> {
        let now = rustix::fs::stat(&self.path).map(Identity::from);
        if now.is_ok() && now.ok() == self.seen {
            return Ok(None);
        }
        self.seen = None;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = rustix::fs::open(&self.path, flags, Mode::empty())?;
        self.seen = Some(rustix::fs::fstat(&file)?.into());
        Ok(Some(file))
    }

    /// The content, bounded, if it is another one than was seen last.
    pub(super) fn read_changed(&mut self, max: usize) -> Result<Option<Vec<u8>>, Errno> {
        let Some(file) = self.changed()? else { return Ok(None) };
        // One byte more than there is, to see the end.
        let size = self.seen.map_or(0, |seen| usize::try_from(seen.size).unwrap_or(0));
        let mut content = vec![0; max.min(size.saturating_add(1))];
        let mut length = 0;
        while length < content.len() {
            match rustix::io::pread(&file, &mut content[length..], length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        content.truncate(length);
        Ok(Some(content))
    }
}

/// A network's names, as they are at this moment.
#[derive(Debug)]
pub(super) struct Table {
    file: Followed,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: OwnedFd,
    /// Where the sorted lines begin and end.
    sorted: (u64, u64),
    /// Where the file ends.
    size: u64,
}

impl Open {
    fn new(file: OwnedFd, size: u64) -> Self {
        let mut first = [0; HEADER];
        // A table of an earlier version has no such line, and is sorted.
        let sorted = match read_at(&file, 0, &mut first) {
            HEADER => sorted_end(&first, size).map_or((0, size), |end| (HEADER as u64, end)),
            _ => (0, size),
        };
        Self { file, sorted, size }
    }

    fn tail(&self) -> Vec<u8> {
        let length = usize::try_from(self.size - self.sorted.1).unwrap_or(0).min(MAX_TAIL);
        let mut bytes = vec![0; length];
        let read = read_at(&self.file, self.sorted.1, &mut bytes);
        bytes.truncate(read);
        bytes
    }
}

/// The first line of a table with so many bytes of sorted lines.
pub(super) fn header(sorted: usize) -> Vec<u8> {
    format!("! {:010}\n", sorted + HEADER).into_bytes()
}

/// Where the sorted lines end by the first line of a file of this size; `None` when it is no such line.
pub(super) fn sorted_end(first: &[u8], size: u64) -> Option<u64> {
    let digits = first.get(..HEADER)?.strip_prefix(FIRST)?.strip_suffix(b"\n")?;
    let end = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (HEADER as u64 <= end && end <= size).then_some(end)
}

/// The beginning of a container's block.
pub(super) fn block(container: &str) -> Vec<u8> {
    [BLOCK, container.as_bytes(), b"\n"].concat()
}

/// The container that a line belongs to.
pub(super) fn owner(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.rsplit(|byte| *byte == b' ').next().unwrap_or_default()
}

/// The blocks behind the sorted lines.
#[derive(Debug)]
pub(super) struct Tail<'t> {
    bytes: &'t [u8],
    /// Where each container's last block begins.
    last: BTreeMap<&'t [u8], usize>,
}

impl<'t> Tail<'t> {
    pub(super) fn new(bytes: &'t [u8]) -> Self {
        let mut last = BTreeMap::new();
        for (at, line) in whole_lines(bytes).filter(|(_, line)| line.starts_with(BLOCK)) {
            last.insert(owner(line), at);
        }
        Self { bytes, last }
    }

    /// Whether what the container has stands here, and what stands before counts no more.
    pub(super) fn has(&self, container: &[u8]) -> bool {
        self.last.contains_key(container)
    }

    /// The lines that count, each with its end.
    pub(super) fn lines(&self) -> impl Iterator<Item = &'t [u8]> {
        let mut counts = false;
        whole_lines(self.bytes).filter_map(move |(at, line)| {
            if line.starts_with(BLOCK) {
                counts = self.last.get(owner(line)) == Some(&at);
                return None;
            }
            counts.then_some(line)
        })
    }
}

/// Lines with their ends, and where they begin; what has no end is being written or was not finished.
fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    bytes.split_inclusive(|byte| *byte == b'\n').filter_map(move |line| {
        let begin = at;
        at += line.len();
        line.ends_with(b"\n").then_some((begin, line))
    })
}

/// The lines of a whole table that count, each with its end, in no order.
pub(super) fn lines(table: &[u8]) -> Vec<&[u8]> {
    let (sorted, tail) = match sorted_end(table, table.len() as u64) {
        Some(end) => table[HEADER..].split_at(usize::try_from(end).unwrap_or(HEADER) - HEADER),
        None => (table, &[][..]),
    };
    let tail = Tail::new(tail);
    let sorted = whole_lines(sorted).map(|(_, line)| line).filter(|line| !tail.has(owner(line)));
    sorted.chain(tail.lines()).collect()
}

impl Table {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { file: Followed::new(path), open: None }
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Calls `visit` with the records of a name; says whether there is a line of it.
    pub(super) fn find(&mut self, name: &str, visit: &mut dyn FnMut(Record<'_>)) -> bool {
        match self.file.changed() {
            Ok(None) => {}
            Ok(Some(file)) => {
                let size = self.file.seen.map_or(0, |seen| u64::try_from(seen.size).unwrap_or(0));
                self.open = Some(Open::new(file, size));
            }
            // The network is gone, and its names with it.
            Err(Errno::NOENT) => self.open = None,
            // The machine is short of something: better an old answer than to ask others for a name of ours.
            Err(_) => {}
        }
        let Some(open) = &self.open else { return false };
        let mut visit = |line: &[u8]| {
            if let Some(record) = parse(line) {
                visit(record);
            }
        };
        let bytes = open.tail();
        let tail = Tail::new(&bytes);
        let mut found = false;
        for line in tail.lines().map(|line| &line[..line.len() - 1]).filter(|line| key(line) == name.as_bytes()) {
            found = true;
            visit(line);
        }
        lines_of(&open.file, open.sorted, name, &mut |line| {
            if !tail.has(owner(line)) {
                found = true;
                visit(line);
            }
        });
        found
    }
}

/// The name that a line begins with.
fn key(line: &[u8]) -> &[u8] {
    &line[..line.iter().position(|byte| *byte == b' ').unwrap_or(line.len())]
}

/// The order of lines: by name, so that a name's lines stand together, then by the rest.
pub(super) fn order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    key(a).cmp(key(b)).then_with(|| a.cmp(b))
}

fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ').skip(1);
    let (kind, value) = (words.next()?, words.next()?);
    match kind {
        "A" => value.parse::<Ipv4Addr>().ok().map(Record::A),
        "AAAA" => value.parse::<Ipv6Addr>().ok().map(Record::Aaaa),
        "PTR" => Some(Record::Ptr(value)),
        "SRV" => {
            let (port, target) = value.split_once(':')?;
            Some(Record::Srv(port.parse().ok()?, target))
        }
        _ => None,
    }
}

/// Fills the buffer from the offset, as far as the file goes; how far. Nothing when it cannot be read.
fn read_at(file: &OwnedFd, offset: u64, bytes: &mut [u8]) -> usize {
    let mut length = 0;
    while length < bytes.len() {
        match rustix::io::pread(file, &mut bytes[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::INTR) => {}
            Err(_) => return 0,
        }
    }
    length
}

/// Fills the window from the offset, as far as the sorted lines go.
fn window<'w>(file: &OwnedFd, offset: u64, end: u64, bytes: &'w mut [u8; WINDOW]) -> &'w [u8] {
    let wanted = usize::try_from(end.saturating_sub(offset)).unwrap_or(WINDOW).min(WINDOW);
    let length = read_at(file, offset, &mut bytes[..wanted]);
    &bytes[..length]
}

/// Visits the lines of a name among those that are sorted.
fn lines_of(file: &OwnedFd, (begin, end): (u64, u64), name: &str, visit: &mut dyn FnMut(&[u8])) {
    let mut bytes = [0; WINDOW];
    // Every line before low is before the name, and a line begins at low; no line from high on needs to be looked at.
    let (mut low, mut high) = (begin, end);
    while high.saturating_sub(low) > WINDOW as u64 {
        let middle = low + (high - low) / 2;
        // A line begins at the middle if the byte before it ends one.
        let seen = window(file, middle - 1, end, &mut bytes);
        let Some(newline) = seen.iter().position(|byte| *byte == b'\n') else {
            high = middle;
            continue;
        };
        let begin = middle + newline as u64;
        let rest = &seen[newline + 1..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\n').filter(|_| begin < high) else {
            high = middle;
            continue;
        };
        if key(&rest[..length]) < name.as_bytes() {
            low = begin + length as u64 + 1;
        } else {
            high = middle;
        }
    }
    loop {
        let mut seen = window(file, low, end, &mut bytes);
        let mut used = 0;
        while let Some(length) = seen.iter().position(|byte| *byte == b'\n') {
            let line = &seen[..length];
            match key(line).cmp(name.as_bytes()) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => visit(line),
                std::cmp::Ordering::Greater => return,
            }
            seen = &seen[length + 1..];
            used += length as u64 + 1;
        }
        if used == 0 {
            return;
        }
        low += used;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn find(table: &mut Table, name: &str) -> Option<Vec<String>> {
        let mut records = Vec::new();
        table.find(name, &mut |record| records.push(format!("{record:?}"))).then_some(records)
    }

    #[test]
    fn every_name_of_a_large_table_is_found_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names");
        let mut lines: Vec<String> =
            (0..3000).map(|n: u32| format!("c{n} A {} owner{n}\n", Ipv4Addr::from(0x0a00_0000 + n))).collect();
        lines.extend((0..200).map(|n: u32| format!("shared A {} owner{n}\n", Ipv4Addr::from(0x0a00_0000 + n))));
        lines.sort_by(|a, b| order(a.as_bytes(), b.as_bytes()));
        std::fs::write(&path, lines.concat()).unwrap();
        let mut table = Table::new(path);
        for n in 0..3000_u32 {
            let expected = format!("A({})", Ipv4Addr::from(0x0a00_0000 + n));
            assert_eq!(find(&mut table, &format!("c{n}")), Some(vec![expected]));
            assert_eq!(find(&mut table, &format!("c{n}x")), None);
        }
        assert_eq!(find(&mut table, "shared").unwrap().len(), 200);
        for name in ["", "a", "share", "shared0", "zzz", "c", "c3000"] {
            assert_eq!(find(&mut table, name), None, "{name}");
        }
    }

    #[test]
    fn a_replaced_table_is_seen_at_once_and_a_removed_one_knows_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names");
        let mut table = Table::new(path.clone());
        assert_eq!(find(&mut table, "web"), None);
        for n in 0..50_u8 {
            hull_fs::atomic::write_path(&path, format!("web A 10.0.0.{n} o\n").as_bytes(), 0o644).unwrap();
            assert_eq!(find(&mut table, "web"), Some(vec![format!("A(10.0.0.{n})")]));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(find(&mut table, "web"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn lookups_are_those_of_a_map(
            names in proptest::collection::vec(("[a-e.-]{1,60}", 1_u32..500), 0..400),
            wanted in proptest::collection::vec("[a-e.-]{1,4}", 20),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("names");
            let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
            let mut lines = Vec::new();
            for (name, number) in &names {
                let address = Ipv4Addr::from(*number);
                lines.push(format!("{name} A {address} {}\n", "o".repeat(*number as usize % 64)));
                map.entry(name.clone()).or_default().push(format!("A({address})"));
            }
            lines.sort_by(|a, b| order(a.as_bytes(), b.as_bytes()));
            std::fs::write(&path, lines.concat()).unwrap();
            let mut table = Table::new(path);
            for name in map.keys().chain(&wanted) {
                let mut found = find(&mut table, name);
                let mut expected = map.get(name).cloned();
                for list in found.iter_mut().chain(&mut expected) {
                    list.sort();
                }
                prop_assert_eq!(found, expected, "{}", name);
            }
        }

        #[test]
        fn what_was_appended_counts_and_what_was_before_does_not(
            steps in proptest::collection::vec((0_u8..12, proptest::collection::vec("[a-c]{1,2}", 0..4)), 0..120),
        ) {
            use crate::dns::members::{Member, join, leave};
            let directory = tempfile::tempdir().unwrap();
            let mut model: BTreeMap<u8, Vec<String>> = BTreeMap::new();
            let mut table = Table::new(directory.path().join("names"));
            for (container, names) in steps {
                let id = format!("{container:064}");
                if names.is_empty() {
                    leave(directory.path(), &id).unwrap();
                } else {
                    let addresses = vec![Ipv4Addr::new(10, 0, 0, container).into()];
                    let member = Member { container: id, names: names.clone(), addresses, ..Member::default() };
                    join(directory.path(), &member).unwrap();
                }
                model.insert(container, names);
                for name in ["a", "bb", "c"] {
                    let mut found = find(&mut table, name).unwrap_or_default();
                    found.sort();
                    let mut expected: Vec<String> = model
                        .iter()
                        .filter(|(_, names)| names.iter().any(|one| one == name))
                        .map(|(container, _)| format!("A(10.0.0.{container})"))
                        .collect();
                    expected.sort();
                    prop_assert_eq!(found, expected);
                }
            }
        }

        #[test]
        fn no_content_makes_a_lookup_hang_or_panic(content in proptest::collection::vec(any::<u8>(), 0..6000)) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("names");
            std::fs::write(&path, content).unwrap();
            find(&mut Table::new(path.clone()), "web");
            let content = std::fs::read(&path).unwrap();
            std::fs::write(&path, [&header(content.len() / 2)[..], &content].concat()).unwrap();
            find(&mut Table::new(path), "web");
        }
    }
}
