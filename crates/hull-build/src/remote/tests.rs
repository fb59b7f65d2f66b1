//! Entries of command lines, and documents of strangers.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Document, Outcome};
use super::*;

fn entry(kind: &str, attributes: &[(&str, &str)]) -> CacheEntry {
    let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    CacheEntry { kind: kind.to_owned(), attributes: attributes.collect::<BTreeMap<_, _>>() }
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn outcome(step: &str, layers: &[&str]) -> Outcome {
    let layers = layers.iter().map(|one| digest(one)).collect();
    Outcome { definition: digest(step), content: Some(digest(&format!("content of {step}"))), layers, added: true }
}

#[test]
fn entries_are_places() {
    let export = Export::of(&entry("registry", &[("ref", "r.example/c"), ("mode", "max")])).unwrap().unwrap();
    assert!(export.all && !export.lenient && export.packing == Packing::Gzip);
    assert_eq!(export.place.to_string(), "r.example/c:latest");
    let local = entry("local", &[("dest", "/c"), ("compression", "zstd"), ("ignore-error", "true")]);
    let export = Export::of(&local).unwrap().unwrap();
    assert!(!export.all && export.lenient && export.packing == Packing::Zstd);
    assert_eq!(Export::of(&entry("inline", &[])).unwrap(), None);
    for (entry, reason) in [
        (entry("registry", &[]), "cache of type registry: ref is required"),
        (entry("registry", &[("ref", "A B")]), "\"A B\""),
        (entry("local", &[("src", "/c")]), "cache of type local: dest is required"),
        (entry("local", &[("dest", "/c"), ("mode", "some")]), "mode \"some\" is unknown: expected min or max"),
        (entry("local", &[("dest", "/c"), ("compression", "lzma")]), "expected gzip, zstd or uncompressed"),
        (entry("gha", &[]), "cache of type gha: token= is not set"),
        (entry("s3", &[]), "cache export of type \"s3\" is not supported"),
    ] {
        let error = Export::of(&entry).unwrap_err().to_string();
        assert!(error.contains(reason), "{entry:?}: {error}");
    }
    let import = place(&entry("local", &[("src", "c"), ("tag", "t")]), "src").unwrap().unwrap();
    assert!(matches!(import, Place::Local { directory, tag, .. } if directory.is_absolute() && tag == "t"));
}

#[test]
fn documents_are_read_as_they_were_written() {
    let results = [outcome("one", &["base", "a"]), outcome("two", &["base", "a", "b"])];
    let document = Document::new(&results, &BTreeSet::from([digest("base")]));
    assert_eq!(document.layers, [digest("a"), digest("b")]);
    assert_eq!(document.bases, [digest("base")]);
    let bytes = serde_json::to_vec(&document).unwrap();
    let read = Document::parse(&bytes, 2).unwrap();
    assert_eq!(read, document);
    let known = read.known();
    assert_eq!(known.len(), 4);
    assert_eq!(known.get(&digest("two")).unwrap().layers, results[1].layers);
    assert_eq!(known.get(&digest("content of one")).unwrap().layers, results[0].layers);
    // With an image: what is not all of it is left out.
    let results = [outcome("one", &["base", "a"]), outcome("other", &["x"])];
    let document = Document::of_image(&results, &[digest("base"), digest("a")]);
    let text = serde_json::to_string(&document).unwrap();
    let layers = format!("\"{}\",\"{}\"", digest("base"), digest("a"));
    let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{layers}]}},"{INLINE}":{text}}}"#);
    let known = Document::parse_inline(config.as_bytes()).unwrap().unwrap().known();
    assert_eq!(known.len(), 2);
    assert_eq!(known.get(&digest("one")).unwrap().layers, results[0].layers);
    let none = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{layers}]}}}}"#);
    assert_eq!(Document::parse_inline(none.as_bytes()).unwrap(), None);
}

#[test]
fn documents_of_strangers_are_bounded() {
    let key = digest("x");
    for text in ["", "[]", "{}", r#"{"records":[{}]}"#, r#"{"records":1}"#] {
        assert!(Document::parse(text.as_bytes(), 0).is_err(), "{text}");
    }
    // More or fewer layers than the manifest has.
    assert!(Document::parse(format!(r#"{{"layers":["{key}"],"records":[]}}"#).as_bytes(), 0).is_err());
    assert!(Document::parse(br#"{"records":[]}"#, 1).is_err());
    let record = |layers: &str, added: bool| {
        format!(r#"{{"layers":["{key}"],"records":[{{"definition":"{key}","layers":{layers},"added":{added}}}]}}"#)
    };
    // A layer that there is not; a layer of its own among none; a number that is none.
    for wrong in [record("[1]", true), record("[0,4294967295]", true), record("[]", true)] {
        assert!(Document::parse(wrong.as_bytes(), 1).unwrap().known().len() == 0, "{wrong}");
    }
    assert!(Document::parse(record("[-1]", true).as_bytes(), 1).is_err());
    let long = format!("[{}0]", "0,".repeat(600));
    assert!(Document::parse(record(&long, true).as_bytes(), 1).is_err());
    assert_eq!(Document::parse(record("[0]", true).as_bytes(), 1).unwrap().known().len(), 1);
    // A manifest holds so many layers: what has others is left out.
    let many: Vec<Outcome> = (0..600).map(|number| outcome(&format!("{number}"), &[&format!("l{number}")])).collect();
    let document = Document::new(&many, &BTreeSet::new());
    assert_eq!((document.layers.len(), document.records.len()), (500, 500));
}
