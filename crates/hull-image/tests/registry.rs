//! Pull and push: against Debian's registry, and against one that fails as planned.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hull_image::registry::{Event, Progress, PullOptions, PushOptions, Silent, pull, pull_all, push, push_platforms};
use hull_image::{Image, Store};
use hull_oci::image::{Descriptor, Platform, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::Client;
use hull_registry::credentials::Credentials;
use hull_registry::hosts::Sources;
use hull_testkit::registry::{Fault, Faulty, Peer};

fn client() -> Arc<Client> {
    let none = PathBuf::from("/nonexistent");
    let sources = Sources {
        containerd: vec![none.clone()],
        containers: vec![none.clone()],
        daemon: none.clone(),
        certificates: vec![],
        ..Sources::default()
    };
    let http = hull_http::Client::new("hull-test/1", hull_http::proxy::Proxies::default());
    Client::new(http, Credentials::file(none), sources)
}

struct Machine {
    directory: tempfile::TempDir,
    store: Store,
    client: Arc<Client>,
}

fn machine() -> Machine {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::new(&directory.path().join("data"));
    // However full the machine's own disk is.
    store.set_budget(hull_image::Budget::Unlimited).expect("budget");
    Machine { directory, store, client: client() }
}

impl Machine {
    fn pull(&self, name: &str) -> Result<hull_image::registry::Pulled, hull_image::Error> {
        let reference: Reference = name.parse().expect("reference");
        pull(&self.store, &self.client, &reference, &PullOptions::default(), &Silent)
    }

    fn partials(&self) -> Vec<(String, u64)> {
        let Ok(entries) = std::fs::read_dir(self.directory.path().join("data/partial")) else { return Vec::new() };
        let one = |entry: std::fs::DirEntry| {
            (entry.file_name().to_string_lossy().into_owned(), entry.metadata().expect("metadata").len())
        };
        entries.flatten().map(one).collect()
    }

    /// Nothing is damaged, and nothing is left that a command works with.
    fn assert_sound(&self) {
        self.store.repair().expect("repair");
        let problems = self.store.check(false).expect("check");
        assert!(problems.is_empty(), "{problems:?}");
        for directory in ["ingest", "trash"] {
            let left = std::fs::read_dir(self.directory.path().join("data").join(directory)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{directory}");
        }
    }
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).expect("append");
    builder.into_inner().expect("finish")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("write");
    encoder.finish().expect("finish")
}

/// Bytes that do not compress.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

struct Made {
    layers: Vec<Vec<u8>>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

fn image(contents: &[(&str, Vec<u8>)]) -> Made {
    image_for(&Platform::native().architecture, contents)
}

fn image_for(architecture: &str, contents: &[(&str, Vec<u8>)]) -> Made {
    let tars: Vec<Vec<u8>> = contents.iter().map(|(name, content)| tar(name, content)).collect();
    let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"], "Labels": {"made": "by test"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "unknown": "kept"
    });
    let config = config.to_string().into_bytes();
    let blobs: Vec<Descriptor> = layers.iter().map(|layer| Descriptor::of(media_type::LAYER_GZIP, layer)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST,
        "config": Descriptor::of(media_type::CONFIG, &config), "layers": blobs
    });
    Made { layers, config, manifest: manifest.to_string().into_bytes() }
}

impl Made {
    fn serve(&self, registry: &Faulty, repository: &str, tag: &str) {
        let blob = |bytes: &[u8]| format!("/v2/{repository}/blobs/{}", Digest::of(bytes));
        for layer in &self.layers {
            registry.put(&blob(layer), "application/octet-stream", layer);
        }
        registry.put(&blob(&self.config), "application/octet-stream", &self.config);
        for reference in [tag.to_owned(), Digest::of(&self.manifest).to_string()] {
            registry.put(&format!("/v2/{repository}/manifests/{reference}"), media_type::MANIFEST, &self.manifest);
        }
    }
}

fn content(machine: &Machine, image: &Image, layer: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut tar = machine.store.layer_tar(&image.layers[layer]).expect("layer");
    std::io::Read::read_to_end(&mut tar, &mut bytes).expect("read");
    bytes
}

#[test]
fn there_and_back_without_a_changed_byte() {
    let Some(peer) = Peer::start("") else { return };
    let registry = Faulty::start();
    let made = image(&[("a", b"first".to_vec()), ("b", noise(3 << 20, 7))]);
    made.serve(&registry, "team/app", "1");
    let one = machine();
    let pulled = one.pull(&format!("127.0.0.1:{}/team/app:1", registry.port)).expect("pulled");
    assert!(pulled.is_newer);
    assert_eq!(pulled.digest, Digest::of(&made.manifest));
    assert_eq!(pulled.image.id, Digest::of(&made.config));
    assert_eq!(content(&one, &pulled.image, 0), tar("a", b"first"));
    let again = one.pull(&format!("127.0.0.1:{}/team/app:1", registry.port)).expect("pulled");
    assert!(!again.is_newer);

    let target: Reference = format!("127.0.0.1:{}/copy/app:2", peer.port).parse().expect("reference");
    let pushed =
        push(&one.store, &one.client, &pulled.image, &target, &PushOptions::default(), &Silent).expect("pushed");
    assert_eq!(pushed.digest, pulled.digest);
    let two = machine();
    let back = two.pull(&target.to_string()).expect("pulled");
    assert_eq!((&back.digest, &back.image.id), (&pulled.digest, &pulled.image.id));
    assert_eq!(two.store.manifest_bytes(&back.image.id).expect("read").as_deref(), Some(made.manifest.as_slice()));
    assert_eq!(two.store.config_bytes(&back.image.id).expect("read"), made.config);
    assert_eq!(content(&two, &back.image, 1), content(&one, &pulled.image, 1));
    one.assert_sound();
    two.assert_sound();
}

#[test]
fn only_what_is_missing_moves() {
    let registry = Faulty::start();
    let base = ("base", noise(1 << 20, 1));
    image(&[base.clone(), ("a", b"a".to_vec())]).serve(&registry, "one", "latest");
    let second = image(&[base, ("b", b"b".to_vec())]);
    second.serve(&registry, "two", "latest");
    let machine = machine();
    machine.pull(&format!("127.0.0.1:{}/one", registry.port)).expect("pulled");
    drop(registry.seen());
    machine.pull(&format!("127.0.0.1:{}/two", registry.port)).expect("pulled");
    let blobs: Vec<String> =
        registry.seen().into_iter().map(|seen| seen.line).filter(|line| line.contains("/blobs/")).collect();
    let new = format!("GET /v2/two/blobs/{}", Digest::of(&second.layers[1]));
    let config = format!("GET /v2/two/blobs/{}", Digest::of(&second.config));
    assert_eq!(blobs.len(), 2, "{blobs:?}");
    assert!(blobs.contains(&new) && blobs.contains(&config), "{blobs:?}");
}

#[test]
fn an_imported_image_is_compressed_once_and_the_same_everywhere() {
    let Some(peer) = Peer::start("") else { return };
    let mut digests = Vec::new();
    for repository in ["one", "two"] {
        let machine = machine();
        let transfer = machine.store.begin().expect("begin");
        let layer = transfer.layer(tar("a", &noise(100_000, 3)).as_slice(), Default::default()).expect("layer");
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            layer.diff_id
        );
        let image = transfer.image(config.as_bytes(), None, &[]).expect("image");
        drop(transfer);
        for tag in ["1", "2"] {
            let target: Reference = format!("127.0.0.1:{}/{repository}:{tag}", peer.port).parse().expect("reference");
            let image = machine.store.get(&image.id).expect("image");
            let pushed = push(&machine.store, &machine.client, &image, &target, &PushOptions::default(), &Silent);
            digests.push(pushed.expect("pushed").digest);
        }
        machine.assert_sound();
        let back = machine_pull(&format!("127.0.0.1:{}/{repository}:1", peer.port));
        assert_eq!(back, image.id);
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

fn machine_pull(name: &str) -> Digest {
    machine().pull(name).expect("pulled").image.id
}

#[test]
fn faults_that_pass() {
    let made = image(&[("a", noise(900_000, 5))]);
    let blob = Digest::of(&made.layers[0]).to_string();
    for faults in [
        vec![("manifests/1", Fault::Status(503, ""))],
        vec![("manifests/1", Fault::Status(429, "Retry-After: 0\r\n")), ("manifests/1", Fault::Status(500, ""))],
        vec![("manifests/1", Fault::Hangup)],
        vec![("manifests/1", Fault::Drip)],
        vec![(blob.as_str(), Fault::Hangup), (blob.as_str(), Fault::Cut(0)), (blob.as_str(), Fault::Cut(1000))],
        vec![(blob.as_str(), Fault::Cut(500_000)), (blob.as_str(), Fault::NoRange)],
        vec![(blob.as_str(), Fault::Cut(500_000)), (blob.as_str(), Fault::Cut(100_000)), (blob.as_str(), Fault::Drip)],
        vec![(blob.as_str(), Fault::Redirect)],
    ] {
        let registry = Faulty::start();
        made.serve(&registry, "team/app", "1");
        for (text, fault) in &faults {
            registry.fail(text, fault.clone());
        }
        let machine = machine();
        let pulled = machine.pull(&format!("127.0.0.1:{}/team/app:1", registry.port));
        let pulled = pulled.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        assert_eq!(content(&machine, &pulled.image, 0).len(), tar("a", &noise(900_000, 5)).len(), "{faults:?}");
        assert_eq!(registry.left(), 0, "{faults:?}");
        assert!(machine.partials().is_empty(), "{faults:?}: {:?}", machine.partials());
        machine.assert_sound();
    }
}

#[test]
fn what_came_is_kept_and_continued() {
    let made = image(&[("a", noise(900_000, 9))]);
    let blob = Digest::of(&made.layers[0]).to_string();
    let registry = Faulty::start();
    made.serve(&registry, "team/app", "1");
    registry.fail(&blob, Fault::Cut(600_000));
    for _ in 0..20 {
        registry.fail(&blob, Fault::Hangup);
    }
    let machine = machine();
    let name = format!("127.0.0.1:{}/team/app:1", registry.port);
    let error = machine.pull(&name).expect_err("cut off").to_string();
    assert!(error.contains("600000 of") && !error.contains('\n'), "{error}");
    assert_eq!(machine.partials().iter().map(|(_, length)| *length).collect::<Vec<_>>(), [600_000]);
    machine.assert_sound();
    assert!(machine.store.list().expect("list").is_empty());
    // A new command, the registry back in order.
    let registry = Faulty::start();
    made.serve(&registry, "team/app", "1");
    let pulled = machine.pull(&format!("127.0.0.1:{}/team/app:1", registry.port)).expect("pulled");
    let seen = registry.seen();
    let ranges: Vec<_> =
        seen.iter().filter(|seen| seen.line.contains(&blob)).map(|seen| seen.header("range")).collect();
    assert_eq!(ranges, [Some("bytes=600000-")]);
    assert_eq!(content(&machine, &pulled.image, 0), tar("a", &noise(900_000, 9)));
    assert!(machine.partials().is_empty());
}

#[test]
fn wrong_content_is_refused_and_not_kept() {
    let made = image(&[("a", noise(300_000, 11))]);
    let blob = Digest::of(&made.layers[0]).to_string();
    let config = Digest::of(&made.config).to_string();
    let manifest = Digest::of(&made.manifest).to_string();
    for (place, expected) in [(&blob, &blob), (&config, &config)] {
        let registry = Faulty::start();
        made.serve(&registry, "team/app", "1");
        registry.fail(place, Fault::Flip);
        let machine = machine();
        let name = format!("127.0.0.1:{}/team/app:1", registry.port);
        let error = machine.pull(&name).expect_err("refused").to_string();
        assert!(error.contains(expected.as_str()) && !error.contains('\n'), "{error}");
        assert!(machine.partials().is_empty(), "{:?}", machine.partials());
        assert!(machine.store.list().expect("list").is_empty());
        machine.assert_sound();
        machine.pull(&name).expect("the next attempt");
    }
    let registry = Faulty::start();
    made.serve(&registry, "team/app", "1");
    registry.fail("manifests", Fault::Flip);
    let error = machine().pull(&format!("127.0.0.1:{}/team/app@{manifest}", registry.port)).expect_err("refused");
    assert!(error.to_string().contains("its digest is"), "{error}");
}

#[test]
fn a_credential_stays_with_its_host() {
    let registry = Faulty::start();
    let made = image(&[("a", b"a".to_vec())]);
    made.serve(&registry, "team/app", "1");
    registry.fail("manifests/1", Fault::Status(401, "WWW-Authenticate: Basic realm=\"r\"\r\n"));
    registry.fail(&Digest::of(&made.layers[0]).to_string(), Fault::Redirect);
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("config.json");
    let host = format!("127.0.0.1:{}", registry.port);
    std::fs::write(&file, format!(r#"{{"auths":{{"{host}":{{"username":"u","password":"p"}}}}}}"#)).expect("write");
    let none = PathBuf::from("/nonexistent");
    let sources =
        Sources { containerd: vec![], containers: vec![], daemon: none, certificates: vec![], ..Sources::default() };
    let http = hull_http::Client::new("hull-test/1", hull_http::proxy::Proxies::default());
    let client = Client::new(http, Credentials::file(file), sources);
    let machine = machine();
    let reference: Reference = format!("{host}/team/app:1").parse().expect("reference");
    pull(&machine.store, &client, &reference, &PullOptions::default(), &Silent).expect("pulled");
    let (mut sent, mut foreign) = (0, 0);
    for seen in registry.seen() {
        let authorization = seen.header("authorization");
        match seen.header("host").unwrap_or_default() {
            own if own == host => sent += usize::from(authorization == Some("Basic dTpw")),
            _ => {
                foreign += 1;
                assert_eq!(authorization, None, "{}", seen.line);
            }
        }
    }
    assert!(sent >= 2 && foreign == 1, "{sent} {foreign}");
}

#[test]
fn a_token_goes_only_to_servers_of_the_same_domain() {
    let registry = Faulty::start();
    let made = image(&[("a", b"a".to_vec())]);
    made.serve(&registry, "team/app", "1");
    let challenge = "WWW-Authenticate: Bearer realm=\"http://192.0.2.1/token\",service=\"r\"\r\n";
    registry.fail("manifests/1", Fault::Status(401, challenge));
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("config.json");
    let host = format!("127.0.0.1:{}", registry.port);
    std::fs::write(&file, format!(r#"{{"auths":{{"{host}":{{"username":"u","password":"p"}}}}}}"#)).expect("write");
    let none = PathBuf::from("/nonexistent");
    let sources =
        Sources { containerd: vec![], containers: vec![], daemon: none, certificates: vec![], ..Sources::default() };
    let http = hull_http::Client::new("hull-test/1", hull_http::proxy::Proxies::default());
    let client = Client::new(http, Credentials::file(file), sources);
    let machine = machine();
    let reference: Reference = format!("{host}/team/app:1").parse().expect("reference");
    let error = pull(&machine.store, &client, &reference, &PullOptions::default(), &Silent).expect_err("refused");
    assert!(error.to_string().contains("192.0.2.1"), "{error}");
}

#[test]
fn an_index_gives_the_machines_platform() {
    let registry = Faulty::start();
    let native = image(&[("a", b"native".to_vec())]);
    let other = image_for("s390x", &[("a", b"other".to_vec())]);
    native.serve(&registry, "app", "native");
    other.serve(&registry, "app", "other");
    let entry = |made: &Made, os: &str, architecture: &str| {
        serde_json::json!({"mediaType": media_type::MANIFEST, "digest": Digest::of(&made.manifest), "size": made.manifest.len(),
            "platform": {"os": os, "architecture": architecture}})
    };
    let own = Platform::native().architecture;
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX,
        "manifests": [entry(&other, "linux", "s390x"), entry(&native, "linux", &own)]});
    let index = index.to_string().into_bytes();
    registry.put("/v2/app/manifests/latest", media_type::INDEX, &index);
    let machine = machine();
    let pulled = machine.pull(&format!("127.0.0.1:{}/app", registry.port)).expect("pulled");
    assert_eq!(pulled.image.id, Digest::of(&native.config));
    assert_eq!(pulled.digest, Digest::of(&index));
    let by_index = format!("127.0.0.1:{}/app@{}", registry.port, pulled.digest);
    assert_eq!(machine.store.find(&by_index).expect("found").id, pulled.image.id);
    let reference: Reference = format!("127.0.0.1:{}/app", registry.port).parse().expect("reference");
    let options =
        PullOptions { platforms: vec![Platform::parse("linux/ppc64le").expect("platform")], ..PullOptions::default() };
    let error = pull(&machine.store, &machine.client, &reference, &options, &Silent).expect_err("none").to_string();
    assert!(error.contains("no matching manifest for linux/ppc64le") && error.contains("linux/s390x"), "{error}");

    // Another platform of the same index comes beside the first, and is had where it is asked for.
    let foreign = Platform::parse("linux/s390x").expect("platform");
    let options = PullOptions { platforms: vec![foreign.clone()], ..PullOptions::default() };
    let again = pull(&machine.store, &machine.client, &reference, &options, &Silent).expect("pulled");
    assert_eq!((again.image.id.clone(), again.is_newer), (Digest::of(&other.config), true));
    let name = reference.to_string();
    let found = |store: &Store, name: &str, on: Option<&Platform>| store.find_on(name, on).expect("found").id;
    assert_eq!(found(&machine.store, &name, None), Digest::of(&native.config));
    for name in [&name, &by_index] {
        assert_eq!(found(&machine.store, name, Some(&foreign)), Digest::of(&other.config));
        assert_eq!(found(&machine.store, name, None), Digest::of(&native.config));
    }
    machine.assert_sound();
    // All at once, and the other way round: the same.
    let everything = PullOptions { all_platforms: true, ..PullOptions::default() };
    let (first, second) = (self::machine(), self::machine());
    pull(&first.store, &first.client, &reference, &everything, &Silent).expect("pulled");
    pull(&second.store, &second.client, &reference, &options, &Silent).expect("pulled");
    assert_eq!(found(&second.store, &name, None), Digest::of(&other.config));
    assert!(
        pull(&second.store, &second.client, &reference, &PullOptions::default(), &Silent).expect("pulled").is_newer
    );
    for machine in [&first, &second] {
        assert_eq!(found(&machine.store, &by_index, None), Digest::of(&native.config));
        assert_eq!(found(&machine.store, &name, Some(&foreign)), Digest::of(&other.config));
    }
    // The tag leads to another index: what the old one had for other platforms is not what the name means any more.
    let moved = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX,
        "manifests": [entry(&native, "linux", &own)]});
    registry.put("/v2/app/manifests/latest", media_type::INDEX, &moved.to_string().into_bytes());
    assert!(!machine.pull(&name).expect("pulled").is_newer, "it is the same image for this machine");
    let error = machine.store.find_on(&name, Some(&foreign)).expect_err("gone").to_string();
    assert!(error.contains("does not match the specified platform: wanted linux/s390x"), "{error}");
}

#[test]
fn an_index_goes_as_it_came() {
    let Some(peer) = Peer::start("") else { return };
    let registry = Faulty::start();
    let (native, other) = (image(&[("a", b"native".to_vec())]), image_for("s390x", &[("a", b"other".to_vec())]));
    native.serve(&registry, "app", "native");
    other.serve(&registry, "app", "other");
    let put = |kind: &str, bytes: &[u8]| {
        let place = if kind == media_type::MANIFEST { "manifests" } else { "blobs" };
        registry.put(&format!("/v2/app/{place}/{}", Digest::of(bytes)), kind, bytes);
        serde_json::json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()})
    };
    // What is said of the image, as builders have it: a manifest for no platform.
    let statement = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST,
        "config": put(media_type::CONFIG, br#"{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}"#),
        "layers": [put("application/vnd.in-toto+json", b"{}")]});
    let mut statement = put(media_type::MANIFEST, statement.to_string().as_bytes());
    statement["platform"] = serde_json::json!({"os": "unknown", "architecture": "unknown"});
    statement["annotations"] = serde_json::json!({"vnd.docker.reference.type": "attestation-manifest"});
    let mut entries = vec![put(media_type::MANIFEST, &other.manifest), put(media_type::MANIFEST, &native.manifest)];
    entries[0]["platform"] = serde_json::json!({"os": "linux", "architecture": "s390x"});
    entries[1]["platform"] = serde_json::json!({"os": "linux", "architecture": Platform::native().architecture});
    entries.push(statement.clone());
    // Blanks and fields that nobody knows are part of the digest.
    let index = format!(
        "{{ \"schemaVersion\": 2,\n \"mediaType\": {:?}, \"x\": 1, \"manifests\": {} }}\n",
        media_type::INDEX,
        serde_json::Value::from(entries)
    );
    registry.put("/v2/app/manifests/latest", media_type::INDEX, index.as_bytes());
    let reference: Reference = format!("127.0.0.1:{}/app", registry.port).parse().expect("reference");
    let machine = machine();
    let everything = PullOptions { all_platforms: true, ..PullOptions::default() };
    let pulled = pull(&machine.store, &machine.client, &reference, &everything, &Silent).expect("pulled");
    assert_eq!(pulled.digest, Digest::of(index.as_bytes()));
    let name = reference.clone().or_latest().to_string();
    let all = machine.store.find_all(&name).expect("images");
    assert_eq!(
        all[0].repo_digests,
        [(reference.repository().to_string(), pulled.digest.clone())],
        "the index alone is shown"
    );
    let by_manifest = format!("{}@{}", reference.repository(), Digest::of(&native.manifest));
    assert_eq!(machine.store.find(&by_manifest).expect("found").id, all[0].id);

    let target: Reference = format!("127.0.0.1:{}/copy/app:2", peer.port).parse().expect("reference");
    let sent = |images: &[Image]| {
        push_platforms(&machine.store, &machine.client, images, &target, &PushOptions::default(), &Silent)
            .expect("pushed")
            .1
    };
    assert_eq!(sent(&all).digest, pulled.digest);
    let second = self::machine();
    let back = pull(&second.store, &second.client, &target, &everything, &Silent).expect("pulled");
    assert_eq!(back.digest, pulled.digest);
    let said: Digest = serde_json::from_value(statement["digest"].clone()).expect("digest");
    assert!(
        hull_image::registry::look(&second.client, &target.with_digest(said.clone())).is_ok(),
        "what is said came along"
    );
    // One of them alone is no index.
    assert_eq!(sent(&all[..1]).digest, Digest::of(&native.manifest));
    // What is said is had wherever the index has been, and where it cannot be had any more the images go without it.
    registry.always("/manifests/", Fault::Status(404, ""));
    let again = |registry: &Faulty| {
        let target: Reference = format!("127.0.0.1:{}/app", registry.port).parse().expect("reference");
        push_platforms(&machine.store, &machine.client, &all, &target, &PushOptions::default(), &Silent)
            .expect("pushed")
            .1
    };
    let third = Faulty::start();
    assert_eq!(again(&third).digest, pulled.digest);
    third.always("/manifests/", Fault::Status(404, ""));
    drop(peer);
    let alone = again(&Faulty::start());
    assert_ne!(alone.digest, pulled.digest);
    second.assert_sound();
    machine.assert_sound();
    // It goes with the last name that leads to it.
    assert!(second.store.open_blob(&pulled.digest).is_ok());
    let removed = second.store.remove(&target.to_string(), false, &|_| false).expect("removed");
    assert_eq!(removed.iter().filter(|one| one.to_string().starts_with("Untagged")).count(), 2, "{removed:?}");
    assert!(second.store.open_blob(&pulled.digest).is_err());
    second.assert_sound();
}

#[test]
fn hostile_manifests() {
    let made = image(&[("a", b"a".to_vec())]);
    let document: serde_json::Value = serde_json::from_slice(&made.manifest).expect("valid");
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = document.clone();
        change(&mut changed);
        changed.to_string().into_bytes()
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (with(&|one| one["manifests"] = serde_json::json!([])), "ambiguous"),
        (with(&|one| one["layers"][0]["digest"] = "sha256:../../../../etc/passwd".into()), "invalid digest"),
        (with(&|one| one["layers"][0]["mediaType"] = "application/x-evil".into()), "unknown type"),
        (with(&|one| one["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into()), "artifact"),
        (with(&|one| one["config"]["size"] = (1_u64 << 40).into()), "bytes"),
        (with(&|one| one["layers"] = serde_json::json!([])), "layers"),
        (b"{\"schemaVersion\":1,\"fsLayers\":[]}".to_vec(), "schema 1"),
        (b"[]".to_vec(), "manifest"),
        (vec![b' '; 5 << 20], "longer"),
    ];
    for (bytes, expected) in cases {
        let registry = Faulty::start();
        made.serve(&registry, "app", "good");
        registry.put("/v2/app/manifests/bad", media_type::MANIFEST, &bytes);
        let machine = machine();
        let error = machine.pull(&format!("127.0.0.1:{}/app:bad", registry.port)).expect_err("refused").to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{expected}: {error}");
        assert!(machine.store.list().expect("list").is_empty());
        machine.assert_sound();
    }
}

#[test]
fn large_layers_come_in_ranges_and_every_byte_is_reported() {
    #[derive(Default)]
    struct Last(Mutex<(u64, bool)>);
    impl Progress for Last {
        fn layer(&self, _: &Digest, event: Event) {
            let mut last = self.0.lock().expect("lock");
            match event {
                Event::Downloading(done, _) => {
                    assert!(done >= last.0, "backwards");
                    last.0 = done;
                }
                Event::PullComplete => last.1 = true,
                _ => {}
            }
        }
    }
    let registry = Faulty::start();
    let made = image(&[("large", noise(40 << 20, 13))]);
    made.serve(&registry, "app", "1");
    let blob = Digest::of(&made.layers[0]).to_string();
    registry.fail(&blob, Fault::Drip);
    registry.fail(&blob, Fault::Cut(1 << 20));
    let machine = machine();
    let last = Last::default();
    let reference: Reference = format!("127.0.0.1:{}/app:1", registry.port).parse().expect("reference");
    let pulled = pull(&machine.store, &machine.client, &reference, &PullOptions::default(), &last).expect("pulled");
    assert_eq!(*last.0.lock().expect("lock"), (made.layers[0].len() as u64, true));
    let ranges =
        registry.seen().iter().filter(|seen| seen.line.contains(&blob) && seen.header("range").is_some()).count();
    // What the first answer brings before it breaks off needs no range of its own.
    assert!(ranges >= 5, "{ranges}");
    assert_eq!(Digest::of(&content(&machine, &pulled.image, 0)), pulled.image.layers[0].diff_id);
    machine.assert_sound();
}

#[test]
fn every_tag() {
    let Some(peer) = Peer::start("") else { return };
    let registry = Faulty::start();
    image(&[("a", b"a".to_vec())]).serve(&registry, "app", "1");
    let one = machine();
    let image = one.pull(&format!("127.0.0.1:{}/app:1", registry.port)).expect("pulled").image;
    for tag in ["x", "y"] {
        let target: Reference = format!("127.0.0.1:{}/app:{tag}", peer.port).parse().expect("reference");
        push(&one.store, &one.client, &image, &target, &PushOptions::default(), &Silent).expect("pushed");
    }
    let two = machine();
    let repository: Reference = format!("127.0.0.1:{}/app", peer.port).parse().expect("reference");
    let mut tags = Vec::new();
    let each = &mut |name: &Reference, pulled: Option<&hull_image::registry::Pulled>| {
        if pulled.is_some() {
            tags.push(name.tag().map(str::to_owned));
        }
    };
    pull_all(&two.store, &two.client, &repository, &PullOptions::default(), &Silent, each).expect("pulled");
    tags.sort();
    assert_eq!(tags, [Some("x".to_owned()), Some("y".to_owned())]);
    assert!(Path::new(two.directory.path()).exists());
}
