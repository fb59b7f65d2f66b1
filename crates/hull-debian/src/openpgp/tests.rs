use pgp::composed::{
    ArmorOptions, DetachedSignature, KeyType, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::packet::{SignatureConfig, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Duration, Password, Timestamp};

use super::*;

const NOW: u64 = 1_750_000_000;
const DAY: u32 = 86_400;
const TEXT: &str = "Origin: Test\nSuite: x\n- dash\nlast\n";

fn moment(ago_days: u32) -> Timestamp {
    Timestamp::from_secs(u32::try_from(NOW).expect("fits") - ago_days * DAY)
}

/// A key that is 100 days old and has a subkey for signing.
fn key() -> SignedSecretKey {
    let mut subkey = SubkeyParamsBuilder::default();
    subkey.key_type(KeyType::Ed25519Legacy).can_sign(true).created_at(moment(100));
    let mut parameters = SecretKeyParamsBuilder::default();
    parameters
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .created_at(moment(100))
        .primary_user_id("Archive <archive@test.example>".to_owned())
        .subkey(subkey.build().expect("subkey"));
    parameters.build().expect("parameters").generate(rand::thread_rng()).expect("key")
}

/// The key's own signature again, which says that the key lasts so many days.
fn lasting(mut key: SignedSecretKey, days: u32) -> SignedSecretKey {
    let mut config =
        SignatureConfig::from_key(rand::thread_rng(), &key.primary_key, SignatureType::CertPositive).expect("config");
    let mut flags = pgp::packet::KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(true);
    config.hashed_subpackets = [
        SubpacketData::SignatureCreationTime(moment(99)),
        SubpacketData::IssuerFingerprint(key.primary_key.fingerprint()),
        SubpacketData::KeyFlags(flags),
        SubpacketData::KeyExpirationTime(Duration::from_secs(days * DAY)),
    ]
    .map(|data| Subpacket::regular(data).expect("subpacket"))
    .into();
    let public = key.to_public_key();
    let user = &mut key.details.users[0];
    let made =
        config.sign_certification(&key.primary_key, &public.primary_key, &Password::empty(), Tag::UserId, &user.id);
    user.signatures = vec![made.expect("certification")];
    key
}

fn keyring(keys: &[&SignedSecretKey]) -> Keyring {
    let mut keyring = Keyring::default();
    for key in keys {
        keyring.add(&key.to_public_key().to_bytes().expect("bytes"), "k.gpg").expect("keyring");
    }
    keyring
}

fn config(key: &impl pgp::types::SigningKey, made: Timestamp) -> SignatureConfig {
    let mut config = SignatureConfig::from_key(rand::thread_rng(), key, SignatureType::Text).expect("config");
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(made)).expect("subpacket"),
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint())).expect("subpacket"),
    ];
    config
}

fn signed_by(key: &impl pgp::types::SigningKey, config: SignatureConfig) -> String {
    let message = CleartextSignedMessage::new(TEXT, config, key, &Password::empty()).expect("sign");
    message.to_armored_string(ArmorOptions::default()).expect("armor")
}

fn signed(key: &SignedSecretKey) -> String {
    signed_by(&key.primary_key, config(&key.primary_key, moment(10)))
}

fn refused(keyring: &Keyring, text: &str) -> String {
    let error = keyring.open_inline(text.as_bytes(), NOW, "InRelease").expect_err("refused").to_string();
    assert!(error.starts_with("signature of InRelease: ") && !error.contains('\n'), "{error}");
    error
}

#[test]
fn primary_and_subkey_sign() {
    let key = key();
    let keyring = keyring(&[&key]);
    let text = keyring.open_inline(signed(&key).as_bytes(), NOW, "InRelease").expect("good");
    assert_eq!(text.trim_end(), "Origin: Test\nSuite: x\n- dash\nlast");
    let subkey = &key.secret_subkeys[0].key;
    let text = signed_by(subkey, config(subkey, moment(10)));
    keyring.open_inline(text.as_bytes(), NOW, "InRelease").expect("good by the subkey");
}

#[test]
fn another_key_and_no_key() {
    let (one, other) = (key(), key());
    assert!(refused(&keyring(&[&other]), &signed(&one)).contains("no trusted key made it: it is by key "));
    assert!(keyring(&[&other, &one]).open_inline(signed(&one).as_bytes(), NOW, "x").is_ok());
    let mut few = keyring(&[&one]);
    few.keep(&[hex(one.primary_key.fingerprint().as_bytes())]);
    assert!(!few.is_empty());
    few.keep(&["00".repeat(20)]);
    assert!(few.is_empty());
}

#[test]
fn changed_text_and_text_around() {
    let key = key();
    let keyring = keyring(&[&key]);
    let text = signed(&key);
    assert!(refused(&keyring, &text.replace("Suite: x", "Suite: y")).contains("the file was changed"));
    assert!(refused(&keyring, &format!("Suite: evil\n\n{text}")).contains("no signed text"));
    let after = keyring.open_inline(format!("{text}\nSuite: evil\n").as_bytes(), NOW, "InRelease");
    assert!(after.is_err());
    assert!(refused(&keyring, "Suite: x\n").contains("no signed text"));
    for length in (0..text.find("-----END").expect("the end")).step_by(7) {
        let cut = keyring.open_inline(&text.as_bytes()[..length], NOW, "InRelease");
        assert!(cut.is_err(), "cut at {length}");
    }
}

#[test]
fn weak_digests_do_not_count() {
    let key = key();
    let mut weak = config(&key.primary_key, moment(10));
    weak.hash_alg = HashAlgorithm::Sha1;
    let text = CleartextSignedMessage::new(TEXT, weak, &key.primary_key, &Password::empty());
    // The library may refuse to sign like that at all.
    if let Ok(message) = text {
        let text = message.to_armored_string(ArmorOptions::default()).expect("armor");
        assert!(refused(&keyring(&[&key]), &text).contains("too weak"));
    }
}

#[test]
fn expired_keys_are_good_for_what_they_signed_before() {
    // Of a key of 100 days' age that lasts 50, signatures of 60 and of 10 days' age.
    let key = lasting(key(), 50);
    let keyring = keyring(&[&key]);
    let before = signed_by(&key.primary_key, config(&key.primary_key, moment(60)));
    keyring.open_inline(before.as_bytes(), NOW, "InRelease").expect("made while the key was valid");
    assert!(refused(&keyring, &signed(&key)).contains("had expired when it was made"));
    let older = signed_by(&key.primary_key, config(&key.primary_key, moment(101)));
    assert!(refused(&keyring, &older).contains("older than key"));
}

#[test]
fn signatures_of_the_future_and_expired_ones() {
    let key = key();
    let keyring = keyring(&[&key]);
    let future = Timestamp::from_secs(u32::try_from(NOW).expect("fits") + 2 * DAY);
    let text = signed_by(&key.primary_key, config(&key.primary_key, future));
    assert!(refused(&keyring, &text).contains("in the future"));
    let mut short = config(&key.primary_key, moment(10));
    let lasts = SubpacketData::SignatureExpirationTime(Duration::from_secs(DAY));
    short.hashed_subpackets.push(Subpacket::regular(lasts).expect("subpacket"));
    assert!(refused(&keyring, &signed_by(&key.primary_key, short)).contains("has expired"));
}

#[test]
fn detached_signatures() {
    let key = key();
    let keyring = keyring(&[&key]);
    let signature = config(&key.primary_key, moment(10))
        .sign(&key.primary_key, &Password::empty(), TEXT.as_bytes())
        .map(DetachedSignature::new)
        .expect("sign");
    let armored = signature.to_armored_bytes(ArmorOptions::default()).expect("armor");
    let binary = signature.to_bytes().expect("bytes");
    for bytes in [armored.as_slice(), binary.as_slice()] {
        keyring.check_detached(bytes, TEXT.as_bytes(), NOW, "Release").expect("good");
        let changed = keyring.check_detached(bytes, b"Suite: y\n", NOW, "Release").expect_err("changed").to_string();
        assert!(changed.contains("the file was changed"), "{changed}");
    }
    for bytes in [&b""[..], b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n", b"junk", &binary[..binary.len() / 2]] {
        assert!(keyring.check_detached(bytes, TEXT.as_bytes(), NOW, "Release").is_err());
    }
}

#[test]
fn keyrings() {
    let key = key();
    let public = key.to_public_key();
    let mut keyring = Keyring::default();
    let armored = public.to_armored_bytes(ArmorOptions::default()).expect("armor");
    keyring.add(&armored, "k.asc").expect("armored");
    let secret = key.to_armored_bytes(ArmorOptions::default()).expect("armor");
    for bytes in [&b""[..], b"junk that is no key", &secret, &[&[0_u8; 8][..], b"KBXf", &[0; 50]].concat()] {
        let error = keyring.add(bytes, "k").expect_err("no keyring").to_string();
        assert!(error.starts_with("keyring k: ") && !error.contains('\n'), "{error}");
    }
}
