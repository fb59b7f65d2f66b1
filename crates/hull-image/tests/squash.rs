//! Squashing does not change what containers see.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use hull_image::archive::{LoadOptions, SaveOptions, load_stream, save};
use hull_image::squash::{rootfs_hash, squash};
use hull_image::{Image, Store};
use hull_layer::tar::Entry;
use hull_oci::{Digest, Reference};
use support::{Members, Packed, Place, Source, directory, file, hard_link, opaque, stack, symlink, tar, whiteout};

fn load(store: &Store, layers: Vec<Vec<u8>>) -> Image {
    let archive = Members::layout(&Source::new(layers), "docker.io/library/s:1", Packed::Plain).tar();
    load_stream(store, &archive[..], &LoadOptions::default()).unwrap().remove(0).image
}

fn name(text: &str) -> Vec<Reference> {
    vec![text.parse().unwrap()]
}

#[test]
fn every_range_shows_the_same_files() {
    let place = Place::new();
    let image = load(&place.store, stack());
    let hash = rootfs_hash(&place.store, &image).unwrap();
    for from in 1..=3 {
        for to in from + 1..=4 {
            let squashed = squash(&place.store, &image, from..=to, &name("s:2")).unwrap();
            assert_eq!(squashed.layers.len(), 4 - (to - from), "{from}..{to}");
            assert_eq!(rootfs_hash(&place.store, &squashed).unwrap(), hash, "{from}..{to}");
        }
    }
    assert!(place.store.check(false).unwrap().is_empty());
}

#[test]
fn any_change_changes_the_hash() {
    let place = Place::new();
    let base = vec![directory("d"), file("d/a", "one"), file("b", "two"), hard_link("c", "b"), symlink("l", "b")];
    let hash = |entries: &[(Entry, Vec<u8>)]| {
        let image = load(&place.store, vec![tar(entries)]);
        rootfs_hash(&place.store, &image).unwrap()
    };
    let original = hash(&base);
    let variants: Vec<Vec<(Entry, Vec<u8>)>> = vec![
        base[..4].to_vec(),
        [&base[..1], &[file("d/a", "One")], &base[2..]].concat(),
        [&base[..4], &[symlink("l", "c")]].concat(),
        [&base[..3], &[file("c", "two")], &base[4..]].concat(),
        [&base[..2], &[(Entry { mode: 0o640, ..base[2].0.clone() }, base[2].1.clone())], &base[3..]].concat(),
        [&base[..2], &[(Entry { uid: 1, ..base[2].0.clone() }, base[2].1.clone())], &base[3..]].concat(),
        [&base[..2], &[(Entry { mtime: 1, ..base[2].0.clone() }, base[2].1.clone())], &base[3..]].concat(),
        [&[(Entry { mtime_nsec: 1, ..base[0].0.clone() }, Vec::new())], &base[1..]].concat(),
    ];
    for (number, variant) in variants.iter().enumerate() {
        assert_ne!(hash(variant), original, "variant {number}");
    }
    // The same files in another order, in two layers, or with something hidden in between, are the same.
    let moved = [&base[2..], &base[..2]].concat();
    assert_eq!(hash(&moved), original);
    let with_more = tar(&[&base[..], &[file("d/more", "x"), file("gone", "y")]].concat());
    let image =
        load(&place.store, vec![with_more, tar(&[directory("d"), opaque("d"), base[1].clone(), whiteout("gone")])]);
    assert_eq!(rootfs_hash(&place.store, &image).unwrap(), original);
}

#[test]
fn the_history_tells_of_it_and_all_else_stays() {
    let place = Place::new();
    let image = load(&place.store, stack());
    let squashed = squash(&place.store, &image, 2..=3, &name("s:2")).unwrap();
    let before: serde_json::Value = serde_json::from_slice(&place.store.config_bytes(&image.id).unwrap()).unwrap();
    let after: serde_json::Value = serde_json::from_slice(&place.store.config_bytes(&squashed.id).unwrap()).unwrap();
    for key in ["config", "created", "unknown", "architecture"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    let rows = squashed.history();
    assert_eq!(rows.len(), 8);
    let of = |step: &str| rows.iter().find(|row| row.created_by == step).unwrap();
    assert_eq!((of("step 2").layer.as_ref(), of("step 2").size), (None, 0));
    assert_eq!(of("step 1").layer.as_ref(), Some(&image.layers[0].diff_id));
    assert_eq!(of("step 3").layer.as_ref(), Some(&squashed.layers[1].diff_id));
    assert_eq!(of("step 4").layer.as_ref(), Some(&image.layers[3].diff_id));
    let comment = &of("step 3").comment;
    assert!(comment.contains("squashed 2 layers") && comment.contains(image.layers[1].diff_id.hex()), "{comment}");
}

#[test]
fn the_same_bytes_in_another_store() {
    let (one, two) = (Place::new(), Place::new());
    let ids: Vec<Digest> = [&one, &two]
        .iter()
        .map(|place| squash(&place.store, &load(&place.store, stack()), 1..=4, &name("s:2")).unwrap().id)
        .collect();
    assert_eq!(ids[0], ids[1]);
    let mut bytes = Vec::new();
    let image = two.store.find("s:2").unwrap();
    save(&two.store, &[(image.clone(), Vec::new())], SaveOptions::default(), &mut bytes).unwrap();
    let three = Place::new();
    let loaded = load_stream(&three.store, &bytes[..], &LoadOptions::default()).unwrap();
    assert_eq!(loaded[0].image.id, image.id);
}

#[test]
fn ranges_that_are_none_are_refused() {
    let place = Place::new();
    let image = load(&place.store, stack());
    for (from, to) in [(0, 2), (1, 5), (2, 2), (3, 2), (5, 6)] {
        let error = squash(&place.store, &image, from..=to, &[]).unwrap_err().to_string();
        assert!(error.contains("cannot be squashed"), "{error}");
    }
    assert_eq!(place.store.list().unwrap().len(), 1);
}
