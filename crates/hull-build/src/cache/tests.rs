//! Cache directories and what killed builds leave.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use hull_dockerfile::ast::Sharing;

use super::mounts::{Attributes, Held};
use super::*;

const PLAIN: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

fn attributes() -> Attributes {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Attributes { uid, gid, ..PLAIN }
}

fn take(cache: &Cache, name: &str, sharing: Sharing) -> Result<Held, Error> {
    let tries = std::cell::Cell::new(0);
    let check = || {
        tries.set(tries.get() + 1);
        if tries.get() > 3 { Err(Error::Canceled) } else { Ok(()) }
    };
    cache.mount(name, sharing, attributes(), check, |_| Ok(()))
}

fn path(held: &Held) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", held.directory.as_raw_fd())).unwrap()
}

#[test]
fn directories_are_shared_as_their_mode_says() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::new(&Store::new(root.path()));
    let one = take(&cache, "a", Sharing::Shared).unwrap();
    fs::write(path(&one).join("kept"), "x").unwrap();
    let two = take(&cache, "a", Sharing::Shared).unwrap();
    assert_eq!(path(&one), path(&two));
    assert_ne!(path(&take(&cache, "b", Sharing::Shared).unwrap()), path(&one));
    // Whoever wants it alone waits.
    assert!(matches!(take(&cache, "a", Sharing::Locked), Err(Error::Canceled)));
    drop((one, two));
    let locked = take(&cache, "a", Sharing::Locked).unwrap();
    assert!(path(&locked).join("kept").exists());
    assert!(matches!(take(&cache, "a", Sharing::Shared), Err(Error::Canceled)));
    // Private ones are others while the first is in use, and the same ones later.
    let first = take(&cache, "p", Sharing::Private).unwrap();
    let second = take(&cache, "p", Sharing::Private).unwrap();
    assert_ne!(path(&first), path(&second));
    let was = path(&first);
    drop(first);
    assert_eq!(path(&take(&cache, "p", Sharing::Private).unwrap()), was);
}

#[test]
fn a_directory_that_was_not_filled_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::new(&Store::new(root.path()));
    let broken = cache.mount(
        "a",
        Sharing::Shared,
        attributes(),
        || Ok(()),
        |directory| {
            fs::write(format!("/proc/self/fd/{}/half", directory.as_raw_fd()), "").unwrap();
            Err(Error::Canceled)
        },
    );
    assert!(broken.is_err());
    let held = take(&cache, "a", Sharing::Shared).unwrap();
    assert!(!path(&held).join("half").exists());
}

#[test]
fn directories_in_use_are_not_pruned() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::new(&Store::new(root.path()));
    let held = take(&cache, "a", Sharing::Shared).unwrap();
    fs::write(path(&held).join("kept"), vec![1; 50_000]).unwrap();
    let usage = cache.usage().unwrap();
    assert_eq!((usage.len(), usage[0].kind.as_str()), (1, "exec.cachemount"));
    assert!(usage[0].size >= 50_000);
    assert!(cache.prune(&PruneFilter::default()).unwrap().removed.is_empty());
    drop(held);
    let pruned = cache.prune(&PruneFilter::default()).unwrap();
    assert_eq!(pruned.removed.len(), 1);
    assert!(pruned.reclaimed >= 50_000);
    assert!(cache.usage().unwrap().is_empty());
    assert_eq!(fs::read_dir(root.path().join("build/mounts")).unwrap().count(), 0);
    // The next one is new.
    assert!(!path(&take(&cache, "a", Sharing::Shared).unwrap()).join("kept").exists());
}

#[test]
fn what_killed_builds_left_goes() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::new(&Store::new(root.path()));
    let held = take(&cache, "a", Sharing::Shared).unwrap();
    let key = Digest::of(b"key");
    let lock = cache.lock(&key, || Ok(())).unwrap();
    let (locks, mounts) = (root.path().join("build/locks"), root.path().join("build/mounts"));
    fs::write(locks.join(Digest::of(b"dead").hex()), "").unwrap();
    fs::create_dir_all(mounts.join("77/data/deep")).unwrap();
    cache.repair().unwrap();
    assert_eq!(fs::read_dir(&locks).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&mounts).unwrap().count(), 1);
    assert!(path(&held).exists());
    drop(lock);
    assert_eq!(fs::read_dir(&locks).unwrap().count(), 0);
}

#[test]
fn files_that_differ_are_named() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::new(&Store::new(root.path()));
    let list = |files: &[(&str, &str)]| -> (Digest, Vec<(String, String)>) {
        let list: Vec<_> = files.iter().map(|(path, stamp)| ((*path).to_owned(), (*stamp).to_owned())).collect();
        (Digest::of(format!("{list:?}").as_bytes()), list)
    };
    let (one, first) = list(&[("a b", "1"), ("gone", "1"), ("same", "1")]);
    let (two, second) = list(&[("a b", "2"), ("new", "1"), ("same", "1")]);
    cache.keep_list(&one, &first).unwrap();
    assert_eq!(cache.changed_files(&one.to_string(), &two.to_string()), None);
    cache.keep_list(&two, &second).unwrap();
    let lines = cache.changed_files(&one.to_string(), &two.to_string()).unwrap();
    assert_eq!(lines, ["file a b changed", "file new is new", "file gone is gone"]);
    assert_eq!(cache.changed_files("=nothing", "x"), None);
}

#[test]
fn what_is_kept_of_sources_is_counted_and_goes() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::new(&Store::new(root.path()));
    let place = root.path().join("cache");
    let digest = Digest::of(b"content");
    for name in ["context", "http", "git/00112233445566778899"] {
        fs::create_dir_all(place.join(name)).unwrap();
    }
    fs::write(place.join("context/aabbccddeeff00112233"), [1; 5000]).unwrap();
    fs::write(place.join("http").join(digest.hex()), [1; 5000]).unwrap();
    let record = format!(r#"{{"url":"https://user:word@h.example/x","digest":"{digest}"}}"#);
    fs::write(place.join("http/0123.json"), record).unwrap();
    let checkout = place.join("git/00112233445566778899");
    fs::create_dir(checkout.join("files")).unwrap();
    fs::write(checkout.join("files/x"), [1; 5000]).unwrap();
    fs::write(checkout.join("done"), "1 x").unwrap();
    fs::write(checkout.join("lock"), "").unwrap();
    let usage = cache.usage().unwrap();
    let mut ids: Vec<&str> = usage.iter().map(|one| one.id.split('-').next().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["context", "git", "http"]);
    assert!(usage.iter().all(|one| one.size >= 4096 && one.used > 0), "{usage:?}");
    assert!(usage.iter().any(|one| one.description == "https://h.example/x"), "{usage:?}");
    // A build uses the checkout.
    let held = hull_fs::lock::Lock::shared(&checkout.join("lock")).unwrap();
    assert_eq!(cache.prune(&super::PruneFilter::default()).unwrap().removed.len(), 2);
    assert!(checkout.join("files/x").exists());
    assert_eq!(fs::read_dir(place.join("http")).unwrap().count(), 0);
    drop(held);
    let pruned = cache.prune(&super::PruneFilter::default()).unwrap();
    assert_eq!((pruned.removed.len(), checkout.exists()), (1, false));
    assert!(pruned.reclaimed >= 4096);
}
