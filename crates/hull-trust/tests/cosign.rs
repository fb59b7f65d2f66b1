//! Signatures that cosign 3 made, in both of its forms, with each kind of key; and its own encrypted private key.

use hull_oci::Digest;
use hull_trust::evidence::Invalid;
use hull_trust::{Evidence, PublicKey, SigningKey, Subject};

/// The manifest that all of them sign.
const DIGEST: &str = "sha256:4c5c46388002947e7655821eb6a00ada9e4ef0c598429a9f3cf5734c7f21aea9";

struct Vector {
    name: &'static str,
    key: PublicKey,
    payload: Evidence,
    bundle: Evidence,
}

macro_rules! vector {
    ($name:literal) => {
        Vector {
            name: $name,
            key: PublicKey::from_pem(include_bytes!(concat!("data/", $name, ".pub")), $name).expect("public key"),
            payload: Evidence::Payload {
                payload: include_bytes!(concat!("data/", $name, ".payload.json")).to_vec(),
                signature: include_str!(concat!("data/", $name, ".signature")).to_owned(),
            },
            bundle: Evidence::Bundle(include_bytes!(concat!("data/", $name, ".bundle.json")).to_vec()),
        }
    };
}

fn vectors() -> [Vector; 4] {
    [vector!("p256"), vector!("p384"), vector!("ed"), vector!("rsa")]
}

#[test]
fn each_kind_of_key_in_both_forms() {
    let digest: Digest = DIGEST.parse().expect("digest");
    let subjects = [Subject { digest: &digest, bytes: None }];
    for vector in vectors() {
        let keys = [vector.key.clone()];
        let (claim, _) = vector.payload.verify(&keys, &subjects).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
        assert_eq!(claim.digest, digest);
        assert!(claim.name.as_deref().is_some_and(|name| name.starts_with("127.0.0.1:5573/")), "{claim:?}");
        let (claim, _) = vector.bundle.verify(&keys, &subjects).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
        assert_eq!((claim.digest, claim.name), (digest.clone(), None));
    }
}

#[test]
fn another_key_another_image_or_a_changed_byte_is_noticed() {
    let digest: Digest = DIGEST.parse().expect("digest");
    let other = Digest::of(b"other");
    let all = vectors();
    for (at, vector) in all.iter().enumerate() {
        let keys = [vector.key.clone()];
        let others: Vec<PublicKey> =
            all.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, one)| one.key.clone()).collect();
        for evidence in [&vector.payload, &vector.bundle] {
            let right = [Subject { digest: &digest, bytes: None }];
            assert_eq!(evidence.verify(&others, &right).map(drop), Err(Invalid::Key), "{}", vector.name);
            assert_eq!(evidence.verify(&[], &right).map(drop), Err(Invalid::Key), "{}", vector.name);
            let wrong = [Subject { digest: &other, bytes: None }];
            assert!(matches!(evidence.verify(&keys, &wrong), Err(Invalid::Digest(_))), "{}", vector.name);
        }
        let Evidence::Payload { payload, signature } = &vector.payload else { panic!("a payload") };
        let mut changed = payload.clone();
        let last = changed.len() - 10;
        changed[last] ^= 1;
        let changed = Evidence::Payload { payload: changed, signature: signature.clone() };
        assert_eq!(changed.verify(&keys, &[Subject { digest: &digest, bytes: None }]).map(drop), Err(Invalid::Key));
    }
}

#[test]
fn its_encrypted_key_opens_with_the_password_alone() {
    let text = include_bytes!("data/p256.key");
    let key = SigningKey::from_pem(text, "p256.key", || Some(b"tide".to_vec())).expect("opens");
    let public = PublicKey::from_pem(include_bytes!("data/p256.pub"), "p256.pub").expect("public key");
    assert_eq!(key.public().id(), public.id());
    let wrong = SigningKey::from_pem(text, "p256.key", || Some(b"ebb".to_vec())).expect_err("refused");
    assert_eq!(wrong.to_string(), "private key p256.key: the password is wrong");
    let none = SigningKey::from_pem(text, "p256.key", || None).expect_err("refused");
    assert!(none.to_string().contains("COSIGN_PASSWORD"), "{none}");
}

#[test]
fn what_is_signed_here_verifies_in_both_forms() {
    let text = include_bytes!("data/p256.key");
    let key = SigningKey::from_pem(text, "p256.key", || Some(b"tide".to_vec())).expect("opens");
    let digest = Digest::of(b"manifest");
    let name = "registry.example/team/app:1".parse().expect("name");
    let subjects = [Subject { digest: &digest, bytes: None }];
    let keys = [key.public().clone()];
    let evidence = Evidence::sign(&key, &name, &digest).expect("sign");
    let (claim, by) = evidence.verify(&keys, &subjects).expect("verifies");
    assert_eq!(claim.name.as_deref(), Some("registry.example/team/app:1"));
    assert_eq!(by.id(), key.public().id());
    let evidence = Evidence::sign_bundle(&key, &digest).expect("sign");
    assert_eq!(evidence.verify(&keys, &subjects).expect("verifies").0.digest, digest);
}

#[test]
fn what_says_less_than_a_signature_does_not_count() {
    let key = SigningKey::from_pem(include_bytes!("data/ed.key"), "ed.key", || Some(b"tide".to_vec())).expect("opens");
    let digest = Digest::of(b"manifest");
    let subjects = [Subject { digest: &digest, bytes: Some(b"manifest") }];
    let keys = [key.public().clone()];
    let encode = |bytes: &[u8]| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(bytes)
    };
    let payload = |text: String| {
        let signature = encode(&key.sign(text.as_bytes()).expect("sign"));
        Evidence::Payload { payload: text.into_bytes(), signature }.verify(&keys, &subjects).map(|(claim, _)| claim)
    };
    let critical = |kind: &str, more: &str| {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"a/b:1"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"{more}}},"optional":null}}"#
        )
    };
    payload(critical("cosign container image signature", "")).expect("counts");
    for bad in [
        critical("atomic container signature", ""),
        critical("cosign container image signature", r#","condition":"never""#),
        critical("cosign container image signature", r#","type":"x""#),
        "{}".to_owned(),
        String::new(),
    ] {
        assert!(matches!(payload(bad.clone()), Err(Invalid::Malformed(_))), "{bad}");
    }
    let bundle = |media: &str, material: &str, kind: &str, statement: &str| {
        let message = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
        let signature = encode(&key.sign(message.as_bytes()).expect("sign"));
        let text = format!(
            r#"{{"mediaType":"{media}","verificationMaterial":{material},"dsseEnvelope":{{"payload":"{}","payloadType":"{kind}","signatures":[{{"sig":"{signature}"}}]}}}}"#,
            encode(statement.as_bytes())
        );
        Evidence::Bundle(text.into_bytes()).verify(&keys, &subjects).map(|(claim, _)| claim)
    };
    let media = hull_trust::evidence::BUNDLE;
    let material = r#"{"publicKey":{"hint":""}}"#;
    let kind = "application/vnd.in-toto+json";
    let statement = |predicate: &str, kind: &str| {
        format!(
            r#"{{"_type":"{kind}","subject":[{{"digest":{{"sha256":"{}"}}}}],"predicateType":"{predicate}","predicate":{{}}}}"#,
            digest.hex()
        )
    };
    let (sign, v1) = (hull_trust::evidence::PREDICATE, "https://in-toto.io/Statement/v1");
    bundle(media, material, kind, &statement(sign, v1)).expect("counts");
    // An attestation by the same key says that the image was built, not that it may run.
    let provenance = statement("https://slsa.dev/provenance/v1", v1);
    assert!(matches!(bundle(media, material, kind, &provenance), Err(Invalid::Predicate(_))));
    let certificate = r#"{"certificate":{"rawBytes":""}}"#;
    assert_eq!(bundle(media, certificate, kind, &statement(sign, v1)), Err(Invalid::Certificate));
    for (media, kind, statement) in [
        ("application/vnd.dev.sigstore.bundle+json;version=0.1", kind, statement(sign, v1)),
        (media, "text/plain", statement(sign, v1)),
        (media, kind, statement(sign, "https://example.com/other")),
        (media, kind, "[]".to_owned()),
    ] {
        assert!(matches!(bundle(media, material, kind, &statement), Err(Invalid::Malformed(_))), "{media} {kind}");
    }
    // A signature of the manifest itself.
    let signature = encode(&key.sign(b"manifest").expect("sign"));
    let text = format!(
        r#"{{"mediaType":"{media}","verificationMaterial":{material},"messageSignature":{{"messageDigest":{{"algorithm":"SHA2_256","digest":""}},"signature":"{signature}"}}}}"#
    );
    let plain = Evidence::Bundle(text.into_bytes());
    assert_eq!(plain.verify(&keys, &subjects).expect("counts").0.digest, digest);
    assert_eq!(plain.verify(&keys, &[Subject { digest: &digest, bytes: None }]).map(drop), Err(Invalid::Key));
}
