use super::mounts::clean;
use super::trash::{Removal, Removed};
use super::*;
use crate::config::{RunConfig, VolumeConfig};

fn engine() -> (tempfile::TempDir, Engine) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let engine = Engine::new(directory.path().join("data"), directory.path().join("run"));
    (directory, engine)
}

fn named(name: &str) -> Volume {
    Volume { name: name.to_owned(), ..Volume::default() }
}

#[test]
fn a_volume_s_life() {
    let (_directory, engine) = engine();
    assert!(engine.volumes().expect("list").is_empty());
    let made = engine.create_volume(&named("data")).expect("create");
    assert_eq!(engine.create_volume(&named("data")).expect("the same again"), made);
    std::fs::write(engine.volume_data("data").join("file"), "content").expect("write");
    let anonymous = engine.create_volume(&Volume::default()).expect("create");
    assert!(anonymous.anonymous && anonymous.name.len() == 64 && anonymous.labels.contains_key(ANONYMOUS));
    assert_eq!(engine.volumes().expect("list").len(), 2);

    let copy = engine.clone_volume("data", "copy").expect("clone");
    assert_eq!(std::fs::read(engine.volume_data(&copy.name).join("file")).expect("read"), b"content");
    let error = engine.clone_volume("data", "copy").expect_err("taken").to_string();
    assert!(error.contains("exists already"), "{error}");
    engine.rename_volume("copy", "other").expect("rename");
    assert_eq!(engine.volume("copy").expect_err("gone").to_string(), "get copy: no such volume");

    let mut archive = Vec::new();
    engine.export_volume("data", &mut archive).expect("export");
    engine.import_volume("third", &archive[..]).expect("import");
    assert_eq!(std::fs::read(engine.volume_data("third").join("file")).expect("read"), b"content");
    engine.import_volume("broken", &archive[..700]).expect_err("truncated");
    engine.volume("broken").expect_err("nothing half-made");

    assert_eq!(engine.remove_volume("data", Removal::Trash).expect("remove"), Removed::Trashed);
    assert!(matches!(engine.remove_volume(&anonymous.name, Removal::Trash).expect("remove"), Removed::Gone(_)));
    assert_eq!(engine.trashed_volumes().expect("list").len(), 1);
    engine.create_volume(&named("data")).expect("the name is free");
    engine.restore_volume("data", None).expect_err("the name is taken");
    engine.restore_volume("data", Some("again")).expect("restore");
    assert_eq!(std::fs::read(engine.volume_data("again").join("file")).expect("read"), b"content");
    engine.remove_volume("again", Removal::Trash).expect("remove");
    assert_eq!(engine.empty_trash(false).expect("nothing is old enough"), 0);
    assert!(engine.empty_trash(true).expect("empty") > 0);
    assert!(engine.trashed_volumes().expect("list").is_empty());
    assert_eq!(std::fs::read_dir(engine.volumes_root().join(".staging")).expect("read").count(), 0);
}

#[test]
fn hostile_names_reach_nothing() {
    let (directory, engine) = engine();
    std::fs::create_dir_all(directory.path().join("data/volumes")).expect("create");
    for name in ["..", ".", "../x", "a/b", ".trash", "", "a\nb", "@"] {
        assert!(matches!(engine.volume(name), Err(Error::NoVolume(_))), "{name:?}");
        assert!(engine.remove_volume(name, Removal::Now).is_err(), "{name:?}");
        if !name.is_empty() {
            assert!(engine.create_volume(&named(name)).is_err(), "{name:?}");
        }
    }
}

#[test]
fn what_was_abandoned_goes_and_what_is_being_made_stays() {
    let (_directory, engine) = engine();
    let stage = Stage::new(&engine).expect("stage");
    stage.write(&named("new")).expect("write");
    let abandoned = engine.volumes_root().join(".staging/abandoned");
    std::fs::create_dir_all(abandoned.join("new/_data/deep")).expect("create");
    engine.repair_volumes().expect("repair");
    assert!(stage.path.exists() && !abandoned.exists());
    stage.publish(&engine.volume_directory("new")).expect("publish");
    engine.volume("new").expect("there");
    // A record that the machine's end cut off costs no data.
    std::fs::write(engine.volume_directory("new").join("volume.json"), "").expect("truncate");
    assert_eq!(engine.volume("new").expect("tolerated").driver, DRIVER);
}

#[test]
fn mounts_have_docker_s_precedence() {
    let (_directory, engine) = engine();
    let volume = |target: &str| MountConfig::Volume {
        name: String::new(),
        target: target.to_owned(),
        options: Vec::new(),
        volume: VolumeConfig { anonymous: true, ..VolumeConfig::default() },
    };
    let tmpfs = MountConfig::Tmpfs { target: "/cache/".to_owned(), options: Vec::new() };
    let image = hull_image::Config {
        volumes: ["/data", "/cache", "/more"].map(|path| (path.to_owned(), serde_json::Value::Null)).into(),
        ..hull_image::Config::default()
    };
    let mut config = RunConfig { mounts: vec![volume("/data"), tmpfs], ..RunConfig::default() };
    engine.complete_mounts(&mut config, &image).expect("complete");
    let targets: Vec<&str> = config.mounts.iter().map(MountConfig::target).collect();
    assert_eq!(targets, ["/data", "/cache/", "/more"]);
    for mount in &config.mounts {
        assert!(!matches!(mount, MountConfig::Volume { name, .. } if name.len() != 64), "{mount:?}");
    }
    let mut twice = RunConfig { mounts: vec![volume("/a"), volume("/b/../a/.")], ..RunConfig::default() };
    let error = engine.complete_mounts(&mut twice, &hull_image::Config::default()).expect_err("twice");
    assert_eq!(error.to_string(), "Duplicate mount point: /a");
    let root = hull_image::Config {
        volumes: [("/x/..".to_owned(), serde_json::Value::Null)].into(),
        ..hull_image::Config::default()
    };
    engine.complete_mounts(&mut RunConfig::default(), &root).expect_err("the root itself");
    assert_eq!(clean("/a//./b/../c/"), "/a/c");
}
