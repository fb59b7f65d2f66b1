use super::*;

const MESSAGE: &[u8] = b"what is signed";

fn pem_of(pkcs8: &[u8]) -> String {
    pem::encode("PRIVATE KEY", pkcs8)
}

fn read(text: &str) -> SigningKey {
    SigningKey::from_pem(text.as_bytes(), "test", || None).unwrap_or_else(|error| panic!("{error}"))
}

fn ecdsa() -> String {
    let made = EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
    pem_of(made.expect("key").as_ref())
}

#[test]
fn each_kind_signs_and_verifies() {
    let random = SystemRandom::new();
    let edwards = Ed25519KeyPair::generate_pkcs8(&random).expect("key");
    for text in [ecdsa(), pem_of(edwards.as_ref())] {
        let key = read(&text);
        let signature = key.sign(MESSAGE).expect("sign");
        let public = PublicKey::from_pem(key.public().to_pem().as_bytes(), "again").expect("its own form");
        assert_eq!(public.id(), key.public().id());
        assert!(public.verifies(MESSAGE, &signature), "{}", public.algorithm());
        assert!(!public.verifies(b"something else", &signature), "{}", public.algorithm());
        let mut changed = signature.clone();
        changed[10] ^= 1;
        assert!(!public.verifies(MESSAGE, &changed), "{}", public.algorithm());
        assert!(!read(&ecdsa()).public().verifies(MESSAGE, &signature), "another key's");
    }
}

#[test]
fn what_is_no_key_is_refused_and_said_so() {
    let key = ecdsa();
    for (text, expected) in [
        ("", "not PEM"),
        (key.as_str(), "it is a private key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "certificate"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "expected ECDSA"),
    ] {
        let error = PublicKey::from_pem(text.as_bytes(), "x.pub").expect_err("refused").to_string();
        assert!(error.starts_with("public key x.pub: ") && error.contains(expected), "{error}");
    }
    for (text, expected) in [
        (read(&key).public().to_pem(), "it is a public key"),
        ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----".to_owned(), "openssl pkcs8"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----".to_owned(), "expected ECDSA"),
        (
            "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\ne30=\n-----END ENCRYPTED COSIGN PRIVATE KEY-----".to_owned(),
            "envelope",
        ),
    ] {
        let error = SigningKey::from_pem(text.as_bytes(), "x", || Some(Vec::new())).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_costly_envelope_is_not_opened() {
    let envelope = r#"{"kdf":{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1},"salt":""},
        "cipher":{"name":"nacl/secretbox","nonce":""},"ciphertext":""}"#;
    let error = unlock(envelope.as_bytes(), b"").expect_err("refused");
    assert!(error.contains("out of bounds"), "{error}");
}

proptest::proptest! {
    #[test]
    fn keys_of_any_bytes_do_not_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = PublicKey::from_der(&bytes, "");
        let _ = SigningKey::from_pkcs8(&bytes, "");
        let _ = PublicKey::from_pem(pem::encode("PUBLIC KEY", &bytes).as_bytes(), "");
        let _ = unlock(&bytes, b"");
    }
}
