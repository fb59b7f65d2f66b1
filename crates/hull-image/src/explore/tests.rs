use hull_layer::tar::{Entry, EntryKind, Writer};
use serde_json::json;

use super::*;
use crate::LayerSource;

fn tar(files: &[(&str, &str, u16)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, content, mode) in files {
        let entry = match content.strip_prefix("-> ") {
            Some(target) => Entry::new(*path, EntryKind::HardLink(target.into()), *mode),
            None => Entry::new(*path, EntryKind::File { size: content.len() as u64, extents: Vec::new() }, *mode),
        };
        let content = if content.starts_with("-> ") { "" } else { content };
        writer.append(&entry, content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn image(layers: &[Vec<u8>]) -> (tempfile::TempDir, Store, Image) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    let transfer = store.begin().unwrap();
    let source = || LayerSource { blob: None, diff_id: None, keep_blob: false };
    let ids: Vec<Digest> =
        layers.iter().map(|layer| transfer.layer(layer.as_slice(), source()).unwrap().diff_id).collect();
    let history: Vec<_> = (1..=ids.len()).map(|number| json!({"created_by": format!("RUN {number}")})).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "history": history,
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let image = transfer.image(config.to_string().as_bytes(), None, &[]).unwrap();
    (directory, store, image)
}

/// Reason, path, bytes and the other layer.
fn wastes(layer: &LayerReport) -> Vec<(Reason, &str, u64, Option<usize>)> {
    layer.wastes.iter().map(|one| (one.reason, one.path.as_str(), one.bytes, one.other)).collect()
}

#[test]
fn every_byte_is_charged_once_and_to_its_instruction() {
    let (app, old, list) = ("a".repeat(5000), "o".repeat(6000), "l".repeat(10_000));
    let twin = "z".repeat(4096);
    let (_directory, store, image) = image(&[
        tar(&[
            ("var/lib/apt/lists/one", &list, 0o644),
            ("usr/bin/app", &app, 0o644),
            ("usr/bin/old", &old, 0o755),
            ("etc/conf", &"c".repeat(100), 0o644),
            ("opt/gone/deep/file", &"g".repeat(300), 0o644),
        ]),
        tar(&[
            ("usr/bin/.wh.old", "", 0o644),
            ("usr/bin/app", &app, 0o755),
            ("etc/conf", &"d".repeat(100), 0o644),
            ("opt/one", &twin, 0o644),
            ("opt/two", &twin, 0o644),
            ("opt/.wh.gone", "", 0o644),
            ("usr/share/man/x", &"m".repeat(50), 0o644),
        ]),
    ]);
    let report = explore(&store, &image).unwrap();
    let [first, second] = report.layers.as_slice() else { panic!("two layers") };
    assert_eq!(
        wastes(first),
        [
            (Reason::Cache, "var/lib/apt/lists", 10_000, None),
            (Reason::Deleted, "usr/bin/old", 6000, Some(2)),
            (Reason::Deleted, "opt/gone/deep/file", 300, Some(2)),
            (Reason::Rewritten, "etc/conf", 100, Some(2)),
        ]
    );
    assert_eq!(
        wastes(second),
        [
            (Reason::Copied, "usr/bin/app", 5000, Some(1)),
            (Reason::Duplicate, "opt/two", 4096, Some(2)),
            (Reason::Documentation, "usr/share/man", 50, None),
        ]
    );
    assert_eq!((first.created_by.as_str(), first.files, second.created_by.as_str()), ("RUN 1", 5, "RUN 2"));
    assert_eq!((first.wasted, second.wasted, second.optional), (16_400, 5000, 4146));
    assert_eq!((report.wasted, report.size), (21_400, image.size));
    assert_eq!(report.visible, 10_000 + 5000 + 100 + 2 * 4096 + 50);
}

#[test]
fn names_of_one_file_count_once() {
    let content = "h".repeat(5000);
    let (_directory, store, image) =
        image(&[tar(&[("a", &content, 0o644), ("b", "-> a", 0o644)]), tar(&[("c", "x", 0o644)])]);
    let report = explore(&store, &image).unwrap();
    assert_eq!((report.visible, report.wasted, report.optional), (5001, 0, 0));
    let names: Vec<String> = files(&store, &image.layers[0]).unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_directory_in_a_file_s_place_and_opaque_directories_hide() {
    let (_directory, store, image) = image(&[
        tar(&[("x", "file", 0o644), ("d/a", "aaaa", 0o644), ("d/b", "bb", 0o644)]),
        tar(&[("x/y", "new", 0o644), ("d/.wh..wh..opq", "", 0o644), ("d/c", "c", 0o644)]),
    ]);
    let report = explore(&store, &image).unwrap();
    let found = wastes(&report.layers[0]);
    assert!(found.contains(&(Reason::Rewritten, "x", 4, Some(2))), "{found:?}");
    assert!(found.contains(&(Reason::Deleted, "d/a", 4, Some(2))), "{found:?}");
    assert_eq!((report.layers[0].wasted, report.layers[1].wasted, report.visible), (10, 0, 4));
}
