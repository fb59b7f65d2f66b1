//! `explain`: where a container stands, and where its problem is.

use hull_testkit::{finish, home, tier};
use serde_json::Value;

fn report(h: &hull_testkit::Home, name: &str) -> Value {
    let out = h.run(&["explain", "--format", "json", name]).ok();
    serde_json::from_str(&out.stdout).expect("JSON")
}

fn findings(report: &Value, severity: &str) -> String {
    let list = report["Findings"].as_array().into_iter().flatten();
    let texts = list.filter(|one| one["Severity"] == severity).filter_map(|one| one["Text"].as_str());
    texts.collect::<Vec<_>>().join("\n")
}

fn fact<'r>(report: &'r Value, section: &str, name: &str) -> &'r str {
    let sections = report["Sections"].as_array().expect("sections");
    let found = sections.iter().find(|one| one["Title"] == section).expect("the section");
    let fact = found["Facts"].as_array().into_iter().flatten().find(|one| one["Name"] == name);
    fact.and_then(|one| one["Value"].as_str()).unwrap_or_else(|| panic!("no {name} in {found}"))
}

#[test]
fn root_a_running_container_is_explained() {
    let Some(h) = home!() else { return };
    let flags = [
        "--name",
        "web",
        "--memory",
        "64m",
        "--uts",
        "host",
        "-e",
        "DB_PASSWORD=hunter2",
        "-v",
        "/tmp:/t",
        "--tmpfs",
        "/s:size=64k",
    ];
    let _ = h.detached(&flags, &["sleep", "60"]);
    let report = report(&h, "web");
    assert_eq!((report["State"].as_str(), report["Answer"]["Place"].as_str()), (Some("running"), Some("nowhere")));
    let inode = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/{}/ns/{kind}", h.field("web", "{{.State.Pid}}"))).expect("a link");
        link.to_string_lossy().trim_end_matches(']').rsplit('[').next().unwrap_or_default().to_owned()
    };
    assert!(fact(&report, "Namespaces", "pid").starts_with(&inode("pid")));
    assert_eq!(fact(&report, "Namespaces", "uts"), format!("{} (shared)", inode("uts")));
    assert!(report.to_string().contains("67108864 (64 MiB)"));
    assert!(fact(&report, "File system", "/t").contains("writable"));
    assert!(fact(&report, "Privileges", "seccomp").starts_with("filter"));
    assert_eq!(fact(&report, "Network", "mode"), "none");
    assert!(findings(&report, "unusual").contains("host name"), "{report}");
    assert!(findings(&report, "risk").contains("DB_PASSWORD") && !report.to_string().contains("hunter2"));
    let text = h.run(&["explain", "web"]).ok().stdout;
    for words in ["Namespaces", "Control group", "File system", "Is the problem in the namespace, the control group"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    h.run(&["pause", "web"]).ok();
    assert_eq!(h.run(&["explain", "-f", "{{.State}} {{.Answer.Place}}", "web"]).text(), "paused cgroup");
    h.run(&["unpause", "web"]).ok();
    h.run(&["explain", "nope"]).fails("no such container: nope");
    h.run(&["rm", "-f", "web"]).ok();
    h.assert_clean();
}

#[test]
fn root_the_problem_is_found() {
    let Some(h) = home!() else { return };
    let place = |name: &str| {
        let report = report(&h, name);
        let answer = &report["Answer"];
        (
            answer["Place"].as_str().unwrap_or_default().to_owned(),
            answer["Text"].as_str().unwrap_or_default().to_owned(),
        )
    };
    if tier::cgroup_v1("memory") || std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let _ = finish(&mut h.container("run", &["--name", "hog", "--memory", "16m"], &["alloc", "64"]));
        let (where_, why) = place("hog");
        assert!(where_ == "cgroup" && why.contains("16 MiB"), "{where_}: {why}");
    }
    let _ = finish(&mut h.container("run", &["--name", "odd"], &["exit", "3"]));
    let (where_, why) = place("odd");
    assert!(where_ == "program" && why.contains("code 3"), "{where_}: {why}");
    let _ = finish(&mut h.container("run", &["--name", "fine"], &["exit", "0"]));
    assert_eq!(place("fine").0, "nowhere");

    let much = "x".repeat(9000);
    let _ = h.detached(&["--name", "full", "--tmpfs", "/s:size=8k"], &["write", "/s/file", &much, "+", "sleep", "60"]);
    h.until("it is full", || place("full") == ("file-system".to_owned(), "/s is full: 0 B free".to_owned()));
    let _ = h.detached(&["--name", "slow", "--cpus", "0.05"], &["spin", "60"]);
    h.until("it is throttled", || {
        let (where_, why) = place("slow");
        where_ == "cgroup" && why.contains("processor limit")
    });
    h.run(&["rm", "-f", "hog", "odd", "fine", "full", "slow"]).ok();
    h.assert_clean();
}

#[test]
fn root_what_is_dangerous_is_said() {
    let Some(h) = home!() else { return };
    let flags = ["--name", "mighty", "--privileged", "--pid", "host", "-v", "/etc:/e"];
    let _ = h.detached(&flags, &["sleep", "60"]);
    let risks = findings(&report(&h, "mighty"), "risk");
    for words in ["privileged", "sees the machine's processes", "/etc of the machine is writable", "not filtered"] {
        assert!(risks.contains(words), "{words}: {risks}");
    }
    h.run(&["rm", "-f", "mighty"]).ok();
    h.assert_clean();
}
