use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn manifest(extra: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"{}","digest":"sha256:{HEX}","size":2}},"layers":[]}}"#,
        media_type::CONFIG
    )
}

#[test]
fn a_document_is_one_thing() {
    assert!(matches!(Document::parse(manifest("").as_bytes(), None), Ok(Document::Manifest(_))));
    let both = manifest(r#""manifests":[],"#);
    assert!(matches!(Document::parse(both.as_bytes(), None), Err(DocumentError::Ambiguous(_))));
    let own = manifest(r#""mediaType":"application/x-own","#);
    assert!(matches!(Document::parse(own.as_bytes(), None), Err(DocumentError::Invalid { .. })));
    let called = Document::parse(manifest("").as_bytes(), Some(media_type::INDEX));
    assert!(matches!(called, Err(DocumentError::Ambiguous(_))));
    let old = br#"{"schemaVersion":1,"fsLayers":[]}"#;
    assert!(matches!(Document::parse(old, None), Err(DocumentError::SchemaOne)));
    let traversal = manifest("").replace(HEX, "../../../etc/passwd");
    assert!(Document::parse(traversal.as_bytes(), None).is_err());
}

#[test]
fn chain_ids_are_the_specifications() {
    let rootfs = RootFs { diff_ids: vec![Digest::of(b"a"), Digest::of(b"b")], ..RootFs::default() };
    let chain = rootfs.chain_ids();
    assert_eq!(chain[0], Digest::of(b"a"));
    assert_eq!(chain[1], Digest::of(format!("{} {}", Digest::of(b"a"), Digest::of(b"b")).as_bytes()));
}

#[test]
fn the_best_platform_is_chosen() {
    let descriptor = |platform: &str| Descriptor {
        platform: Some(Platform::parse(platform).expect("valid")),
        ..Descriptor::of(media_type::MANIFEST, platform.as_bytes())
    };
    let names = ["linux/arm/v6", "linux/arm/v7", "linux/amd64", "linux/amd64/v3", "linux/arm64"];
    let manifests = names.iter().map(|name| descriptor(name)).collect();
    let index = Index {
        schema_version: 2,
        media_type: String::new(),
        artifact_type: None,
        manifests,
        annotations: BTreeMap::new(),
        subject: None,
    };
    let chosen = |wanted: &str| {
        let wanted = Platform::parse(wanted).expect("valid");
        index.select(&wanted).map(|one| one.platform.as_ref().map(ToString::to_string).unwrap_or_default())
    };
    assert_eq!(chosen("linux/amd64").as_deref(), Some("linux/amd64"));
    assert_eq!(chosen("linux/amd64/v4").as_deref(), Some("linux/amd64/v3"));
    assert_eq!(chosen("linux/arm/v7").as_deref(), Some("linux/arm/v7"));
    assert_eq!(chosen("linux/arm/v5"), None);
    assert_eq!(chosen("aarch64").as_deref(), Some("linux/arm64"));
    assert_eq!(chosen("linux/s390x"), None);
}

#[test]
fn go_writes_null_for_nothing() {
    let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"ArgsEscaped":null,"Volumes":null},
        "rootfs":{"type":"layers","diff_ids":null},"history":null,"unknown":1}"#;
    let config = ImageConfig::parse(text.as_bytes()).expect("valid");
    assert_eq!(config.config.cmd, ["sh"]);
    assert_eq!(config.platform.to_string(), "linux/amd64");
    let absent = ImageConfig::parse(br#"{"config":null,"rootfs":{"type":"layers","diff_ids":[]}}"#);
    assert_eq!(absent.expect("valid").config, ContainerConfig::default());
}

#[test]
fn layers_are_known_by_their_types() {
    for layer in [media_type::LAYER, media_type::LAYER_ZSTD, media_type::DOCKER_LAYER_GZIP] {
        assert!(media_type::is_layer(layer), "{layer}");
    }
    assert!(!media_type::is_layer("application/vnd.in-toto+json"));
    assert!(!media_type::is_layer("application/vnd.oci.image.layer.v1.tarball"));
}
