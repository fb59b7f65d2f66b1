//! Content digests (image-spec: `descriptor.md#digests`).
//!
//! A [`Digest`] that exists is safe as a file name: its algorithm is one that Hull computes, and its text is exactly as
//! many lower-case hexadecimal digits as that algorithm yields.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// The algorithms of digests that Hull computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, which everybody uses.
    Sha256,
    /// SHA-512, which the specification allows.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// `algorithm:hex`, checked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

/// Text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// It has not the form `algorithm:hex`.
    #[error("invalid digest {0:?}: expected sha256: and 64 lower-case hexadecimal digits")]
    Format(String),
    /// An algorithm that Hull does not compute.
    #[error("unsupported digest algorithm {0:?}: sha256 and sha512 are known")]
    Algorithm(String),
}

impl Digest {
    /// The SHA-256 digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// A SHA-256 digest from its 64 digits alone, as image IDs are written.
    ///
    /// # Errors
    /// [`DigestError::Format`].
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        Self::checked(Algorithm::Sha256, hex).ok_or_else(|| DigestError::Format(hex.to_owned()))
    }

    fn checked(algorithm: Algorithm, hex: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (hex.len() == algorithm.digits() && hex.bytes().all(digit)).then(|| Self { algorithm, hex: hex.into() })
    }

    /// How it was computed.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits after the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve digits, as tables show them.
    #[must_use]
    pub fn short(&self) -> &str {
        self.hex.get(..12).unwrap_or(&self.hex)
    }

    /// A hasher for content that should have this digest.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        Hasher::new(self.algorithm)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or_else(|| DigestError::Format(text.to_owned()))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::Algorithm(name.to_owned())),
        };
        Self::checked(algorithm, hex).ok_or_else(|| DigestError::Format(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a digest piece by piece.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            State::Sha256(_) => "Hasher(sha256)",
            State::Sha512(_) => "Hasher(sha512)",
        })
    }
}

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything seen.
    #[must_use]
    pub fn finish(self) -> Digest {
        let (algorithm, bytes) = match self.0 {
            State::Sha256(state) => (Algorithm::Sha256, state.finalize().to_vec()),
            State::Sha512(state) => (Algorithm::Sha512, state.finalize().to_vec()),
        };
        let hex: String = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect();
        Digest { algorithm, hex: hex.into() }
    }
}

fn digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse::<Digest>().expect("valid").hex().len(), 64);
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"abc");
        assert!(hasher.finish().to_string().starts_with("sha512:ddaf35a193617aba"));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for bad in ["", "sha256", "sha256:", "sha256:../../etc", &hex[1..], &format!("sha256:{}", hex.to_uppercase())] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!(matches!(format!("md5:{hex}").parse::<Digest>(), Err(DigestError::Algorithm(_))));
        assert!(format!("sha512:{hex}").parse::<Digest>().is_err(), "the length must fit the algorithm");
    }
}
