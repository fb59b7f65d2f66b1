//! What a layer's entries come to, in whichever order they are.

use hull_layer::Limits;
use hull_layer::tar::{Entry, EntryKind};
use hull_layer::tree::{Builder, Kind, Tree, Xattrs};

use crate::archive::{Archive, message};
use crate::seen;

/// Paths and what they are, sorted.
fn listing(tree: &Tree) -> Vec<String> {
    let mut lines: Vec<String> = seen::tree(tree, &[0; 1 << 16])
        .into_iter()
        .skip(1)
        .map(|(path, file)| format!("{} {} {}", String::from_utf8_lossy(&path), file.kind, file.links))
        .collect();
    lines.sort();
    lines
}

/// The same entries in every order give the same layer.
#[track_caller]
fn any_order(steps: &[fn(Archive) -> Archive], expected: &[&str]) {
    let mut orders = vec![Vec::new()];
    for step in 0..steps.len() {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |place| {
                    let mut longer = order.clone();
                    longer.insert(place, step);
                    longer
                })
            })
            .collect();
    }
    for order in orders {
        let archive = order.iter().fold(Archive::new(), |archive, step| steps[*step](archive));
        let tree = archive.tree().unwrap_or_else(|error| panic!("order {order:?}: {error}"));
        assert_eq!(listing(&tree), expected, "order {order:?}");
    }
}

#[test]
fn missing_directories_are_made_and_filled_in_later() {
    let expected = ["a directory 3", "a/b directory implied 2", "a/b/c file 1"];
    any_order(&[|archive| archive.directory("a/"), |archive| archive.file("a/b/c", b"")], &expected);
    let tree = Archive::new().file("x/y", b"").directory("x").tree().expect("a layer");
    assert_eq!(tree.root().mode, 0o755);
    assert_eq!(tree.root().links, 3);
    let x = tree.node(tree.lookup(b"x").expect("there"));
    assert_eq!(x.mode, 0o644, "the entry's, though it came later");
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    any_order(
        &[
            |archive| archive.file("d/.wh.gone", b""),
            |archive| archive.directory("d"),
            |archive| archive.file("d/kept", b""),
        ],
        &["d directory 2", "d/gone whiteout 1", "d/kept file 1"],
    );
    // A name beside its own whiteout stays; a directory then shows nothing of what is below.
    any_order(
        &[|archive| archive.file(".wh.d", b""), |archive| archive.directory("d/"), |archive| archive.file("d/x", b"")],
        &["d directory opaque 2", "d/x file 1"],
    );
    any_order(&[|archive| archive.file(".wh.f", b""), |archive| archive.file("f", b"x")], &["f file 1"]);
    any_order(
        &[
            |archive| archive.file(".wh.f", b""),
            |archive| archive.file("g", b"x"),
            |archive| archive.link("f", b'1', "g"),
        ],
        &["f file 2", "g file 2"],
    );
    any_order(
        &[|archive| archive.file("d/.wh..wh..opq", b""), |archive| archive.file("d/x", b"")],
        &["d directory opaque implied 2", "d/x file 1"],
    );
}

#[test]
fn files_of_aufs_are_left_out_but_can_be_linked_to() {
    any_order(
        &[
            |archive| archive.directory(".wh..wh.plnk"),
            |archive| archive.file(".wh..wh.plnk/12.34", b"x"),
            |archive| archive.file(".wh..wh.aufs", b""),
            |archive| archive.link("a", b'1', ".wh..wh.plnk/12.34"),
        ],
        &["a file 1"],
    );
}

#[test]
fn hard_links_are_one_file() {
    any_order(
        &[
            |archive| archive.file("a", b"x"),
            |archive| archive.link("d/b", b'1', "./a"),
            |archive| archive.link("c", b'1', "/d/b"),
            |archive| archive.link("e", b'1', "c"),
        ],
        &["a file 4", "c file 4", "d directory implied 2", "d/b file 4", "e file 4"],
    );
    // A replaced name leaves the file to its other names.
    let tree = Archive::new().file("a", b"1").link("b", b'1', "a").file("a", b"22").tree().expect("a layer");
    assert_eq!(listing(&tree), ["a file 1", "b file 1"]);
    let size = |name: &[u8]| match tree.node(tree.lookup(name).expect("there")).kind {
        Kind::File { size, .. } => size,
        _ => 0,
    };
    assert_eq!((size(b"a"), size(b"b")), (2, 1));
    let tree = Archive::new().link("a", b'1', "b").file("a", b"1").tree().expect("the link was replaced");
    assert_eq!(listing(&tree), ["a file 1"]);
    let tree = Archive::new().link("s", b'2', "x").link("t", b'1', "s").link("t", b'1', "t").tree().expect("a layer");
    assert_eq!(listing(&tree), ["s symlink 2", "t symlink 2"]);
}

#[test]
fn hard_links_that_lead_nowhere_are_refused() {
    for (archive, reason) in [
        (Archive::new().link("a", b'1', "b"), "`a` is a hard link to `b`, which is not in this layer"),
        (Archive::new().link("a", b'1', "a"), "leads back to it"),
        (Archive::new().link("a", b'1', "b").link("b", b'1', "a"), "leads back to it"),
        (Archive::new().link("a", b'1', "d").directory("d"), "which is a directory"),
        (Archive::new().directory("d").link("a", b'1', "d"), "is a hard link to the directory `d`"),
        (Archive::new().file(".wh.w", b"").link("a", b'1', "w"), "which is not in this layer"),
        (Archive::new().file("x", b"").link("a", b'1', "x/y"), "which is not in this layer"),
        (Archive::new().link("a", b'1', "/"), "a hard link to the root directory"),
        (Archive::new().link("a", b'1', "../x"), "contains `..`"),
        (Archive::new().link("a", b'1', ""), "has no name"),
    ] {
        let message = message(archive.tree());
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn the_last_entry_of_a_name_wins() {
    let tree = Archive::new().file("d/x", b"").file("d", b"1").tree().expect("a layer");
    assert_eq!(listing(&tree), ["d file 1"]);
    let tree = Archive::new().file("d", b"1").directory("d").file("d/x", b"").tree().expect("a layer");
    assert_eq!(listing(&tree), ["d directory 2", "d/x file 1"]);
    let tree = Archive::new().directory("d").file("d/x", b"").directory("d").tree().expect("a layer");
    assert_eq!(listing(&tree), ["d directory 2", "d/x file 1"]);
    // The directory that the last entry was in is gone, and there is another.
    let archive = Archive::new().file("d/x", b"").link("d", b'2', "e").directory("d").file("d/y", b"");
    assert_eq!(listing(&archive.tree().expect("a layer")), ["d directory 2", "d/y file 1"]);
}

#[test]
fn what_depends_on_the_reader_is_refused() {
    for (archive, reason) in [
        (Archive::new().link("d", b'2', "/etc").file("d/passwd", b"x"), "`d` is not a directory"),
        (Archive::new().file("a/f", b"").file("a/f/x/y", b"x"), "`f` is not a directory"),
        (Archive::new().file("d/x", b"").link("d", b'2', "e").file("d/y", b""), "`d` is not a directory"),
        (Archive::new().link(".", b'2', "/etc"), "the root of the layer is not a directory"),
        (Archive::new().link("./", b'1', "etc"), "the root of the layer is not a directory"),
        (Archive::new().file("a/.wh.", b""), "a whiteout of no name"),
        (Archive::new().file(".wh..", b""), "a whiteout of no name"),
        (Archive::new().file(".wh...", b""), "a whiteout of no name"),
        (Archive::new().file(".wh.a/b", b""), "a whiteout with names in it"),
    ] {
        let message = message(archive.tree());
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn attributes_of_the_machine_are_dropped() {
    let attribute = |name: &[u8]| (name.into(), b"y"[..].into());
    let mut entry = Entry::new("f", EntryKind::Fifo, 0o600);
    entry.xattrs = [
        &b"com.apple.quarantine"[..],
        b"security.",
        b"security.capability",
        b"security.selinux",
        b"system.posix_acl_access",
        b"system.sockprotoname",
        b"trusted.overlay.opaque",
        b"trusted.x",
        b"user.overlay.redirect",
        b"user.x",
    ]
    .map(attribute)
    .into();
    let mut builder = Builder::new(Limits::default());
    builder.add(entry).expect("valid");
    let tree = builder.finish().expect("a layer");
    let kept: Xattrs = tree.node(tree.lookup(b"f").expect("there")).xattrs.clone();
    let expected = [&b"security.capability"[..], b"system.posix_acl_access", b"trusted.x", b"user.x"].map(attribute);
    assert_eq!(kept, expected);
}

#[test]
fn limits_of_memory_hold() {
    let small = Limits { entries: 100, names: 10_000, ..Limits::default() };
    let add = |entry: &dyn Fn(u32) -> Entry| {
        let mut builder = Builder::new(small);
        (0..1000).try_for_each(|number| builder.add(entry(number)))
    };
    let file = |number: u32| Entry::new(format!("{number}"), EntryKind::Fifo, 0o600);
    assert_eq!(message(add(&file)), "layer archive has more than 100 entries");
    let implied = |number: u32| Entry::new(format!("{number}{}", "/x".repeat(60)), EntryKind::Fifo, 0o600);
    assert_eq!(message(add(&implied)), "layer archive has more than 100 entries");
    let names = |number: u32| Entry::new(format!("{number}-{}", "x".repeat(240)), EntryKind::Fifo, 0o600);
    assert_eq!(message(add(&names)), "layer archive has more than 10000 bytes of names and attributes");
    let same = |_| Entry::new("x".repeat(240), EntryKind::HardLink(b"y".repeat(200)), 0o600);
    assert_eq!(message(add(&same)), "layer archive has more than 10000 bytes of names and attributes");
    let xattrs = |number: u32| {
        let xattrs = vec![(b"user.x"[..].into(), vec![0; 500].into())];
        Entry { xattrs, ..Entry::new(format!("{}", number % 10), EntryKind::Fifo, 0o600) }
    };
    assert_eq!(message(add(&xattrs)), "layer archive has more than 10000 bytes of names and attributes");
}
