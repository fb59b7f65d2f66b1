//! Rows of a table of a SQLite database, read from its bytes.
//!
//! Databases of images are hostile, and this needs no more than the rows of one table in the order of their numbers: no
//! schema is executed, each page is read at most once, and what does not fit the format ends the reading. A write-ahead
//! log beside the file is not looked at: whoever closes a database empties it.
//!
//! Format: the SQLite project's `fileformat2`: header, table b-trees (interior 5, leaf 13), records, overflow pages.

/// Trees are no deeper: a page has at least two children.
const MAX_DEPTH: usize = 32;
/// A longer row is left out.
const MAX_ROW: usize = 64 << 20;

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Anything that is neither a number nor bytes.
    Other,
    /// A whole number.
    Integer(i64),
    /// Text or bytes.
    Bytes(Vec<u8>),
}

struct Database<'d> {
    bytes: &'d [u8],
    page: usize,
    /// Of a page, without what is reserved at its end.
    usable: usize,
    /// Pages that were read.
    seen: Vec<bool>,
    /// Bytes of rows that may still come: cells may overlap, and together be much longer than the database.
    left: usize,
}

/// A number of up to nine bytes, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (place, byte) in bytes.iter().take(9).enumerate() {
        if place == 8 {
            return Some((value << 8 | u64::from(*byte), bytes.get(9..)?));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    let part = bytes.get(at..at.checked_add(N)?)?;
    Some(part.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

/// The rows of a table, as far as they can be read; `None` if there is no such table.
pub(super) fn rows(bytes: &[u8], table: &str) -> Option<Vec<Vec<Value>>> {
    if !bytes.starts_with(b"SQLite format 3\0") {
        return None;
    }
    let page = match number::<2>(bytes, 16)? {
        1 => 65536,
        size if size.is_power_of_two() && size >= 512 => size,
        _ => return None,
    };
    let usable = page.checked_sub(number::<1>(bytes, 20)?).filter(|usable| *usable >= 480)?;
    let mut database = Database { bytes, page, usable, seen: vec![false; bytes.len() / page + 1], left: bytes.len() };
    let schema = database.tree(1);
    let text = |value: &Value, expected: &str| matches!(value, Value::Bytes(bytes) if bytes == expected.as_bytes());
    let root = schema.iter().find_map(|row| match row.as_slice() {
        [kind, name, _, Value::Integer(root), ..] if text(kind, "table") && text(name, table) => {
            usize::try_from(*root).ok()
        }
        _ => None,
    })?;
    Some(database.tree(root))
}

impl<'d> Database<'d> {
    /// A page that was not read before, counted from one.
    fn page(&mut self, number: usize) -> Option<&'d [u8]> {
        let index = number.checked_sub(1)?;
        let seen = self.seen.get_mut(index).filter(|seen| !**seen)?;
        *seen = true;
        self.bytes.get(index.checked_mul(self.page)?..number.checked_mul(self.page)?)
    }

    /// The rows of a tree.
    fn tree(&mut self, root: usize) -> Vec<Vec<Value>> {
        let mut found = Vec::new();
        let mut pending = vec![(root, 0)];
        while let Some((number, depth)) = pending.pop() {
            if depth < MAX_DEPTH
                && let Some(page) = self.page(number)
            {
                let mut children = Vec::new();
                // What of a page can be read counts.
                let _ = self.read(page, if number == 1 { 100 } else { 0 }, &mut children, &mut found);
                pending.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
            }
        }
        found
    }

    fn read(
        &mut self,
        page: &'d [u8],
        header: usize,
        children: &mut Vec<usize>,
        found: &mut Vec<Vec<Value>>,
    ) -> Option<()> {
        let kind = *page.get(header)?;
        let cells = number::<2>(page, header + 3)?;
        let pointers = header + if kind == 5 { 12 } else { 8 };
        for cell in 0..cells {
            let at = number::<2>(page, pointers + 2 * cell)?;
            match kind {
                5 => children.push(number::<4>(page, at)?),
                13 => {
                    if self.left == 0 {
                        return None;
                    }
                    if let Some(row) = self.payload(page.get(at..self.usable)?).and_then(|payload| record(&payload)) {
                        found.push(row);
                    }
                }
                _ => return None,
            }
        }
        if kind == 5 {
            children.push(number::<4>(page, header + 8)?);
        }
        Some(())
    }

    /// What a cell of a leaf holds, with its overflow pages.
    fn payload(&mut self, cell: &[u8]) -> Option<Vec<u8>> {
        let (length, rest) = varint(cell)?;
        let (_, rest) = varint(rest)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_ROW)?;
        self.left = self.left.saturating_sub(length + 4);
        let most = self.usable - 35;
        if length <= most {
            return rest.get(..length).map(<[u8]>::to_vec);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let local = least + (length - least) % (self.usable - 4);
        let local = if local <= most { local } else { least };
        let mut payload = rest.get(..local)?.to_vec();
        let mut next = number::<4>(rest, local)?;
        while payload.len() < length {
            let page = self.page(next)?;
            next = number::<4>(page, 0)?;
            let part = page.get(4..self.usable)?;
            payload.extend_from_slice(part.get(..part.len().min(length - payload.len()))?);
        }
        Some(payload)
    }
}

fn record(payload: &[u8]) -> Option<Vec<Value>> {
    let (header, rest) = varint(payload)?;
    let header = usize::try_from(header).ok()?;
    let mut types = rest.get(..header.checked_sub(payload.len() - rest.len())?)?;
    let mut body = payload.get(header..)?;
    let mut values = Vec::new();
    while !types.is_empty() {
        let (kind, rest) = varint(types)?;
        types = rest;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            other => usize::try_from((other - 12) / 2).ok()?,
        };
        let (own, rest) = (body.get(..length)?, body.get(length..)?);
        body = rest;
        values.push(match kind {
            8 | 9 => Value::Integer(i64::from(kind == 9)),
            1..=6 => {
                let negative = own.first().is_some_and(|byte| byte & 0x80 != 0);
                let start = if negative { -1 } else { 0 };
                Value::Integer(own.iter().fold(start, |value: i64, byte| value << 8 | i64::from(*byte)))
            }
            0 | 7 => Value::Other,
            _ => Value::Bytes(own.to_vec()),
        });
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    /// A database as SQLite writes it.
    fn written(page: u32, rows: usize, length: usize) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("database");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(&format!("PRAGMA page_size = {page}; CREATE TABLE other (x)")).unwrap();
        connection.execute_batch("CREATE TABLE p (number INTEGER PRIMARY KEY, b BLOB NOT NULL)").unwrap();
        for row in 0..rows {
            let bytes = vec![u8::try_from(row % 251).unwrap(); length + row];
            connection.execute("INSERT INTO p (b) VALUES (?1)", [bytes]).unwrap();
        }
        connection.close().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn rows_are_read_as_sqlite_wrote_them() {
        for (page, count, length) in [(512, 300, 10), (4096, 400, 5000), (4096, 0, 0), (65536, 3, 200_000)] {
            let found = rows(&written(page, count, length), "p").unwrap();
            assert_eq!(found.len(), count, "{page}");
            for (row, values) in found.iter().enumerate() {
                let expected = Value::Bytes(vec![u8::try_from(row % 251).unwrap(); length + row]);
                assert!(values[1] == expected && values[0] == Value::Other, "row {row} of {page}");
            }
        }
        assert!(rows(&written(4096, 1, 1), "q").is_none());
        assert!(rows(b"no database", "p").is_none());
    }

    #[test]
    fn damaged_databases_end() {
        let good = written(512, 100, 700);
        for place in 0..good.len() {
            // Every byte of what says where things are, some of the others.
            if place < 256 || place % 997 == 0 {
                let mut bad = good.clone();
                bad[place] ^= 0xff;
                let _ = rows(&bad, "p");
            }
            if place % 4099 == 0 {
                let _ = rows(&good[..place], "p");
            }
        }
    }

    #[test]
    fn cells_that_overlap_are_no_more_than_the_database() {
        let mut bad = written(65536, 1, 20_000);
        // The table's only page: as many pointers as it has room for, all to its one cell.
        let page = bad.len() - 65536;
        let cell = [bad[page + 8], bad[page + 9]];
        bad[page + 3..page + 5].copy_from_slice(&20_000_u16.to_be_bytes());
        for pointer in 1..20_000 {
            bad[page + 8 + 2 * pointer..page + 10 + 2 * pointer].copy_from_slice(&cell);
        }
        let found = rows(&bad, "p").unwrap();
        assert!((1..=bad.len() / 20_000 + 1).contains(&found.len()), "{}", found.len());
    }

    #[test]
    fn numbers_have_their_sign() {
        // Header of 4 bytes: an integer of one byte, of two, and NULL.
        assert_eq!(record(&[4, 1, 2, 0, 0xfe, 1, 0]).unwrap(), [Value::Integer(-2), Value::Integer(256), Value::Other]);
        assert_eq!(record(&[4, 1]), None);
    }
}
