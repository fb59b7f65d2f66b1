//! Public keys of an issuer of tokens: certificates in PEM (`rootcertbundle` of Docker's registry) and JSON web keys
//! (RFC 7517).
//!
//! A token names its key by `kid`, as the key set or Docker's fingerprint of the key has it, by the key itself (`jwk`), which
//! must be one of those that are trusted, or by a chain of certificates (`x5c`) that begins with a trusted key or leads to
//! a trusted certificate.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{self, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde_json::Value;

use super::jwt::Header;
use crate::Error;

/// Certificates of one token.
const MOST_CERTIFICATES: usize = 10;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// One element of DER: its tag, its content, and what comes after it.
fn der(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        let (digits, after) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// A positive number without leading zeros.
fn number(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

impl Key {
    /// Of the content of a SubjectPublicKeyInfo (RFC 5280).
    fn of_spki(content: &[u8]) -> Option<Self> {
        let (_, algorithm, rest) = der(content)?;
        let (_, bits, _) = der(rest)?;
        let (0, key) = bits.split_first().map(|(unused, key)| (*unused, key))? else { return None };
        let (_, name, parameters) = der(algorithm)?;
        match name {
            // rsaEncryption
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1] => {
                let (_, pair, _) = der(key)?;
                let (_, n, rest) = der(pair)?;
                let (_, e, _) = der(rest)?;
                Some(Self::Rsa { n: number(n), e: number(e) })
            }
            // id-ecPublicKey, with a curve
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1] => match der(parameters)?.1 {
                [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => Some(Self::P256(key.to_vec())),
                [0x2b, 0x81, 4, 0, 0x22] => Some(Self::P384(key.to_vec())),
                _ => None,
            },
            // id-Ed25519
            [0x2b, 0x65, 0x70] => Some(Self::Ed25519(key.to_vec())),
            _ => None,
        }
    }

    /// Of a JSON web key.
    fn of_jwk(jwk: &Value) -> Option<Self> {
        let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?.trim_end_matches('=')).ok();
        let point = |length: usize| {
            let (x, y) = (part("x")?, part("y")?);
            (x.len() == length && y.len() == length).then(|| [&[4][..], &x, &y].concat())
        };
        match (jwk["kty"].as_str()?, jwk["crv"].as_str()) {
            ("RSA", _) => Some(Self::Rsa { n: number(&part("n")?), e: number(&part("e")?) }),
            ("EC", Some("P-256")) => point(32).map(Self::P256),
            ("EC", Some("P-384")) => point(48).map(Self::P384),
            ("OKP", Some("Ed25519")) => part("x").filter(|x| x.len() == 32).map(Self::Ed25519),
            _ => None,
        }
    }

    fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let rsa = |parameters: &'static signature::RsaParameters, n: &[u8], e: &[u8]| {
            signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
        };
        let verified = match (self, algorithm) {
            (Self::Rsa { n, e }, "RS256") => rsa(&signature::RSA_PKCS1_2048_8192_SHA256, n, e),
            (Self::Rsa { n, e }, "RS384") => rsa(&signature::RSA_PKCS1_2048_8192_SHA384, n, e),
            (Self::Rsa { n, e }, "RS512") => rsa(&signature::RSA_PKCS1_2048_8192_SHA512, n, e),
            (Self::Rsa { n, e }, "PS256") => rsa(&signature::RSA_PSS_2048_8192_SHA256, n, e),
            (Self::Rsa { n, e }, "PS384") => rsa(&signature::RSA_PSS_2048_8192_SHA384, n, e),
            (Self::Rsa { n, e }, "PS512") => rsa(&signature::RSA_PSS_2048_8192_SHA512, n, e),
            (Self::P256(key), "ES256") => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            (Self::P384(key), "ES384") => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, key).verify(message, signature)
            }
            (Self::Ed25519(key), "EdDSA") => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

/// Docker's name of a key: twelve groups of base 32 of a part of the digest of its SubjectPublicKeyInfo.
fn fingerprint(spki: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = ring::digest::digest(&ring::digest::SHA256, spki);
    let mut text = String::new();
    for five in digest.as_ref()[..30].chunks(5) {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for (position, shift) in (0..8).rev().map(|shift| shift * 5).enumerate() {
            if position % 4 == 0 && !text.is_empty() {
                text.push(':');
            }
            text.push(char::from(LETTERS[usize::try_from(bits >> shift & 31).unwrap_or(0)]));
        }
    }
    text
}

/// A sequence around its content.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut whole = vec![0x30];
    match length {
        0..0x80 => whole.push(u8::try_from(length).unwrap_or(0)),
        0x80..0x100 => whole.extend([0x81, u8::try_from(length).unwrap_or(0)]),
        _ => {
            whole.push(0x82);
            whole.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
        }
    }
    whole.extend(content);
    whole
}

/// The keys that are trusted.
#[derive(Debug, Default)]
pub(super) struct Trusted {
    /// With the names that tokens may call them by.
    keys: Vec<(Vec<String>, Key)>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Trusted {
    /// Reads certificates in PEM.
    pub(super) fn read_certificates(&mut self, path: &Path) -> Result<(), Error> {
        let bad = |reason: String| Error::Keys { path: path.to_owned(), reason };
        let all: Vec<CertificateDer<'static>> =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| bad(error.to_string()))?;
        if all.is_empty() {
            return Err(bad("it has no certificate".to_owned()));
        }
        for certificate in all {
            let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|error| bad(error.to_string()))?;
            let spki = anchor.subject_public_key_info.as_ref();
            // A key of another kind may still sign certificates.
            if let Some(key) = Key::of_spki(spki) {
                self.keys.push((vec![fingerprint(&sequence(spki))], key));
            }
            self.anchors.push(anchor.to_owned());
        }
        Ok(())
    }

    /// Reads a set of JSON web keys, or one.
    pub(super) fn read_keys(&mut self, path: &Path) -> Result<(), Error> {
        let bad = |reason: &str| Error::Keys { path: path.to_owned(), reason: reason.to_owned() };
        let text = std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        let value: Value = serde_json::from_slice(&text).map_err(|_| bad("it is not JSON"))?;
        let single = std::slice::from_ref(&value);
        let all = value["keys"].as_array().map_or(single, Vec::as_slice);
        for jwk in all {
            let key = Key::of_jwk(jwk).ok_or_else(|| bad("it has a key that is not RSA, P-256, P-384 or Ed25519"))?;
            self.keys.push((jwk["kid"].as_str().map(str::to_owned).into_iter().collect(), key));
        }
        if all.is_empty() {
            return Err(bad("it has no key"));
        }
        Ok(())
    }

    /// Checks a token's signature.
    pub(super) fn verify(&self, header: &Header, message: &[u8], signature: &[u8]) -> Result<(), &'static str> {
        let fits = |key: &Key| key.verify(&header.alg, message, signature);
        let is_right = if !header.x5c.is_empty() {
            fits(&self.leaf(&header.x5c)?)
        } else if let Some(jwk) = &header.jwk {
            let key = Key::of_jwk(jwk).filter(|key| self.keys.iter().any(|(_, known)| known == key));
            fits(&key.ok_or("the token's key is not trusted")?)
        } else if let Some(name) = &header.kid {
            let named = |(names, _): &&(Vec<String>, Key)| names.iter().any(|one| one == name);
            let mut found = self.keys.iter().filter(named).peekable();
            found.peek().ok_or("the token's key is not known")?;
            found.any(|(_, key)| fits(key))
        } else {
            self.keys.iter().any(|(_, key)| fits(key))
        };
        is_right.then_some(()).ok_or("the token's signature is wrong")
    }

    /// The key of a chain's first certificate, if it is trusted.
    fn leaf(&self, chain: &[String]) -> Result<Key, &'static str> {
        if chain.len() > MOST_CERTIFICATES {
            return Err("the token has too many certificates");
        }
        let decode = |text: &String| STANDARD.decode(text).map(CertificateDer::from);
        let chain = chain
            .iter()
            .map(decode)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| "the token's certificate is not valid")?;
        let (first, rest) = chain.split_first().ok_or("the token has no certificate")?;
        let anchor = webpki::anchor_from_trusted_cert(first).map_err(|_| "the token's certificate is not valid")?;
        let key =
            Key::of_spki(anchor.subject_public_key_info.as_ref()).ok_or("the token's key is of an unknown kind")?;
        if self.keys.iter().any(|(_, known)| *known == key) {
            return Ok(key);
        }
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = provider.signature_verification_algorithms.all;
        let leaf = webpki::EndEntityCert::try_from(first).map_err(|_| "the token's certificate is not valid")?;
        // What the certificate is for is not said anywhere; both of these let one without a purpose through.
        let verified = [webpki::KeyUsage::client_auth(), webpki::KeyUsage::server_auth()].into_iter().any(|usage| {
            leaf.verify_for_usage(algorithms, &self.anchors, rest, UnixTime::now(), usage, None, None).is_ok()
        });
        verified.then_some(key).ok_or("the token's certificate is not trusted")
    }
}
