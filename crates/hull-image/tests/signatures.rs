//! Pulling with keys and policies: what is refused is refused before a byte of it is kept.

use std::path::PathBuf;
use std::sync::Arc;

use hull_image::Store;
use hull_image::registry::{PullOptions, Pulled, Silent, Verification, pull, verify};
use hull_oci::image::{Descriptor, Platform, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::Client;
use hull_registry::credentials::Credentials;
use hull_registry::hosts::Sources;
use hull_testkit::registry::{Fault, Faulty};
use hull_trust::evidence::{BUNDLE, PAYLOAD, SIGNATURE};
use hull_trust::{Evidence, PublicKey, SigningKey};
use serde_json::json;

const ARTIFACT: &str = "application/octet-stream";

fn key() -> SigningKey {
    let text = include_bytes!("../../hull-trust/tests/data/p256.key");
    SigningKey::from_pem(text, "p256.key", || Some(b"tide".to_vec())).expect("key")
}

fn another() -> PublicKey {
    PublicKey::from_pem(include_bytes!("../../hull-trust/tests/data/ed.pub"), "ed.pub").expect("key")
}

struct Machine {
    directory: tempfile::TempDir,
    store: Store,
    client: Arc<Client>,
    registry: Faulty,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::new(&directory.path().join("data"));
        store.set_budget(hull_image::Budget::Unlimited).expect("budget");
        let none = PathBuf::from("/nonexistent");
        let sources = Sources {
            containerd: vec![none.clone()],
            containers: vec![none.clone()],
            daemon: none.clone(),
            certificates: vec![],
            ..Sources::default()
        };
        let http = hull_http::Client::new("hull-test/1", hull_http::proxy::Proxies::default());
        let client = Client::new(http, Credentials::file(none), sources);
        Self { directory, store, client, registry: Faulty::start() }
    }

    fn name(&self) -> Reference {
        format!("127.0.0.1:{}/app:1", self.registry.port).parse().expect("name")
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(kind, bytes);
        self.registry.put(&format!("/v2/app/blobs/{}", descriptor.digest), ARTIFACT, bytes);
        descriptor
    }

    fn document(&self, kind: &str, tag: Option<&str>, value: &serde_json::Value) -> Descriptor {
        let bytes = value.to_string().into_bytes();
        let descriptor = Descriptor::of(kind, &bytes);
        for name in [Some(descriptor.digest.to_string()), tag.map(str::to_owned)].into_iter().flatten() {
            self.registry.put(&format!("/v2/app/manifests/{name}"), kind, &bytes);
        }
        descriptor
    }

    /// An image of one empty layer, below an index if asked for: what the tag leads to, and the manifest.
    fn serve(&self, index: bool) -> (Digest, Digest) {
        let tar = tar::Builder::new(Vec::new()).into_inner().expect("tar");
        let layer = self.blob(media_type::LAYER, &tar);
        let platform = Platform::native();
        let config = json!({"architecture": platform.architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]}});
        let config = self.blob(media_type::CONFIG, config.to_string().as_bytes());
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": [layer]});
        let mut manifest = self.document(media_type::MANIFEST, (!index).then_some("1"), &manifest);
        let digest = manifest.digest.clone();
        if !index {
            return (digest.clone(), digest);
        }
        manifest.platform = Some(platform);
        let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [manifest]});
        (self.document(media_type::INDEX, Some("1"), &index).digest, digest)
    }

    /// Puts signatures under the tag for them.
    fn payloads(&self, digest: &Digest, evidence: &[Evidence]) {
        let layer = |one: &Evidence| {
            let Evidence::Payload { payload, signature } = one else { panic!("a payload") };
            let mut layer = self.blob(PAYLOAD, payload);
            layer.annotations.insert(SIGNATURE.to_owned(), signature.clone());
            layer
        };
        let layers: Vec<Descriptor> = evidence.iter().map(layer).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST,
            "config": self.blob(media_type::CONFIG, b"{}"), "layers": layers});
        self.document(media_type::MANIFEST, Some(&format!("sha256-{}.sig", digest.hex())), &manifest);
    }

    fn sign(&self, name: &str, digest: &Digest) -> Evidence {
        Evidence::sign(&key(), &name.parse().expect("name"), digest).expect("sign")
    }

    fn pull(&self, verification: Verification) -> Result<Pulled, String> {
        let options = PullOptions { verification, ..PullOptions::default() };
        pull(&self.store, &self.client, &self.name(), &options, &Silent).map_err(|error| error.to_string())
    }

    /// Asked for by this key, whatever the machine's policy is.
    fn by(&self, key: &PublicKey) -> Verification {
        Verification { keys: vec![key.clone()], policy: Some(self.policy(r#"[{"type":"insecureAcceptAnything"}]"#)) }
    }

    fn policy(&self, requirements: &str) -> PathBuf {
        let path = self.directory.path().join("policy.json");
        let text = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"127.0.0.1:{}/app":{requirements}}}}}}}"#,
            self.registry.port
        );
        std::fs::write(&path, text).expect("write");
        path
    }

    fn signed_policy(&self, more: &str) -> Verification {
        let path = self.directory.path().join("key.pub");
        std::fs::write(&path, key().public().to_pem()).expect("write");
        let text = format!(r#"[{{"type":"sigstoreSigned","keyPath":"{}"{more}}}]"#, path.display());
        Verification { keys: Vec::new(), policy: Some(self.policy(&text)) }
    }

    /// Refused in one line with these words, without a layer or configuration having been asked for.
    #[track_caller]
    fn refused(&self, verification: Verification, expected: &[&str]) {
        let error = self.pull(verification).map(drop).expect_err("refused");
        assert_eq!(error.lines().count(), 1, "{error}");
        for word in expected {
            assert!(error.contains(word), "{error}: expected {word}");
        }
        assert!(self.store.list().expect("list").is_empty());
        for directory in ["blobs/sha256", "partial", "ingest"] {
            let left = std::fs::read_dir(self.directory.path().join("data").join(directory));
            assert_eq!(left.map_or(0, Iterator::count), 0, "{directory}");
        }
    }
}

#[test]
fn an_image_without_the_signature_is_refused_before_anything_is_kept() {
    let machine = Machine::new();
    let (digest, _) = machine.serve(false);
    let ours = key().public().clone();
    machine.refused(machine.by(&ours), &["p256.key", "has none", "/app:1"]);
    let asked = machine.registry.seen();
    assert!(asked.iter().any(|seen| seen.line.contains(&format!("sha256-{}.sig", digest.hex()))), "{asked:?}");
    assert!(asked.iter().any(|seen| seen.line.contains("/referrers/")), "{asked:?}");
    assert!(!asked.iter().any(|seen| seen.line.contains("/blobs/")), "{asked:?}");
    machine.payloads(&digest, &[machine.sign("r.example/app:1", &Digest::of(b"another"))]);
    machine.refused(machine.by(&ours), &[&Digest::of(b"another").to_string()]);
    machine.payloads(&digest, &[machine.sign("r.example/app:1", &digest)]);
    machine.refused(machine.by(&another()), &["ed.pub", "another key"]);
    let pulled = machine.pull(machine.by(&ours)).expect("signed");
    assert_eq!(pulled.digest, digest);
}

#[test]
fn a_signature_of_the_index_is_one_of_its_manifests() {
    for sign_index in [true, false] {
        let machine = Machine::new();
        let (index, manifest) = machine.serve(true);
        let signed = if sign_index { &index } else { &manifest };
        machine.payloads(signed, &[machine.sign("r.example/app:1", signed)]);
        assert_eq!(machine.pull(machine.by(key().public())).expect("signed").digest, index);
    }
}

#[test]
fn bundles_are_found_among_the_referrers() {
    let machine = Machine::new();
    let (digest, _) = machine.serve(false);
    let Evidence::Bundle(bundle) = Evidence::sign_bundle(&key(), &digest).expect("sign") else { panic!("a bundle") };
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "artifactType": BUNDLE,
        "config": machine.blob(media_type::EMPTY, b"{}"), "layers": [machine.blob(BUNDLE, &bundle)]});
    let referrer = machine.document(media_type::MANIFEST, None, &manifest);
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [referrer]});
    machine.registry.put(&format!("/v2/app/referrers/{digest}"), media_type::INDEX, index.to_string().as_bytes());
    machine.refused(machine.signed_policy(""), &["signedIdentity"]);
    machine.pull(machine.by(key().public())).expect("signed");
}

#[test]
fn what_cannot_be_asked_or_is_too_much_refuses() {
    let machine = Machine::new();
    let (digest, _) = machine.serve(false);
    let good = machine.sign("r.example/app:1", &digest);
    let ours = key().public().clone();
    machine.payloads(&digest, &vec![good.clone(); 65]);
    machine.refused(machine.by(&ours), &["more than 64 signatures"]);
    let long = Evidence::Payload { payload: vec![b' '; (1 << 20) + 1], signature: String::new() };
    machine.payloads(&digest, &[long, good.clone()]);
    machine.refused(machine.by(&ours), &["1048577 bytes"]);
    machine.payloads(&digest, &[good]);
    machine.registry.fail(".sig", Fault::Status(403, ""));
    machine.refused(machine.by(&ours), &["denied"]);
    machine.registry.fail(".sig", Fault::Flip);
    machine.refused(machine.by(&ours), &[".sig"]);
    machine.pull(machine.by(&ours)).expect("signed");
}

#[test]
fn a_policy_decides_by_name_and_key() {
    let machine = Machine::new();
    let (digest, _) = machine.serve(false);
    let name = machine.name();
    let reject = || Verification { keys: Vec::new(), policy: Some(machine.policy(r#"[{"type":"reject"}]"#)) };
    machine.refused(reject(), &["policy.json", "no image", "transports.docker"]);
    let asked = machine.registry.seen();
    assert!(!asked.iter().any(|seen| seen.line.contains(".sig")), "nothing to look for: {asked:?}");
    machine.refused(machine.signed_policy(""), &["key.pub", "has none"]);
    machine.payloads(&digest, &[machine.sign("127.0.0.1:1/other:1", &digest)]);
    machine.refused(machine.signed_policy(""), &["127.0.0.1:1/other:1", &format!("expected {name}")]);
    machine
        .pull(
            machine.signed_policy(
                r#","signedIdentity":{"type":"exactRepository","dockerRepository":"127.0.0.1:1/other"}"#,
            ),
        )
        .expect("another name");
    // The signatures came along: asking again asks nobody, and a stricter policy is noticed.
    let _ = machine.registry.seen();
    let ask = |verification: &Verification| verify(&machine.store, &machine.client, &name, verification);
    let verdict = ask(&machine.by(key().public())).expect("signed");
    assert_eq!((verdict.digest, verdict.accepted.len()), (digest.clone(), 1));
    assert!(machine.registry.seen().is_empty());
    assert!(ask(&machine.signed_policy("")).is_err());
    // One that was made since is found and kept.
    machine.payloads(&digest, &[machine.sign(&name.to_string(), &digest)]);
    assert!(ask(&machine.signed_policy("")).expect("signed").rule.expect("rule").contains("policy.json"));
    let _ = machine.registry.seen();
    ask(&machine.signed_policy("")).expect("kept");
    assert!(machine.registry.seen().is_empty());
}

#[test]
fn a_malformed_or_missing_policy_lets_nothing_in() {
    let machine = Machine::new();
    machine.serve(false);
    machine.refused(Verification { keys: Vec::new(), policy: Some(machine.policy("[]")) }, &["no requirement"]);
    let missing = Verification { keys: Vec::new(), policy: Some("/nonexistent/policy.json".into()) };
    machine.refused(missing, &["/nonexistent/policy.json"]);
}
