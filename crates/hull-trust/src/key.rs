//! Keys: public ones to verify with, private ones to sign with.
//!
//! A public key is a PEM block `PUBLIC KEY` (SubjectPublicKeyInfo, RFC 5280). What is hashed and how follows from its
//! kind, never from what a signature says, and is what cosign does:
//!
//! | kind | signature |
//! |---|---|
//! | ECDSA P-256 | SHA-256, ASN.1 |
//! | ECDSA P-384 | SHA-384 or SHA-256, ASN.1 |
//! | Ed25519 | of the message itself, or of its SHA-512 (Ed25519ph) |
//! | RSA, 2048 to 8192 bits | PKCS #1 v1.5 with SHA-256 |
//!
//! A private key is a PEM block `PRIVATE KEY` (PKCS #8), of any of these kinds but P-384 (of which tools do not agree what
//! is hashed), or cosign's own: an encrypted one, whose key is derived from a
//! password by scrypt and which is locked by NaCl's secretbox.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_oci::Digest;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, UnparsedPublicKey};
use serde::Deserialize;

use crate::{Error, der, error, pem};

/// No key file is longer.
pub const MAX_KEY_BYTES: u64 = 64 << 10;

const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on NIST's curve P-256.
    EcdsaP256,
    /// ECDSA on NIST's curve P-384.
    EcdsaP384,
    /// EdDSA on Curve25519.
    Ed25519,
    /// RSA.
    Rsa,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::EcdsaP384 => "ECDSA P-384",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        })
    }
}

/// A key to verify with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    /// As `ring` takes it: a point, 32 bytes, or PKCS #1.
    bytes: Vec<u8>,
    /// Digest of the whole SubjectPublicKeyInfo.
    id: Digest,
    origin: String,
}

impl PublicKey {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// When it cannot be read, or has no key of a kind that Hull verifies with.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let origin = path.display().to_string();
        let bytes = error::read(path, MAX_KEY_BYTES)?;
        Self::from_pem(&bytes, &origin)
    }

    /// Parses PEM. `origin` is how errors and verdicts call it.
    ///
    /// # Errors
    /// When it has no key of a kind that Hull verifies with.
    pub fn from_pem(bytes: &[u8], origin: &str) -> Result<Self, Error> {
        let bad = |reason: &str| Error::PublicKey { origin: origin.to_owned(), reason: reason.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not text: expected PEM"))?;
        let block = pem::decode(text).map_err(bad)?;
        match block.label.as_str() {
            "PUBLIC KEY" => {}
            label if label.contains("PRIVATE KEY") => return Err(bad("it is a private key: give the public one")),
            "CERTIFICATE" => return Err(bad("it is a certificate: expected a PUBLIC KEY")),
            _ => return Err(bad("it is no PUBLIC KEY")),
        }
        Self::from_der(&block.bytes, origin)
            .ok_or_else(|| bad("expected ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits"))
    }

    fn from_der(info: &[u8], origin: &str) -> Option<Self> {
        let mut input = info;
        let mut content = der::take(&mut input, der::SEQUENCE)?;
        let mut kind = der::take(&mut content, der::SEQUENCE)?;
        let bits = der::take(&mut content, der::BIT_STRING)?;
        let object = der::take(&mut kind, der::OBJECT_IDENTIFIER)?;
        // No bits of the last byte are unused.
        let (0, bytes) = bits.split_first().map(|(unused, bytes)| (*unused, bytes))? else { return None };
        if !input.is_empty() || !content.is_empty() {
            return None;
        }
        let algorithm = match object {
            EC => match (der::take(&mut kind, der::OBJECT_IDENTIFIER)?, bytes.first()?, bytes.len()) {
                (P256, 4, 65) => Algorithm::EcdsaP256,
                (P384, 4, 97) => Algorithm::EcdsaP384,
                _ => return None,
            },
            ED25519 if bytes.len() == 32 => Algorithm::Ed25519,
            RSA if (256..=1100).contains(&bytes.len()) => Algorithm::Rsa,
            _ => return None,
        };
        Some(Self { algorithm, bytes: bytes.to_vec(), id: Digest::of(info), origin: origin.to_owned() })
    }

    fn made(algorithm: Algorithm, bytes: &[u8], origin: &str) -> Self {
        let id = Digest::of(&info(algorithm, bytes));
        Self { algorithm, bytes: bytes.to_vec(), id, origin: origin.to_owned() }
    }

    /// Its kind.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The SHA-256 digest of its DER form, by which it can be told from others.
    #[must_use]
    pub fn id(&self) -> &Digest {
        &self.id
    }

    /// The file, or where else it was.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The key as a PEM block.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &info(self.algorithm, &self.bytes))
    }

    /// Whether the key's owner signed the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let by = |algorithm: &'static dyn signature::VerificationAlgorithm| {
            UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok()
        };
        match self.algorithm {
            Algorithm::EcdsaP256 => by(&signature::ECDSA_P256_SHA256_ASN1),
            Algorithm::EcdsaP384 => by(&signature::ECDSA_P384_SHA384_ASN1) || by(&signature::ECDSA_P384_SHA256_ASN1),
            Algorithm::Ed25519 => by(&signature::ED25519) || self.verifies_hash(message, signature),
            Algorithm::Rsa => by(&signature::RSA_PKCS1_2048_8192_SHA256),
        }
    }

    /// Ed25519 of a message's SHA-512 (RFC 8032, Ed25519ph), which cosign 3 makes.
    fn verifies_hash(&self, message: &[u8], signature: &[u8]) -> bool {
        use ed25519_dalek::{Digest as _, Sha512, Signature, VerifyingKey};
        let key = <&[u8; 32]>::try_from(self.bytes.as_slice()).ok().and_then(|key| VerifyingKey::from_bytes(key).ok());
        let (Some(key), Ok(signature)) = (key, Signature::from_slice(signature)) else { return false };
        key.verify_prehashed_strict(Sha512::new_with_prefix(message), None, &signature).is_ok()
    }
}

/// SubjectPublicKeyInfo of a key.
fn info(algorithm: Algorithm, bytes: &[u8]) -> Vec<u8> {
    let object = |bytes: &[u8]| der::element(der::OBJECT_IDENTIFIER, bytes);
    let kind = match algorithm {
        Algorithm::EcdsaP256 => [object(EC), object(P256)].concat(),
        Algorithm::EcdsaP384 => [object(EC), object(P384)].concat(),
        Algorithm::Ed25519 => object(ED25519),
        // RSA has parameters, and they are null.
        Algorithm::Rsa => [object(RSA), vec![5, 0]].concat(),
    };
    let bits = [&[0], bytes].concat();
    let content = [der::element(der::SEQUENCE, &kind), der::element(der::BIT_STRING, &bits)].concat();
    der::element(der::SEQUENCE, &content)
}

enum Pair {
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    Rsa(Box<RsaKeyPair>),
}

/// A key to sign with.
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads a PEM file. `password` is asked for one when the key is encrypted.
    ///
    /// # Errors
    /// When it cannot be read, is of no kind that Hull signs with, or the password does not fit.
    pub fn read(path: &Path, password: impl FnOnce() -> Option<Vec<u8>>) -> Result<Self, Error> {
        let origin = path.display().to_string();
        let bytes = error::read(path, MAX_KEY_BYTES)?;
        Self::from_pem(&bytes, &origin, password)
    }

    /// Parses PEM.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_pem(bytes: &[u8], origin: &str, password: impl FnOnce() -> Option<Vec<u8>>) -> Result<Self, Error> {
        let bad = |reason: &str| Error::PrivateKey { origin: origin.to_owned(), reason: reason.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not text: expected PEM"))?;
        let block = pem::decode(text).map_err(bad)?;
        let pkcs8 = match block.label.as_str() {
            "PRIVATE KEY" => block.bytes,
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                let password = password().ok_or_else(|| Error::Password { origin: origin.to_owned() })?;
                unlock(&block.bytes, &password).map_err(bad)?
            }
            "ENCRYPTED PRIVATE KEY" => {
                return Err(bad(
                    "it is encrypted as PKCS #8: decrypt it with `openssl pkcs8`, or import it with cosign",
                ));
            }
            "EC PRIVATE KEY" | "RSA PRIVATE KEY" => {
                return Err(bad("it is of an older form: `openssl pkcs8 -topk8 -nocrypt -in KEY` makes it PKCS #8"));
            }
            "PUBLIC KEY" => return Err(bad("it is a public key: give the private one")),
            _ => return Err(bad("it is no PRIVATE KEY in PKCS #8")),
        };
        Self::from_pkcs8(&pkcs8, origin)
            .ok_or_else(|| bad("expected ECDSA P-256 with its public key, Ed25519, or RSA of 2048 bits or more"))
    }

    fn from_pkcs8(bytes: &[u8], origin: &str) -> Option<Self> {
        let random = SystemRandom::new();
        let (pair, public) = match object(bytes)? {
            (EC, Some(P256)) => {
                let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, bytes, &random).ok()?;
                let public = PublicKey::made(Algorithm::EcdsaP256, pair.public_key().as_ref(), origin);
                (Pair::Ecdsa(Box::new(pair)), public)
            }
            (ED25519, _) => {
                // Most tools leave the public key out.
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).ok()?;
                let public = PublicKey::made(Algorithm::Ed25519, pair.public_key().as_ref(), origin);
                (Pair::Ed25519(Box::new(pair)), public)
            }
            (RSA, _) => {
                let pair = RsaKeyPair::from_pkcs8(bytes).ok()?;
                let public = PublicKey::made(Algorithm::Rsa, pair.public_key().as_ref(), origin);
                (Pair::Rsa(Box::new(pair)), public)
            }
            _ => return None,
        };
        Some(Self { pair, public })
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        let failed = |_| Error::PrivateKey { origin: self.public.origin.clone(), reason: "it cannot sign".to_owned() };
        match &self.pair {
            Pair::Ecdsa(pair) => pair.sign(&random, message).map(|made| made.as_ref().to_vec()).map_err(failed),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut bytes = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut bytes).map_err(failed)?;
                Ok(bytes)
            }
        }
    }
}

/// What a PKCS #8 document says of its key: the kind, and the curve.
fn object(mut pkcs8: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    const INTEGER: u8 = 2;
    let mut content = der::take(&mut pkcs8, der::SEQUENCE)?;
    der::take(&mut content, INTEGER)?;
    let mut kind = der::take(&mut content, der::SEQUENCE)?;
    der::take(&mut content, der::OCTET_STRING)?;
    let object = der::take(&mut kind, der::OBJECT_IDENTIFIER)?;
    Some((object, der::take(&mut kind, der::OBJECT_IDENTIFIER)))
}

/// Opens cosign's envelope of a private key.
fn unlock(envelope: &[u8], password: &[u8]) -> Result<Vec<u8>, &'static str> {
    use crypto_secretbox::aead::{Aead as _, KeyInit as _};
    #[derive(Deserialize)]
    struct Envelope {
        kdf: Kdf,
        cipher: Cipher,
        ciphertext: String,
    }
    #[derive(Deserialize)]
    struct Kdf {
        name: String,
        params: Params,
        salt: String,
    }
    #[derive(Deserialize)]
    struct Params {
        #[serde(rename = "N")]
        n: u32,
        r: u32,
        p: u32,
    }
    #[derive(Deserialize)]
    struct Cipher {
        name: String,
        nonce: String,
    }
    let malformed = "its envelope is not what cosign makes";
    let envelope: Envelope = serde_json::from_slice(envelope).map_err(|_| malformed)?;
    if envelope.kdf.name != "scrypt" || envelope.cipher.name != "nacl/secretbox" {
        return Err("it is encrypted otherwise than by scrypt and nacl/secretbox");
    }
    let Params { n, r, p } = envelope.kdf.params;
    // 128 * N * r bytes of memory: what the strongest setting of its tools takes is 64 MB.
    if !n.is_power_of_two() || !(2..=1 << 20).contains(&n) || !(1..=16).contains(&r) || !(1..=16).contains(&p) {
        return Err("its cost of deriving the key is out of bounds");
    }
    if u64::from(n) * u64::from(r) * 128 > 512 << 20 {
        return Err("its cost of deriving the key is out of bounds");
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| malformed);
    let (salt, nonce) = (decode(&envelope.kdf.salt)?, decode(&envelope.cipher.nonce)?);
    let ciphertext = decode(&envelope.ciphertext)?;
    let log_n = u8::try_from(n.trailing_zeros()).map_err(|_| malformed)?;
    let params = scrypt::Params::new(log_n, r, p, 32).map_err(|_| malformed)?;
    let mut key = [0; 32];
    scrypt::scrypt(password, &salt, &params, &mut key).map_err(|_| malformed)?;
    let nonce: [u8; 24] = nonce.try_into().map_err(|_| malformed)?;
    crypto_secretbox::XSalsa20Poly1305::new(&key.into())
        .decrypt(&nonce.into(), ciphertext.as_slice())
        .map_err(|_| "the password is wrong")
}

#[cfg(test)]
mod tests;
