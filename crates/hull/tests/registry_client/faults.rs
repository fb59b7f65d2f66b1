//! Every fault of a registry ends in success, or in one line that says registry, repository and cause. What came before
//! is kept, and the next pull goes on from there.

use hull_oci::Digest;
use hull_oci::image::media_type;
use hull_testkit::registry::{Fault, Faulty};

use crate::world::{Made, image, import, noise, partials, user};

/// A registry with `team/app:1`, and its name.
fn registry(made: &Made) -> (Faulty, String) {
    let registry = Faulty::start();
    made.serve(&registry, "team/app", "1");
    let name = format!("127.0.0.1:{}/team/app:1", registry.port);
    (registry, name)
}

fn challenge(realm: &str) -> Fault {
    let headers = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"r\"\r\n");
    Fault::Answer(401, headers, b"{}".to_vec())
}

fn answer(body: &str) -> Fault {
    Fault::Answer(200, "Content-Type: application/json\r\n".to_owned(), body.as_bytes().to_vec())
}

/// Asserts one line that names the registry, the repository and the cause.
#[track_caller]
fn one_line(name: &str, case: &str, stderr: &str, cause: &str) {
    let host = name.split('/').next().expect("host");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{case}: {stderr}");
    for expected in [host, "team/app", cause] {
        assert!(stderr.contains(expected), "{case}: no {expected:?} in: {stderr}");
    }
}

#[test]
fn faults_that_pass() {
    let made = &image(&noise(900_000, 5));
    let blob = made.blob();
    let config = made.id();
    let manifest = "manifests/1";
    let cases: Vec<(&str, Vec<(&str, Fault)>)> = vec![
        ("no answer", vec![(manifest, Fault::Hangup), (&config, Fault::Hangup), (&blob, Fault::Hangup)]),
        ("a cut manifest", vec![(manifest, Fault::Cut(0)), (manifest, Fault::Cut(100))]),
        ("a cut configuration", vec![(&config, Fault::Cut(10)), (&config, Fault::Cut(20))]),
        ("a cut layer", vec![(&blob, Fault::Cut(0)), (&blob, Fault::Cut(400_000)), (&blob, Fault::Cut(1))]),
        ("too many requests", vec![(manifest, Fault::Status(429, "Retry-After: 1\r\n"))]),
        ("too many requests for a layer", vec![(&blob, Fault::Status(429, "Retry-After: 0\r\n"))]),
        ("failures", vec![(manifest, Fault::Status(500, "")), (&config, Fault::Status(502, ""))]),
        ("unavailable", vec![(&blob, Fault::Status(503, "Retry-After: 0\r\n")), (&blob, Fault::Status(504, ""))]),
        ("drips", vec![(manifest, Fault::Drip), (&config, Fault::Drip), (&blob, Fault::Drip)]),
        ("no ranges", vec![(&blob, Fault::Cut(500_000)), (&blob, Fault::NoRange)]),
        ("redirects", vec![(manifest, Fault::Redirect), (&config, Fault::Redirect), (&blob, Fault::Redirect)]),
        ("some redirects", vec![(&blob, Fault::Redirect), (&blob, Fault::Redirect), (&blob, Fault::Redirect)]),
    ];
    std::thread::scope(|scope| {
        for (case, faults) in &cases {
            scope.spawn(move || {
                let (registry, name) = registry(made);
                for (place, fault) in faults {
                    registry.fail(place, fault.clone());
                }
                let home = user();
                let done = home.run(&["pull", "-q", &name]);
                assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{case}");
                assert_eq!(registry.left(), 0, "{case}");
                assert_eq!(home.ok(&["images", "-q", "--no-trunc"]).trim(), made.id(), "{case}");
                assert!(partials(&home).is_empty(), "{case}");
                if *case == "too many requests" {
                    assert!(done.took.as_millis() >= 1000, "{case}: only waited {:?}", done.took);
                }
            });
        }
    });
}

#[test]
fn faults_that_end_in_one_line() {
    let made = &image(&noise(900_000, 7));
    let (blob, config) = (made.blob(), made.id());
    let manifest = "manifests/1";
    let large = "x".repeat(5 << 20);
    let range = |text: &str| Fault::Answer(206, format!("Content-Range: {text}\r\n"), vec![0; 10]);
    let location = |text: &str| Fault::Answer(307, format!("Location: {text}\r\n"), Vec::new());
    let typed =
        |text: &str, body: &str| Fault::Answer(200, format!("Content-Type: {text}\r\n"), body.as_bytes().to_vec());
    // The case, faults that pass, the one that stays, what is said, and how much of the layer is kept.
    type Case<'a> = (&'a str, Vec<(&'a str, Fault)>, (&'a str, Fault), &'a str, u64);
    let cases: Vec<Case<'_>> = vec![
        ("no answer", vec![], (manifest, Fault::Hangup), "", 0),
        ("failures", vec![], (manifest, Fault::Status(500, "")), "this was planned", 0),
        ("too many requests", vec![], (manifest, Fault::Status(429, "Retry-After: 0\r\n")), "planned", 0),
        ("not found", vec![], (manifest, Fault::Status(404, "")), "not found", 0),
        ("forbidden", vec![], (manifest, Fault::Status(403, "")), "access denied", 0),
        ("unauthorized", vec![], (manifest, Fault::Status(401, "")), "hull login", 0),
        ("a teapot", vec![], (manifest, Fault::Status(418, "")), "planned", 0),
        ("always cut", vec![], (manifest, Fault::Cut(50)), "", 0),
        ("not JSON", vec![], (manifest, typed(media_type::MANIFEST, "<html>")), "not valid", 0),
        ("not a manifest", vec![], (manifest, typed(media_type::MANIFEST, "[]")), "not valid", 0),
        ("schema 1", vec![], (manifest, answer(r#"{"schemaVersion":1,"fsLayers":[]}"#)), "schema 1", 0),
        ("two things", vec![], (manifest, answer(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#)), "ambiguous", 0),
        (
            "an empty index",
            vec![],
            (manifest, answer(r#"{"schemaVersion":2,"manifests":[]}"#)),
            "no matching manifest",
            0,
        ),
        ("too large", vec![], (manifest, answer(&large)), "longer than", 0),
        (
            "another digest",
            vec![],
            (manifest, Fault::Answer(200, format!("Docker-Content-Digest: {blob}\r\n"), made.manifest.clone())),
            "its digest is",
            0,
        ),
        ("a changed configuration", vec![], (&config, Fault::Flip), "digest", 0),
        ("no configuration", vec![], (&config, Fault::Status(404, "")), "not found", 0),
        ("a changed layer", vec![], (&blob, Fault::Flip), "digest", 0),
        ("no layer", vec![], (&blob, Fault::Status(404, "")), "not found", 0),
        ("a short layer", vec![], (&blob, Fault::Answer(200, String::new(), vec![0; 10])), "it has 10 bytes", 0),
        ("a layer that stops", vec![(&blob, Fault::Cut(600_000))], (&blob, Fault::Hangup), "600000 of", 600_000),
        ("then fails", vec![(&blob, Fault::Cut(500_000))], (&blob, Fault::Status(503, "")), "planned", 500_000),
        ("wrong range", vec![(&blob, Fault::Cut(1000))], (&blob, range("bytes 0-9/10")), "Content-Range", 1000),
        ("no range", vec![(&blob, Fault::Cut(1000))], (&blob, range("lines 9-0/*")), "Content-Range", 1000),
        ("a loop", vec![], (&blob, Fault::Redirect), "more than 10 redirects", 0),
        ("to a file", vec![], (&blob, location("file:///etc/passwd")), "a redirect to", 0),
        ("to nowhere", vec![], (&blob, Fault::Answer(307, String::new(), Vec::new())), "a redirect to nowhere", 0),
        ("with a password", vec![], (&blob, location("https://u:p@evil.example/")), "a redirect to", 0),
    ];
    std::thread::scope(|scope| {
        for (case, passing, (place, lasting), cause, kept) in &cases {
            scope.spawn(move || {
                let (registry, name) = registry(made);
                for (place, fault) in passing {
                    registry.fail(place, fault.clone());
                }
                registry.always(place, lasting.clone());
                let home = user();
                let done = home.run(&["pull", "-q", &name]);
                assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{case}: {}", done.stderr);
                one_line(&name, case, &done.stderr, cause);
                assert_eq!(home.ok(&["images", "-q"]), "", "{case}");
                let partials: Vec<u64> = partials(&home).into_iter().filter(|length| *length > 0).collect();
                assert_eq!(partials, if *kept > 0 { vec![*kept] } else { vec![] }, "{case}: {}", done.stderr);
                // The registry is in order again.
                registry.mend();
                drop(registry.seen());
                home.ok(&["pull", "-q", &name]);
                let seen = registry.seen();
                let layer = seen.iter().find(|seen| seen.line.contains(&made.blob())).expect("a layer is fetched");
                let expected = (*kept > 0).then(|| format!("bytes={kept}-"));
                assert_eq!(layer.header("range"), expected.as_deref(), "{case}");
                assert_eq!(home.ok(&["images", "-q", "--no-trunc"]).trim(), made.id(), "{case}");
                assert_eq!(home.ok(&["system", "check"]).trim(), "No problems found", "{case}");
            });
        }
    });
}

#[test]
fn a_token_expires_in_the_middle() {
    let made = image(&noise(900_000, 9));
    let (registry, name) = registry(&made);
    let realm = format!("http://127.0.0.1:{}/token", registry.port);
    registry.put("/token", "application/json", br#"{"token":"first"}"#);
    registry.fail("manifests/1", challenge(&realm));
    registry.fail(&made.blob(), Fault::Cut(300_000));
    registry.fail(&made.blob(), challenge(&realm));
    // A token server that is busy.
    registry.fail("/token", Fault::Status(503, ""));
    registry.fail("/token", Fault::Hangup);
    let home = user();
    home.ok(&["pull", "-q", &name]);
    assert_eq!(registry.left(), 0);
    let seen = registry.seen();
    let tokens: Vec<&str> = seen.iter().map(|one| one.line.as_str()).filter(|line| line.contains("/token")).collect();
    assert_eq!(tokens.len(), 4, "{tokens:?}");
    assert!(tokens.iter().all(|line| line.contains("scope=repository%3Ateam%2Fapp%3Apull")), "{tokens:?}");
    let last = seen.iter().rfind(|one| one.line.contains(&made.blob())).expect("layer");
    assert_eq!(last.header("authorization"), Some("Bearer first"));
    assert_eq!(last.header("range"), Some("bytes=300000-"));
}

#[test]
fn token_servers_that_talk_nonsense() {
    let made = image(b"x");
    for (body, cause) in [
        ("", "not valid JSON"),
        ("<html>", "not valid JSON"),
        ("{}", "it has no token"),
        (r#"{"token":""}"#, "it has no token"),
        (r#"{"token":"a\r\nX-Evil: 1"}"#, "it has no token"),
        (r#"{"token":["a"]}"#, "not valid JSON"),
    ] {
        let (registry, name) = registry(&made);
        let realm = format!("http://127.0.0.1:{}/token", registry.port);
        registry.put("/token", "application/json", body.as_bytes());
        registry.always("manifests/1", challenge(&realm));
        let done = user().run(&["pull", "-q", &name]);
        assert_eq!(done.code, 1, "{body}");
        one_line(&name, body, &done.stderr, cause);
    }
    for realm in ["file:///etc/passwd", "ftp://x/", "http://u@evil.example/", "nonsense"] {
        let (registry, name) = registry(&made);
        registry.always("manifests/1", challenge(realm));
        let done = user().run(&["pull", "-q", &name]);
        assert_eq!(done.code, 1, "{realm}");
        one_line(&name, realm, &done.stderr, "token server");
    }
    // Refused, or a token that is not good enough, for ever.
    let (registry, name) = registry(&made);
    let realm = format!("http://127.0.0.1:{}/token", registry.port);
    registry.put("/token", "application/json", br#"{"access_token":"t"}"#);
    registry.always("manifests/1", challenge(&realm));
    one_line(&name, "useless", &user().run(&["pull", "-q", &name]).stderr, "access denied");
    registry.always("/token", Fault::Status(403, ""));
    one_line(&name, "refused", &user().run(&["pull", "-q", &name]).stderr, "access denied");
}

#[test]
fn lists_that_lead_astray() {
    let made = image(b"x");
    let list = "/v2/team/app/tags/list";
    let (registry, name) = registry(&made);
    let name = name.trim_end_matches(":1");
    let page = |link: &str| {
        let headers = format!("Content-Type: application/json\r\nLink: {link}\r\n");
        Fault::Answer(200, headers, br#"{"name":"team/app","tags":["1"]}"#.to_vec())
    };
    for (link, cause) in [
        (format!("<{list}>; rel=\"next\""), "same one"),
        ("<https://evil.example/v2/team/app/tags/list?n=1>; rel=\"next\"".to_owned(), "another host"),
        ("<ftp://x>; rel=next".to_owned(), "a link to"),
    ] {
        registry.always("tags/list", page(&link));
        let done = user().run(&["pull", "-q", "-a", name]);
        assert_eq!(done.code, 1, "{link}");
        one_line(name, &link, &done.stderr, cause);
        registry.mend();
    }
    for (body, cause) in [("{", "bad answer"), (r#"{"tags":[1]}"#, "bad answer"), (r#"{"tags":["../x"]}"#, "invalid")] {
        registry.put(list, "application/json", body.as_bytes());
        let done = user().run(&["pull", "-q", "-a", name]);
        assert_eq!((done.code, done.stderr.lines().count()), (1, 1), "{body}: {}", done.stderr);
        assert!(done.stderr.contains(cause), "{body}: {}", done.stderr);
    }
    // What makes no sense as a link is no link; pages are followed.
    registry.fail("tags/list", page("nonsense"));
    let home = user();
    let pulled = home.ok(&["pull", "-a", name]);
    assert!(pulled.contains("Status: Downloaded newer image"), "{pulled}");
    made.serve(&registry, "team/app", "2");
    registry.put(list, "application/json", br#"{"tags":["2"]}"#);
    registry.fail("tags/list", page("</v2/team/app/tags/list?last=1>; rel=\"next\""));
    let home = user();
    home.ok(&["pull", "-q", "-a", name]);
    assert_eq!(home.ok(&["images", "--format", "{{.Tag}}"]), "1\n2\n");
}

#[test]
fn pushes_that_break_go_on() {
    let content = noise(700_000, 11);
    for (case, faults) in [
        ("in order", vec![]),
        ("no answer", vec![("uploads/", Fault::Hangup)]),
        ("busy", vec![("uploads/", Fault::Status(503, "Retry-After: 0\r\n")), ("manifests/", Fault::Status(500, ""))]),
        ("cut", vec![("uploads/0?", Fault::CutRequest(300_000))]),
        ("lost", vec![("uploads/0?", Fault::CutRequest(300_000)), ("uploads/0", Fault::Status(404, ""))]),
    ] {
        let registry = Faulty::start();
        for (place, fault) in faults {
            registry.fail(place, fault);
        }
        let home = user();
        let name = format!("127.0.0.1:{}/team/app:1", registry.port);
        import(&home, &name, "file", &content);
        let pushed = home.run(&["push", &name]);
        assert_eq!(pushed.code, 0, "{case}: {}", pushed.stderr);
        assert_eq!(registry.left(), 0, "{case}");
        let manifest = registry.content("/v2/team/app/manifests/1").expect("manifest");
        let document: hull_testkit::Value = serde_json::from_slice(&manifest).expect("valid");
        for blob in [&document["config"], &document["layers"][0]] {
            let digest = blob["digest"].as_str().expect("digest");
            let bytes = registry.content(&format!("/v2/team/app/blobs/{digest}")).expect("blob");
            assert_eq!(Digest::of(&bytes).to_string(), digest, "{case}");
        }
        let last = pushed.stdout.lines().last().expect("output").to_owned();
        assert!(last.contains(&Digest::of(&manifest).to_string()), "{case}: {last}");
    }
}

#[test]
fn pushes_that_are_refused() {
    for (place, fault, cause) in [
        ("uploads/", Fault::Status(401, ""), "access denied"),
        ("uploads/", Fault::Status(403, ""), "access denied"),
        ("uploads/", Fault::Status(500, ""), "planned"),
        ("uploads/", Fault::Answer(202, String::new(), Vec::new()), "where to upload"),
        ("uploads/", Fault::Answer(202, "Location: ftp://x/\r\n".to_owned(), Vec::new()), "upload to"),
        ("uploads/0?", Fault::Status(400, ""), "planned"),
        ("uploads/0?", Fault::Status(413, ""), "planned"),
        ("manifests/", Fault::Status(400, ""), "planned"),
    ] {
        let registry = Faulty::start();
        registry.always(place, fault.clone());
        let home = user();
        let name = format!("127.0.0.1:{}/team/app:1", registry.port);
        import(&home, &name, "file", b"content");
        let done = home.run(&["push", "-q", &name]);
        assert_eq!(done.code, 1, "{fault:?}");
        one_line(&name, place, &done.stderr, cause);
    }
}
