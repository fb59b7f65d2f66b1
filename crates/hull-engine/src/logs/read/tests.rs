use std::fs;
use std::path::PathBuf;

use super::*;
use crate::logs::Line;

struct Collected(Vec<String>);

impl Take for Collected {
    fn entry(&mut self, entry: &Entry) -> bool {
        self.0.push(String::from_utf8_lossy(&entry.text).trim_end().to_owned());
        true
    }

    fn idle(&mut self) -> bool {
        true
    }
}

fn lines(local: bool, numbers: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        let text = format!("line {number}");
        let line = Line { error: false, time: number + 1, text: text.as_bytes(), whole: true, first: true };
        if local { entry::local(&mut bytes, &line) } else { entry::json(&mut bytes, &line, b"") }
    }
    bytes
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Three files of ten, fifty and forty lines, the first compressed.
fn log(local: bool) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    fs::write(older(&path, 2, true), compressed(&lines(local, 0..10))).unwrap();
    fs::write(older(&path, 1, false), lines(local, 10..60)).unwrap();
    fs::write(&path, lines(local, 60..100)).unwrap();
    (dir, path)
}

fn shown(path: &Path, local: bool, options: Options) -> Vec<String> {
    let mut list = open_all(path).unwrap();
    if let Some(tail) = options.tail {
        cut_to_tail(&mut list, local, tail).unwrap();
    }
    let mut taker = Collected(Vec::new());
    let mut reader = Reader { local, options, last: 0, taker: &mut taker };
    reader.drain_all(list, false, &mut None).unwrap();
    taker.0
}

#[test]
fn the_last_lines_are_found_in_any_file() {
    for local in [false, true] {
        let (_dir, path) = log(local);
        for tail in [0, 1, 39, 40, 41, 89, 90, 91, 99, 100, 1000] {
            let found = shown(&path, local, Options { tail: Some(tail), ..Options::default() });
            let expected: Vec<String> = (100 - tail.min(100)..100).map(|number| format!("line {number}")).collect();
            assert_eq!(found, expected, "local {local}, tail {tail}");
        }
        assert_eq!(shown(&path, local, Options::default()).len(), 100);
        let found = shown(&path, local, Options { since: Some(98), until: Some(99), ..Options::default() });
        assert_eq!(found, ["line 97", "line 98"]);
    }
}

#[test]
fn damage_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let mut bytes = lines(false, 0..2);
    bytes.extend_from_slice(b"{\"log\":\"torn\n");
    bytes.extend(lines(false, 2..3));
    bytes.extend_from_slice(b"{\"log\":\"not whole yet");
    fs::write(&path, bytes).unwrap();
    assert_eq!(shown(&path, false, Options::default()), ["line 0", "line 1", "line 2"]);
    let mut bytes = lines(true, 0..1);
    bytes.extend_from_slice(&[0xff; 40]);
    fs::write(&path, bytes).unwrap();
    assert_eq!(shown(&path, true, Options::default()), ["line 0"]);
}

#[test]
fn a_reader_goes_on_after_what_was_rotated_away() {
    let (_dir, path) = log(false);
    let mut taker = Collected(Vec::new());
    let mut reader = Reader { local: false, options: Options::default(), last: 30, taker: &mut taker };
    reader.drain_all(open_all(&path).unwrap(), true, &mut None).unwrap();
    assert_eq!((taker.0.len(), taker.0[0].as_str()), (70, "line 30"));
}

#[test]
fn entries_are_shown_with_times_and_details() {
    let entry = Entry {
        stream: protocol::STDOUT,
        time: 1_709_210_096_120_000_000,
        attributes: [("a b".to_owned(), "1".to_owned()), ("c".to_owned(), "x,y".to_owned())].into(),
        text: b"text\n".to_vec(),
    };
    let mut bytes = Vec::new();
    put(&mut bytes, &entry, Options { timestamps: true, details: true, ..Options::default() });
    assert_eq!(String::from_utf8(bytes).unwrap(), "2024-02-29T12:34:56.120000000Z a+b=1,c=x%2Cy text\n");
}

#[test]
fn a_rotation_under_way_hides_no_file() {
    for gaps in [&[1][..], &[2], &[1, 2]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, "").unwrap();
        for number in (1..=5).filter(|number| !gaps.contains(number)) {
            fs::write(older(&path, number, false), "").unwrap();
        }
        assert_eq!(open_all(&path).unwrap().len(), 6 - gaps.len(), "{gaps:?}");
    }
}
