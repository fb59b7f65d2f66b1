//! The store as its users see it: images come in, are found, named, held, removed and pruned.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod stored;

use std::collections::BTreeMap;
use std::fs;

use hull_image::{Budget, Error, LabelFilter, LayerSource, PruneFilter, Removed, Store};
use hull_oci::image::{Descriptor, ImageConfig, media_type};
use hull_oci::{Digest, Reference};
use stored::{Layered, archive, assert_whole, gzip, names_below};

fn store() -> (tempfile::TempDir, Store) {
    let directory = stored::directory();
    let store = Store::new(directory.path());
    // How full the machine's disk is must not matter.
    store.set_budget(Budget::Unlimited).unwrap();
    (directory, store)
}

fn name(text: &str) -> Reference {
    text.parse::<Reference>().unwrap().or_latest()
}

fn never(_: &str) -> bool {
    false
}

#[test]
fn an_image_is_found_by_all_its_names() {
    let (_directory, store) = store();
    assert!(matches!(store.find("mine"), Err(Error::NoImage(_))));
    let made = Layered::new(&[b"one", b"two"]).add(&store, &["mine", "quay.io/a/b:c"]);
    let id = made.id.to_string();
    for text in [
        "mine",
        "mine:latest",
        "docker.io/library/mine",
        "quay.io/a/b:c",
        &id,
        made.id.hex(),
        made.id.short(),
        &made.id.hex()[..3],
        &id[..20],
    ] {
        assert_eq!(store.find(text).unwrap().id, made.id, "{text}");
    }
    for text in ["other", "mine:other", "", "sha256:", "mine@sha256:0", &"0".repeat(64)] {
        assert!(matches!(store.find(text), Err(Error::NoImage(_))), "{text}");
    }
    let image = store.find("mine").unwrap();
    assert_eq!(image.names, [name("mine"), name("quay.io/a/b:c")]);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.size, 6);
    assert_eq!(image.created, 1_709_210_096);
    assert_eq!(store.config_bytes(&image.id).unwrap(), made.config);
    assert_eq!(store.manifest_bytes(&image.id).unwrap().unwrap(), made.manifest);
    assert_eq!(store.list().unwrap().len(), 1);
    assert_whole(&store);
}

#[test]
fn a_name_goes_before_the_beginning_of_an_id() {
    let (_directory, store) = store();
    let first = Layered::new(&[b"one"]).add(&store, &["first"]);
    let second = Layered::new(&[b"two"]).add(&store, &[&first.id.hex()[..8]]);
    assert_eq!(store.find(&first.id.hex()[..8]).unwrap().id, second.id);
    assert_eq!(store.find(&first.id.hex()[..9]).unwrap().id, first.id);
}

#[test]
fn a_digest_of_a_repository_names_an_image() {
    let (_directory, store) = store();
    let layered = Layered::new(&[b"one"]);
    let pinned = name("quay.io/a/b").with_digest(Digest::of(&layered.manifest));
    let image = layered.add(&store, &[&pinned.to_string()]);
    let found = store.find(&pinned.to_string()).unwrap();
    assert_eq!(found.repo_digests, [("quay.io/a/b".to_owned(), Digest::of(&image.manifest))]);
    assert!(found.names.is_empty() && !found.is_dangling());
    assert_eq!(store.find(&Digest::of(&image.manifest).to_string()).unwrap().id, image.id);
    let removed = store.remove(&pinned.to_string(), false, &never).unwrap();
    assert_eq!(removed, [Removed::Untagged(pinned.familiar()), Removed::Deleted(image.id.to_string())]);
    assert_whole(&store);
}

#[test]
fn layers_are_shared_and_go_with_their_last_image() {
    let (directory, store) = store();
    let first = Layered::new(&[b"base", b"one"]).add(&store, &["first"]);
    let second = Layered::new(&[b"base", b"two"]).add(&store, &["second"]);
    assert_eq!(names_below(&directory.path().join("layers")).len(), 3);
    let removed = store.remove("first", false, &never).unwrap();
    assert_eq!(removed, [Removed::Untagged("first:latest".into()), Removed::Deleted(first.id.to_string())]);
    assert_eq!(names_below(&directory.path().join("layers")).len(), 2);
    assert_eq!(store.find("second").unwrap().layers.len(), 2);
    assert_whole(&store);
    store.remove(second.id.short(), false, &never).unwrap();
    for left in ["layers", "blobs/sha256", "ingest", "trash"] {
        assert!(names_below(&directory.path().join(left)).is_empty(), "{left}");
    }
}

#[test]
fn the_same_layer_is_not_read_twice() {
    let (_directory, store) = store();
    let bytes = gzip(&archive(&[("file", b"content")]));
    let blob = Descriptor::of(media_type::LAYER_GZIP, &bytes);
    let known = LayerSource { blob: Some(blob.clone()), keep_blob: true, ..LayerSource::default() };
    let transfer = store.begin().unwrap();
    let layer = transfer.layer(bytes.as_slice(), known.clone()).unwrap();
    assert_eq!(layer.blob, Some((blob.digest.clone(), blob.size)));
    let refuse = || stored::Refuse;
    assert_eq!(transfer.layer(refuse(), known.clone()).unwrap(), layer);
    assert!(transfer.has_layer(&layer.diff_id).unwrap() && transfer.has_blob(&blob.digest).unwrap());
    let by_diff_id = LayerSource { diff_id: Some(layer.diff_id.clone()), ..LayerSource::default() };
    let config = stored::config(std::slice::from_ref(&layer.diff_id));
    transfer.image(&config, None, &[name("mine")]).unwrap();
    let next = store.begin().unwrap();
    assert_eq!(next.layer(refuse(), by_diff_id).unwrap().diff_id, layer.diff_id);
    assert_eq!(next.layer(refuse(), known).unwrap().diff_id, layer.diff_id);
    assert_eq!(next.layer_of(&blob.digest).unwrap().unwrap().diff_id, layer.diff_id);
}

#[test]
fn what_is_not_what_it_says_is_refused_and_nothing_stays() {
    let (directory, store) = store();
    let bytes = gzip(&archive(&[("file", b"content")]));
    let other = Digest::of(b"other");
    let transfer = store.begin().unwrap();
    let refused = |source: LayerSource| transfer.layer(bytes.as_slice(), source).unwrap_err().to_string();
    let wrong = Descriptor::new(media_type::LAYER_GZIP, other.clone(), bytes.len() as u64);
    assert!(refused(LayerSource { blob: Some(wrong), ..LayerSource::default() }).contains(other.hex()));
    assert!(refused(LayerSource { diff_id: Some(other.clone()), ..LayerSource::default() }).contains(other.hex()));
    let cut = transfer.layer(&bytes[..bytes.len() / 2], LayerSource::default());
    assert!(cut.is_err());
    let blob = Descriptor::new("", other.clone(), 7);
    assert!(transfer.blob(b"content".as_slice(), Some(&blob)).unwrap_err().to_string().contains("digest"));
    let long = transfer.blob(stored::Endless, Some(&blob)).unwrap_err().to_string();
    assert!(long.contains("longer"), "{long}");
    let missing =
        transfer.image(&stored::config(std::slice::from_ref(&other)), None, &[name("mine")]).unwrap_err().to_string();
    assert!(missing.contains("missing") && missing.contains(other.hex()), "{missing}");
    drop(transfer);
    assert!(store.list().unwrap().is_empty());
    for left in ["layers", "blobs/sha256", "ingest", "trash"] {
        assert!(names_below(&directory.path().join(left)).is_empty(), "{left}");
    }
    assert_whole(&store);
}

#[test]
fn documents_that_do_not_fit_each_other_are_refused() {
    let (_directory, store) = store();
    let layered = Layered::new(&[b"one", b"two"]);
    let transfer = store.begin().unwrap();
    layered.layers_into(&transfer);
    let config = String::from_utf8(layered.config.clone()).unwrap();
    let manifest = String::from_utf8(layered.manifest.clone()).unwrap();
    let refused = |config: &str, manifest: &str| {
        transfer
            .image(config.as_bytes(), Some((manifest.as_bytes(), media_type::MANIFEST)), &[name("mine")])
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&format!("{config} "), &manifest).contains("configuration"));
    let mut parsed: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    parsed["layers"].as_array_mut().unwrap().pop();
    assert!(refused(&config, &parsed.to_string()).contains("1 layers and its configuration 2"));
    let mut swapped: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    swapped["layers"].as_array_mut().unwrap().swap(0, 1);
    assert!(refused(&config, &swapped.to_string()).contains("unpacks to"));
    let foreign = manifest.replace(media_type::LAYER_GZIP, "application/vnd.in-toto+json");
    assert!(refused(&config, &foreign).contains("in-toto"));
    assert!(refused(&config, r#"{"schemaVersion":2,"manifests":[]}"#).contains("index"));
    assert!(store.list().unwrap().is_empty());
    transfer.image(&layered.config, Some((&layered.manifest, media_type::MANIFEST)), &[name("mine")]).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    drop(transfer);
    assert_whole(&store);
}

#[test]
fn removal_follows_dockers_rules() {
    let (_directory, store) = store();
    let image = Layered::new(&[b"one"]).add(&store, &["a", "a:2", "b"]);
    let short = image.id.short();
    let refused = store.remove(short, false, &never).unwrap_err().to_string();
    let expected =
        format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories");
    assert_eq!(refused, expected);
    assert_eq!(store.remove("a:2", false, &never).unwrap(), [Removed::Untagged("a:2".into())]);
    assert_eq!(store.remove("b", false, &never).unwrap(), [Removed::Untagged("b:latest".into())]);
    store.hold("container:0123456789abcdef", &image.id).unwrap();
    let refused = store.remove("a", false, &never).unwrap_err().to_string();
    let expected = format!(
        "conflict: unable to remove repository reference \"a\" (must force) - container 0123456789ab is using its \
         referenced image {short}"
    );
    assert_eq!(refused, expected);
    let refused = store.remove(short, false, &never).unwrap_err().to_string();
    let stopped = "image is being used by stopped container 0123456789ab";
    assert_eq!(refused, format!("conflict: unable to delete {short} (must be forced) - {stopped}"));
    let refused = store.remove(short, true, &|_| true).unwrap_err().to_string();
    let running = "image is being used by running container 0123456789ab";
    assert_eq!(refused, format!("conflict: unable to delete {short} (cannot be forced) - {running}"));
    // By name and forced: the name goes, the image stays for its container.
    assert_eq!(store.remove("a", true, &|_| true).unwrap(), [Removed::Untagged("a:latest".into())]);
    assert!(store.find(short).unwrap().is_dangling());
    assert_eq!(store.holders(&image.id).unwrap(), ["container:0123456789abcdef"]);
    store.release("container:0123456789abcdef").unwrap();
    store.release("container:0123456789abcdef").unwrap();
    assert_eq!(store.remove(short, false, &never).unwrap(), [Removed::Deleted(image.id.to_string())]);
    assert_whole(&store);
}

#[test]
fn a_name_moves_to_the_image_that_got_it_last() {
    let (_directory, store) = store();
    let first = Layered::new(&[b"one"]).add(&store, &["app"]);
    let second = Layered::new(&[b"two"]).add(&store, &["app"]);
    assert_eq!(store.find("app").unwrap().id, second.id);
    assert!(store.get(&first.id).unwrap().is_dangling());
    store.tag(&first.id, &name("app")).unwrap();
    assert_eq!(store.find("app").unwrap().id, first.id);
    let pinned = name("app").with_digest(first.id.clone());
    assert!(store.tag(&first.id, &pinned).is_err());
    assert!(matches!(store.tag(&Digest::of(b"none"), &name("x")), Err(Error::NoImage(_))));
}

#[test]
fn pruning_takes_what_nothing_names_or_holds() {
    let (_directory, store) = store();
    let named = Layered::new(&[b"named"]).add(&store, &["named"]);
    let dangling = Layered::new(&[b"dangling"]).add(&store, &[]);
    let held = Layered::new(&[b"held"]).add(&store, &[]);
    let read = Layered::new(&[b"read"]).add(&store, &[]);
    store.hold("container:1", &held.id).unwrap();
    let pin = store.pin(&read.id).unwrap();
    let labelled = PruneFilter {
        labels: vec![LabelFilter { key: "keep".into(), value: None, negated: false }],
        ..PruneFilter::default()
    };
    assert!(store.prune(&labelled).unwrap().deleted.is_empty());
    let old = PruneFilter { until: Some(0), ..PruneFilter::default() };
    assert!(store.prune(&old).unwrap().deleted.is_empty());
    let pruned = store.prune(&PruneFilter::default()).unwrap();
    assert_eq!(pruned.deleted, [Removed::Deleted(dangling.id.to_string())]);
    assert!(pruned.reclaimed > 0);
    drop(pin);
    let pruned = store.prune(&PruneFilter { all: true, ..PruneFilter::default() }).unwrap();
    assert!(pruned.deleted.contains(&Removed::Untagged("named:latest".into())));
    assert!(pruned.deleted.contains(&Removed::Deleted(named.id.to_string())));
    assert!(pruned.deleted.contains(&Removed::Deleted(read.id.to_string())));
    assert_eq!(store.list().unwrap().len(), 1);
    assert_whole(&store);
}

#[test]
fn a_running_transfer_keeps_what_it_found() {
    let (_directory, store) = store();
    let image = Layered::new(&[b"one"]).add(&store, &["mine"]);
    let diff_id = store.find("mine").unwrap().layers[0].diff_id.clone();
    let transfer = store.begin().unwrap();
    assert!(transfer.has_layer(&diff_id).unwrap());
    let removed = store.remove("mine", false, &never).unwrap();
    assert!(removed.contains(&Removed::Deleted(image.id.to_string())));
    assert!(store.layer_path(&diff_id).exists());
    transfer.image(&image.config, None, &[name("mine")]).unwrap();
    drop(transfer);
    assert_eq!(store.find("mine").unwrap().id, image.id);
    assert_whole(&store);
    store.remove("mine", false, &never).unwrap();
    assert!(!store.layer_path(&diff_id).exists());
}

#[test]
fn the_budget_takes_compressed_copies_first() {
    let (directory, store) = store();
    let named = Layered::new(&[&[7; 100_000]]).add(&store, &["named"]);
    let dangling = Layered::new(&[&[8; 100_000]]).add(&store, &[]);
    let held = Layered::new(&[&[9; 100_000]]).add(&store, &[]);
    store.hold("container:1", &held.id).unwrap();
    assert_eq!(store.gc(Budget::Unlimited).unwrap().deleted, []);
    // What a transfer brings is not what it takes away at its end.
    store.set_budget(Budget::Bytes(0)).unwrap();
    let fresh = Layered::new(&[&[10; 1000]]).add(&store, &[]);
    assert!(store.get(&fresh.id).is_ok());
    assert!(store.get(&dangling.id).is_err());
    store.set_budget(Budget::Unlimited).unwrap();
    let dangling = Layered::new(&[&[8; 100_000]]).add(&store, &[]);
    assert_eq!(store.gc(Budget::Bytes(1 << 40)).unwrap().deleted, []);
    let blobs = |store: &Store| store.list().unwrap().iter().filter(|image| image.layers[0].blob.is_some()).count();
    let erofs = store.find("named").unwrap().layers[0].kind == hull_image::Kind::Erofs;
    let all = store.gc(Budget::Bytes(0)).unwrap();
    assert!(all.deleted.contains(&Removed::Deleted(dangling.id.to_string())), "{all:?}");
    assert!(all.reclaimed > 100_000);
    assert_eq!(blobs(&store), if erofs { 0 } else { 2 });
    assert!(store.get(&dangling.id).is_err());
    assert_eq!((store.get(&named.id).unwrap().id, store.get(&held.id).unwrap().id), (named.id, held.id));
    assert!(names_below(&directory.path().join("trash")).is_empty());
    assert_whole(&store);
    store.set_budget(Budget::Bytes(5)).unwrap();
    assert_eq!(store.budget().unwrap(), Budget::Bytes(5));
}

#[test]
fn a_flipped_byte_is_found_and_named() {
    let (_directory, store) = store();
    Layered::new(&[b"content of a file"]).add(&store, &["mine"]);
    let image = store.find("mine").unwrap();
    let layer = &image.layers[0];
    let flip = |path: &std::path::Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let named = |object: String| {
        let problems = store.check(false).unwrap();
        assert!(problems.iter().any(|one| one.object == object && !one.repaired), "{object}: {problems:?}");
    };
    let blob = layer.blob.clone().unwrap().0;
    let path = store.root().join("blobs/sha256").join(blob.hex());
    let whole = fs::read(&path).unwrap();
    flip(&path);
    named(format!("blob {blob}"));
    fs::write(&path, whole).unwrap();
    assert_whole(&store);
    if layer.kind == hull_image::Kind::Erofs {
        for file in ["tar", "index"] {
            let path = store.layer_path(&layer.diff_id).join(file);
            let whole = fs::read(&path).unwrap();
            flip(&path);
            named(format!("layer {}", layer.diff_id));
            // It can be made again from what is whole.
            assert!(store.check(true).unwrap().iter().all(|one| one.repaired));
            assert_eq!(fs::read(&path).unwrap(), whole, "{file}");
            assert_whole(&store);
        }
    }
    let config = store.root().join("blobs/sha256").join(image.id.hex());
    flip(&config);
    named(format!("blob {}", image.id));
    assert!(matches!(store.find("mine"), Err(Error::Damaged { .. })));
    fs::remove_file(&config).unwrap();
    named(format!("blob {}", image.id));
}

#[test]
fn strangers_in_the_store_are_named_and_removed() {
    let (_directory, store) = store();
    Layered::new(&[b"one"]).add(&store, &["mine"]);
    let stray = [
        store.root().join("blobs/sha256").join(Digest::of(b"stray").hex()),
        store.layer_path(&Digest::of(b"stray")),
        store.root().join("layers/notes.txt"),
    ];
    fs::write(&stray[0], "stray").unwrap();
    fs::create_dir(&stray[1]).unwrap();
    fs::write(&stray[2], "stray").unwrap();
    let problems = store.check(false).unwrap();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(store.check(true).unwrap().iter().all(|problem| problem.repaired));
    assert!(stray.iter().all(|path| !path.exists()));
    assert_whole(&store);
}

#[test]
fn sizes_add_up_with_du() {
    let (directory, store) = store();
    Layered::new(&[&[1; 300_000], &[2; 10]]).add(&store, &["one"]);
    Layered::new(&[&[1; 300_000], &[3; 200_000]]).add(&store, &["two"]);
    let usage = store.usage().unwrap();
    assert_eq!(usage.images.len(), 2);
    for image in &usage.images {
        assert_eq!(image.size, image.shared + image.unique);
        assert!(image.shared > 0 && image.unique > 0);
    }
    let parts = ["hull.db", "hull.db-wal", "hull.db-shm", "layers", "blobs", "ingest", "trash"];
    let output = std::process::Command::new("du")
        .args(["-s", "-c", "-B1"])
        .args(parts.iter().map(|part| directory.path().join(part)))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let total: u64 = text.lines().last().unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(usage.total(), total);
    let shared = usage.images[0].shared;
    let data: u64 = usage.images.iter().map(|image| image.unique).sum::<u64>() + shared;
    // The rest is the directories themselves.
    assert!(usage.layers + usage.blobs - data <= 64 << 10, "{usage:?}");
    assert_eq!(usage.reclaimable, data);
}

#[test]
fn history_tells_sizes_by_instruction() {
    let (_directory, store) = store();
    let layered = Layered::new(&[b"one", b"three"]);
    let mut config: ImageConfig = ImageConfig::parse(&layered.config).unwrap();
    let entry = |text: &str, empty: bool| hull_oci::image::History {
        created: Some("1970-01-01T00:00:09Z".into()),
        created_by: Some(text.into()),
        empty_layer: empty,
        ..Default::default()
    };
    config.history = vec![entry("ADD a", false), entry("ENV b", true), entry("RUN c", false)];
    let transfer = store.begin().unwrap();
    layered.layers_into(&transfer);
    let image = transfer.image(&serde_json::to_vec(&config).unwrap(), None, &[]).unwrap();
    let rows: Vec<_> = image.history().into_iter().map(|row| (row.created_by, row.size, row.created)).collect();
    assert_eq!(rows, [("RUN c".into(), 5, Some(9)), ("ENV b".into(), 0, Some(9)), ("ADD a".into(), 3, Some(9))]);
}

#[test]
fn hello_is_made_at_first_use() {
    let (_directory, store) = store();
    let image = store.find("hello").unwrap();
    assert_eq!(store.find("hello").unwrap().id, image.id);
    assert_eq!(image.names, [name("hello")]);
    let (_other, second) = self::store();
    assert_eq!(second.find("hello:latest").unwrap().id, image.id);
    assert_whole(&store);
}

#[test]
fn reading_writes_nothing() {
    let directory = stored::directory();
    let store = Store::new(directory.path());
    assert!(store.list().unwrap().is_empty());
    assert!(store.find("mine").is_err());
    assert!(names_below(directory.path()).is_empty());
    Layered::new(&[b"one"]).add(&store, &["mine"]);
    store.close();
    let state = |path: &std::path::Path| -> BTreeMap<_, _> {
        names_below(path)
            .into_iter()
            .map(|name| (name.clone(), fs::metadata(path.join(&name)).unwrap().len()))
            .collect()
    };
    let before = state(directory.path());
    let reader = Store::open(directory.path()).unwrap();
    assert_eq!(reader.repair().unwrap(), 0);
    reader.find("mine").unwrap();
    reader.close();
    assert_eq!(state(directory.path()), before);
}

#[test]
fn a_layer_from_a_spooled_blob() {
    let (_directory, store) = store();
    let bytes = gzip(&archive(&[("file", b"content")]));
    let transfer = store.begin().unwrap();
    let blob = transfer.blob(bytes.as_slice(), None).unwrap();
    assert_eq!(blob.digest, Digest::of(&bytes));
    let layer = transfer.layer_from_blob(&blob, None, true).unwrap();
    assert_eq!(layer.blob, Some((blob.digest.clone(), blob.size)));
    let image = transfer.image(&stored::config(std::slice::from_ref(&layer.diff_id)), None, &[name("mine")]).unwrap();
    drop(transfer);
    assert_eq!(image.layers[0].blob, Some((blob.digest.clone(), blob.size)));
    let mut held = Vec::new();
    std::io::Read::read_to_end(&mut store.open_blob(&blob.digest).unwrap(), &mut held).unwrap();
    assert_eq!(held, bytes);
    let mut tar = Vec::new();
    std::io::copy(&mut store.layer_tar(&image.layers[0]).unwrap(), &mut tar).unwrap();
    assert_eq!(Digest::of(&tar), layer.diff_id);
    assert_whole(&store);
}

#[test]
fn a_newer_database_is_refused() {
    let (directory, store) = store();
    Layered::new(&[b"one"]).add(&store, &["mine"]);
    store.close();
    let connection = rusqlite::Connection::open(directory.path().join("hull.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let refused = Store::open(directory.path()).unwrap_err().to_string();
    assert!(refused.contains("99"), "{refused}");
}

/// What a user may do to a store of a few images and names.
#[derive(Clone, Debug)]
enum Step {
    Add(u8, u8),
    Tag(u8, u8),
    RemoveName(u8, bool),
    RemoveId(u8, bool),
    Hold(u8, u8),
    Release(u8),
    Prune(bool),
    Gc(u32),
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    let (image, label) = (0..4_u8, 0..4_u8);
    prop_oneof![
        (image.clone(), label.clone()).prop_map(|(image, label)| Step::Add(image, label)),
        (image.clone(), label.clone()).prop_map(|(image, label)| Step::Tag(image, label)),
        (label.clone(), any::<bool>()).prop_map(|(label, force)| Step::RemoveName(label, force)),
        (image.clone(), any::<bool>()).prop_map(|(image, force)| Step::RemoveId(image, force)),
        (label.clone(), image).prop_map(|(owner, image)| Step::Hold(owner, image)),
        label.prop_map(Step::Release),
        any::<bool>().prop_map(Step::Prune),
        (0..2_000_u32).prop_map(Step::Gc),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 12, ..Default::default() })]

    /// After any steps the store is whole, has no more than its images need, and names and holds have kept theirs.
    #[test]
    fn any_order_of_steps_keeps_what_is_named_or_held(steps in proptest::collection::vec(step(), 1..25)) {
        let (directory, store) = store();
        let images: Vec<Layered> = (0..4_u8).map(|number| Layered::new(&[b"base", &[number], &[number / 2, 9]])).collect();
        let (mut names, mut holds) = (BTreeMap::new(), BTreeMap::new());
        let label = |number: u8| format!("label{number}");
        let running = |_: &str| false;
        for step in steps {
            match step {
                Step::Add(image, to) => {
                    images[image as usize].try_add(&store, &[&label(to)]).unwrap();
                    names.insert(to, image);
                }
                Step::Tag(image, to) => {
                    if store.tag(&images[image as usize].id, &name(&label(to))).is_ok() {
                        names.insert(to, image);
                    }
                }
                Step::RemoveName(from, force) => {
                    if store.remove(&label(from), force, &running).is_ok() {
                        let image = names.remove(&from).unwrap();
                        // By force the last name takes stopped containers' holds along.
                        if !names.values().any(|other| *other == image) {
                            holds.retain(|_, held| *held != image);
                        }
                    }
                }
                Step::RemoveId(image, force) => {
                    if store.remove(&images[image as usize].id.to_string(), force, &running).is_ok() {
                        names.retain(|_, other| *other != image);
                        holds.retain(|_, held| *held != image);
                    }
                }
                Step::Hold(owner, image) => {
                    if store.hold(&format!("container:{owner}"), &images[image as usize].id).is_ok() {
                        holds.insert(owner, image);
                    }
                }
                Step::Release(owner) => {
                    store.release(&format!("container:{owner}")).unwrap();
                    holds.remove(&owner);
                }
                Step::Prune(all) => {
                    store.prune(&PruneFilter { all, ..PruneFilter::default() }).unwrap();
                    if all {
                        names.retain(|_, image| holds.values().any(|held| held == image));
                    }
                }
                Step::Gc(bytes) => drop(store.gc(Budget::Bytes(bytes.into())).unwrap()),
            }
            for (to, image) in &names {
                proptest::prop_assert_eq!(&store.find(&label(*to)).unwrap().id, &images[*image as usize].id);
            }
            for image in holds.values() {
                proptest::prop_assert!(store.get(&images[*image as usize].id).is_ok());
            }
        }
        assert_whole(&store);
        for owner in holds.keys() {
            store.release(&format!("container:{owner}")).unwrap();
        }
        store.prune(&PruneFilter { all: true, ..PruneFilter::default() }).unwrap();
        for left in ["layers", "blobs/sha256"] {
            proptest::prop_assert!(names_below(&directory.path().join(left)).is_empty());
        }
    }
}
