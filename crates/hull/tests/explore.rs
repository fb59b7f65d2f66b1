//! What an image wastes, and what the machine lacks, as users see it.

use std::process::{Command, Stdio};

use hull_testkit::{Finished, Value, finish};
use tempfile::TempDir;

struct Home(TempDir);

impl Home {
    fn hull(&self, words: &[&str]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        command.arg("--root").arg(self.0.path().join("data")).arg("--state").arg(self.0.path().join("run"));
        finish(command.args(words).stdin(Stdio::null()).current_dir("/"))
    }

    /// An image of one layer with these files.
    fn import(&self, files: &[(&str, usize)]) {
        let root = self.0.path().join("rootfs");
        for (index, (path, size)) in files.iter().enumerate() {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("create directory");
            std::fs::write(path, vec![u8::try_from(index).expect("few files"); *size]).expect("write");
        }
        let archive = self.0.path().join("rootfs.tar");
        let status = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status().expect("tar");
        assert!(status.success());
        self.hull(&["import", archive.to_str().expect("UTF-8"), "mine"]).ok();
    }
}

#[test]
fn waste_is_named_with_its_reason_and_what_to_do() {
    let home = Home(tempfile::tempdir().expect("temporary directory"));
    home.import(&[("var/cache/apt/one.deb", 70_000), ("usr/share/doc/x/copyright", 5000), ("etc/conf", 10)]);
    let text = home.hull(&["image", "explore", "mine"]).ok().stdout;
    assert!(text.contains("70kB  /var/cache/apt: cache"), "{text}");
    assert!(text.contains("RUN --mount=type=cache"), "{text}");
    assert!(text.contains("75kB in 1 layers, 75kB of them visible; 70kB wasted (93 %), 5kB perhaps (6 %)"), "{text}");
    let document: Value =
        serde_json::from_str(&home.hull(&["image", "explore", "--format=json", "mine"]).ok().stdout).expect("JSON");
    assert_eq!(document["Layers"][0]["Wastes"][0]["Reason"], "cache");
    assert_eq!(document["Wasted"], 70_000);
    let files = home.hull(&["image", "explore", "--layer", "1", "mine"]).ok().stdout;
    assert!(files.lines().any(|line| line.starts_with("-0644") && line.ends_with("10B  etc/conf")), "{files}");
    let wrong = home.hull(&["image", "explore", "--layer", "2", "mine"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("has 1 layers"), "{}", wrong.stderr);
}

#[test]
fn history_shows_waste_only_where_it_is_asked_for() {
    let home = Home(tempfile::tempdir().expect("temporary directory"));
    home.import(&[("var/cache/apt/one.deb", 70_000)]);
    assert!(!home.hull(&["history", "mine"]).ok().stdout.contains("WASTE"));
    assert!(!home.hull(&["history", "--format=json", "mine"]).ok().stdout.contains("Waste"));
    let text = home.hull(&["history", "--waste", "mine"]).ok().stdout;
    assert!(text.contains("WASTE") && text.matches("70kB").count() == 2, "{text}");
    assert_eq!(home.hull(&["history", "--format={{.Waste}}", "mine"]).ok().stdout, "70kB\n");
}

#[test]
fn the_machine_is_checked_beside_the_store() {
    let home = Home(tempfile::tempdir().expect("temporary directory"));
    let text = home.hull(&["system", "check", "--machine"]).stdout;
    assert!(text.contains(" kernel: Linux ") && text.contains(" overlay: "), "{text}");
    let check = home.hull(&["system", "check"]);
    assert_eq!(check.stdout, "No problems found\n");
    // What is fine is not told of.
    assert!(!check.stderr.contains("kernel: Linux"), "{}", check.stderr);
    let text = home.hull(&["system", "check", "--format=json"]).stdout;
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let machine = document["Machine"].as_array().expect("a list");
    for one in machine.iter().filter(|one| one["Weight"] != "fine") {
        assert!(one["UsedFor"].as_str().is_some_and(|text| !text.is_empty()), "{one}");
    }
    assert_eq!(document["Stored"], Value::Array(Vec::new()));
}
