//! The commands on images as a user types them: output, formats, filters, errors, exit codes. What Docker prints for the
//! same was looked at, and is written here.

use std::path::Path;
use std::process::Command;

use hull_testkit::{Home, finish, home, tier};
use serde_json::Value;

/// Imports a root file system of the probe and one file; returns the ID.
#[track_caller]
fn import(h: &Home, name: &str, content: &str, flags: &[&str]) -> String {
    import_at(h, None, name, content, flags)
}

/// The same, made at this second since 1970.
#[track_caller]
fn import_at(h: &Home, made: Option<&str>, name: &str, content: &str, flags: &[&str]) -> String {
    h.equip();
    h.write("rootfs/content", content);
    let archive = h.pack();
    let mut command = h.hull(&["import"]);
    command.args(flags).args([archive.as_str(), name]).envs(made.map(|made| ("SOURCE_DATE_EPOCH", made)));
    finish(&mut command).ok().text().to_owned()
}

/// Now, as listings show it.
fn date() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M:%S +0000 UTC"]).output().expect("date");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn json(h: &Home, words: &[&str]) -> Value {
    serde_json::from_str(&h.ok(words)).expect("JSON")
}

fn short(id: &str) -> &str {
    &id["sha256:".len()..][..12]
}

/// The words of each line.
fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn an_empty_store_has_headers_only() {
    let h = home!(plain);
    assert_eq!(h.ok(&["images"]), "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n");
    assert_eq!(h.ok(&["image", "ls"]), h.ok(&["images"]));
    assert_eq!(h.ok(&["images", "-q"]), "");
    assert_eq!(h.ok(&["images", "--format", "json"]), "");
    let df = "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n";
    assert!(h.ok(&["system", "df"]).starts_with(df), "{}", h.ok(&["system", "df"]));
    assert_eq!(h.ok(&["system", "check"]), "No problems found\n");
    assert_eq!(h.ok(&["image", "prune", "-f"]), "Total reclaimed space: 0B\n");
    assert_eq!(h.ok(&["system", "prune", "-f"]), "Total reclaimed space: 0B\n");
}

#[test]
fn listings_have_docker_s_columns_and_formats() {
    let h = home!(plain);
    let id = import(&h, "team/app:v1", "one", &["-c", "LABEL a=1"]);
    h.ok(&["tag", "team/app:v1", "localhost:5000/team/app"]);
    let table = h.ok(&["images"]);
    let lines = words(&table);
    assert_eq!(lines[0], ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    assert_eq!(lines[1][..3], ["team/app", "v1", short(&id)]);
    assert_eq!(lines[2][..3], ["localhost:5000/team/app", "latest", short(&id)]);
    assert_eq!(
        table.lines().next().map(|line| line.find("TAG")),
        Some(table.lines().nth(1).and_then(|l| l.find("v1")))
    );

    assert_eq!(h.ok(&["images", "-q"]), format!("{0}\n{0}\n", short(&id)));
    assert_eq!(h.ok(&["images", "-q", "--no-trunc"]), format!("{id}\n{id}\n"));
    let digests = h.ok(&["images", "--digests"]);
    assert_eq!(words(&digests)[0][..4], ["REPOSITORY", "TAG", "DIGEST", "IMAGE"]);
    assert_eq!(words(&digests)[1][2], "<none>");
    assert_eq!(
        h.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}\\t{{.ID}}", "team/app"]),
        format!("team/app:v1\t{}\n", short(&id))
    );
    let table = h.ok(&["images", "--format", "table {{.ID}}\\t{{.Tag}}", "team/app"]);
    assert_eq!(table, format!("IMAGE ID       TAG\n{}   v1\n", short(&id)));
    let row: Value =
        serde_json::from_str(h.ok(&["images", "--format", "json"]).lines().next().expect("a line")).expect("JSON");
    let keys: Vec<&str> = row.as_object().expect("object").keys().map(String::as_str).collect();
    let expected = [
        "Containers",
        "CreatedAt",
        "CreatedSince",
        "Digest",
        "ID",
        "Repository",
        "SharedSize",
        "Size",
        "Tag",
        "UniqueSize",
        "VirtualSize",
    ];
    assert_eq!(keys, expected);
    assert!(h.ok(&["images", "--format", "raw"]).starts_with("repository: team/app\ntag: v1\nimage_id: "));

    let tree = h.ok(&["images", "--tree"]);
    let lines = words(&tree);
    assert_eq!(lines[0], ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "IN", "USE"]);
    assert_eq!(
        (lines[1][0], lines[2][0], lines[3][..2].to_vec()),
        ("team/app:v1", "localhost:5000/team/app:latest", vec!["└─", "linux/amd64"])
    );
}

#[test]
fn wrong_formats_are_explained_in_docker_s_words() {
    let h = home!(plain);
    import(&h, "app", "one", &[]);
    for (format, message) in [
        (
            "{{.Foo}}",
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.imageContext",
        ),
        ("table {{.Foo}}", "can't evaluate field Foo"),
        ("{{.ID", "template parsing error: template: :1: unclosed action"),
        ("{{foo .ID}}", "template parsing error: template: :1: function \"foo\" not defined"),
        ("{{.ID 5}}", "want 0 got 1"),
    ] {
        assert_eq!(h.run(&["images", "--format", format]).fails(message).code, 1, "{format}");
    }
}

#[test]
fn filters_choose() {
    let h = home!(plain);
    let old = import_at(&h, Some("1000000000"), "old:1", "one", &["-c", "LABEL kind=a"]);
    let new = import_at(&h, Some("1100000000"), "new:1", "two", &["-c", "LABEL kind=b", "-c", "LABEL extra=x"]);
    let list = |filters: &[&str]| {
        let mut words = vec!["images", "-q", "--no-trunc"];
        for filter in filters {
            words.extend(["--filter", filter]);
        }
        h.ok(&words).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list(&[]), [new.clone(), old.clone()]);
    for (filters, expected) in [
        (&["label=kind"][..], vec![&new, &old]),
        (&["label=kind=a"], vec![&old]),
        (&["label=kind=b", "label=extra"], vec![&new]),
        (&["label!=extra"], vec![&old]),
        (&["before=new:1"], vec![&old]),
        (&["since=old:1"], vec![&new]),
        (&["reference=n*"], vec![&new]),
        (&["reference=old", "reference=new:1"], vec![&new, &old]),
        (&["dangling=true"], vec![]),
        (&["dangling=false"], vec![&new, &old]),
        (&["until=2001-01-01"], vec![]),
        (&["until=2002-01-01T00:00:00Z"], vec![&old]),
        (&["until=24h"], vec![&new, &old]),
    ] {
        let expected: Vec<String> = expected.into_iter().cloned().collect();
        assert_eq!(list(filters), expected, "{filters:?}");
    }
    // The name moves to another image; the old one stays without.
    h.ok(&["tag", "new:1", "old:1"]);
    assert_eq!(list(&["dangling=true"]), std::slice::from_ref(&old));
    assert!(h.ok(&["images"]).contains("<none>"), "{}", h.ok(&["images"]));
    let pruned = h.ok(&["image", "prune", "-f"]);
    assert!(pruned.starts_with(&format!("Deleted Images:\ndeleted: {old}\n")), "{pruned}");
    assert!(pruned.lines().last().is_some_and(|line| line.starts_with("Total reclaimed space: ")), "{pruned}");
    for (filter, message, code) in [
        ("foo=bar", "invalid filter 'foo'", 1),
        ("foo", "bad format of filter (expected name=value)", 125),
        ("before=nope", "no such image: nope", 1),
        ("dangling=zz", "invalid filter 'dangling=[zz]'", 1),
        ("until=zz", "\"zz\"", 1),
    ] {
        assert_eq!(h.run(&["images", "--filter", filter]).fails(message).code, code, "{filter}");
    }
}

#[test]
fn history_and_inspect_tell_what_import_was_told() {
    let h = home!(plain);
    let id =
        import(&h, "app", "one", &["-c", "CMD [\"/probe\"]", "-c", "ENV A=b", "-c", "LABEL l=v", "-m", "the message"]);
    let history = h.ok(&["history", "app"]);
    let lines = words(&history);
    assert_eq!(lines[0], ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]);
    assert_eq!((lines[1][0], lines.len()), (short(&id), 2));
    assert!(history.contains("the message"), "{history}");
    assert_eq!(h.ok(&["history", "-q", "--no-trunc", "app"]), format!("{id}\n"));
    let bytes = h.ok(&["history", "--human=false", "--format", "{{.Size}} {{.CreatedAt}}", "app"]);
    let parts: Vec<&str> = bytes.split_whitespace().collect();
    assert!(parts[0].parse::<u64>().is_ok_and(|size| size > 3) && parts[1].ends_with('Z'), "{bytes}");

    let document = &json(&h, &["image", "inspect", "app"])[0];
    assert_eq!(document["Id"], id.as_str());
    assert_eq!(document["RepoTags"], serde_json::json!(["app:latest"]));
    assert_eq!(document["Config"]["Cmd"], serde_json::json!(["/probe"]));
    assert_eq!(document["Config"]["Entrypoint"], Value::Null);
    assert_eq!(document["RootFS"]["Type"], "layers");
    assert_eq!(document["Size"].to_string(), parts[0]);
    for key in
        ["RepoDigests", "Parent", "Comment", "Created", "Author", "Architecture", "Os", "GraphDriver", "Metadata"]
    {
        assert!(!document[key].is_null(), "{key}: {document}");
    }
    assert_eq!(
        h.ok(&["inspect", "-f", "{{.Config.Env}} {{.Config.Labels}} {{.Config.Volumes}}", "app"]),
        "[A=b] map[l:v] map[]\n"
    );
    let missing = "{{index .Config.Labels \"x\"}}|{{.Config.Labels.x}}|{{json .Config.Cmd}}";
    assert_eq!(h.ok(&["inspect", "--type", "image", "-f", missing, "app"]), "|<no value>|[\"/probe\"]\n");
    h.run(&["image", "inspect", "-f", "{{.Nope}}", "app"]).fails("map has no entry for key \"Nope\"");

    let out = h.run(&["inspect", "nope", "app"]);
    out.fails("no such object: nope");
    assert_eq!(
        (out.code, serde_json::from_str::<Value>(&out.stdout).expect("JSON")[0]["Id"].as_str()),
        (1, Some(id.as_str()))
    );
    let out = h.run(&["image", "inspect", "nope"]);
    out.fails("no such image: nope");
    assert_eq!(out.stdout, "[]\n");
    h.run(&["inspect", "--type", "container", "app"]).fails("no such container: app");
    h.run(&["inspect", "--type", "foo", "app"]).fails("unknown type: \"foo\"");
}

#[test]
fn names_come_and_go_as_with_docker() {
    let h = home!(plain);
    let id = import(&h, "app:v1", "one", &[]);
    h.ok(&["tag", "app:v1", "app:v2"]);
    h.ok(&["tag", short(&id), "other/app"]);
    let conflict = format!(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
        short(&id)
    );
    assert_eq!(h.run(&["rmi", short(&id)]).fails(&conflict).code, 1);
    assert_eq!(h.ok(&["rmi", "app:v1"]), "Untagged: app:v1\n");
    assert_eq!(
        h.ok(&["image", "rm", "-f", short(&id)]),
        format!("Untagged: app:v2\nUntagged: other/app:latest\nDeleted: {id}\n")
    );
    assert_eq!(h.run(&["rmi", "app:v1"]).fails("no such image: app:v1").code, 1);
    // A missing image is no failure when forced, but told.
    let out = h.run(&["rmi", "-f", "nope"]);
    assert_eq!(out.code, 0);
    assert!(out.stderr.contains("no such image: nope"), "{}", out.stderr);
    import(&h, "app:v1", "one", &[]);
    assert_eq!(h.run(&["rmi", "nope", "app:v1"]).fails("no such image: nope").stdout.lines().count(), 2);
    import(&h, "app:v1", "one", &[]);
    for (target, message) in
        [("BAD!", "invalid reference format"), ("", "invalid reference format"), ("app@sha256:x", "digest")]
    {
        assert_eq!(h.run(&["tag", "app:v1", target]).fails(message).code, 1, "{target}");
    }
    h.run(&["tag", "nope", "x"]).fails("no such image: nope");
}

#[test]
fn prune_asks_and_takes_only_a_yes() {
    let h = home!(plain);
    import(&h, "app", "one", &[]);
    let ask = |words: &[&str], answer: &str| {
        let file = h.text("answer");
        std::fs::write(&file, answer).expect("write");
        finish(h.hull(words).stdin(std::fs::File::open(&file).expect("open"))).ok().stdout
    };
    let question = "WARNING! This will remove all images without at least one container associated to them.\n\
                    Are you sure you want to continue? [y/N] ";
    for answer in ["", "n\n", "no\n", "yellow\n", "\n"] {
        assert_eq!(ask(&["image", "prune", "-a"], answer), question, "{answer:?}");
    }
    let warning = ask(&["system", "prune"], "n\n");
    assert!(warning.starts_with("WARNING! This will remove:\n  - all stopped containers\n"), "{warning}");
    assert_eq!(h.ok(&["images", "-q"]).lines().count(), 1);
    let gone = ask(&["image", "prune", "-a"], "y\n");
    assert!(gone.contains("untagged: app:latest\ndeleted: sha256:"), "{gone}");
    assert_eq!(h.ok(&["images", "-q"]), "");
}

#[test]
fn archives_go_out_and_come_back() {
    let h = home!(plain);
    let one = import(&h, "app:v1", "one", &[]);
    let two = import(&h, "app:v2", "two", &["-c", "CMD x"]);
    let file = h.text("both.tar");
    assert_eq!(h.ok(&["save", "-o", &file, "app:v1", "app:v2"]), "");
    h.ok(&["image", "prune", "-af"]);
    assert_eq!(h.ok(&["images", "-q"]), "");
    let loaded = h.ok(&["load", "-q", "-i", &file]);
    let mut lines: Vec<&str> = loaded.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Loaded image: app:v1", "Loaded image: app:v2"]);
    let mut ids: Vec<String> = h.ok(&["images", "-q", "--no-trunc"]).lines().map(str::to_owned).collect();
    let mut expected = [one.clone(), two];
    ids.sort();
    expected.sort();
    assert_eq!(ids, expected);
    // By standard streams, and by ID, which has no name.
    let stream = h.text("stream.tar");
    let output = std::fs::File::create(&stream).expect("create");
    let status = h.hull(&["save", short(&one)]).stdout(output).status().expect("run");
    assert!(status.success());
    h.ok(&["rmi", "app:v1"]);
    let out = finish(h.hull(&["load"]).stdin(std::fs::File::open(&stream).expect("open"))).ok();
    assert_eq!(out.stdout, format!("Loaded image ID: {one}\n"));
    // An OCI layout directory.
    let layout = h.text("layout/");
    h.ok(&["save", "--format", "oci", "-o", &layout, "app:v2"]);
    assert!(Path::new(&layout).join("oci-layout").exists());
    assert_eq!(h.ok(&["load", "-i", &layout]), "Loaded image: app:v2\n");

    for (words, message) in [
        (&["save", "nope"][..], "no such image: nope"),
        (&["save", "-o", "/nonexistent/x", "app:v2"], "stat /nonexistent: no such file"),
        (&["load", "-i", "/nonexistent"], "/nonexistent"),
        (&["load", "-i", "/etc/passwd"], "archive"),
        (&["save", "--platform", "linux/s390x", "-o", "/nonexistent/x", "app:v2"], "wanted linux/s390x"),
        (&["import", "/nonexistent", "x"], "/nonexistent"),
        (&["import", "/etc/passwd", "BAD!"], "invalid reference format"),
        (&["squash", "app:v2"], "cannot be squashed"),
    ] {
        assert_eq!(h.run(words).fails(message).code, 1, "{words:?}");
    }
    h.run(&["load", "--platform", "a/b/c/d"]).fails("invalid platform");
    assert_eq!(
        std::fs::read_dir(h.path())
            .expect("read")
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().contains(".part"))
            .count(),
        0
    );
}

#[test]
fn df_adds_up() {
    let h = home!(plain);
    import(&h, "app:v1", "one", &[]);
    let rows: Vec<Value> = h
        .ok(&["system", "df", "--format", "json"])
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let kinds: Vec<&str> = rows.iter().filter_map(|row| row["Type"].as_str()).collect();
    assert_eq!(kinds, ["Images", "Containers", "Local Volumes", "Build Cache"]);
    assert_eq!((rows[0]["TotalCount"].as_str(), rows[0]["Active"].as_str()), (Some("1"), Some("0")));
    assert!(rows[0]["Reclaimable"].as_str().is_some_and(|text| text.contains('%')), "{}", rows[0]);
    let verbose = h.ok(&["system", "df", "-v"]);
    for part in
        ["Images space usage:\n\nREPOSITORY", "Containers space usage:\n\nCONTAINER ID", "Local Volumes space usage:"]
    {
        assert!(verbose.contains(part), "{verbose}");
    }
    let total = verbose.lines().last().and_then(|line| line.split_whitespace().last()).expect("total").to_owned();
    let du = Command::new("du").args(["-s", "--block-size=1", &h.text("data")]).output().expect("du");
    let du: f64 =
        String::from_utf8_lossy(&du.stdout).split_whitespace().next().expect("number").parse().expect("number");
    let (number, unit) = total.split_at(total.find(|c: char| c.is_alphabetic()).expect("unit"));
    let factor = match unit {
        "kB" => 1e3,
        "MB" => 1e6,
        other => panic!("{other}"),
    };
    let total = number.parse::<f64>().expect("number") * factor;
    // The database's log grows by the reading itself.
    assert!((total - du).abs() < 400_000.0, "df says {total}, du {du}");
    let all = json(&h, &["system", "df", "-v", "--format", "json"]);
    assert_eq!(all["Images"][0]["Repository"], "app");
    assert_eq!(all["Volumes"], serde_json::json!([]));
}

#[test]
fn damage_is_found_and_named() {
    let h = home!(plain);
    import(&h, "app", &"content ".repeat(10_000), &[]);
    let layer = json(&h, &["image", "inspect", "app"])[0]["RootFS"]["Layers"][0].as_str().expect("digest").to_owned();
    let directory = h.path().join("data/layers").join(&layer["sha256:".len()..]);
    let tar = directory.join("tar");
    if !tar.exists() {
        return tier::skip("the EROFS snapshotter", "layers are unpacked here");
    }
    let mut bytes = std::fs::read(&tar).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&tar, bytes).expect("write");
    let out = h.run(&["system", "check"]);
    assert_eq!(out.code, 1);
    assert!(out.stdout.contains(&layer), "{}", out.stdout);
}

#[test]
fn info_and_version_are_documents() {
    let h = home!(plain);
    let text = h.ok(&["info"]);
    for part in [
        "Storage Driver: ",
        " Backing Filesystem: ",
        " Supports d_type: ",
        " Native Overlay Diff: ",
        "Cgroup Version: ",
        "Security Options:\n  seccomp\n   profile: builtin\n",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let document = json(&h, &["info", "--format", "json"]);
    for key in [
        "Containers",
        "Images",
        "Driver",
        "DriverStatus",
        "CgroupVersion",
        "KernelVersion",
        "NCPU",
        "MemTotal",
        "SecurityOptions",
    ] {
        assert!(!document[key].is_null(), "{key}");
    }
    assert_eq!(h.ok(&["info", "-f", "{{.Images}} {{.OSType}}"]), "0 linux\n");
    assert_eq!(h.ok(&["version", "--format", "{{.Server.Version}}"]), format!("{}\n", env!("CARGO_PKG_VERSION")));
    h.run(&["info", "-f", "{{.Nope}}"]).fails("template parsing error: template: :1:2: executing \"\" at <.Nope>");
}

#[test]
fn wrong_command_lines_are_one_line() {
    let h = home!(plain);
    for (words, said, code) in [
        (&["images", "--foo"][..], "unknown flag: --foo", 125),
        (&["images", "--digestz"], "did you mean '--digests'", 125),
        (&["images", "-Z"], "unknown shorthand flag: 'Z' in -Z", 125),
        (&["images", "a", "b"], "'hull images' requires at most 1 argument", 1),
        (&["rmi"], "'hull rmi' requires at least 1 argument", 1),
        (&["tag", "a"], "'hull tag' requires 2 arguments", 1),
        (&["history"], "'hull history' requires 1 argument", 1),
        (&["volume", "prune", "x"], "'hull volume prune' accepts no arguments", 1),
        (&["cp", "--foo", "a", "b"], "unknown flag: --foo", 125),
        (&["image", "foo"], "unknown command: hull image foo", 1),
        (&["squash", "--layers", "x", "a"], "for \"--layers\" flag", 125),
        (&["ps", "-n", "x"], "invalid argument \"x\" for \"-n, --last\" flag: strconv.ParseInt", 125),
        (&["ps", "--all=maybe"], "strconv.ParseBool", 125),
        (&["images", "--tree", "-q"], "cannot specify both", 1),
    ] {
        let out = h.run(words);
        assert_eq!(out.fails(said).code, code, "{words:?}: {}", out.stderr);
    }
    // A group alone shows what it has, as Docker's do.
    for words in [&["image"][..], &["system"], &["container"], &[]] {
        let out = h.run(words);
        assert_eq!((out.code, out.stdout.as_str()), (0, ""), "{words:?}");
        assert!(out.stderr.contains("Usage:"), "{words:?}: {}", out.stderr);
    }
}

#[test]
fn root_containers_become_images() {
    let Some(h) = home!() else { return };
    let base = import(&h, "app", "one", &["-c", "CMD [\"/probe\", \"exit\", \"0\"]"]);
    h.ok(&["run", "--network=none", "--name", "c1", "--label", "l=v", "app", "/probe", "write", "/new", "text"]);
    let diff = h.ok(&["diff", "c1"]);
    assert!(diff.lines().any(|line| line == "A /new"), "{diff}");
    assert_eq!(h.ok(&["container", "diff", "c1"]), diff);
    let id = h.ok(&["commit", "-a", "me", "-m", "why", "-c", "ENV X=1", "c1", "app:new"]).trim().to_owned();
    assert_eq!(
        h.ok(&["inspect", "-f", "{{.Author}} {{.Comment}} {{.Config.Env}} {{len .RootFS.Layers}}", "app:new"]),
        "me why [X=1] 2\n"
    );
    let history = h.ok(&["history", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Comment}}", "app:new"]);
    assert!(history.starts_with(&format!("{}|/probe write /new text|why (hand-made by ", short(&id))), "{history}");

    let tar = h.text("c1.tar");
    h.ok(&["export", "-o", &tar, "c1"]);
    let list = Command::new("tar").args(["-tf", &tar]).output().expect("tar");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.lines().any(|line| line == "new") && list.lines().any(|line| line == "content"), "{list}");

    let squashed = h.ok(&["squash", "app:new", "app:flat"]).trim().to_owned();
    assert_ne!(squashed, id);
    assert_eq!(h.ok(&["inspect", "-f", "{{len .RootFS.Layers}}", "app:flat"]), "1\n");

    let conflict = "conflict: unable to remove repository reference \"app\" (must force) - container ";
    h.run(&["rmi", "app"]).fails(conflict);
    h.run(&["rmi", short(&base)]).fails("(must be forced) - image is being used by stopped container ");
    let kept = h.ok(&["image", "prune", "-af"]);
    assert!(kept.contains("untagged: app:new\n") && !kept.contains("untagged: app:latest"), "{kept}");
    let pruned = h.ok(&["container", "prune", "-f"]);
    assert!(pruned.starts_with("Deleted Containers:\n") && pruned.contains("Total reclaimed space: "), "{pruned}");
    assert_eq!(h.ok(&["rmi", "app"]), format!("Untagged: app:latest\nDeleted: {base}\n"));
    for words in [&["diff", "nope"][..], &["commit", "nope"], &["export", "nope"]] {
        assert_eq!(h.run(words).fails("no such container: nope").code, 1, "{words:?}");
    }
}

#[test]
fn root_ps_has_docker_s_columns_formats_and_filters() {
    let Some(h) = home!() else { return };
    import(&h, "app", "one", &[]);
    for (name, code) in [("first", "0"), ("second", "3")] {
        let out = h.run(&[
            "run",
            "--network=none",
            "--name",
            name,
            "--label",
            &format!("n={name}"),
            "app",
            "/probe",
            "exit",
            code,
        ]);
        assert_eq!(out.code.to_string(), code, "{}", out.stderr);
        // Records have seconds, and containers of one second no order.
        let made = h.ok(&["ps", "-l", "--format", "{{.CreatedAt}}"]);
        while date() <= made {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    let list = |words: &[&str]| {
        let mut all = vec!["ps", "--format", "{{.Names}}"];
        all.extend(words);
        h.ok(&all).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(list(&[]).is_empty());
    for (filter, expected) in [
        (&["-a"][..], &["second", "first"][..]),
        (&["-l"], &["second"]),
        (&["-n", "1"], &["second"]),
        (&["-a", "-f", "name=^fir"], &["first"]),
        (&["-a", "-f", "label=n=first"], &["first"]),
        (&["-f", "exited=3"], &["second"]),
        (&["-f", "status=exited"], &["second", "first"]),
        (&["-f", "status=running"], &[]),
        (&["-a", "-f", "ancestor=app"], &["second", "first"]),
        (&["-a", "-f", "ancestor=nope"], &[]),
        (&["-a", "-f", "before=second"], &["first"]),
        (&["-a", "-f", "since=first"], &["second"]),
        (&["-a", "-f", "network=none"], &["second", "first"]),
    ] {
        assert_eq!(list(filter), expected, "{filter:?}");
    }
    let table = h.ok(&["ps", "-a"]);
    let header = "CONTAINER ID   IMAGE     COMMAND           CREATED";
    assert!(table.starts_with(header), "{table}");
    assert!(table.contains("\"/probe exit 3\"") && table.contains("Exited (3) "), "{table}");
    let labels = h.ok(&["ps", "-a", "--format", r#"table {{.Names}}\t{{.Label "n"}}"#]);
    assert_eq!(labels, "NAMES     n\nsecond    second\nfirst     first\n");
    let row: Value = serde_json::from_str(h.ok(&["ps", "-l", "--format", "json"]).trim()).expect("JSON");
    assert_eq!(
        (row["State"].as_str(), row["Labels"].as_str(), row["Image"].as_str()),
        (Some("exited"), Some("n=second"), Some("app"))
    );
    let sizes = h.ok(&["ps", "-as", "--format", "{{.Size}}"]);
    assert!(sizes.lines().all(|line| line.starts_with("0B (virtual ")), "{sizes}");
    for (filter, message) in [
        ("status=zz", "invalid filter 'status=zz'"),
        ("exited=zz", "invalid filter 'exited=zz'"),
        ("foo=x", "invalid filter 'foo'"),
        ("before=nope", "no such container: nope"),
    ] {
        assert_eq!(h.run(&["ps", "-f", filter]).fails(message).code, 1, "{filter}");
    }
    let container = json(&h, &["container", "inspect", "-s", "first"]);
    assert_eq!(container[0]["SizeRw"], 0);
    assert_eq!(
        h.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.Name}}", "second"]),
        "exited 3 /second\n"
    );
    h.run(&["container", "inspect", "app"]).fails("no such container: app");
}

#[test]
fn root_images_can_be_mounted() {
    let Some(h) = home!() else { return };
    let id = import(&h, "app", "one", &[]);
    let path = h.ok(&["image", "mount", "app"]).trim().to_owned();
    assert_eq!(std::fs::read_to_string(Path::new(&path).join("content")).expect("read"), "one");
    assert!(std::fs::write(Path::new(&path).join("x"), "").is_err());
    assert_eq!(h.ok(&["image", "mount"]), format!("{} {path}\n", short(&id)));
    assert_eq!(h.ok(&["image", "unmount", "app"]), format!("{id}\n"));
    assert_eq!(h.ok(&["image", "mount"]), "");
    assert!(!Path::new(&path).join("content").exists());
    assert_eq!(h.run(&["image", "unmount", "app"]).fails("").code, 1);
    assert_eq!(h.ok(&["image", "umount", "-a"]), "");
    h.run(&["image", "mount", "nope"]).fails("no such image: nope");
}

#[test]
fn an_imported_image_does_not_tell_where_its_archive_was() {
    let home = home!(plain);
    import_at(&home, Some("0"), "a", "x", &[]);
    let (one, two) = (home.text("one.tar"), home.text("two.tar"));
    let made = Command::new("tar").args(["-C", &home.text("rootfs"), "-cf", &one, "."]).status();
    assert!(made.expect("tar").success());
    std::fs::copy(&one, &two).expect("copy");
    let import = |file: &str| finish(home.hull(&["import", file]).env("SOURCE_DATE_EPOCH", "0")).ok().stdout;
    let id = import(&one);
    assert_eq!(id, import(&two));
    let comment = home.ok(&["history", "--format", "{{.Comment}}", id.trim()]);
    assert_eq!(comment.trim(), "Imported from -");
}
