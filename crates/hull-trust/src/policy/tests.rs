use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_oci::Digest;

use super::*;
use crate::evidence::{Evidence, Subject};
use crate::key::SigningKey;

fn policy(text: &str) -> Policy {
    Policy::parse(text.as_bytes(), "policy.json").unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

const ACCEPT: &str = r#"{"type":"insecureAcceptAnything"}"#;
const REJECT: &str = r#"{"type":"reject"}"#;

#[test]
fn the_most_specific_scope_applies() {
    let scope = |name: &str| format!(r#""{name}":[{REJECT}]"#);
    let digest = Digest::of(b"x");
    let order = [
        format!("r.sub.example:5000/team/app@{digest}"),
        "r.sub.example:5000/team/app".to_owned(),
        "r.sub.example:5000/team".to_owned(),
        "r.sub.example:5000".to_owned(),
        "*.sub.example".to_owned(),
        "*.example".to_owned(),
        String::new(),
    ];
    for first in 0..order.len() {
        let scopes: Vec<String> = order[first..].iter().map(|name| scope(name)).collect();
        let text = format!(r#"{{"default":[{ACCEPT}],"transports":{{"docker":{{{}}}}}}}"#, scopes.join(","));
        let policy = policy(&text);
        let rule = policy.rule(&reference(&order[0]));
        assert_eq!(rule.scope.as_deref(), Some(order[first].as_str()));
        assert!(rule.to_string().contains("policy.json"), "{rule}");
    }
    let policy = policy(&format!(
        r#"{{"default":[{ACCEPT}],"transports":{{"docker":{{{},{}}},"docker-daemon":{{"":[{REJECT}]}},"atomic":{{}}}}}}"#,
        scope("docker.io/library/app:1"),
        scope("r.example/ap")
    ));
    assert_eq!(policy.rule(&reference("app:1")).scope.as_deref(), Some("docker.io/library/app:1"));
    for other in ["app:2", "r.example/app:1", "example/x"] {
        assert_eq!(policy.rule(&reference(other)).scope, None, "{other}");
    }
}

#[test]
fn what_is_not_known_missing_or_twice_there_is_refused() {
    let signed = |more: &str| format!(r#"{{"default":[{{"type":"sigstoreSigned"{more}}}]}}"#);
    for (text, expected) in [
        (String::new(), "EOF"),
        ("[]".to_owned(), "length 0"),
        ("{}".to_owned(), "no `default`"),
        (r#"{"default":[]}"#.to_owned(), "default: it has no requirement"),
        (format!(r#"{{"default":[{ACCEPT}],"default":[{REJECT}]}}"#), "duplicate field `default`"),
        (format!(r#"{{"default":[{ACCEPT}],"defaults":[]}}"#), "unknown field `defaults`"),
        (format!(r#"{{"default":[{ACCEPT}]}} x"#), "trailing"),
        (
            format!(r#"{{"default":[{ACCEPT}],"transports":{{"docker":{{"a":[{ACCEPT}],"a":[{REJECT}]}}}}}}"#),
            "duplicate field `a`",
        ),
        (
            format!(r#"{{"default":[{ACCEPT}],"transports":{{"docker":{{}},"docker":{{}}}}}}"#),
            "duplicate field `docker`",
        ),
        (
            format!(r#"{{"default":[{ACCEPT}],"transports":{{"dir":{{"":[]}}}}}}"#),
            "transports.dir[\"\"]: it has no requirement",
        ),
        (r#"{"default":[{"type":"accept"}]}"#.to_owned(), "default[0]: unknown type \"accept\""),
        (r#"{"default":[{"type":"reject","type":"reject"}]}"#.to_owned(), "duplicate field `type`"),
        (r#"{"default":[{"type":"reject","keyPath":"/k"}]}"#.to_owned(), "reject has no field `keyPath`"),
        (r#"{"default":[{}]}"#.to_owned(), "missing field `type`"),
        (r#"{"default":[{"type":"signedBy","keyPath":"/k"}]}"#.to_owned(), "GPGKeys"),
        (
            r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyDatas":["aa"]}]}"#.to_owned(),
            "no field `keyDatas`",
        ),
        (signed(""), "it needs one of keyPath, keyPaths"),
        (signed(r#","keyPath":"/a","keyPath":"/b""#), "duplicate field `keyPath`"),
        (signed(r#","keyPath":"/a","keyData":"aa""#), "both `keyPath` and `keyData`"),
        (signed(r#","keyPath":"/a","keyType":"GPGKeys""#), "no field `keyType`"),
        (signed(r#","keyPath":"/a","fulcio":{}"#), "both `keyPath` and `fulcio`"),
        (signed(r#","keyData":"%""#), "not base64"),
        (signed(r#","keyPaths":[]"#), "empty"),
        (signed(r#","keyPath":"/a","KeyPath":"/b""#), "unknown field `KeyPath`"),
        (signed(r#","keyPath":"/a","signedIdentity":{"type":"matchAny"}"#), "unknown type \"matchAny\""),
        (signed(r#","keyPath":"/a","signedIdentity":{"type":"matchExact","prefix":"x"}"#), "no field `prefix`"),
        (signed(r#","keyPath":"/a","signedIdentity":{"type":"exactReference"}"#), "needs `dockerReference`"),
        (
            signed(r#","keyPath":"/a","signedIdentity":{"type":"exactReference","dockerReference":"a/b"}"#),
            "neither tag nor digest",
        ),
        (signed(r#","keyPath":"/a","signedIdentity":{"type":"remapIdentity","prefix":"a/"}"#), "needs `signedPrefix`"),
    ] {
        let error = Policy::parse(text.as_bytes(), "policy.json").map(drop).expect_err(&text).to_string();
        assert!(error.starts_with("policy policy.json: ") && error.contains(expected), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn what_cannot_be_checked_is_read_and_refuses() {
    let image = reference("r.example/app:1");
    for (requirement, expected) in [
        (r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","signedIdentity":{"type":"matchExact"}}"#, "GPG"),
        (r#"{"type":"sigstoreSigned","fulcio":{"caPath":"/ca"},"rekorPublicKeyPath":"/r"}"#, "certificate"),
        (r#"{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyData":"aa"}"#, "transparency log"),
        (REJECT, "no image"),
    ] {
        let policy = policy(&format!(r#"{{"default":[{ACCEPT},{requirement}]}}"#));
        let rule = policy.rule(&image);
        assert!(!rule.wants_signatures(), "{requirement}");
        let refused = rule.decide(&image, &[], &[]).expect_err("refused").to_string();
        assert!(refused.starts_with("image r.example/app:1 is refused by default of policy.json: "), "{refused}");
        assert!(refused.contains(expected), "{refused}");
    }
    let policy = policy(&format!(r#"{{"default":[{ACCEPT}]}}"#));
    assert_eq!(policy.rule(&image).decide(&image, &[], &[]), Ok(Vec::new()));
}

fn key() -> SigningKey {
    let random = ring::rand::SystemRandom::new();
    let made = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).expect("key");
    let text = crate::pem::encode("PRIVATE KEY", made.as_ref());
    SigningKey::from_pem(text.as_bytes(), "made", || None).expect("key")
}

fn data(key: &SigningKey) -> String {
    STANDARD.encode(key.public().to_pem())
}

#[test]
fn one_of_the_keys_must_have_signed_this_digest_under_this_name() {
    let (ours, theirs) = (key(), key());
    let image = reference("r.example/app:1");
    let (digest, other) = (Digest::of(b"image"), Digest::of(b"other"));
    let subjects = [Subject { digest: &digest, bytes: None }];
    let rule = |requirements: &str| policy(&format!(r#"{{"default":[{requirements}]}}"#));
    let by = |key: &SigningKey| format!(r#"{{"type":"sigstoreSigned","keyData":"{}"}}"#, data(key));
    let sign =
        |key: &SigningKey, name: &str, digest: &Digest| Evidence::sign(key, &reference(name), digest).expect("sign");
    let one = rule(&by(&ours));
    let decide = |evidence: &[Evidence]| one.rule(&image).decide(&image, &subjects, evidence);
    let reason = |evidence: &[Evidence]| decide(evidence).expect_err("refused").reason;
    assert!(one.rule(&image).wants_signatures());
    assert_eq!(reason(&[]), "it needs a signature by keyData, and has none");
    assert!(reason(&[sign(&theirs, "r.example/app:1", &digest)]).contains("another key"));
    assert!(reason(&[sign(&ours, "r.example/app:1", &other)]).contains(&other.to_string()));
    let named = reason(&[sign(&ours, "r.example/app:2", &digest)]);
    assert!(named.contains("\"r.example/app:2\", expected r.example/app:1"), "{named}");
    // One good signature among others is enough.
    let good = [
        sign(&theirs, "r.example/app:1", &digest),
        sign(&ours, "r.example/app:2", &digest),
        sign(&ours, "r.example/app:1", &digest),
    ];
    assert_eq!(decide(&good).expect("allowed")[0].name.as_deref(), Some("r.example/app:1"));
    // A bundle says no name.
    let bundle = Evidence::sign_bundle(&ours, &digest).expect("sign");
    assert!(reason(std::slice::from_ref(&bundle)).contains("signedIdentity"));
    signed_by(&[ours.public().clone()], &image, &subjects, &[bundle]).expect("a key alone does not ask for the name");
    // All requirements must be met.
    let both = rule(&format!("{},{}", by(&ours), by(&theirs)));
    let refused = both.rule(&image).decide(&image, &subjects, &good[2..]).expect_err("refused");
    assert!(refused.reason.contains("another key"), "{refused}");
    assert_eq!(both.rule(&image).decide(&image, &subjects, &good).expect("allowed").len(), 2);
    let either = format!(r#"{{"type":"sigstoreSigned","keyDatas":["{}","{}"]}}"#, data(&theirs), data(&ours));
    rule(&either).rule(&image).decide(&image, &subjects, &good[2..]).expect("allowed");
    let missing = rule(r#"{"type":"sigstoreSigned","keyPath":"/nonexistent/k.pub"}"#);
    let refused = missing.rule(&image).decide(&image, &subjects, &good).expect_err("refused");
    assert!(refused.reason.contains("/nonexistent/k.pub"), "{refused}");
}

#[test]
fn one_rule_that_asks_for_something_is_enough() {
    let accept = format!(r#"{{"default":[{ACCEPT}]}}"#);
    assert!(policy(&accept).accepts_anything());
    let elsewhere =
        format!(r#"{{"default":[{ACCEPT}],"transports":{{"docker":{{"a.example":[{{"type":"reject"}}]}}}}}}"#);
    assert!(!policy(&elsewhere).accepts_anything());
    assert!(!policy(r#"{"default":[{"type":"reject"}]}"#).accepts_anything());
}

#[test]
fn names_of_signatures() {
    let digest = Digest::of(b"image");
    let at = format!("r.example/team/app@{digest}");
    let accepts = |identity: &str, asked: &str, signed: &str| {
        let text = format!(r#"{{"default":[{{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{identity}}}]}}"#);
        let policy = policy(&text);
        let asked = reference(asked);
        match policy.rule(&asked).requirements {
            [Requirement::Signed { identity, .. }] => identity.accepts(&asked, signed),
            other => panic!("{other:?}"),
        }
    };
    let (app, tagged) = ("r.example/team/app", "r.example/team/app:1");
    for (identity, asked, signed, expected) in [
        (r#"{"type":"matchExact"}"#, tagged, tagged, true),
        (r#"{"type":"matchExact"}"#, at.as_str(), tagged, false),
        (r#"{"type":"matchExact"}"#, tagged, app, false),
        (r#"{"type":"matchRepoDigestOrExact"}"#, tagged, tagged, true),
        (r#"{"type":"matchRepoDigestOrExact"}"#, tagged, "r.example/team/app:2", false),
        (r#"{"type":"matchRepoDigestOrExact"}"#, &at, tagged, true),
        (r#"{"type":"matchRepoDigestOrExact"}"#, &at, app, false),
        (r#"{"type":"matchRepoDigestOrExact"}"#, tagged, "", false),
        (r#"{"type":"matchRepository"}"#, tagged, app, true),
        (r#"{"type":"matchRepository"}"#, tagged, "r.example/team/app:2", true),
        (r#"{"type":"matchRepository"}"#, tagged, "r.example/team/apps", false),
        (r#"{"type":"matchRepository"}"#, "busybox:1", "index.docker.io/library/busybox", true),
        (r#"{"type":"exactReference","dockerReference":"o.example/a:1"}"#, tagged, "o.example/a:1", true),
        (r#"{"type":"exactReference","dockerReference":"o.example/a:1"}"#, tagged, tagged, false),
        (r#"{"type":"exactRepository","dockerRepository":"o.example/a"}"#, tagged, "o.example/a:9", true),
        (r#"{"type":"exactRepository","dockerRepository":"o.example/a"}"#, tagged, tagged, false),
        (
            r#"{"type":"remapIdentity","prefix":"r.example","signedPrefix":"up.example/x"}"#,
            tagged,
            "up.example/x/team/app:1",
            true,
        ),
        (r#"{"type":"remapIdentity","prefix":"r.example","signedPrefix":"up.example/x"}"#, tagged, tagged, false),
        (
            r#"{"type":"remapIdentity","prefix":"r.example/team/app","signedPrefix":"up.example/x"}"#,
            tagged,
            "up.example/x:1",
            true,
        ),
        (r#"{"type":"remapIdentity","prefix":"r.example/te","signedPrefix":"up.example/x"}"#, tagged, tagged, true),
        (
            r#"{"type":"remapIdentity","prefix":"r.example","signedPrefix":"up.example"}"#,
            "r.example:5000/a:1",
            "r.example:5000/a:1",
            true,
        ),
    ] {
        assert_eq!(accepts(identity, asked, signed), expected, "{identity} {asked} {signed}");
    }
}

#[test]
fn a_policy_that_was_named_must_be_there() {
    let error = Policy::load(Some(Path::new("/nonexistent/policy.json"))).expect_err("missing").to_string();
    assert!(error.contains("/nonexistent/policy.json"), "{error}");
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("policy.json");
    std::fs::write(&path, format!(r#"{{"default":[{REJECT}]}}"#)).expect("write");
    assert!(Policy::load(Some(&path)).expect("policy").is_some());
    std::fs::write(&path, vec![b' '; 2 << 20]).expect("write");
    assert!(Policy::read(&path).expect_err("too long").to_string().contains("more than"));
}
