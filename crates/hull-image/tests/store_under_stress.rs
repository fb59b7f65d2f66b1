//! Many processes at once, kill -9 at random points, a full disk.
//!
//! The other processes are this test program again: the test [`child`] does what the environment says.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod stored;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_image::{Budget, Error, PruneFilter, Store};
use stored::{Layered, assert_whole, names_below};

const WORK: &str = "HULL_TEST_WORK";
const ROOT: &str = "HULL_TEST_ROOT";

fn start(work: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(WORK, work)
        .env(ROOT, root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Contents that differ by `seed` only in the upper layer.
fn image(seed: u64) -> Layered {
    let upper: Vec<u8> = (0..200_000_u64).map(|index| (index.wrapping_mul(seed * 2 + 1) >> 3) as u8).collect();
    Layered::new(&[&[42; 300_000], &upper])
}

/// What the started processes do; nothing when it is run as a test.
#[test]
fn child() {
    let (Ok(work), Some(root)) = (std::env::var(WORK), std::env::var_os(ROOT)) else { return };
    let store = Store::new(Path::new(&root));
    let (work, seed) = work.split_once(' ').unwrap();
    let seed: u64 = seed.parse().unwrap();
    match work {
        "once" => drop(image(seed).try_add(&store, &["once"]).unwrap()),
        // Everything that changes a store, until it is killed.
        "ever" => loop {
            churn(&store, seed);
        },
        "some" => (0..15).for_each(|round| churn(&store, seed + round % 3)),
        other => panic!("{other}"),
    }
}

fn churn(store: &Store, seed: u64) {
    let name = format!("app{seed}");
    store.repair().unwrap();
    image(seed).try_add(store, &[&name]).unwrap();
    let owner = format!("container:{}", std::process::id());
    // Others remove what is not held: then there is nothing to hold.
    match store.find(&name).and_then(|image| store.hold(&owner, &image.id).map(|()| image)) {
        Ok(image) => {
            let held = store.get(&image.id).unwrap();
            assert!(held.layers.iter().all(|layer| store.layer_path(&layer.diff_id).exists()));
            store.release(&owner).unwrap();
        }
        Err(Error::NoImage(_)) => {}
        Err(error) => panic!("{error}"),
    }
    store.gc(Budget::Bytes(100_000)).unwrap();
    match store.remove(&name, false, &|_| false) {
        Ok(_) | Err(Error::NoImage(_) | Error::Conflict(_)) => {}
        Err(error) => panic!("{error}"),
    }
    store.prune(&PruneFilter { all: true, ..PruneFilter::default() }).unwrap();
}

#[test]
fn processes_share_a_store() {
    let directory = stored::directory();
    let children: Vec<Child> = (0..6).map(|number| start(&format!("some {}", number % 2), directory.path())).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let store = Store::open(directory.path()).unwrap();
    store.repair().unwrap();
    assert_whole(&store);
    image(1).add(&store, &["after"]);
    assert_whole(&store);
}

#[test]
fn a_killed_process_leaves_nothing() {
    let directory = stored::directory();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    let mut found = 0;
    for round in 0..100 {
        let mut child = start(&format!("ever {}", round % 4), directory.path());
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(5_000 + random % 60_000));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
        let store = Store::open(directory.path()).unwrap();
        found += store.repair().unwrap();
        // A check reads everything; what a kill spoils is seen by the cheap ones too.
        if round % 10 == 9 {
            assert_whole(&store);
        }
        for left in ["ingest", "trash"] {
            assert_eq!(names_below(&directory.path().join(left)), Vec::<String>::new(), "{left}");
        }
        for image in store.list().unwrap() {
            assert!(image.layers.iter().all(|layer| store.layer_path(&layer.diff_id).exists()));
        }
    }
    assert!(found > 20, "only {found} kills hit a command at work");
    let store = Store::open(directory.path()).unwrap();
    image(9).add(&store, &["after"]);
    for (owner, _) in store.holds().unwrap() {
        store.release(&owner).unwrap();
    }
    store.prune(&PruneFilter { all: true, ..PruneFilter::default() }).unwrap();
    assert!(names_below(&directory.path().join("layers")).is_empty());
    assert!(names_below(&directory.path().join("blobs/sha256")).is_empty());
    assert_whole(&store);
}

/// The names of a killed repair's directories are found by the next one: the same directory, again and again.
#[test]
fn a_killed_repair_is_repaired() {
    let directory = stored::directory();
    let store = Store::new(directory.path());
    image(1).add(&store, &["one"]);
    for (left, name) in [("ingest", "a"), ("trash", "b")] {
        let path = directory.path().join(left).join(name);
        std::fs::create_dir_all(path.join("layer-1/tree/deep")).unwrap();
        std::fs::write(path.join("blob"), "x").unwrap();
    }
    // Renamed into place and not recorded: what a kill just before the commit leaves.
    let stray = directory.path().join("layers").join("0".repeat(64));
    std::fs::create_dir(&stray).unwrap();
    assert_eq!(store.repair().unwrap(), 2);
    assert!(!stray.exists());
    assert_eq!(store.repair().unwrap(), 0);
    assert_whole(&store);
}

#[test]
fn root_a_full_disk_changes_nothing() {
    if !hull_testkit::tier::root() {
        return;
    }
    let directory = stored::directory();
    let (exe, root) = (std::env::current_exe().unwrap(), directory.path());
    // The mount is in a mount namespace of its own and goes with its last process.
    let script = r#"
        set -e
        mount -t tmpfs -o size=3m,mode=700 tmpfs "$1"
        HULL_TEST_WORK=full HULL_TEST_ROOT="$1" "$0" --exact full_disk --nocapture
    "#;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .args([exe.as_os_str(), root.as_os_str()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    assert!(names_below(root).is_empty());
}

/// Within the small file system.
#[test]
fn full_disk() {
    let (Ok("full"), Some(root)) = (std::env::var(WORK).as_deref(), std::env::var_os(ROOT)) else { return };
    let root = Path::new(&root);
    let free = || rustix::fs::statvfs(root).unwrap().f_bfree;
    let store = Store::new(root);
    Layered::new(&[b"small"]).add(&store, &["small"]);
    let before = (free(), store.list().unwrap().len());
    for size in [1_600_000, 2_800_000, 9_000_000] {
        let refused = Layered::new(&[&vec![size as u8; size]]).try_add(&store, &["large"]).unwrap_err().to_string();
        assert!(refused.contains("No space left on device") || refused.contains("full"), "{refused}");
        assert!(!refused.contains('\n'), "{refused}");
        assert_eq!(store.list().unwrap().len(), before.1);
        assert!(matches!(store.find("large"), Err(Error::NoImage(_))));
        assert_whole(&store);
        // The log of the database may have grown by some pages.
        assert!(free() + 64 >= before.0, "{} of {}", free(), before.0);
    }
    // With every single block in use, an image can still be removed.
    let ballast = root.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    let refused = Layered::new(&[b"tiny"]).try_add(&store, &["tiny"]).unwrap_err().to_string();
    assert!(!refused.is_empty());
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    assert_whole(&store);
    store.remove("small", false, &|_| false).unwrap();
    assert_whole(&store);
}
