//! Signatures as registries keep them.
//!
//! *Payload*: a layer of type `application/vnd.dev.cosign.simplesigning.v1+json` of the manifest tagged
//! `ALGORITHM-HEX.sig`. Its bytes are signed, the signature is the annotation [`SIGNATURE`].
//!
//! ```text
//! {"critical": {"identity": {"docker-reference": "registry.example/app:1"},
//!               "image": {"docker-manifest-digest": "sha256:..."},
//!               "type": "cosign container image signature"},
//!  "optional": null}
//! ```
//!
//! *Bundle*: `application/vnd.dev.sigstore.bundle.v0.3+json`, the layer of a manifest whose subject is the image. Either
//! a DSSE envelope (what is signed is `DSSEv1 LENGTH TYPE LENGTH PAYLOAD`) around an in-toto statement of the predicate
//! [`PREDICATE`] whose subjects are digests, or a plain signature of the manifest's bytes. A bundle does not say what the
//! image is called. Its entries of transparency logs are not looked at: the key alone decides.
//!
//! Nothing of what is said is believed before a key has verified it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_oci::digest::Algorithm;
use hull_oci::spec::one_line;
use hull_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Error;
use crate::key::{PublicKey, SigningKey};

/// An image with more signatures is refused: each costs a request.
pub const MAX_SIGNATURES: usize = 64;

/// A longer payload or bundle is refused.
pub const MAX_BYTES: u64 = 1 << 20;

/// Media type of a payload.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Annotation of a payload's layer: the signature in base64.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// Media type of a bundle.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What a statement says that is a signature of an image.
pub const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// The type in a payload that cosign makes.
const PAYLOAD_TYPE: &str = "cosign container image signature";

const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];

/// A signature that nobody has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A payload and its signature in base64.
    Payload {
        /// What is signed.
        payload: Vec<u8>,
        /// The signature.
        signature: String,
    },
    /// A bundle.
    Bundle(Vec<u8>),
}

/// A manifest or index that an image's name leads to.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Its digest, which was compared with its bytes.
    pub digest: &'a Digest,
    /// Its bytes, for signatures of them; without, such a signature does not count.
    pub bytes: Option<&'a [u8]>,
}

/// What a key's owner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The manifest or index.
    pub digest: Digest,
    /// What the image is called; a bundle does not say.
    pub name: Option<String>,
}

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is not of the form.
    #[error("a signature is malformed: {0}")]
    Malformed(String),
    /// None of the keys made it.
    #[error("a signature is of another key")]
    Key,
    /// It is about something else.
    #[error("a signature is of {0}")]
    Digest(String),
    /// It is a statement about an image, not a signature of it.
    #[error("a bundle says something else of the image than that it is signed: {}", one_line(.0))]
    Predicate(String),
    /// It is verified by a certificate.
    #[error("a bundle is signed by a certificate, which is not supported: only keys are")]
    Certificate,
}

fn malformed(reason: impl ToString) -> Invalid {
    Invalid::Malformed(one_line(&reason.to_string()).chars().take(200).collect())
}

impl Evidence {
    /// Verifies the signature by any of the keys, and that it is about one of the subjects.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn verify<'k>(
        &self,
        keys: &'k [PublicKey],
        subjects: &[Subject<'_>],
    ) -> Result<(Claim, &'k PublicKey), Invalid> {
        match self {
            Self::Payload { payload, signature } => {
                let signature = STANDARD.decode(signature.trim()).map_err(malformed)?;
                let key = signer(keys, payload, &signature)?;
                let claim = read_payload(payload)?;
                if subjects.iter().any(|subject| *subject.digest == claim.digest) {
                    return Ok((claim, key));
                }
                Err(Invalid::Digest(claim.digest.to_string()))
            }
            Self::Bundle(bytes) => bundle(bytes, keys, subjects),
        }
    }

    /// Signs what cosign calls a container image signature, with the image's name and its tag.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(key: &SigningKey, name: &Reference, digest: &Digest) -> Result<Self, Error> {
        let payload = Payload {
            critical: Critical {
                identity: Identity { docker_reference: name.to_string() },
                image: Signed { docker_manifest_digest: digest.clone() },
                kind: PAYLOAD_TYPE.to_owned(),
            },
            optional: None,
        };
        let payload = json!(payload).to_string().into_bytes();
        let signature = STANDARD.encode(key.sign(&payload)?);
        Ok(Self::Payload { payload, signature })
    }

    /// Signs a statement in a bundle, as newer versions of cosign do.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign_bundle(key: &SigningKey, digest: &Digest) -> Result<Self, Error> {
        let statement = json!({
            "_type": STATEMENTS[0],
            "subject": [{"digest": {digest.algorithm().as_str(): digest.hex()}, "annotations": {}}],
            "predicateType": PREDICATE,
            "predicate": {},
        });
        let payload = statement.to_string().into_bytes();
        let signature = STANDARD.encode(key.sign(&encoding(IN_TOTO, &payload))?);
        let bundle = json!({
            "mediaType": BUNDLE,
            // Which key it is: nothing that verification relies on.
            "verificationMaterial": {"publicKey": {"hint": hint(key.public())}},
            "dsseEnvelope": {
                "payload": STANDARD.encode(&payload), "payloadType": IN_TOTO, "signatures": [{"sig": signature}]
            },
        });
        Ok(Self::Bundle(bundle.to_string().into_bytes()))
    }
}

/// The digest of the key, as bundles have it.
fn hint(key: &PublicKey) -> String {
    let hex = key.id().hex().as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0).to_le_bytes()[0];
    STANDARD.encode(hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect::<Vec<u8>>())
}

/// The key that made a signature.
fn signer<'k>(keys: &'k [PublicKey], message: &[u8], signature: &[u8]) -> Result<&'k PublicKey, Invalid> {
    keys.iter().find(|key| key.verifies(message, signature)).ok_or(Invalid::Key)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    optional: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Signed,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Signed {
    docker_manifest_digest: Digest,
}

/// What a verified payload says. A field that is not known may mean anything, so it is refused.
fn read_payload(bytes: &[u8]) -> Result<Claim, Invalid> {
    let payload: Payload = serde_json::from_slice(bytes).map_err(malformed)?;
    let Critical { identity, image, kind } = payload.critical;
    if kind != PAYLOAD_TYPE {
        return Err(malformed(format!("its type is {kind:?}, expected {PAYLOAD_TYPE:?}")));
    }
    Ok(Claim { digest: image.docker_manifest_digest, name: Some(identity.docker_reference) })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    #[serde(default)]
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<MessageSignature>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    certificate: Option<serde::de::IgnoredAny>,
    x509_certificate_chain: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageSignature {
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<StatementSubject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct StatementSubject {
    digest: std::collections::BTreeMap<String, String>,
}

/// What is signed of an envelope (DSSE 1.0, "pre-authentication encoding").
fn encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend(payload);
    message
}

fn bundle<'k>(
    bytes: &[u8],
    keys: &'k [PublicKey],
    subjects: &[Subject<'_>],
) -> Result<(Claim, &'k PublicKey), Invalid> {
    let bundle: Bundle = serde_json::from_slice(bytes).map_err(malformed)?;
    if !matches!(bundle.media_type.as_str(), BUNDLE | "application/vnd.dev.sigstore.bundle+json;version=0.3") {
        return Err(malformed(format!("its type is {:?}, expected {BUNDLE}", bundle.media_type)));
    }
    let Material { certificate, x509_certificate_chain } = bundle.verification_material;
    if certificate.is_some() || x509_certificate_chain.is_some() {
        return Err(Invalid::Certificate);
    }
    match (bundle.dsse_envelope, bundle.message_signature) {
        (Some(envelope), None) => envelope_of(&envelope, keys, subjects),
        (None, Some(signed)) => {
            let signature = STANDARD.decode(signed.signature).map_err(malformed)?;
            for subject in subjects {
                if let Some(bytes) = subject.bytes
                    && let Ok(key) = signer(keys, bytes, &signature)
                {
                    return Ok((Claim { digest: subject.digest.clone(), name: None }, key));
                }
            }
            Err(Invalid::Key)
        }
        _ => Err(malformed("it has not one of an envelope and a signature")),
    }
}

fn envelope_of<'k>(
    envelope: &Envelope,
    keys: &'k [PublicKey],
    subjects: &[Subject<'_>],
) -> Result<(Claim, &'k PublicKey), Invalid> {
    let payload = STANDARD.decode(&envelope.payload).map_err(malformed)?;
    let message = encoding(&envelope.payload_type, &payload);
    if envelope.signatures.len() > MAX_SIGNATURES {
        return Err(malformed(format!("it has more than {MAX_SIGNATURES} signatures")));
    }
    let mut found = None;
    for one in &envelope.signatures {
        let signature = STANDARD.decode(&one.sig).map_err(malformed)?;
        found = found.or_else(|| signer(keys, &message, &signature).ok());
    }
    let key = found.ok_or(Invalid::Key)?;
    if envelope.payload_type != IN_TOTO {
        return Err(malformed(format!("it contains {:?}, expected {IN_TOTO}", envelope.payload_type)));
    }
    let statement: Statement = serde_json::from_slice(&payload).map_err(malformed)?;
    if !STATEMENTS.contains(&statement.kind.as_str()) {
        return Err(malformed(format!("its statement is of type {:?}", statement.kind)));
    }
    if statement.predicate_type != PREDICATE {
        return Err(Invalid::Predicate(statement.predicate_type.chars().take(200).collect()));
    }
    let of = |subject: &StatementSubject| {
        subjects.iter().find(|one| {
            let algorithm: Algorithm = one.digest.algorithm();
            subject.digest.get(algorithm.as_str()).is_some_and(|hex| hex == one.digest.hex())
        })
    };
    match statement.subject.iter().find_map(of) {
        Some(subject) => Ok((Claim { digest: subject.digest.clone(), name: None }, key)),
        None => Err(Invalid::Digest("another image".to_owned())),
    }
}
