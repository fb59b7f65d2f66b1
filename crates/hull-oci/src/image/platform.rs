//! Platforms: what a program needs to run, and how well one suits another.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::null_default;

/// What a program needs to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// As Go names it: `amd64`, `arm64`, ...
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// Windows build.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Windows features.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub os_features: Vec<String>,
    /// `v7`, `v8`, `v3`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn native() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
            ..Self::default()
        }
    }

    /// Parses `os/arch[/variant]`, `arch` or `os` alone as `--platform` takes it.
    ///
    /// # Errors
    /// Docker's text for what is no platform.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is an invalid platform: expected os[/arch[/variant]], such as linux/arm64/v8");
        let native = Self::native();
        let word = |word: &&str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts.as_slice() {
            ["linux"] => return Ok(native),
            [one] => ("linux".to_owned(), one.to_ascii_lowercase(), None),
            [os, architecture] => (os.to_ascii_lowercase(), architecture.to_ascii_lowercase(), None),
            [os, architecture, variant] => {
                (os.to_ascii_lowercase(), architecture.to_ascii_lowercase(), Some(variant.to_ascii_lowercase()))
            }
            _ => return Err(bad()),
        };
        let (architecture, variant) = match (architecture.as_str(), variant) {
            ("x86_64" | "x86-64", variant) => ("amd64".to_owned(), variant),
            ("aarch64", variant) => ("arm64".to_owned(), variant),
            ("armhf", None) => ("arm".to_owned(), Some("v7".to_owned())),
            ("armel", None) => ("arm".to_owned(), Some("v6".to_owned())),
            ("i386" | "i686", _) => ("386".to_owned(), None),
            (_, variant) => (architecture, variant),
        };
        Ok(Self { architecture, os, variant, ..Self::default() })
    }

    /// How well a program for `self` runs where `wanted` is asked for: higher is better, `None` is not at all.
    #[must_use]
    pub fn suits(&self, wanted: &Self) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        let level = |variant: &Option<String>, default: u32| match variant.as_deref().map(|v| v.trim_start_matches('v'))
        {
            None | Some("") => Some(default),
            Some(number) => number.parse().ok(),
        };
        let default = match self.architecture.as_str() {
            "amd64" => 1,
            "arm64" => 8,
            "arm" => 7,
            _ => 0,
        };
        let (offered, limit) = (level(&self.variant, default)?, level(&wanted.variant, default)?);
        (offered <= limit).then_some(offered + 1)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(formatter, "/{variant}"))
    }
}
