//! What is said of images beside them: provenance and lists of packages, in indexes as BuildKit makes them.

use hull_oci::Digest;
use hull_testkit::{Value, finish, json};

use super::caches::Registry;
use super::machine::Machine;

const FILE: &str = "FROM scratch\nARG TOKEN\nCOPY root /\nCOPY f /\n";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hull-trust/tests/data/p256.key");

/// `Packages.db` with one package, as rpm's `ndb` backend lays it out.
fn rpm_database() -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (tag, text) in [(273, "abcd"), (1000, "libzypp"), (1001, "17.3"), (1002, "2"), (1022, "x86_64")] {
        let offset = u32::try_from(data.len()).expect("short");
        entries.extend([tag, 6, offset, 1].into_iter().flat_map(u32::to_be_bytes));
        data.extend_from_slice(text.as_bytes());
        data.push(0);
    }
    let mut header: Vec<u8> =
        [5, u32::try_from(data.len()).expect("short")].into_iter().flat_map(u32::to_be_bytes).collect();
    header.extend(entries);
    header.extend(data);
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let length = u32::try_from(header.len()).expect("short");
    let mut bytes =
        [&b"RpmP"[..], &words(&[0, 1, 1, 0, 0, 0, 0]), b"Slot", &words(&[1, 256, length / 16 + 2])].concat();
    bytes.resize(4096, 0);
    [bytes, b"BlbS".to_vec(), words(&[1, 1, length]), header].concat()
}

/// A machine whose context has the lists of two package managers.
fn machine() -> Option<Machine> {
    let machine = Machine::with("one")?;
    for (name, bytes) in [
        (
            "var/lib/dpkg/status",
            b"Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.2-3\n".to_vec(),
        ),
        ("usr/lib/sysimage/rpm/Packages.db", rpm_database()),
        ("etc/os-release", b"NAME=x\nID=\"tumble\"\n".to_vec()),
    ] {
        let path = machine.context().join("root").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("create directory");
        std::fs::write(path, bytes).expect("write");
    }
    Some(machine)
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The image's manifest and the statements of an index; `blob` reads one by its digest.
fn statements(index: &Value, blob: &dyn Fn(&str) -> String) -> (String, Vec<Value>) {
    let manifests = index["manifests"].as_array().expect("manifests");
    let [image, said] = manifests.as_slice() else { panic!("an image and what is said of it: {index}") };
    assert_eq!(said["platform"], json!({"architecture": "unknown", "os": "unknown"}), "{index}");
    assert_eq!(said["annotations"]["vnd.docker.reference.type"], "attestation-manifest", "{index}");
    assert_eq!(said["annotations"]["vnd.docker.reference.digest"], image["digest"], "{index}");
    let manifest = parsed(&blob(said["digest"].as_str().expect("a digest")));
    let mut statements = Vec::new();
    for layer in manifest["layers"].as_array().expect("layers") {
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        let text = blob(layer["digest"].as_str().expect("a digest"));
        assert_eq!(layer["digest"], Digest::of(text.as_bytes()).to_string());
        let statement = parsed(&text);
        assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], statement["predicateType"]);
        let subject = format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().expect("hex"));
        assert_eq!(image["digest"], subject.as_str());
        statements.push(statement);
    }
    (image["digest"].as_str().expect("a digest").to_owned(), statements)
}

#[test]
fn root_build_attestations_in_a_registry() {
    let (Some(first), Some(second)) = (machine(), machine()) else { return };
    let registry = Registry::start();
    let metadata = first.path("metadata").display().to_string();
    let push = |machine: &Machine, tag: &str, words: &[&str]| {
        let name = registry.name(&format!("app:{tag}"));
        let mut all = vec!["-t", &name, "--push", "--metadata-file", &metadata, "--build-arg", "TOKEN=hidden"];
        all.extend(words);
        machine.build(FILE, &all).ok();
        registry.get(&format!("/v2/app/manifests/{tag}"), &format!("{INDEX}, {MANIFEST}"))
    };
    // Unless it is asked for, a name means the manifest alone, which is the same wherever and whenever it is built.
    let plain = push(&first, "plain", &[]);
    assert_eq!(parsed(&plain)["mediaType"], MANIFEST);
    assert_eq!(push(&second, "again", &[]), plain);
    let index = push(&first, "said", &["--provenance=true", "--sbom=true"]);
    let told = parsed(&std::fs::read_to_string(&metadata).expect("read"));
    assert_eq!(told["containerimage.digest"], Digest::of(index.as_bytes()).to_string());
    let blob = |digest: &str| {
        let manifest = registry.get(&format!("/v2/app/manifests/{digest}"), MANIFEST);
        if manifest.contains("schemaVersion") {
            manifest
        } else {
            registry.get(&format!("/v2/app/blobs/{digest}"), "*/*")
        }
    };
    let (image, said) = statements(&parsed(&index), &blob);
    assert_eq!(image, Digest::of(plain.as_bytes()).to_string(), "the image itself is as it was");
    let [provenance, packages] = said.as_slice() else { panic!("two statements: {said:?}") };
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    assert!(provenance["subject"][0]["name"].as_str().is_some_and(|name| name.starts_with("pkg:docker/127.0.0.1")));
    assert!(!provenance.to_string().contains("hidden"));
    assert_eq!(packages["predicateType"], "https://spdx.dev/Document");
    let urls: Vec<&str> = packages["predicate"]["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .filter_map(|one| one["externalRefs"][0]["referenceLocator"].as_str())
        .collect();
    assert_eq!(urls, ["pkg:deb/tumble/a@1.2-3?arch=amd64", "pkg:rpm/tumble/libzypp@17.3-2?arch=x86_64"]);
    // With everything; the list of packages alone has no time in it.
    let max = push(&first, "max", &["--attest=type=provenance,mode=max"]);
    assert!(statements(&parsed(&max), &blob).1[0].to_string().contains("hidden"));
    let list = push(&first, "list", &["--attest=type=sbom", "--provenance=false"]);
    assert_eq!(push(&second, "list", &["--sbom", "--provenance=false"]), list);
    // Such a name is an image like any other.
    second.text(&["pull", "-q", &registry.name("app:said")]);
    let config = |machine: &Machine, tag: &str| machine.text(&["images", "-q", "--no-trunc", &registry.name(tag)]);
    assert_eq!(config(&second, "app:said"), config(&first, "app:plain"));
    first.build(FILE, &["--sbom=generator=x"]).fails("the packages are listed by Hull itself");
    first.build(FILE, &["--attest=type=other"]).fails("expected type=provenance or type=sbom");
    for machine in [first, second] {
        machine.home.assert_clean();
    }
}

#[test]
fn root_build_signs_what_it_pushes() {
    let (Some(first), Some(second)) = (machine(), machine()) else { return };
    let registry = Registry::start();
    let name = registry.name("app:signed");
    let mut without = first.command(FILE, &["-t", &name, "--sign-key", KEY]);
    finish(without.env("COSIGN_PASSWORD", "tide")).fails("add --push");
    let mut command = first.command(FILE, &["-t", &name, "--push", "--sbom", "--sign-key", KEY]);
    finish(command.env("COSIGN_PASSWORD", "tide")).ok();
    let public = KEY.replace(".key", ".pub");
    second.home.run(&["pull", "--verify-key", &public, &name]).ok();
    first.build(FILE, &["-t", &registry.name("app:plain"), "--push", "--label", "a=b"]).ok();
    assert_ne!(second.home.run(&["pull", "--verify-key", &public, &registry.name("app:plain")]).code, 0);
    for machine in [first, second] {
        machine.home.assert_clean();
    }
}

#[test]
fn root_build_attestations_in_files() {
    let Some(machine) = machine() else { return };
    let said = ["--provenance=mode=min", "--sbom"];
    let build = |output: &str, more: &[&str]| {
        let output = format!("--output={output},dest={}", machine.path("out").display());
        machine.build(FILE, &[&[output.as_str()], &said[..], more].concat())
    };
    for names in [&["-t", "made:1"][..], &[]] {
        build("type=oci,tar=false", names).ok();
        let read = |name: &str| std::fs::read_to_string(machine.path("out").join(name)).expect("read");
        let blob = |digest: &str| read(&format!("blobs/{}", digest.replace(':', "/")));
        let top = parsed(&read("index.json"));
        let index = parsed(&blob(top["manifests"][0]["digest"].as_str().expect("a digest")));
        assert_eq!(statements(&index, &blob).1.len(), 2);
        std::fs::remove_dir_all(machine.path("out")).expect("remove");
    }
    build("type=oci", &["-t", "made:1"]).ok();
    machine.text(&["load", "-i", &machine.path("out").display().to_string()]);
    assert_eq!(machine.text(&["image", "inspect", "--format", "{{.Os}}", "made:1"]), "linux");
    std::fs::remove_file(machine.path("out")).expect("remove");
    let refused = build("type=docker", &[]);
    assert!(refused.code != 0 && refused.stderr.contains("use --output type=oci"), "{}", refused.stderr);
    // Where the image has a link of that name, the file is in its place.
    std::os::unix::fs::symlink(machine.path("outside"), machine.context().join("root/provenance.json")).expect("link");
    build("type=local", &[]).ok();
    assert!(!machine.path("outside").exists());
    for name in ["provenance.json", "sbom.spdx.json"] {
        let text = std::fs::read_to_string(machine.path("out").join(name)).expect("read");
        assert_eq!(parsed(&text)["_type"], "https://in-toto.io/Statement/v1");
    }
    machine.home.assert_clean();
}
