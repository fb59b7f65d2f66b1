//! `hull manifest`, `hull image referrers` and `hull search`.

use hull_oci::Digest;
use hull_oci::image::{Descriptor, media_type};
use hull_testkit::registry::{Fault, Faulty};
use hull_testkit::{Value, json};

use crate::world::{image, user};

#[test]
fn a_list_is_made_annotated_pushed_and_pulled() {
    let registry = Faulty::start();
    let (one, two) = (image(b"one"), image(b"two"));
    one.serve(&registry, "team/one", "1");
    two.serve(&registry, "team/app", "two");
    let host = format!("127.0.0.1:{}", registry.port);
    let (list, first, second) =
        (format!("{host}/team/app:1"), format!("{host}/team/one:1"), format!("{host}/team/app:two"));
    let home = user();
    home.run(&["manifest", "inspect", &list]).fails("no such manifest");
    home.run(&["manifest", "push", &list]).fails("No such manifest");
    let made = home.ok(&["manifest", "create", &list, &first, &second]);
    assert_eq!(made, format!("Created manifest list {list}\n"));
    home.run(&["manifest", "create", &list, &first]).fails("refusing to amend");
    home.ok(&["manifest", "create", "--amend", &list, &first]);
    home.ok(&["manifest", "annotate", "--arch", "arm64", "--variant", "v8", &list, &second]);
    home.run(&["manifest", "annotate", "--arch", "pdp11", &list, &second]).fails("unsupported os/arch combination");
    home.run(&["manifest", "annotate", "--arch", "arm64", &list, &list]).fails("does not exist in");
    let shown = home.ok(&["manifest", "inspect", &list]);
    let document: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(document["mediaType"], media_type::INDEX);
    assert_eq!(document["manifests"][1]["platform"]["variant"], "v8");
    assert_eq!(document["manifests"].as_array().map(Vec::len), Some(2));
    let inner = home.ok(&["manifest", "inspect", &list, &second]);
    assert_eq!(
        serde_json::from_str::<Value>(&inner).expect("JSON"),
        serde_json::from_slice::<Value>(&two.manifest).expect("JSON")
    );
    let verbose: Value = serde_json::from_str(&home.ok(&["manifest", "inspect", "-v", &list])).expect("JSON");
    assert_eq!(verbose[1]["Ref"], second.as_str());
    assert_eq!(verbose[1]["Descriptor"]["platform"]["architecture"], "arm64");
    assert_eq!(verbose[0]["OCIManifest"]["schemaVersion"], 2);

    let pushed = home.ok(&["manifest", "push", "--purge", &list]);
    let bytes = registry.content("/v2/team/app/manifests/1").expect("pushed");
    assert_eq!(bytes, shown.trim_end().as_bytes(), "what was shown is what was pushed");
    assert_eq!(pushed.lines().last(), Some(Digest::of(&bytes).to_string().as_str()));
    assert!(pushed.contains(&format!("Pushed ref {host}/team/app@{}", one.digest())), "{pushed}");
    // What the list's repository lacked was brought there.
    let copied = registry.content(&format!("/v2/team/app/blobs/{}", one.blob())).expect("copied");
    assert_eq!(copied, one.layer);
    home.run(&["manifest", "rm", &list]).fails("No such manifest");
    registry.put(&format!("/v2/team/app/manifests/{}", Digest::of(&bytes)), media_type::INDEX, &bytes);
    home.run(&["manifest", "create", &format!("{host}/x"), &list]).fails("is a manifest list");
    home.ok(&["pull", "-q", &list]);
    assert_eq!(home.ok(&["images", "-q", "--no-trunc"]).trim(), one.id());
    let other = user();
    other.ok(&["pull", "-q", "--platform", "linux/amd64", &list]);
    other.run(&["pull", "-q", "--platform", "linux/s390x", &list]).fails("no matching manifest for linux/s390x");
}

#[test]
fn artifacts_are_listed_by_what_they_refer_to() {
    let registry = Faulty::start();
    let made = image(b"x");
    made.serve(&registry, "team/app", "1");
    let name = format!("127.0.0.1:{}/team/app:1", registry.port);
    let artifact = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "artifactType": "application/spdx+json",
        "config": Descriptor::of(media_type::EMPTY, b"{}"), "layers": [],
        "subject": Descriptor::of(media_type::MANIFEST, &made.manifest)});
    let artifact = artifact.to_string().into_bytes();
    let digest = Digest::of(&artifact);
    registry.put(&format!("/v2/team/app/manifests/{digest}"), media_type::MANIFEST, &artifact);
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [
        {"mediaType": media_type::MANIFEST, "digest": digest, "size": artifact.len(), "artifactType": "application/spdx+json"},
        {"mediaType": media_type::MANIFEST, "digest": Digest::of(b"y"), "size": 1, "artifactType": "text/other"}]});
    let index = index.to_string().into_bytes();
    let home = user();
    // Neither the interface nor the tag that stands in for it.
    assert_eq!(home.ok(&["image", "referrers", "-q", &name]), "");
    let tag = format!("/v2/team/app/manifests/{}", made.digest().to_string().replace(':', "-"));
    registry.put(&tag, media_type::INDEX, &index);
    assert_eq!(home.ok(&["image", "referrers", "-q", &name]).lines().count(), 2, "by tag");
    registry.put(&format!("/v2/team/app/referrers/{}", made.digest()), media_type::INDEX, &index);
    let words =
        ["image", "referrers", "--artifact-type", "application/spdx+json", "--format", "{{.Digest}} {{.ArtifactType}}"];
    let listed = home.ok(&[&words[..], &[name.as_str()]].concat());
    assert_eq!(listed, format!("{digest} application/spdx+json\n"));
    let by_digest = format!("{}@{digest}", name.trim_end_matches(":1"));
    let shown: Value = serde_json::from_str(&home.ok(&["manifest", "inspect", &by_digest])).expect("JSON");
    assert_eq!(shown["artifactType"], "application/spdx+json");
    home.run(&["pull", "-q", &by_digest]).fails("it is no image but an artifact of type \"application/spdx+json\"");
    registry.always("/referrers/", Fault::Answer(200, String::new(), b"[".to_vec()));
    home.run(&["image", "referrers", &name]).fails("bad answer");
}

#[test]
fn registries_are_searched() {
    let registry = Faulty::start();
    let host = format!("127.0.0.1:{}", registry.port);
    let home = user();
    registry.always("/v2/_catalog", Fault::Status(404, ""));
    home.run(&["search", &format!("{host}/app")]).fails("cannot be searched").fails(&host);
    registry.mend();
    // Only a list of all repositories.
    registry.put("/v2/_catalog", "application/json", br#"{"repositories":["team/app","team/other","apple"]}"#);
    let found = home.ok(&["search", "--format", "{{.Name}}", &format!("{host}/app")]);
    assert_eq!(found, format!("{host}/team/app\n{host}/apple\n"));
    let results = json!({"results": [
        {"name": "small", "description": "one\nline", "star_count": 2, "is_official": false},
        {"name": "large", "description": "words ".repeat(20), "star_count": 90, "is_official": true}]});
    registry.put("/v1/search", "application/json", results.to_string().as_bytes());
    drop(registry.seen());
    let table = home.ok(&["search", "--limit", "7", &format!("{host}/some words")]);
    assert_eq!(registry.seen()[0].line, "GET /v1/search?q=some%20words&n=7");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("NAME ") && lines[0].ends_with("STARS     OFFICIAL"), "{table}");
    assert!(lines[1].contains("large") && lines[1].ends_with("90        [OK]") && lines[1].contains('…'), "{table}");
    assert!(lines[2].contains("one line"), "{table}");
    let filtered = home.ok(&[
        "search",
        "-f",
        "stars=50",
        "-f",
        "is-official=true",
        "--no-trunc",
        "--format",
        "{{.Name}} {{.StarCount}}",
        &format!("{host}/x"),
    ]);
    assert_eq!(filtered, format!("{host}/large 90\n"));
    home.run(&["search", "-f", "color=red", "x"]).fails("invalid filter 'color'");
    home.run(&["search", "-f", "stars=many", "x"]).fails("stars=many");
    home.run(&["search", "--limit", "101", "x"]).fails("outside the range of [1, 100]");
    registry.always("/v1/search", Fault::Answer(200, String::new(), b"<html>".to_vec()));
    home.run(&["search", &format!("{host}/x")]).fails("bad answer");
}
