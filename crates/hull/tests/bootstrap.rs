//! `hull bootstrap` from an archive that the test makes and signs itself.
//!
//! The archive's base package is a system of a dozen programs of this machine, dpkg among them: what is installed is
//! small, how it is installed is real.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_oci::Digest;
use hull_testkit::{Finished, Home, finish_within, home, leak, loops, tier};
use pgp::composed::{ArmorOptions, CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedSecretKey};
use pgp::ser::Serialize as _;
use pgp::types::Password;

const LIMIT: Duration = Duration::from_secs(180);

/// A package: control fields, files (path, content, mode), links (path, target), a script.
#[derive(Clone, Default)]
struct Package {
    name: String,
    fields: String,
    files: Vec<(String, Vec<u8>, u32)>,
    links: Vec<(String, String)>,
    postinst: Option<String>,
}

fn tar(files: &[(String, Vec<u8>, u32)], links: &[(String, String)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut made = BTreeSet::from([String::new()]);
    let mut parents = |builder: &mut tar::Builder<Vec<u8>>, path: &str| {
        let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        ends.retain(|at| made.insert(path[..*at].to_owned()));
        for at in ends {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            builder.append_data(&mut header, format!("./{}/", &path[..at]), &[][..]).expect("directory");
        }
    };
    for (path, content, mode) in files {
        parents(&mut builder, path);
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, format!("./{path}"), content.as_slice()).expect("file");
    }
    for (path, target) in links {
        parents(&mut builder, path);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, format!("./{path}"), target).expect("link");
    }
    builder.into_inner().expect("archive")
}

impl Package {
    fn new(name: &str, fields: &str) -> Self {
        Self { name: name.to_owned(), fields: fields.to_owned(), ..Self::default() }
    }

    fn file(mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.files.push((path.to_owned(), content.into(), mode));
        self
    }

    fn control(&self) -> String {
        let architecture = architecture();
        let name = &self.name;
        format!(
            "Package: {name}\nVersion: 1.0-1\nArchitecture: {architecture}\nMaintainer: A Test <a@test.example>\n{}\
             Description: part of a test\n",
            self.fields
        )
    }

    fn deb(&self) -> Vec<u8> {
        let mut control = vec![("control".to_owned(), self.control().into_bytes(), 0o644)];
        control.extend(self.postinst.clone().map(|text| ("postinst".to_owned(), text.into_bytes(), 0o755)));
        let members = [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", tar(&control, &[])),
            ("data.tar", tar(&self.files, &self.links)),
        ];
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in members {
            let (time, size) = (1_700_000_000, content.len());
            bytes.extend(format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 100_644).bytes());
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
    }
}

/// Debian's word for this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What an archive does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    ChangedRelease,
    Expired,
    OtherSuite,
    ChangedIndex,
    ChangedPackage,
    ShortPackage,
    MissingPackage,
    OtherVersion,
    Traversal,
    NoBase,
}

/// An archive, a store of its own, and the keyring.
struct Archive {
    home: Home,
    key: SignedSecretKey,
}

impl Archive {
    fn new() -> Self {
        let home = home!(plain);
        let mut parameters = SecretKeyParamsBuilder::default();
        parameters.key_type(KeyType::Ed25519Legacy).can_certify(true).can_sign(true);
        parameters.primary_user_id("Archive <archive@test.example>".to_owned());
        let key = parameters.build().expect("parameters").generate(rand::thread_rng()).expect("key");
        home.write("k.gpg", key.to_public_key().to_bytes().expect("bytes"));
        Self { home, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.at(name)
    }

    /// Writes and signs the archive.
    fn publish(&self, packages: &[Package], fault: Fault) {
        let archive = self.path("archive");
        let index_path = format!("main/binary-{}/Packages", architecture());
        let mut index = String::new();
        for package in packages {
            let deb = package.deb();
            let path = format!("pool/{}.deb", package.name);
            let stated = match fault {
                Fault::Traversal => "../../../../etc/passwd",
                Fault::MissingPackage => "pool/gone.deb",
                _ => &path,
            };
            let control = package.control();
            let control = if fault == Fault::OtherVersion { control.replace("1.0-1", "2.0-1") } else { control };
            index.push_str(&format!(
                "{control}Filename: {stated}\nSize: {}\nSHA256: {}\n\n",
                deb.len(),
                Digest::of(&deb).hex()
            ));
            let deb = match fault {
                Fault::ChangedPackage => deb.iter().map(|byte| byte ^ 1).collect(),
                Fault::ShortPackage => deb[..deb.len() / 2].to_vec(),
                _ => deb,
            };
            fs::create_dir_all(archive.join("pool")).expect("create directory");
            fs::write(archive.join(&path), deb).expect("write");
        }
        let index =
            if fault == Fault::NoBase { index.replace("Essential: yes\nPriority: required\n", "") } else { index };
        let until = if fault == Fault::Expired { "Valid-Until: Sat, 14 Jun 2025 09:15:31 UTC\n" } else { "" };
        let suite = if fault == Fault::OtherSuite { "other" } else { "tiny" };
        let release = format!(
            "Origin: Own\nSuite: {suite}\nCodename: {suite}\nDate: Sat, 07 Jun 2025 09:15:31 UTC\n{until}\
             Architectures: {}\nComponents: main\nSHA256:\n {} {} {index_path}\n",
            architecture(),
            Digest::of(index.as_bytes()).hex(),
            index.len(),
        );
        let index = if fault == Fault::ChangedIndex { index.replace("1.0-1", "1.0-2") } else { index };
        let suite = archive.join("dists/tiny");
        let path = suite.join(index_path);
        fs::create_dir_all(path.parent().expect("parent")).expect("create directory");
        fs::write(path, index).expect("write");
        let key = &self.key.primary_key;
        let signed = CleartextSignedMessage::sign(rand::thread_rng(), &release, key, &Password::empty());
        let mut text = signed.and_then(|one| one.to_armored_string(ArmorOptions::default())).expect("sign");
        if fault == Fault::ChangedRelease {
            text = text.replace("Origin: Own", "Origin: Odd");
        }
        fs::write(suite.join("InRelease"), text).expect("write");
    }

    fn hull(&self, store: &str, words: &[&str]) -> Command {
        self.home.hull_on(store, words)
    }

    /// `hull bootstrap own:tiny` from the archive, which says nothing but the image or an error.
    fn command(&self, store: &str, words: &[&str]) -> Command {
        let mut command = self.telling(store, words);
        command.arg("--quiet");
        command
    }

    /// The same, saying what it does.
    fn telling(&self, store: &str, words: &[&str]) -> Command {
        let mut command = self.hull(store, &["bootstrap", "own:tiny"]);
        command.arg("--mirror").arg(format!("file://{}", self.path("archive").display())).args(words);
        command
    }

    #[track_caller]
    fn bootstrap(&self, store: &str, words: &[&str]) -> Finished {
        let keyring = self.path("k.gpg");
        let mut command = self.command(store, words);
        if !words.contains(&"--locked") && !words.contains(&"--keyring") {
            command.arg("--keyring").arg(keyring);
        }
        finish_within(&mut command, LIMIT)
    }

    /// What a failed or killed command left.
    fn left(&self, store: &str) -> Vec<String> {
        let mut left = leak::report(self.home.name());
        for place in ["ingest", "containers"] {
            let entries = fs::read_dir(self.path(store).join(place)).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        left
    }

    #[track_caller]
    fn assert_clean(&self, store: &str, when: &str) {
        for _ in 0..100 {
            if self.left(store).is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{when}: left behind:\n{}", self.left(store).join("\n"));
    }

    /// The ways in which this archive goes wrong, in one line each, with nothing left.
    #[track_caller]
    fn assert_refused(&self, packages: &[Package], fault: Fault, words: &[&str], said: &str) {
        self.publish(packages, fault);
        self.bootstrap("data", words).fails(said);
        self.assert_clean("data", said);
        let images = finish_within(&mut self.hull("data", &["images", "-q"]), LIMIT).ok();
        assert_eq!(images.text(), "", "{said}: no image was made");
    }
}

/// A base package that is never started.
fn inert() -> Package {
    Package::new("tiny-base", "Essential: yes\nPriority: required\n").file("usr/share/tiny", "x", 0o644)
}

#[test]
fn root_archives_that_must_not_be_used() {
    if !tier::root() {
        return;
    }
    let home = Archive::new();
    let all = [inert()];
    home.assert_refused(&all, Fault::ChangedRelease, &[], "the file was changed");
    home.assert_refused(&all, Fault::Expired, &[], "expired on Sat, 14 Jun 2025");
    home.assert_refused(&all, Fault::OtherSuite, &[], "it is of suite \"other\"");
    home.assert_refused(&all, Fault::ChangedIndex, &[], "Packages does not match: expected");
    home.assert_refused(&all, Fault::ChangedPackage, &[], "tiny-base.deb does not match: expected");
    home.assert_refused(&all, Fault::ShortPackage, &[], "tiny-base.deb does not match: expected");
    home.assert_refused(&all, Fault::MissingPackage, &[], "gone.deb");
    home.assert_refused(&all, Fault::OtherVersion, &[], "its Version is \"1.0-1\", not \"2.0-1\"");
    home.assert_refused(&all, Fault::Traversal, &[], "leads out of the archive");
    home.assert_refused(&all, Fault::NoBase, &[], "no essential or required package");
    home.assert_refused(&all, Fault::None, &["--include", "gone"], "no package \"gone\"");
    home.assert_refused(&all, Fault::None, &["--components", "other"], "no packages of component \"other\"");
    let needy = [inert(), Package::new("needy", "Depends: gone (>= 2) | also-gone\n")];
    home.assert_refused(&needy, Fault::None, &["--include", "needy"], "needy 1.0-1 depends on gone (>= 2) | also-gone");
    let rivals = [inert(), Package::new("one", "Conflicts: two\n"), Package::new("two", "")];
    home.assert_refused(&rivals, Fault::None, &["--include", "one,two"], "one 1.0-1 conflicts with two 1.0-1");
    let other = Archive::new();
    let keyring = other.path("k.gpg").display().to_string();
    home.assert_refused(&all, Fault::None, &["--keyring", &keyring], "no trusted key made it");
    home.assert_refused(&all, Fault::None, &["--keyring", "/no/such/keyring"], "keyring /no/such/keyring");
    home.assert_refused(&all, Fault::None, &["--mirror", "gopher://x"], "cannot be given more than once");
}

#[test]
fn root_packages_with_hostile_files() {
    if !tier::root() {
        return;
    }
    let home = Archive::new();
    let outside = home.path("outside");
    fs::create_dir(&outside).expect("create directory");
    let mut through = inert();
    // A link that leads out, and a file behind it: it lands inside, and the system still does not start.
    through.links.push(("usr/out".to_owned(), outside.display().to_string()));
    let behind = Package::new("behind", "Essential: yes\nPriority: required\n").file("usr/out/file", "x", 0o644);
    home.publish(&[through, behind], Fault::None);
    let failed = home.bootstrap("data", &[]);
    assert_ne!(failed.code, 0);
    assert_eq!(fs::read_dir(&outside).expect("read").count(), 0, "nothing is written outside");
    home.assert_clean("data", "a link that leads out");
    // The archive crate refuses to write such a name itself; these characters have the same sum.
    let mut bytes = inert().file("usr/,0/,0/escape", "x", 0o644).deb();
    let places: Vec<usize> = (0..bytes.len() - 2).filter(|at| &bytes[*at..*at + 2] == b",0").collect();
    assert!(places.len() >= 2);
    for at in places {
        bytes[at..at + 2].copy_from_slice(b"..");
    }
    let index = format!(
        "{}Filename: pool/tiny-base.deb\nSize: {}\nSHA256: {}\n\n",
        inert().control(),
        bytes.len(),
        Digest::of(&bytes).hex()
    );
    home.publish(&[inert()], Fault::None);
    fs::write(home.path("archive/pool/tiny-base.deb"), &bytes).expect("write");
    let path = home.path("archive/dists/tiny").join(format!("main/binary-{}/Packages", architecture()));
    fs::write(&path, &index).expect("write");
    let release = format!(
        "Suite: tiny\nDate: Sat, 07 Jun 2025 09:15:31 UTC\nArchitectures: {0}\nComponents: main\nSHA256:\n {1} {2} \
         main/binary-{0}/Packages\n",
        architecture(),
        Digest::of(index.as_bytes()).hex(),
        index.len()
    );
    let signed = CleartextSignedMessage::sign(rand::thread_rng(), &release, &home.key.primary_key, &Password::empty());
    let text = signed.and_then(|one| one.to_armored_string(ArmorOptions::default())).expect("sign");
    fs::write(home.path("archive/dists/tiny/InRelease"), text).expect("write");
    home.bootstrap("data", &[]).fails("extract package tiny-base");
    home.assert_clean("data", "a name that leads out");
}

/// A system of this machine's own programs; `None` with a printed skip where dpkg is missing.
fn system() -> Option<Package> {
    const TOOLS: [&str; 15] = [
        "dpkg",
        "dpkg-query",
        "dpkg-deb",
        "dpkg-split",
        "dash",
        "tar",
        "rm",
        "cat",
        "chmod",
        "head",
        "ls",
        "diff",
        "true",
        "start-stop-daemon",
        "ldconfig",
    ];
    tier::tool("dpkg")?;
    let mut package = Package::new("tiny-base", "Essential: yes\nPriority: required\n");
    let mut libraries = BTreeSet::new();
    for tool in TOOLS {
        let places = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|place| Path::new(place).join(tool));
        let Some(found) = places.into_iter().find(|path| path.is_file()) else {
            hull_testkit::tier::skip("dpkg", &format!("{tool} is not installed"));
            return None;
        };
        let output = Command::new("ldd").arg(&found).output().expect("run ldd");
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
            libraries.insert(word.to_owned());
        }
        let place = if tool == "ldconfig" || tool == "start-stop-daemon" { "usr/sbin" } else { "usr/bin" };
        package = package.file(&format!("{place}/{tool}"), fs::read(&found).expect("read"), 0o755);
    }
    for library in libraries {
        let inside = library.trim_start_matches("/usr").trim_start_matches('/');
        package = package.file(&format!("usr/{inside}"), fs::read(&library).expect("read"), 0o755);
    }
    package.links.push(("usr/bin/sh".to_owned(), "dash".to_owned()));
    let passwd = "root:x:0:0:root:/root:/bin/sh\n";
    package = package.file("etc/passwd", passwd, 0o644).file("etc/group", "root:x:0:\n", 0o644);
    package = package.file("etc/shadow", "root:*:99999:0:::::\n", 0o640).file("var/log/keep", "x", 0o644);
    Some(package.file("etc/dpkg/dpkg.cfg.d/none", "", 0o644).file("var/lib/dpkg/triggers/none", "", 0o644))
}

fn app() -> Package {
    let mut app = Package::new("tiny-app", "Depends: tiny-base (>= 1)\n").file("usr/share/tiny-app", "app", 0o644);
    app.postinst =
        Some("#!/bin/sh\nset -e\necho configured > /etc/tiny-app.conf\necho $$ > /var/log/tiny.log\n".to_owned());
    app
}

#[test]
fn root_an_image_that_runs_and_is_the_same_again() {
    if !tier::root() {
        return;
    }
    let Some(base) = system() else { return };
    let home = Archive::new();
    home.publish(&[base, app(), Package::new("unwanted", "")], Fault::None);
    let lock = home.path("tiny.lock").display().to_string();
    let mut first = home.telling("data", &["--include", "tiny-app", "-t", "mine:v1", "--lock", &lock]);
    let first = finish_within(first.arg("--keyring").arg(home.path("k.gpg")), LIMIT).ok();
    assert!(first.text().starts_with("sha256:"), "{}", first.stdout);
    let said: Vec<&str> = first.stderr.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    for step in ["reading lists of packages", "downloading packages", "extracting the base system", "writing the layer"]
    {
        assert!(said.contains(&step), "without a terminal a line for each step: {}", first.stderr);
    }
    home.assert_clean("data", "success");
    let run = |script: &str| {
        let mut command = home.hull("data", &["run", "--rm", "--network=none", "mine:v1", "sh", "-c", script]);
        finish_within(&mut command, LIMIT).ok()
    };
    assert_eq!(run("cat /etc/tiny-app.conf").text(), "configured");
    assert_eq!(
        run("dpkg --audit; ls /var/log /run").text().lines().collect::<Vec<_>>(),
        ["/run:", "", "/var/log:", "keep"]
    );
    assert!(run("dpkg -s tiny-app tiny-base").text().matches("install ok installed").count() == 2);
    assert_eq!(run("cat /etc/shadow").text(), "root:*:19675:0:::::");
    let text = fs::read_to_string(&lock).expect("lock file");
    assert!(text.contains("tiny-app") && !text.contains("unwanted"), "{text}");
    // The image holds the lock file without what says how it came about.
    let embedded = run("cat /usr/share/hull/bootstrap.lock");
    assert!(embedded.text().contains("tiny-app") && !embedded.text().contains("releases"), "{}", embedded.stdout);

    let again = home.bootstrap("other", &["--include", "tiny-app"]).ok();
    assert_eq!(again.stderr, "", "--quiet");
    assert_ne!(again.text(), "", "another store");
    assert_eq!(again.text(), first.text(), "the same packages give the same image");
    // Nothing but the packages themselves is needed.
    fs::remove_dir_all(home.path("archive/dists")).expect("remove");
    assert_eq!(home.bootstrap("third", &["--locked", &lock]).ok().text(), first.text());

    let changes = [
        ("\"layer\": \"sha256:", "\"layer\": \"sha256:0", "the image is another one"),
        ("\"epoch\": 1", "\"epoch\": 2", "time of the image"),
        ("\"pool/tiny-app.deb\"", "\"pool/tiny-base.deb\"", "does not match: expected"),
        ("\"1.0-1\"", "\"1.0-2\"", "its Version is \"1.0-1\", not \"1.0-2\""),
        ("\"own:tiny\"", "\"own:other\"", "the file is of \"own:other\""),
        ("\"pool/tiny-app.deb\"", "\"/etc/passwd\"", "leads out of the archive"),
    ];
    for (number, (from, to, said)) in changes.into_iter().enumerate() {
        let changed = home.path("changed.lock").display().to_string();
        assert!(text.contains(from), "{from}");
        fs::write(&changed, text.replace(from, to)).expect("write");
        // A store without a cache.
        let store = format!("store-{number}");
        home.bootstrap(&store, &["--locked", &changed]).fails(said);
        home.assert_clean(&store, said);
    }
}

#[test]
fn root_a_package_that_cannot_be_configured() {
    if !tier::root() {
        return;
    }
    let Some(base) = system() else { return };
    let home = Archive::new();
    let mut app = app();
    app.postinst = Some("#!/bin/sh\necho trouble\nexit 7\n".to_owned());
    home.publish(&[base, app], Fault::None);
    home.bootstrap("data", &["--include", "tiny-app"]).fails("dpkg: error processing package tiny-app (--configure)");
    home.assert_clean("data", "a script that fails");
}

#[test]
fn root_killed_at_any_time() {
    if !tier::root() {
        return;
    }
    let Some(base) = system() else { return };
    let home = Archive::new();
    home.publish(&[base, app()], Fault::None);
    let keyring = home.path("k.gpg").display().to_string();
    let words = ["--include", "tiny-app", "--keyring", &keyring];
    let whole = finish_within(&mut home.command("data", &words), LIMIT).ok();
    let turns = loops(12);
    for turn in 0..turns {
        let mut child =
            home.command("data", &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start hull");
        std::thread::sleep(whole.took.mul_f64(f64::from(turn) / f64::from(turns)));
        child.kill().expect("kill");
        child.wait().expect("wait");
        // Any next command.
        let next = finish_within(&mut home.hull("data", &["images", "-q"]), LIMIT).ok();
        assert_eq!(next.stderr, "", "turn {turn}");
        home.assert_clean("data", &format!("killed in turn {turn}"));
        let check = finish_within(&mut home.hull("data", &["system", "check"]), LIMIT);
        assert_eq!(check.stdout, "No problems found\n", "turn {turn}: {}", check.stderr);
    }
    let again = finish_within(&mut home.command("data", &words), LIMIT).ok();
    assert_eq!(again.text(), whole.text());
    home.assert_clean("data", "the last");
    let mode = fs::metadata(home.path("data/cache/debian")).expect("cache").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// On disks of these sizes the space runs out while downloading, unpacking, configuring and writing the layer.
#[test]
fn root_full_disk() {
    const SCRIPT: &str = r#"
set -eu
mount -t tmpfs -o "size=${SIZE}m" tmpfs "$DISK"
code=0
"$@" >/dev/null 2>"$DISK.err" </dev/null || code=$?
echo "code=$code lines=$(wc -l <"$DISK.err") left=$(ls -A "$DISK/containers" "$DISK/ingest" 2>/dev/null | grep -vc ':$\|^$' || true)"
"$HULL" --root "$DISK" --state "$DISK.run" system prune -af >/dev/null
"$HULL" --root "$DISK" --state "$DISK.run" system check
df --output=used -k "$DISK" | tail -n 1
cat "$DISK.err"
"#;
    if !tier::root() || tier::tool("unshare").is_none() {
        return;
    }
    let Some(base) = system() else { return };
    let home = Archive::new();
    home.publish(&[base, app()], Fault::None);
    let keyring = home.path("k.gpg").display().to_string();
    let all = fs::metadata(home.path("archive/pool/tiny-base.deb")).expect("package").len() >> 20;
    let mut refused = 0;
    for size in [all / 2, all + 1, all * 3 / 2, all * 2 + 1, all * 5 / 2, all * 3 + 1, all * 7 / 2, all * 4] {
        fs::create_dir_all(home.path("disk")).expect("create directory");
        let bootstrap = home.command("disk", &["--include", "tiny-app", "--keyring", &keyring]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
        command.arg(bootstrap.get_program()).args(bootstrap.get_args()).stdin(Stdio::null());
        command.env("SIZE", size.max(1).to_string()).env("DISK", home.path("disk"));
        command.env("HULL", env!("CARGO_BIN_EXE_hull"));
        let out = finish_within(&mut command, LIMIT).ok();
        let lines = out.lines();
        if lines[0] == "code=0 lines=0 left=0" {
            continue;
        }
        refused += 1;
        println!("{size} MB: {}", out.stdout);
        assert_eq!(lines[0], "code=1 lines=1 left=0", "{size} MB: {}", out.stdout);
        assert_eq!(lines[1], "No problems found", "{size} MB: {}", out.stdout);
        assert!(lines[2].trim().parse::<u32>().expect("a number") < 1024, "{size} MB: space is back: {}", out.stdout);
        assert!(
            out.stdout.contains("o space left on device") || out.stdout.contains("no room"),
            "{size} MB: {}",
            out.stdout
        );
        home.assert_clean("disk", "a full disk");
    }
    assert!(refused > 1, "the disks were large enough");
}
