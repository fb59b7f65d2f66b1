//! Keyrings, and the signatures of Release files.
//!
//! A signature counts when it is good for the bytes, made by a key or subkey of the keyring that its own primary key
//! allows to sign, with a digest of at least 256 bits, at a time at which that key was valid. A key that has expired since
//! then is good for what it signed before: archives of old releases stay as they are. One signature that counts is
//! enough, as for apt; one that is wrong, though the keyring has its key, refuses the file.

use std::fmt;
use std::io::Cursor;

use pgp::composed::{CleartextSignedMessage, PublicOrSecret, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Packet, PacketParser, Signature, SignatureType};
use pgp::types::{KeyDetails, PublicParams, Tag, VerifyingKey};

use crate::error::{Error, one_line};

/// Seconds that a signer's clock may be ahead.
const MAX_AHEAD: u64 = 24 * 3600;

/// Trusted keys.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

impl Keyring {
    /// Adds the keys of a file: binary, or armored. Keys that are not understood are passed over.
    ///
    /// # Errors
    /// [`Error::Keyring`] when no key is in it.
    pub fn add(&mut self, bytes: &[u8], object: &str) -> Result<(), Error> {
        let wrong = |reason: String| Error::Keyring { object: one_line(object), reason: one_line(&reason) };
        if bytes.get(8..12) == Some(b"KBXf") {
            return Err(wrong("it is a keybox: export its keys with gpg --export".to_owned()));
        }
        let (keys, _) =
            PublicOrSecret::from_reader_many(Cursor::new(bytes)).map_err(|error| wrong(error.to_string()))?;
        let before = self.keys.len();
        let keys = keys.filter_map(Result::ok).filter_map(|one| match one {
            PublicOrSecret::Public(key) => Some(key),
            PublicOrSecret::Secret(_) => None,
        });
        self.keys.extend(keys);
        if self.keys.len() == before {
            return Err(wrong("it has no OpenPGP public key".to_owned()));
        }
        Ok(())
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keeps the keys with these fingerprints, given in hexadecimal; of a key or of a subkey.
    pub fn keep(&mut self, fingerprints: &[String]) {
        self.keys.retain(|key| {
            let own = [hex(key.primary_key.fingerprint())].into_iter();
            let mut all = own.chain(key.public_subkeys.iter().map(|subkey| hex(subkey.key.fingerprint())));
            all.any(|one| fingerprints.iter().any(|wanted| wanted.eq_ignore_ascii_case(&one)))
        });
    }

    /// The text that an InRelease file signs.
    ///
    /// # Errors
    /// [`Error::Signature`].
    pub fn open_inline(&self, bytes: &[u8], now: u64, object: &str) -> Result<String, Error> {
        let wrong = |reason: String| Error::Signature { object: one_line(object), reason: one_line(&reason) };
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("the file is no text".to_owned()))?;
        let (message, _) = CleartextSignedMessage::from_string(text)
            .map_err(|error| wrong(format!("the file is no signed text: {error}")))?;
        let signed = message.signed_text();
        self.check(message.signatures(), signed.as_bytes(), now).map_err(wrong)?;
        Ok(signed.replace("\r\n", "\n"))
    }

    /// Checks the signature file of a Release file.
    ///
    /// # Errors
    /// [`Error::Signature`].
    pub fn check_detached(&self, signature: &[u8], bytes: &[u8], now: u64, object: &str) -> Result<(), Error> {
        let wrong = |reason: String| Error::Signature { object: one_line(object), reason: one_line(&reason) };
        let mut signatures = Vec::new();
        let mut collect = |parser: &mut dyn Iterator<Item = pgp::errors::Result<Packet>>| {
            for packet in parser.take(64) {
                if let Packet::Signature(signature) = packet? {
                    signatures.push(signature);
                }
            }
            Ok::<(), pgp::errors::Error>(())
        };
        let done = if signature.starts_with(b"-----") {
            let dearmor = pgp::armor::Dearmor::new(Cursor::new(signature));
            collect(&mut PacketParser::new(std::io::BufReader::new(dearmor)))
        } else {
            collect(&mut PacketParser::new(Cursor::new(signature)))
        };
        done.map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        self.check(&signatures, bytes, now).map_err(wrong)
    }

    fn check(&self, signatures: &[Signature], bytes: &[u8], now: u64) -> Result<(), String> {
        let mut refused: Vec<String> = Vec::new();
        let mut good = false;
        for signature in signatures {
            match self.check_one(signature, bytes, now) {
                Ok(()) => good = true,
                Err(Refusal::Unknown) => {}
                Err(Refusal::Bad(name)) => return Err(format!("it is not good: the file was changed ({name})")),
                Err(Refusal::Unusable(reason)) => refused.push(reason),
            }
        }
        if good {
            return Ok(());
        }
        Err(match refused.first() {
            Some(reason) => reason.clone(),
            None if signatures.is_empty() => "there is none".to_owned(),
            None => {
                let ids: Vec<String> = signatures.iter().map(issuer).collect();
                format!("no trusted key made it: it is by {}; give the right --keyring", ids.join(", "))
            }
        })
    }

    fn check_one(&self, signature: &Signature, bytes: &[u8], now: u64) -> Result<(), Refusal> {
        let mut result = Err(Refusal::Unknown);
        for key in &self.keys {
            let primary = &key.primary_key;
            let subkeys = key.public_subkeys.iter().filter(|subkey| is_by(signature, &subkey.key));
            for subkey in subkeys {
                result = good(signature, &subkey.key, bytes, now).and_then(|made| {
                    primary_valid(key, made)?;
                    subkey_valid(key, subkey, made)
                });
                if result.is_ok() {
                    return Ok(());
                }
            }
            if is_by(signature, primary) {
                result = good(signature, primary, bytes, now).and_then(|made| primary_signs(key, made));
                if result.is_ok() {
                    return Ok(());
                }
            }
        }
        result
    }
}

/// Why a signature does not count.
enum Refusal {
    /// Its key is not in the keyring.
    Unknown,
    /// The bytes are others.
    Bad(String),
    /// It is good, and does not count.
    Unusable(String),
}

fn hex(bytes: impl fmt::Debug + AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn name(key: &impl KeyDetails) -> String {
    format!("key {}", hex(key.fingerprint().as_bytes()))
}

fn issuer(signature: &Signature) -> String {
    let fingerprint = signature.issuer_fingerprint().first().map(|one| hex(one.as_bytes()));
    let id = || signature.issuer_key_id().first().map(hex);
    fingerprint.or_else(id).map_or_else(|| "an unnamed key".to_owned(), |id| format!("key {id}"))
}

fn is_by(signature: &Signature, key: &impl KeyDetails) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    if fingerprints.is_empty() {
        signature.issuer_key_id().iter().any(|id| **id == key.legacy_key_id())
    } else {
        fingerprints.iter().any(|one| **one == key.fingerprint())
    }
}

/// Whether the key made the signature over the bytes; the time at which it did.
fn good(signature: &Signature, key: &impl VerifyingKey, bytes: &[u8], now: u64) -> Result<u64, Refusal> {
    if !matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary)) {
        return Err(Refusal::Unusable("it is no signature of a document".to_owned()));
    }
    let strong = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512, HashAlgorithm::Sha3_256];
    let hash = signature.hash_alg();
    if !hash.is_some_and(|hash| strong.contains(&hash) || hash == HashAlgorithm::Sha3_512) {
        let hash = hash.map_or_else(|| "an unknown digest".to_owned(), |hash| hash.to_string());
        return Err(Refusal::Unusable(format!("it uses {hash}, which is too weak ({})", name(key))));
    }
    if signature.verify(key, bytes).is_err() {
        return Err(Refusal::Bad(name(key)));
    }
    if weak(key.public_params()) {
        return Err(Refusal::Unusable(format!("{} is too short to be trusted", name(key))));
    }
    let Some(made) = signature.created().map(|time| u64::from(time.as_secs())) else {
        return Err(Refusal::Unusable("it does not say when it was made".to_owned()));
    };
    if made > now.saturating_add(MAX_AHEAD) {
        return Err(Refusal::Unusable("it was made in the future: is this machine's clock right?".to_owned()));
    }
    let lasts = signature.signature_expiration_time().map_or(0, |time| u64::from(time.as_secs()));
    if lasts != 0 && made + lasts < now {
        return Err(Refusal::Unusable("the signature itself has expired".to_owned()));
    }
    Ok(made)
}

/// RSA below 2048 bits, and DSA.
fn weak(parameters: &PublicParams) -> bool {
    match parameters {
        PublicParams::RSA(rsa) => {
            use pgp::ser::Serialize as _;
            // The modulus and the exponent, with two bytes of length each.
            rsa.write_len() < 2048 / 8 + 4
        }
        PublicParams::DSA(_) | PublicParams::Elgamal(_) => true,
        _ => false,
    }
}

/// The newest of a key's own signatures that says something about it; what it says.
struct Statement<'k> {
    signature: Option<&'k Signature>,
}

impl<'k> Statement<'k> {
    fn newest(signatures: impl Iterator<Item = &'k Signature>) -> Self {
        Self { signature: signatures.max_by_key(|one| one.created().map_or(0, |time| time.as_secs())) }
    }

    fn valid(&self, key: &impl KeyDetails, made: u64) -> Result<(), Refusal> {
        let Some(signature) = self.signature else {
            return Err(Refusal::Unusable(format!("{} has no signature of its own", name(key))));
        };
        let created = u64::from(key.created_at().as_secs());
        let lasts = signature.key_expiration_time().map_or(0, |time| u64::from(time.as_secs()));
        if made < created {
            return Err(Refusal::Unusable(format!("it is older than {}", name(key))));
        }
        if lasts != 0 && made >= created + lasts {
            return Err(Refusal::Unusable(format!("{} had expired when it was made", name(key))));
        }
        Ok(())
    }
}

fn primary_statement(key: &SignedPublicKey) -> Statement<'_> {
    let primary = &key.primary_key;
    let direct = key.details.direct_signatures.iter().filter(|one| one.verify_key(primary).is_ok());
    let users = key.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(move |one| {
            one.is_certification()
                && is_by(one, primary)
                && one.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        })
    });
    Statement::newest(direct.chain(users))
}

fn primary_valid(key: &SignedPublicKey, made: u64) -> Result<(), Refusal> {
    let primary = &key.primary_key;
    if key.details.revocation_signatures.iter().any(|one| one.verify_key(primary).is_ok()) {
        return Err(Refusal::Unusable(format!("{} is revoked", name(primary))));
    }
    primary_statement(key).valid(primary, made)
}

fn primary_signs(key: &SignedPublicKey, made: u64) -> Result<(), Refusal> {
    primary_valid(key, made)?;
    // A key without flags may do all that its algorithm can.
    let flags = primary_statement(key).signature.map(Signature::key_flags).unwrap_or_default();
    if flags.certify() && !flags.sign() {
        return Err(Refusal::Unusable(format!("{} is not for signing documents", name(&key.primary_key))));
    }
    Ok(())
}

fn subkey_valid(key: &SignedPublicKey, subkey: &pgp::composed::SignedPublicSubKey, made: u64) -> Result<(), Refusal> {
    let primary = &key.primary_key;
    let bound = subkey.signatures.iter().filter(|one| one.verify_subkey_binding(primary, &subkey.key).is_ok());
    let (revoked, bound): (Vec<_>, Vec<_>) = bound.partition(|one| one.typ() == Some(SignatureType::SubkeyRevocation));
    if !revoked.is_empty() {
        return Err(Refusal::Unusable(format!("{} is revoked", name(&subkey.key))));
    }
    let statement = Statement::newest(bound.into_iter());
    statement.valid(&subkey.key, made)?;
    let signs = statement.signature.is_some_and(|binding| {
        let agreed = binding.embedded_signature();
        binding.key_flags().sign()
            && agreed.is_some_and(|one| one.verify_primary_key_binding(&subkey.key, primary).is_ok())
    });
    if signs { Ok(()) } else { Err(Refusal::Unusable(format!("{} is not for signing documents", name(&subkey.key)))) }
}

#[cfg(test)]
mod tests;
