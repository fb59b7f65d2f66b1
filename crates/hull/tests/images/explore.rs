//! What an image wastes, and what the machine lacks, as users see it.

use hull_testkit::{Home, Value, home};

/// A home with an image of one layer with these files.
fn home(files: &[(&str, usize)]) -> Home {
    let home = home!(plain);
    for (index, (path, size)) in files.iter().enumerate() {
        home.write(&format!("rootfs/{path}"), vec![u8::try_from(index).expect("few files"); *size]);
    }
    home.import(&[], "mine");
    home
}

#[test]
fn waste_is_named_with_its_reason_and_what_to_do() {
    let home = home(&[("var/cache/apt/one.deb", 70_000), ("usr/share/doc/x/copyright", 5000), ("etc/conf", 10)]);
    let text = home.run(&["image", "explore", "mine"]).ok().stdout;
    assert!(text.contains("70kB  /var/cache/apt: cache"), "{text}");
    assert!(text.contains("RUN --mount=type=cache"), "{text}");
    assert!(text.contains("75kB in 1 layers, 75kB of them visible; 70kB wasted (93 %), 5kB perhaps (6 %)"), "{text}");
    let document: Value =
        serde_json::from_str(&home.run(&["image", "explore", "--format=json", "mine"]).ok().stdout).expect("JSON");
    assert_eq!(document["Layers"][0]["Wastes"][0]["Reason"], "cache");
    assert_eq!(document["Wasted"], 70_000);
    let files = home.run(&["image", "explore", "--layer", "1", "mine"]).ok().stdout;
    assert!(files.lines().any(|line| line.starts_with("-0644") && line.ends_with("10B  etc/conf")), "{files}");
    let wrong = home.run(&["image", "explore", "--layer", "2", "mine"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("has 1 layers"), "{}", wrong.stderr);
}

#[test]
fn history_shows_waste_only_where_it_is_asked_for() {
    let home = home(&[("var/cache/apt/one.deb", 70_000)]);
    assert!(!home.run(&["history", "mine"]).ok().stdout.contains("WASTE"));
    assert!(!home.run(&["history", "--format=json", "mine"]).ok().stdout.contains("Waste"));
    let text = home.run(&["history", "--waste", "mine"]).ok().stdout;
    assert!(text.contains("WASTE") && text.matches("70kB").count() == 2, "{text}");
    assert_eq!(home.run(&["history", "--format={{.Waste}}", "mine"]).ok().stdout, "70kB\n");
}

#[test]
fn the_machine_is_checked_beside_the_store() {
    let home = home!(plain);
    let text = home.run(&["system", "check", "--machine"]).stdout;
    assert!(text.contains(" kernel: Linux ") && text.contains(" overlay: "), "{text}");
    let check = home.run(&["system", "check"]);
    assert_eq!(check.stdout, "No problems found\n");
    // What is fine is not told of.
    assert!(!check.stderr.contains("kernel: Linux"), "{}", check.stderr);
    let text = home.run(&["system", "check", "--format=json"]).stdout;
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let machine = document["Machine"].as_array().expect("a list");
    for one in machine.iter().filter(|one| one["Weight"] != "fine") {
        assert!(one["UsedFor"].as_str().is_some_and(|text| !text.is_empty()), "{one}");
    }
    assert_eq!(document["Stored"], Value::Array(Vec::new()));
}
