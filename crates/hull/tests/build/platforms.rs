//! Several platforms under one name: in the store, in archives, directories and registries.

use std::process::Command;

use hull_testkit::{Value, finish};

use super::caches::Registry;
use super::machine::Machine;

/// A file whose name is the architecture.
const FILE: &str = "FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n";
/// This machine's architecture and another one, in the order of their names.
const BOTH: &str = "--platform=linux/amd64,linux/arm64";

fn native() -> String {
    hull_oci::image::Platform::native().architecture
}

fn other() -> &'static str {
    if native() == "arm64" { "amd64" } else { "arm64" }
}

#[test]
fn root_build_several_platforms_under_one_name() {
    let Some(machine) = Machine::with("text") else { return };
    machine.build(FILE, &[BOTH, "-t", "both"]).ok();
    let architecture = |name: &str, words: &[&str]| {
        let mut all = vec!["image", "inspect", "--format", "{{.Architecture}}"];
        all.extend(words);
        all.push(name);
        machine.text(&all)
    };
    // Without a platform it is this machine's.
    assert_eq!(architecture("both", &[]), native());
    for one in ["amd64", "arm64"] {
        assert_eq!(architecture("both", &["--platform", &format!("linux/{one}")]), one);
    }
    machine.home.run(&["image", "inspect", "--platform=linux/s390x", "both"]).fails("does not match");
    // One line in the list, both in the tree.
    assert_eq!(machine.text(&["images", "-q"]).lines().count(), 1);
    let tree = machine.text(&["images", "--tree"]);
    assert!(tree.contains("├─ linux/amd64") && tree.contains("└─ linux/arm64"), "{tree}");
    // Another name means both too; what is behind a name is not dangling.
    machine.text(&["tag", "both", "copy:1"]);
    assert_eq!(architecture("copy:1", &["--platform=linux/arm64"]), "arm64");
    machine.text(&["system", "prune", "-f"]);
    assert_eq!(architecture("both", &["--platform", &format!("linux/{}", other())]), other());
    // The base of another build is the one for its platform.
    let out = format!("--output={}", machine.path("based").display());
    machine.build("FROM both\n", &["--platform", &format!("linux/{}", other()), &out]).ok();
    assert!(machine.path("based").join(other()).exists() && !machine.path("based").join(native()).exists());
    // Nothing changed: the same images. Another platform alone: the name means that one alone.
    let id = machine.text(&["images", "-q", "--no-trunc"]);
    machine.build(FILE, &[BOTH, "-t", "both"]).ok();
    assert_eq!(machine.text(&["images", "-q", "--no-trunc", "both"]), id.lines().next().unwrap_or_default());
    // The last name takes everything with it.
    machine.text(&["rmi", "both"]);
    assert_eq!(architecture("copy:1", &["--platform=linux/arm64"]), "arm64");
    machine.text(&["rmi", "copy:1"]);
    assert_eq!(machine.text(&["images", "-qa"]), "");
    machine.text(&["builder", "prune", "-af"]);
    let left = std::fs::read_dir(machine.path("data/layers")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "no image has these layers any more");
    machine.home.assert_clean();
}

#[test]
fn root_build_several_platforms_out_of_the_store() {
    let (Some(machine), Some(second)) = (Machine::with("text"), Machine::with("text")) else { return };
    let output = |text: &str| format!("--output={text},dest={}", machine.path("out").display());
    machine.build(FILE, &[BOTH, &output("type=local")]).ok();
    for one in ["amd64", "arm64"] {
        assert!(machine.path("out").join(format!("linux_{one}/{one}")).exists());
    }
    std::fs::remove_dir_all(machine.path("out")).expect("remove");
    machine.build(FILE, &[BOTH, &output("type=tar")]).ok();
    let listed = finish(Command::new("tar").arg("tf").arg(machine.path("out"))).ok();
    assert!(
        listed.lines().contains(&"linux_amd64/amd64") && listed.lines().contains(&"linux_arm64/arm64"),
        "{listed:?}"
    );
    // One platform has no directory of its own unless that is asked for.
    machine.build(FILE, &["--platform=linux/arm64", &output("type=tar,platform-split=true")]).ok();
    let listed = finish(Command::new("tar").arg("tf").arg(machine.path("out"))).ok();
    assert!(listed.lines().contains(&"linux_arm64/arm64"), "{listed:?}");

    // An archive: an index that an index names.
    let index = |archive: &str| -> Value {
        let read = |member: &str| {
            let text = finish(Command::new("tar").arg("xOf").arg(machine.path(archive)).arg(member)).ok().stdout;
            serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{member}: {text}: {error}"))
        };
        let top = read("index.json");
        assert_eq!(top["manifests"].as_array().map(Vec::len), Some(1), "{top}");
        let digest = top["manifests"][0]["digest"].as_str().expect("a digest").to_owned();
        read(&format!("blobs/{}", digest.replace(':', "/")))
    };
    let check = |index: &Value| {
        let platforms: Vec<&str> = index["manifests"]
            .as_array()
            .map(|all| all.iter().filter_map(|one| one["platform"]["architecture"].as_str()).collect())
            .unwrap_or_default();
        let mut sorted = platforms;
        sorted.sort_unstable();
        assert_eq!(sorted, ["amd64", "arm64"], "{index}");
    };
    let oci = format!("--output=type=oci,dest={}", machine.path("oci.tar").display());
    machine.build(FILE, &[BOTH, &oci]).ok();
    check(&index("oci.tar"));
    machine.build(FILE, &[BOTH, "-t", "both"]).ok();
    let saved = machine.path("saved.tar").display().to_string();
    machine.text(&["save", "-o", &saved, "both"]);
    check(&index("saved.tar"));
    let load = |platform: &str| {
        second.text(&["load", "-i", &saved, "--platform", platform]);
        second.text(&["image", "inspect", "--format", "{{.Architecture}}", "both"])
    };
    assert_eq!(load("linux/arm64"), "arm64");
    assert_eq!(load("linux/amd64"), "amd64");
    machine.text(&["save", "-o", &saved, "--platform=linux/arm64", "both"]);
    second.home.run(&["load", "-i", &saved]).ok();
    assert_eq!(second.text(&["image", "inspect", "--format", "{{.Architecture}}", "both"]), "arm64");

    // A registry, from a build and by `push`.
    let registry = Registry::start();
    let metadata = machine.path("metadata").display().to_string();
    for (name, push) in [("built", true), ("pushed", false)] {
        let whole = registry.name(&format!("{name}:1"));
        let mut words = vec![BOTH, "-t", &whole, "--metadata-file", &metadata];
        words.extend(push.then_some("--push"));
        machine.build(FILE, &words).ok();
        if !push {
            machine.text(&["push", &whole]);
        }
        let index = registry.get(&format!("/v2/{name}/manifests/1"), "application/vnd.oci.image.index.v1+json");
        check(&serde_json::from_str(&index).unwrap_or_else(|error| panic!("{index}: {error}")));
        if push {
            let told: Value = serde_json::from_slice(&std::fs::read(&metadata).expect("read")).expect("JSON");
            assert_eq!(told["containerimage.digest"], hull_oci::Digest::of(index.as_bytes()).to_string());
        }
        second.text(&["pull", "-q", "--platform=linux/arm64", &whole]);
        assert_eq!(second.text(&["image", "inspect", "--format", "{{.Architecture}}", &whole]), "arm64");
    }
    // By digest alone: no tag.
    let name = registry.name("silent");
    let output = format!("--output=type=image,name={name},push=true,push-by-digest=true");
    machine.build(FILE, &["--platform=linux/arm64", &output, "--metadata-file", &metadata]).ok();
    let told: Value = serde_json::from_slice(&std::fs::read(&metadata).expect("read")).expect("JSON");
    let digest = told["containerimage.digest"].as_str().expect("a digest");
    second.text(&["pull", "-q", "--platform=linux/arm64", &format!("{name}@{digest}")]);
    let tagged = registry.get("/v2/silent/manifests/latest", "application/vnd.oci.image.manifest.v1+json");
    assert!(tagged.contains("MANIFEST_UNKNOWN"), "{tagged}");
    for machine in [machine, second] {
        machine.home.assert_clean();
    }
}

#[test]
fn root_build_a_name_keeps_its_platforms_on_every_way() {
    let (Some(machine), Some(second)) = (Machine::with("text"), Machine::with("text")) else { return };
    // Programs that run here, whatever the image says it is for.
    let text = "FROM scratch\nARG TARGETARCH\nENV ARCH=$TARGETARCH\nCOPY probe /probe\nCMD [\"/probe\", \"env\"]\n";
    let registry = Registry::start();
    let name = registry.name("app:1");
    machine.build(text, &[BOTH, "-t", &name, "--push"]).ok();
    let runs = |machine: &Machine, words: &[&str], name: &str| {
        let mut command = machine.home.hull(&["run", "--rm", "--pull=never", "--network=none", "--cgroup-parent"]);
        let output = finish(command.arg(machine.home.name()).args(words).arg(name)).ok();
        output.lines().iter().find_map(|line| line.strip_prefix("ARCH=")).unwrap_or_default().to_owned()
    };
    let foreign = format!("--platform=linux/{}", other());
    let each = |machine: &Machine, name: &str| {
        assert_eq!(runs(machine, &[], name), native());
        assert_eq!(runs(machine, &[&foreign], name), other());
        let rows = machine.text(&["history", "--format={{.CreatedBy}}", &foreign, name]);
        assert!(rows.contains(&format!("ARCH={}", other())), "{rows}");
    };
    each(&machine, &name);
    // One platform, then the other one beside it.
    second.text(&["pull", "-q", &name]);
    second.home.run(&["image", "inspect", &foreign, &name]).fails("does not match the specified platform");
    second.text(&["pull", "-q", &foreign, &name]);
    each(&second, &name);
    let said = second.text(&["pull", "--platform=linux/amd64,linux/arm64", &name]);
    assert!(said.contains("Image is up to date"), "{said}");
    // Taken away one by one, and all at once again.
    let removed = second.text(&["rmi", &foreign, &name]);
    assert!(removed.contains("Deleted: sha256:"), "{removed}");
    second.home.run(&["image", "inspect", &foreign, &name]).fails("does not match the specified platform");
    assert_eq!(runs(&second, &[], &name), native());
    second.text(&["pull", "-q", "--all-platforms", &name]);
    each(&second, &name);
    // Through an archive, where everything is taken unless one is asked for.
    second.text(&["tag", &name, "app:2"]);
    let saved = machine.path("saved.tar").display().to_string();
    second.text(&["save", "-o", &saved, "app:2"]);
    machine.text(&["rmi", &name]);
    assert_eq!(machine.text(&["load", "-i", &saved]), "Loaded image: app:2");
    each(&machine, "app:2");
    // One platform of the same index takes its place beside what is there.
    machine.text(&["load", "-i", &saved, &foreign]);
    each(&machine, "app:2");
    machine.text(&["rmi", "app:2"]);
    assert_eq!(machine.text(&["load", "-i", &saved, &foreign]), "Loaded image: app:2");
    assert_eq!(runs(&machine, &[], "app:2"), other());
    machine.text(&["load", "-i", &saved, &format!("--platform=linux/{}", native())]);
    each(&machine, "app:2");
    // Another image under that name is not added to.
    second.build(&format!("{text}LABEL another=1\n"), &[BOTH, "-t", "app:2"]).ok();
    each(&second, "app:2");
    second.text(&["load", "-i", &saved, &foreign]);
    assert_eq!(runs(&second, &[], "app:2"), other());
    second.text(&["load", "-i", &saved]);
    // What a container uses stays.
    second.text(&["create", "--name=user", "--network=none", &foreign, "app:2"]);
    second.home.run(&["rmi", &foreign, "app:2"]).fails("is using it");
    second.text(&["rm", "user"]);
    for machine in [machine, second] {
        machine.home.assert_clean();
    }
}

#[test]
fn root_build_for_a_processor_that_is_not_here() {
    let Some(machine) = Machine::with("text") else { return };
    let text = "FROM scratch\nCOPY f /\nCOPY probe /probe\nRUN [\"/probe\", \"echo\", \"x\"]\n";
    if std::fs::read_dir("/proc/sys/fs/binfmt_misc")
        .is_ok_and(|all| all.flatten().any(|one| one.file_name().to_string_lossy().contains("loong")))
    {
        eprintln!("skipped: an emulator for loong64 is registered");
        return;
    }
    let failed = machine.build(text, &["--platform=linux/loong64", "-t", "made"]);
    assert_ne!(failed.code, 0);
    assert!(
        failed.stderr.contains("programs for linux/loong64 do not run here: register an emulator"),
        "{}",
        failed.stderr
    );
    assert!(failed.stderr.contains("Dockerfile:4"), "{}", failed.stderr);
    // Nothing was done before that was known.
    assert!(!failed.stderr.contains("DONE") || !failed.stderr.contains("[2/4] COPY"), "{}", failed.stderr);
    assert_eq!(machine.text(&["builder", "du"]).lines().filter(|line| line.starts_with('r')).count(), 0);
    // Files alone need no processor.
    machine.build("FROM scratch\nCOPY f /\n", &["--platform=linux/loong64", "-t", "made"]).ok();
    machine.home.assert_clean();
}
