//! Versions of the API.

/// The newest version of the API that is spoken.
pub const API_VERSION: &str = "1.51";

/// The oldest.
pub const MIN_API_VERSION: &str = "1.24";

/// The version of Docker's engine that clients are told, because they decide by it what they may ask for.
pub const ENGINE_VERSION: &str = "28.5.2";

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Always 1.
    pub major: u32,
    /// What counts.
    pub minor: u32,
}

impl Version {
    /// `1.51`; further parts count for nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        let major = parts.next()??;
        Some(Self { major, minor: parts.next().unwrap_or(Some(0))? })
    }

    /// Whether the client speaks at least 1.`minor`.
    #[must_use]
    pub fn since(self, minor: u32) -> bool {
        self >= Self { major: 1, minor }
    }
}
