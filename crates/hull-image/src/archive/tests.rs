//! Documents of archives, right and wrong, without a store.

use std::collections::BTreeMap;

use hull_oci::Digest;
use hull_oci::image::{Descriptor, Platform, media_type};

use super::resolve::{Found, Members, resolve};
use crate::Error;

/// Members in memory.
#[derive(Default)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl Members for Memory {
    fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        Ok(self.0.get(name).map(|bytes| bytes.len() as u64))
    }

    fn document(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, Error> {
        let bytes = self.0.get(name);
        if bytes.is_some_and(|bytes| bytes.len() as u64 > max) {
            return Err(super::resolve::refuse("too large"));
        }
        Ok(bytes.cloned())
    }
}

const LAYER: &[u8] = b"layer";

fn config(platform: &str, layers: usize) -> Vec<u8> {
    let (os, architecture) = platform.split_once('/').expect("os/arch");
    let ids = vec![format!("\"{}\"", Digest::of(LAYER)); layers].join(",");
    format!(
        r#"{{"architecture":"{architecture}","os":"{os}","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#
    )
    .into_bytes()
}

fn native() -> String {
    let native = Platform::native();
    format!("{}/{}", native.os, native.architecture)
}

impl Memory {
    fn put(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.insert(name.to_owned(), bytes.as_ref().to_vec());
        self
    }

    fn blob(&mut self, media_type: &str, bytes: impl AsRef<[u8]>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, bytes.as_ref());
        self.put(&format!("blobs/sha256/{}", descriptor.digest.hex()), bytes);
        descriptor
    }

    fn manifest(&mut self, config: &[u8], layers: &[&str]) -> Descriptor {
        let config = self.blob(media_type::CONFIG, config);
        let layers: Vec<Descriptor> = layers.iter().map(|media_type| self.blob(media_type, LAYER)).collect();
        let text = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
        self.blob(media_type::MANIFEST, text)
    }

    fn index(&mut self, manifests: &[Descriptor]) -> Descriptor {
        let text = index(manifests);
        self.blob(media_type::INDEX, text)
    }

    fn top(&mut self, manifests: &[Descriptor]) -> &mut Self {
        self.put("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#).put("index.json", index(manifests))
    }

    fn images(&self) -> Result<Vec<Found>, String> {
        resolve(self, &[]).map_err(|error| error.to_string())
    }

    fn refused(&self, with: &str) {
        match self.images() {
            Ok(found) => panic!("accepted: {found:?}"),
            Err(text) => assert!(text.contains(with) && !text.contains('\n'), "{text:?} without {with:?}"),
        }
    }
}

fn index(manifests: &[Descriptor]) -> String {
    serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests}).to_string()
}

fn named(mut descriptor: Descriptor, key: &str, name: &str) -> Descriptor {
    descriptor.annotations.insert(key.to_owned(), name.to_owned());
    descriptor
}

fn on(mut descriptor: Descriptor, platform: &str) -> Descriptor {
    let (os, architecture) = platform.split_once('/').expect("os/arch");
    descriptor.platform =
        Some(Platform { os: os.to_owned(), architecture: architecture.to_owned(), ..Platform::default() });
    descriptor
}

fn names(found: &Found) -> Vec<String> {
    found.names.iter().map(hull_oci::Reference::familiar).collect()
}

const NAME: &str = super::layout::NAME_ANNOTATION;
const REF: &str = super::layout::REF_NAME_ANNOTATION;

#[test]
fn a_layout_and_a_docker_archive_of_the_same_image_are_one() {
    let mut archive = Memory::default();
    let config = config(&native(), 1);
    let manifest = archive.manifest(&config, &[media_type::LAYER]);
    let manifests =
        [named(manifest.clone(), NAME, "docker.io/library/a:1"), named(manifest.clone(), REF, "x.example/b:2")];
    let hex = Digest::of(&config).hex().to_owned();
    let layer = Digest::of(LAYER).hex().to_owned();
    archive.top(&manifests).put(
        "manifest.json",
        format!(r#"[{{"Config":"blobs/sha256/{hex}","RepoTags":["a:1","a:3"],"Layers":["blobs/sha256/{layer}"]}}]"#),
    );
    let found = archive.images().expect("an image");
    assert_eq!(found.len(), 1);
    assert_eq!(names(&found[0]), ["a:1", "x.example/b:2", "a:3"]);
    assert_eq!(found[0].id, Digest::of(&config));
    assert_eq!(Digest::of(&found[0].manifest.as_ref().expect("kept").0), manifest.digest);
}

#[test]
fn a_bare_tag_is_no_name() {
    let mut archive = Memory::default();
    let manifest = archive.manifest(&config(&native(), 1), &[media_type::LAYER]);
    archive.top(&[named(manifest, REF, "latest")]);
    assert_eq!(names(&archive.images().expect("an image")[0]), [""; 0]);
}

#[test]
fn paths_of_old_archives_are_followed() {
    let mut archive = Memory::default();
    let config = config("linux/s390x", 1);
    let hex = Digest::of(&config).hex().to_owned();
    archive.put(&format!("{hex}.json"), &config);
    archive.put("manifest.json", format!(r#"[{{"Config":"{hex}.json","RepoTags":null,"Layers":["abc/layer.tar"]}}]"#));
    let found = archive.images().expect("what was saved by name is loaded on any machine");
    assert_eq!(found[0].layers[0].member, "abc/layer.tar");
    let wanted = Platform::parse("linux/arm64").expect("valid");
    let error =
        resolve(&archive, std::slice::from_ref(&wanted)).expect_err("another platform was asked for").to_string();
    assert!(error.contains("no image for linux/arm64, only linux/s390x"), "{error}");
}

#[test]
fn the_platform_is_chosen_among_what_is_there() {
    let mut archive = Memory::default();
    let mine = on(archive.manifest(&config(&native(), 1), &[media_type::LAYER]), &native());
    let other = on(archive.manifest(&config("linux/s390x", 1), &[media_type::LAYER]), "linux/s390x");
    let absent = on(Descriptor::of(media_type::MANIFEST, b"not here"), "linux/riscv64");
    let mut statement = on(archive.manifest(b"{}", &["application/vnd.in-toto+json"]), "unknown/unknown");
    statement.annotations.insert("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
    let nested = archive.index(&[absent.clone(), other.clone(), mine.clone(), statement]);
    archive.top(&[named(nested, NAME, "docker.io/library/a:1")]);
    let digests = |found: &[Found]| {
        let digest = |one: &Found| one.manifest.as_ref().map(|(bytes, _)| Digest::of(bytes));
        found.iter().filter_map(digest).collect::<Vec<_>>()
    };
    let found = archive.images().expect("both that are there");
    assert_eq!(digests(&found), [other.digest.clone(), mine.digest.clone()]);
    assert!(found.iter().all(|one| names(one) == ["a:1"]));
    let found = resolve(&archive, &[Platform::native()]).expect("an image");
    assert_eq!(digests(&found), std::slice::from_ref(&mine.digest));
    // Without a name nothing would say that they belong together: it is this machine's.
    let mut unnamed = Memory(archive.0.clone());
    let nested = unnamed.index(&[other.clone(), mine.clone()]);
    unnamed.top(&[nested]);
    assert_eq!(digests(&unnamed.images().expect("an image")), [mine.digest]);
    let wanted = Platform::parse("linux/s390x").expect("valid");
    let found = resolve(&archive, std::slice::from_ref(&wanted)).expect("an image");
    assert_eq!(found[0].manifest.as_ref().map(|(bytes, _)| Digest::of(bytes)), Some(other.digest.clone()));

    let mut foreign = Memory(archive.0.clone());
    let nested = foreign.index(&[other]);
    foreign.top(&[nested]);
    assert_eq!(foreign.images().expect("the only one").len(), 1);
    let nested = foreign.index(&[absent]);
    foreign.top(&[nested]).refused("is missing");
}

#[test]
fn statements_beside_layers_are_passed_over() {
    let mut archive = Memory::default();
    let manifest = archive.manifest(&config(&native(), 1), &[media_type::LAYER_GZIP, "application/vnd.in-toto+json"]);
    let attestation = archive.manifest(b"{}", &["application/vnd.in-toto+json"]);
    archive.top(&[manifest, attestation]);
    let found = archive.images().expect("an image");
    assert_eq!((found.len(), found[0].layers.len()), (1, 1));
}

#[test]
fn hostile_layouts_are_refused_by_one_line() {
    let mut archive = Memory::default();
    let good = archive.manifest(&config(&native(), 1), &[media_type::LAYER]);
    let base = Memory(archive.0);
    let variant = |make: &dyn Fn(&mut Memory) -> Descriptor, with: &str| {
        let mut archive = Memory(base.0.clone());
        let descriptor = make(&mut archive);
        archive.top(&[descriptor]).refused(with);
    };
    variant(&|_| Descriptor { size: good.size + 1, ..good.clone() }, "its descriptor says");
    variant(&|_| Descriptor::of(media_type::MANIFEST, b"absent"), "is missing");
    variant(&|_| Descriptor { media_type: media_type::INDEX.to_owned(), ..good.clone() }, "ambiguous");
    variant(
        &|archive| archive.blob(media_type::MANIFEST, br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#),
        "both",
    );
    variant(&|archive| archive.blob(media_type::MANIFEST, b"{}"), "schemaVersion");
    variant(&|archive| archive.blob(media_type::MANIFEST, br#"{"schemaVersion":1,"fsLayers":[]}"#), "schema 1");
    variant(&|archive| archive.manifest(&config(&native(), 2), &[media_type::LAYER]), "1 layers, but");
    variant(&|_| named(good.clone(), NAME, "A\nB:1"), "invalid reference");
    variant(&|archive| archive.manifest(br#"{"rootfs":{"type":"windows","diff_ids":[]}}"#, &[]), "rootfs.type");
    variant(
        &|archive| {
            archive
                .put(&format!("blobs/sha256/{}", good.digest.hex()), vec![b' '; usize::try_from(good.size).unwrap()]);
            good.clone()
        },
        "has digest",
    );
    variant(&|archive| (0..5).fold(good.clone(), |inner, _| archive.index(&[inner])), "nested more than 4 deep");
    variant(
        &|archive| {
            archive.0.remove(&format!("blobs/sha256/{}", Digest::of(LAYER).hex()));
            good.clone()
        },
        "is missing",
    );
    let mut archive = Memory(base.0.clone());
    let other = archive.manifest(&config("linux/other", 1), &[media_type::LAYER]);
    archive.top(&[named(good.clone(), NAME, "a:1"), named(other, NAME, "a:1")]).refused("to two images");
    let mut archive = Memory(base.0.clone());
    archive.top(std::slice::from_ref(&good)).put("oci-layout", br#"{"imageLayoutVersion":"9"}"#).refused("version");
    let mut archive = Memory(base.0.clone());
    archive.put("index.json", index(&vec![good; 1001])).refused("more than 1000 manifests");
}

#[test]
fn hostile_docker_archives_are_refused_by_one_line() {
    let config = config(&native(), 1);
    let refused = |text: &str, with: &str| {
        let mut archive = Memory::default();
        archive.put("c.json", &config).put("manifest.json", text).refused(with);
    };
    let digit = "0".repeat(64);
    refused(r#"[{"Config":"/etc/passwd","Layers":[]}]"#, "no name within the archive");
    refused(r#"[{"Config":"../../etc/passwd","Layers":[]}]"#, "no name within the archive");
    refused(r#"[{"Config":"c.json","Layers":["../x"]}]"#, "no name within the archive");
    refused(r#"[{"Config":"c.json","Layers":[]}]"#, "0 layers, but c.json has 1");
    refused(r#"[{"Config":"none.json","Layers":[]}]"#, "none.json is missing");
    refused(r#"{"Config":"c.json"}"#, "manifest.json: ");
    refused("[]", "holds no image");
    refused(r#"[{"Config":"c.json","RepoTags":["UP:1"],"Layers":["l"]}]"#, "lowercase");
    let mut archive = Memory::default();
    archive.put(&format!("{digit}.json"), &config);
    archive.put("manifest.json", format!(r#"[{{"Config":"{digit}.json","Layers":["l"]}}]"#)).refused("has digest");
    Memory::default().refused("`hull import` reads root file systems");
    let mut archive = Memory::default();
    archive.put("repositories", "{}").refused("before 1.10");
}

proptest::proptest! {
    #[test]
    fn spoiled_documents_are_read_or_refused_by_one_line(
        changes in proptest::collection::vec((proptest::prelude::any::<u16>(), proptest::prelude::any::<u8>()), 1..8),
        cut in proptest::option::of(0..400_usize),
        which in 0..4_usize,
    ) {
        let mut archive = Memory::default();
        let config = config(&native(), 1);
        let hex = Digest::of(&config).hex().to_owned();
        let manifest = archive.manifest(&config, &[media_type::LAYER]);
        let nested = archive.index(std::slice::from_ref(&manifest));
        let text = format!(r#"[{{"Config":"blobs/sha256/{hex}","RepoTags":["a:1"],"Layers":["x/layer.tar"]}}]"#);
        archive.top(&[named(manifest, NAME, "docker.io/library/a:1"), nested]).put("manifest.json", text);
        let name = ["index.json", "manifest.json", "oci-layout", "config"][which];
        let mut bytes = archive.0.get(name).cloned().unwrap_or(config);
        for (at, byte) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        if name == "config" {
            // With a manifest that points at it, so that it is parsed and not only hashed.
            let manifest = archive.manifest(&bytes, &[media_type::LAYER]);
            archive.0.remove("manifest.json");
            archive.top(&[manifest]);
        } else {
            archive.put(name, bytes);
        }
        if let Err(error) = archive.images() {
            proptest::prop_assert!(!error.contains(char::is_control), "{error}");
        }
    }
}
