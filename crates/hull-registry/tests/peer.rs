//! The client against the registry that most people run, Debian's package `docker-registry`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_oci::image::{Descriptor, Document, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::client::{Put, Uploaded};
use hull_registry::credentials::Credentials;
use hull_registry::hosts::Sources;
use hull_registry::{Client, Error};
use hull_testkit::registry::Peer;

fn reference(registry: &Peer, rest: &str) -> Reference {
    format!("127.0.0.1:{}/{rest}", registry.port).parse().expect("reference")
}

fn client(credentials: &Path) -> Arc<Client> {
    let none = PathBuf::from("/nonexistent");
    let sources = Sources {
        containerd: vec![none.clone()],
        containers: vec![none.clone()],
        daemon: none.clone(),
        certificates: vec![none],
        ..Sources::default()
    };
    let http = hull_http::Client::new("hull-test/1", hull_http::proxy::Proxies::default());
    Client::new(http, Credentials::file(credentials.to_owned()), sources)
}

fn image() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let layer: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST,
        "config": Descriptor::of(media_type::CONFIG, &config), "layers": [Descriptor::of(media_type::LAYER, &layer)]
    });
    (layer, config, manifest.to_string().into_bytes())
}

#[test]
fn an_image_goes_there_and_back() {
    let Some(registry) = Peer::start("") else { return };
    let client = client(Path::new("/nonexistent"));
    let reference = reference(&registry, "team/app:1");
    let remote = client.push_to(&reference).expect("remote");
    let (layer, config, manifest) = image();
    let blob = Descriptor::of(media_type::LAYER, &layer);
    assert_eq!(remote.put_blob(&blob, &layer, &Put::default()).expect("pushed"), Uploaded::Sent);
    assert_eq!(remote.put_blob(&blob, &layer, &Put::default()).expect("pushed"), Uploaded::Existed);
    remote.put_blob(&Descriptor::of(media_type::CONFIG, &config), &config, &Put::default()).expect("pushed");
    remote.put_manifest("1", media_type::MANIFEST, &manifest).expect("pushed");
    remote.put_manifest("2", media_type::MANIFEST, &manifest).expect("pushed");

    let source = client.pull_from(&reference).expect("remote");
    let mut tags = source.tags().expect("tags").words;
    tags.sort();
    assert_eq!(tags, ["1", "2"]);
    let fetched = source.manifest("1").expect("manifest");
    assert_eq!(fetched.bytes, manifest);
    assert!(matches!(fetched.document, Document::Manifest(_)));
    assert_eq!(source.head("2").expect("head"), Some(fetched.descriptor.clone()));
    assert_eq!(source.head("3").expect("head"), None);
    let by_digest = source.manifest(&fetched.descriptor.digest.to_string()).expect("manifest");
    assert_eq!(by_digest.bytes, manifest);
    for offset in [0, 1, 1_000_000] {
        let mut part = source.blob(&blob, offset).expect("blob");
        let mut bytes = Vec::new();
        part.reader.read_to_end(&mut bytes).expect("content");
        assert_eq!((part.start, bytes.as_slice()), (offset, &layer[usize::try_from(offset).expect("small")..]));
    }
    let mut part = source.blob_part(&blob, 10, Some(5)).expect("part");
    let mut bytes = Vec::new();
    part.reader.read_to_end(&mut bytes).expect("content");
    assert_eq!(bytes, layer[10..15]);
    assert!(source.referrers(&fetched.descriptor.digest, None).expect("referrers").is_empty());
}

#[test]
fn chunks_and_mounts() {
    let Some(registry) = Peer::start("") else { return };
    let client = client(Path::new("/nonexistent"));
    let (layer, _, _) = image();
    let blob = Descriptor::of(media_type::LAYER, &layer);
    let first = client.push_to(&reference(&registry, "one/a")).expect("remote");
    let put = Put { chunk: Some(100_000), ..Put::default() };
    assert_eq!(first.put_blob(&blob, &layer, &put).expect("pushed"), Uploaded::Sent);
    let second = client.push_to(&reference(&registry, "two/b")).expect("remote");
    let sources = ["one/a".to_owned()];
    let put = Put { sources: &sources, chunk: None };
    assert_eq!(second.put_blob(&blob, &layer, &put).expect("mounted"), Uploaded::Mounted);
    let third = client.push_to(&reference(&registry, "three/c")).expect("remote");
    let sources = ["no/such".to_owned()];
    let put = Put { sources: &sources, chunk: None };
    assert_eq!(third.put_blob(&blob, &layer, &put).expect("pushed"), Uploaded::Sent);
}

#[test]
fn what_is_not_there_is_said() {
    let Some(registry) = Peer::start("") else { return };
    let client = client(Path::new("/nonexistent"));
    let reference = reference(&registry, "no/app:1");
    let source = client.pull_from(&reference).expect("remote");
    let error = source.manifest("1").expect_err("nothing there");
    assert!(error.is_not_found(), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("127.0.0.1:{}/no/app:1", registry.port)) && text.contains("manifest unknown"),
        "{text}"
    );
    let blob = Descriptor::of(media_type::LAYER, b"x");
    assert!(source.blob(&blob, 0).expect_err("nothing there").is_not_found());
    // A blob that is not what its digest says is the registry's to refuse.
    let remote = client.push_to(&reference).expect("remote");
    let wrong = Descriptor::new(media_type::LAYER, Digest::of(b"y"), 1);
    let error = remote.put_blob(&wrong, &b"x".to_vec(), &Put::default()).expect_err("refused");
    assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("digest"), "{error}");
}

#[test]
fn a_password_is_sent_when_it_is_asked_for() {
    // The user "hull" with the password "secret".
    let hash = "hull:$2b$05$K434y7jG27rqQ5ApkRkCn.5T6FJ.V5qMg2MJblmBeQZmVx6jgi29K";
    let directory = tempfile::tempdir().expect("temporary directory");
    let htpasswd = directory.path().join("htpasswd");
    std::fs::write(&htpasswd, format!("{hash}\n")).expect("write");
    let more = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", htpasswd.display());
    let Some(registry) = Peer::start(&more) else { return };
    let reference = reference(&registry, "team/app:1");
    let anonymous = client(Path::new("/nonexistent"));
    let error = anonymous.pull_from(&reference).expect("remote").manifest("1").expect_err("refused");
    assert!(matches!(error, Error::Denied { anonymous: true, .. }), "{error:?}");
    assert!(error.to_string().contains("hull login"), "{error}");
    let file = directory.path().join("config.json");
    std::fs::write(
        &file,
        format!(r#"{{"auths":{{"127.0.0.1:{}":{{"username":"hull","password":"secret"}}}}}}"#, registry.port),
    )
    .expect("write");
    let (layer, _, _) = image();
    let remote = client(&file).push_to(&reference).expect("remote");
    let uploaded = remote.put_blob(&Descriptor::of(media_type::LAYER, &layer), &layer, &Put::default());
    assert_eq!(uploaded.expect("pushed"), Uploaded::Sent);
}
