//! Archives that are damaged, lie, or want out: each is refused with one clear line, or taken as what it harmlessly is.
//! Nothing outside of the store is touched, and the store stays as it was.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::{Members, Packed, Source, gzip, stack};
use hull_oci::Digest;
use hull_oci::image::{Descriptor, media_type};
use hull_testkit::{Finished, Home, finish_within, home, tier};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(600);

/// Homes with a directory `outside` that nothing may come into: one with layers as this machine has them best, one with
/// directories.
fn homes() -> [(&'static str, Home); 2] {
    ["", "directory"].map(|kind| {
        let h = home!(plain).here().snapshotter(kind);
        h.write("outside/victim", "untouched");
        (kind, h)
    })
}

#[track_caller]
fn ok(h: &Home, words: &[&str]) -> Finished {
    finish_within(&mut h.hull(words), LIMIT).ok()
}

/// The command on these bytes, as a file.
fn feed(h: &Home, verb: &str, bytes: &[u8]) -> Finished {
    h.write("archive", bytes);
    let words: &[&str] = if verb == "load" { &["load", "-i", "archive"] } else { &["import", "archive", "bad"] };
    finish_within(&mut h.hull(words), LIMIT)
}

/// Nothing happened outside, and the store has nothing but what its records name.
#[track_caller]
fn assert_untouched(h: &Home, what: &str) {
    assert_eq!(h.entries("outside"), ["victim"], "{what}");
    assert_eq!(std::fs::read_to_string(h.at("outside/victim")).unwrap(), "untouched", "{what}");
    let mut here = h.entries("");
    here.retain(|name| !["outside", "archive", "data", "run"].contains(&name.as_str()));
    assert!(here.is_empty(), "{what}: {here:?}");
    let check = finish_within(&mut h.hull(&["system", "check"]), LIMIT);
    assert_eq!(check.stdout, "No problems found\n", "{what}: {}", check.stderr);
    assert_eq!(h.unfinished(), [""; 0], "{what}");
}

/// Each archive is refused with one line that has the text, or accepted where the text is empty.
#[track_caller]
fn table(kind: &str, h: &Home, verb: &str, cases: &[(&str, Vec<u8>, &str)]) {
    for (what, bytes, said) in cases {
        let what = format!("{verb} {what} ({kind})");
        let out = feed(h, verb, bytes);
        assert!(!out.stderr.contains("panicked"), "{what}: {}", out.stderr);
        if said.is_empty() {
            assert_eq!((out.code, out.stderr.as_str()), (0, ""), "{what}");
        } else {
            assert_eq!(out.code, 1, "{what}: {}{}", out.stdout, out.stderr);
            let one = out.stderr.trim_end().lines().count() == 1 && out.stderr.len() < 600;
            assert!(one && out.stderr.contains(said), "{what}: no {said:?} in: {}", out.stderr);
            assert_eq!(ok(h, &["images", "-q"]).stdout, "", "{what}: there is an image");
        }
        assert_untouched(h, &what);
        ok(h, &["image", "prune", "-af"]);
    }
    assert!(h.entries("data/layers").is_empty(), "layers are left");
}

/// A header as it is written, whatever it says.
fn header(name: &str, kind: u8, size: &[u8], link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, size);
    put(136, b"14000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn octal(size: usize) -> Vec<u8> {
    format!("{size:011o}\0").into_bytes()
}

fn entry(name: &str, kind: u8, content: &[u8], link: &str) -> Vec<u8> {
    let mut bytes = header(name, kind, &octal(content.len()), link);
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str) -> Vec<u8> {
    entry(name, b'0', b"content", "")
}

fn directory(name: &str) -> Vec<u8> {
    entry(name, b'5', b"", "")
}

fn symlink(name: &str, target: &str) -> Vec<u8> {
    entry(name, b'2', b"", target)
}

fn hard_link(name: &str, target: &str) -> Vec<u8> {
    entry(name, b'1', b"", target)
}

/// A PAX header with these records, before a file.
fn pax(records: &str) -> Vec<u8> {
    [entry("pax", b'x', records.as_bytes(), ""), file("file")].concat()
}

fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let digits = (1..).find(|digits| (rest.len() + digits).to_string().len() == *digits).unwrap();
    format!("{}{rest}", rest.len() + digits)
}

/// The entries with an end.
fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn names_that_lead_out() {
    for (kind, h) in homes() {
        let out = h.text("outside");
        let behind = format!("{}/victim", &out[1..]);
        let up = "../".repeat(20);
        table(
            kind,
            &h,
            "import",
            &[
                ("parent", tar(&[file("../outside/new")]), "contains `..`"),
                ("parent inside", tar(&[file("a/../../../outside/new")]), "contains `..`"),
                ("parents", tar(&[file(&format!("{up}tmp/hull-escaped"))]), "contains `..`"),
                ("absolute", tar(&[file(&format!("{out}/new"))]), ""),
                ("absolute existing", tar(&[file(&behind)]), ""),
                (
                    "behind a link",
                    tar(&[symlink("link", &out), file("link/new")]),
                    "a name lies in `link`, whose component `link` is not a directory",
                ),
                ("over a link", tar(&[symlink("link", &format!("{out}/victim")), file("link")]), ""),
                (
                    "behind a relative link",
                    tar(&[symlink("link", "../../../../../outside"), file("link/victim")]),
                    "a name lies in `link`, whose component `link` is not a directory",
                ),
                ("directory over a link", tar(&[symlink("link", &out), directory("link"), file("link/new")]), ""),
                ("hard link out", tar(&[hard_link("link", "../../../../outside/victim")]), "contains `..`"),
                ("absolute hard link", tar(&[hard_link("link", &format!("{out}/victim")), file("link")]), ""),
                ("hard link by a link", tar(&[symlink("l", &out), hard_link("x", "l/victim"), file("x")]), ""),
                (
                    "hard link to nothing",
                    tar(&[hard_link("link", "nothing")]),
                    "`link` is a hard link to `nothing`, which is not in this layer",
                ),
                (
                    "hard link to itself",
                    tar(&[hard_link("link", "link")]),
                    "`link` is a hard link to `link`, which leads back to it",
                ),
                ("whiteout of a parent", tar(&[file("a/.wh..")]), "`a/.wh..` is a whiteout of no name"),
                ("whiteout of all", tar(&[file(".wh..wh..opq"), file("a")]), ""),
                ("whiteout beyond", tar(&[file("../.wh.outside")]), "contains `..`"),
                ("empty name", tar(&[file("")]), "an entry has no name"),
                ("only a slash", tar(&[file("/")]), "`` has content but is no file"),
            ],
        );
    }
}

#[test]
fn paths_that_conflict() {
    for (kind, h) in homes() {
        table(
            kind,
            &h,
            "import",
            &[
                ("twice", tar(&[file("a"), file("a"), file("./a")]), ""),
                ("file and directory", tar(&[file("a"), directory("a"), file("a/b")]), ""),
                ("directory and file", tar(&[directory("a"), file("a/b"), file("a")]), ""),
                (
                    "below a file",
                    tar(&[file("a"), file("a/b")]),
                    "a name lies in `a`, whose component `a` is not a directory",
                ),
                ("whiteout and file", tar(&[file(".wh.a"), file("a")]), ""),
                ("file and whiteout", tar(&[file("a"), file(".wh.a")]), ""),
                ("root as a file", tar(&[file(".")]), "the root of the layer is not a directory"),
                ("root as a link", tar(&[symlink(".", "/"), file("a")]), "the root of the layer is not a directory"),
                (
                    "hard link to a directory",
                    tar(&[directory("a"), hard_link("b", "a")]),
                    "`b` is a hard link to the directory `a`",
                ),
            ],
        );
    }
}

#[test]
fn sizes_that_lie() {
    let base256 = |bytes: [u8; 12]| header("file", b'0', &bytes, "");
    let most = [0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let deep = "d/".repeat(45) + "file";
    for (kind, h) in homes() {
        table(
            kind,
            &h,
            "import",
            &[
                (
                    "size in PAX beyond all",
                    tar(&[pax(&record("size", "18446744073709551616"))]),
                    "the PAX record `size` says `18446744073709551616`, which is no number",
                ),
                (
                    "size in PAX too large",
                    tar(&[pax(&record("size", "9223372036854775807"))]),
                    "layer archive has more than 1099511627776 bytes",
                ),
                (
                    "size in PAX negative",
                    tar(&[pax(&record("size", "-1"))]),
                    "the PAX record `size` says `-1`, which is no number",
                ),
                (
                    "size in PAX no number",
                    tar(&[pax(&record("size", "1e3"))]),
                    "the PAX record `size` says `1e3`, which is no number",
                ),
                ("size in PAX larger", tar(&[pax(&record("size", "4096"))]), "the archive is truncated"),
                ("size in PAX smaller", tar(&[pax(&record("size", "1"))]), ""),
                ("PAX length beyond", tar(&[pax("999999 path=x\n")]), "a PAX record is malformed"),
                ("PAX length zero", tar(&[pax("0 path=x\n")]), "a PAX record is malformed"),
                ("PAX without newline", tar(&[pax("8 path=xy")]), "a PAX record is malformed"),
                ("PAX without equals", tar(&[pax("7 path\n")]), "a PAX record is malformed"),
                ("PAX path with NUL", tar(&[pax(&record("path", "a\0b"))]), "the name `a\\u{0}b` contains a NUL byte"),
                ("PAX path out", tar(&[pax(&record("path", "../../outside/new"))]), "contains `..`"),
                ("PAX link out", tar(&[pax(&record("linkpath", "../../outside/new"))]), ""),
                (
                    "PAX header too long",
                    tar(&[pax(&record("comment", &"x".repeat(2 << 20)))]),
                    "layer archive has more than 1048576 bytes in an extended header",
                ),
                (
                    "PAX after PAX",
                    tar(&[entry("p", b'x', record("path", "x").as_bytes(), ""), pax("")]),
                    "one entry has two extended headers",
                ),
                (
                    "PAX at the end",
                    tar(&[entry("p", b'x', record("path", "x").as_bytes(), "")]),
                    "the archive ends after an extended header",
                ),
                (
                    "attribute too long",
                    tar(&[pax(&record("SCHILY.xattr.user.a", &"x".repeat(100_000)))]),
                    "the extended attributes of an entry have more than 65536 bytes",
                ),
                (
                    "name too long",
                    tar(&[pax(&record("path", &"x".repeat(5000)))]),
                    "a name of 5000 bytes is longer than 4096",
                ),
                (
                    "path too long",
                    tar(&[pax(&record("path", &"d/".repeat(100_000)))]),
                    "a name of 200000 bytes is longer than 4096",
                ),
                ("deep", tar(&[file(&deep)]), ""),
                ("negative size", tar(&[base256([0xff; 12])]), "the size of an entry is negative"),
                ("size of all bits", tar(&[base256(most)]), "the size of an entry is no number"),
                (
                    "size of letters",
                    tar(&[header("file", b'0', b"zzzzzzzzzzz\0", "")]),
                    "the size of an entry is no number",
                ),
                (
                    "a terabyte of nothing",
                    tar(&[header("file", b'0', b"\x80\0\0\0\0\0\x01\0\0\0\0\0", "")]),
                    "layer archive has more than 1099511627776 bytes",
                ),
                ("link with content", tar(&[entry("l", b'2', b"content", "x")]), "`l` has content but is no file"),
                ("unknown type", tar(&[entry("l", b'Q', b"content", "x")]), "`l` is of unknown type `Q`"),
                (
                    "sparse beyond its size",
                    tar(&[[
                        entry(
                            "p",
                            b'x',
                            [
                                record("GNU.sparse.major", "0"),
                                record("GNU.sparse.minor", "1"),
                                record("GNU.sparse.size", "9223372036854775807"),
                                record("GNU.sparse.map", "9223372036854775800,7"),
                            ]
                            .concat()
                            .as_bytes(),
                            "",
                        ),
                        file("file"),
                    ]
                    .concat()]),
                    "layer archive has more than 1099511627776 bytes",
                ),
            ],
        );
    }
}

#[test]
fn streams_that_are_cut_or_corrupt() {
    let whole = tar(&[directory("a"), entry("a/b", b'0', &[7; 3000], ""), file("c")]);
    let packed = gzip(&whole);
    let zstd = zstd::encode_all(whole.as_slice(), 3).unwrap();
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x10;
        bytes
    };
    for (kind, h) in homes() {
        table(
            kind,
            &h,
            "import",
            &[
                ("empty", Vec::new(), "the archive ends without an end marker: it is truncated"),
                ("one byte", vec![0], "the archive is truncated"),
                ("zeros", vec![0; 1024], ""),
                (
                    "text",
                    b"no archive\n".repeat(100),
                    "decompress layer (unknown): the stream is neither a tar nor compressed with gzip, zstd, xz",
                ),
                ("half a header", whole[..300].to_vec(), "the archive is truncated"),
                ("half a file", whole[..2000].to_vec(), "the archive is truncated"),
                (
                    "no end",
                    whole[..whole.len() - 1024].to_vec(),
                    "the archive ends without an end marker: it is truncated",
                ),
                ("wrong checksum", flipped(&whole, 513), "a header has checksum"),
                ("cut gzip", packed[..packed.len() / 2].to_vec(), "decompress layer (gzip): the stream is truncated"),
                (
                    "cut gzip sum",
                    packed[..packed.len() - 3].to_vec(),
                    "decompress layer (gzip): the stream is truncated",
                ),
                (
                    "wrong gzip sum",
                    flipped(&packed, packed.len() - 6),
                    "decompress layer (gzip): corrupt gzip stream does not have a matching checksum",
                ),
                ("gzip header only", packed[..10].to_vec(), "decompress layer (gzip): the stream is truncated"),
                (
                    "gzip and more",
                    [packed.clone(), b"more".to_vec()].concat(),
                    "decompress layer (gzip): the stream is truncated",
                ),
                ("cut zstd", zstd[..zstd.len() / 2].to_vec(), "decompress layer (zstd): the stream is truncated"),
                ("corrupt zstd", flipped(&zstd, zstd.len() / 2), "decompress layer (zstd): Data corruption detected"),
            ],
        );
    }
}

/// An OCI layout whose manifest is changed.
fn layout(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let source = Source::new(stack());
    let mut members = Members::default();
    let manifest = members.manifest(&source, Packed::Gzip);
    let name = format!("blobs/sha256/{}", manifest.digest.hex());
    let mut value: serde_json::Value = serde_json::from_slice(members.get_mut(&name)).unwrap();
    change(&mut value);
    let changed = members.blob(media_type::MANIFEST, value.to_string());
    members.top(&[crate::support::named(changed, "docker.io/library/a:1")]);
    members.tar()
}

/// Docker's archive whose manifest.json is this.
fn docker(manifest: &serde_json::Value) -> Vec<u8> {
    let source = Source::new(stack());
    let mut members = Members::default();
    members.put("config.json", &source.config);
    for (number, layer) in source.layers.iter().enumerate() {
        members.put(&format!("{number}.tar"), layer);
    }
    members.put("manifest.json", manifest.to_string());
    members.tar()
}

#[test]
fn documents_that_lie() {
    let layers = json!(["0.tar", "1.tar", "2.tar", "3.tar"]);
    let other = Digest::of(b"other");
    let mut wrong = Members::layout(&Source::new(stack()), "docker.io/library/a:1", Packed::Gzip);
    let blob =
        wrong.0.iter().position(|(entry, _)| entry.path.starts_with(b"blobs/") && entry.path.len() > 60).unwrap();
    wrong.0[blob].1[20] ^= 1;
    let nested = {
        let mut members = Members::default();
        let mut inner = members.manifest(&Source::new(stack()), Packed::Plain);
        for _ in 0..40 {
            inner = members.index(&[inner]);
        }
        members.top(&[inner]);
        members.tar()
    };
    let looped = {
        let mut members = Members::default();
        let own = Descriptor::new(media_type::INDEX, other.clone(), 100);
        members.top(&[own]);
        members.tar()
    };
    let links = {
        let mut members = Members::default();
        members.put("config.json", &Source::new(stack()).config);
        for number in 0..4 {
            members.add(crate::support::symlink(&format!("{number}.tar"), &format!("{}.tar", (number + 1) % 4)));
        }
        let manifest = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": layers}]);
        members.put("manifest.json", manifest.to_string());
        members.tar()
    };
    let manifest = |config: &str, tags: serde_json::Value, layers: serde_json::Value| {
        docker(&json!([{"Config": config, "RepoTags": tags, "Layers": layers}]))
    };
    for (kind, h) in homes() {
        table(
            kind,
            &h,
            "load",
            &[
                ("a blob with another digest", wrong.tar(), "has digest sha256:"),
                (
                    "a digest that is a path",
                    layout(|m| m["layers"][0]["digest"] = json!("sha256:../../../etc/passwd")),
                    "config field `layers[0].digest`: invalid digest \"sha256:../../../etc/passwd\": expected sha",
                ),
                (
                    "an unknown algorithm",
                    layout(|m| m["layers"][0]["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e")),
                    "config field `layers[0].digest`: unsupported digest algorithm \"md5\": sha256 and sha512 are",
                ),
                ("a layer that is missing", layout(|m| m["layers"][0]["digest"] = json!(other)), "is missing"),
                (
                    "a size that lies",
                    layout(|m| m["layers"][0]["size"] = json!(1)),
                    "has 477 bytes, its descriptor says 1",
                ),
                (
                    "a size below zero",
                    layout(|m| m["layers"][0]["size"] = json!(-1)),
                    "config field `layers[0].size`: invalid value: integer `-1`, expected u64",
                ),
                (
                    "an enormous size",
                    layout(|m| m["layers"][0]["size"] = json!(u64::MAX)),
                    "has 477 bytes, its descriptor says 18446744073709551615",
                ),
                (
                    "a manifest that is an index",
                    layout(|m| m["manifests"] = json!([])),
                    "manifest is ambiguous: it has both `manifests` and `config` or `layers`",
                ),
                (
                    "an index by its type",
                    layout(|m| m["mediaType"] = json!(media_type::INDEX)),
                    "manifest is ambiguous: it is a manifest but called \"application/vnd.oci.image.index.v1+jso",
                ),
                (
                    "an unknown manifest",
                    layout(|m| m["mediaType"] = json!("application/x-own")),
                    "mediaType \"application/x-own\" is unknown",
                ),
                (
                    "an unknown layer",
                    layout(|m| m["layers"][0]["mediaType"] = json!("application/x-own")),
                    "3 layers and a blob of unknown type \"application/x-own\", but its configuration has 4",
                ),
                (
                    "a layer too few",
                    layout(|m| drop(m["layers"].as_array_mut().unwrap().pop())),
                    "3 layers, but its configuration has 4",
                ),
                (
                    "layers exchanged",
                    layout(|m| m["layers"].as_array_mut().unwrap().swap(0, 1)),
                    "layer has digest sha256:",
                ),
                (
                    "no configuration",
                    layout(|m| drop(m.as_object_mut().unwrap().remove("config"))),
                    "config field `.`: missing field `config`",
                ),
                ("a layer as configuration", layout(|m| m["config"] = m["layers"][0].clone()), "it holds no image"),
                ("indexes in indexes", nested.clone(), "indexes are nested more than 4 deep"),
                ("an index that is missing", looped.clone(), "is missing"),
                ("links in a circle", links.clone(), "\"0.tar\" is a link to a link more than 8 times"),
                (
                    "a path out as configuration",
                    manifest("../../../../etc/passwd", json!(["a:1"]), layers.clone()),
                    "manifest.json: \"../../../../etc/passwd\" is no name within the archive",
                ),
                (
                    "an absolute layer",
                    manifest("config.json", json!(["a:1"]), json!(["/etc/passwd", "/dev/zero", "x", "y"])),
                    "manifest.json: \"/etc/passwd\" is no name within the archive",
                ),
                (
                    "layers too few",
                    manifest("config.json", json!(["a:1"]), json!(["0.tar"])),
                    "manifest.json: 1 layers, but config.json has 4",
                ),
                (
                    "layers in another order",
                    manifest("config.json", json!(["a:1"]), json!(["1.tar", "0.tar", "2.tar", "3.tar"])),
                    "layer has digest sha256:",
                ),
                (
                    "a name that is none",
                    manifest("config.json", json!(["../../x y"]), layers.clone()),
                    "name \"../../x y\": invalid reference format",
                ),
                (
                    "no list",
                    docker(&json!({"Config": "config.json"})),
                    "manifest.json: invalid type: map, expected a sequence",
                ),
                ("an empty list", docker(&json!([])), "it holds no image"),
                (
                    "a list in lists",
                    docker(&serde_json::from_str(&format!("{}{}", "[".repeat(100), "]".repeat(100))).unwrap()),
                    "manifest.json: invalid type: sequence, expected a string",
                ),
            ],
        );
    }
}

/// Peak memory of a process in bytes; the last that was seen.
fn peak(child: &mut Child) -> u64 {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
        peak = peak.max(kib << 10);
        std::thread::sleep(Duration::from_millis(20));
    }
    peak
}

/// `import -` of what `write` writes, until hull has had enough: peak memory and the line of error.
fn streamed(
    h: &Home,
    write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()> + Send + 'static,
) -> (u64, String) {
    let mut command = h.hull(&["import", "-", "huge"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let mut output = std::io::BufWriter::with_capacity(1 << 20, stdin);
        // It ends with a broken pipe.
        let _ = write(&mut output).and_then(|()| output.flush());
    });
    let peak = peak(&mut child);
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    (peak, said)
}

#[test]
fn ten_million_entries() {
    if std::env::var_os("HULL_TEST_LOOPS").is_none() {
        tier::skip("loops", "takes a minute: set HULL_TEST_LOOPS");
        return;
    }
    for (kind, h) in homes() {
        let (peak, said) = streamed(&h, |output| {
            for number in 0..10_000_000_u32 {
                output.write_all(&header(&format!("d{}/{number}", number / 1000), b'0', &octal(0), ""))?;
            }
            output.write_all(&[0; 1024])
        });
        println!("{}: {} MB: {said}", kind, peak >> 20);
        assert!(said.contains("more than 4000000 entries"), "{said}");
        assert!(peak < 1_500_000_000, "{peak} bytes of memory");
        assert_untouched(&h, "ten million entries");
    }
}
