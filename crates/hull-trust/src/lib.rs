//! Signatures of images: who may have made an image, by public keys, without a network.
//!
//! ```text
//! registry ── tag `sha256-HEX.sig`: layers with a payload each ──┐
//!          └─ referrers: sigstore bundles v0.3 ──────────────────┴─> Evidence ── key ──> Claim: digest, name
//! policy.json ── the rule for a name ──> requirements ── Evidence, keys ──> allowed, or what is missing
//! ```
//!
//! * [`key`]: public keys (ECDSA P-256 and P-384, Ed25519, RSA) in PEM, and private ones to sign with.
//! * [`evidence`]: the two forms of cosign's signatures, checked and made. What is signed names the digest of a
//!   manifest; the payload form names the image too, a bundle does not.
//! * [`policy`]: `policy.json` of the containers tools (`containers-policy.json(5)`), read as strictly as they do: what is
//!   not known is refused, never skipped.
//!
//! Nothing is asked of a network and no time is looked at: certificates and transparency logs are not supported, and a
//! policy that asks for them refuses. Everything that comes from a registry is hostile until a key has verified it; how
//! much of it there may be is bounded by [`evidence::MAX_SIGNATURES`] and [`evidence::MAX_BYTES`].
//!
//! Cryptography is `ring`'s, which TLS brings along; only the passwords of cosign's private keys and Ed25519ph need more.

mod der;
pub mod error;
pub mod evidence;
pub mod key;
mod pem;
pub mod policy;

pub use error::Error;
pub use evidence::{Claim, Evidence, Subject};
pub use key::{PublicKey, SigningKey};
pub use policy::{Policy, Refused};
