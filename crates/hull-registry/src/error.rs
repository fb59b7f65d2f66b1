//! What can go wrong between Hull and a registry. Each message names the registry, what was asked of it, and the cause.

use std::fmt;

use hull_oci::digest::DigestError;
use hull_oci::image::DocumentError;
use hull_oci::spec::one_line;
use serde::Deserialize;

use crate::credentials::CredentialError;
use crate::hosts::HostsError;

/// Why a request to a registry failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry does not have it.
    #[error("{what} not found: {refusal}")]
    NotFound {
        /// Such as `manifest for docker.io/library/debian:13`.
        what: String,
        /// What the registry said.
        refusal: Refusal,
    },
    /// The registry does not let this user, or an anonymous one, do it.
    #[error("{what}: access denied: {refusal}{hint}", hint = if *.anonymous { "; log in with `hull login`" } else { "" })]
    Denied {
        /// What was asked for.
        what: String,
        /// What the registry said.
        refusal: Refusal,
        /// Whether no credential was known.
        anonymous: bool,
    },
    /// The registry answered with another status than the protocol gives.
    #[error("{what}: {refusal}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What the registry said.
        refusal: Refusal,
    },
    /// No answer was had.
    #[error("{what}: {address}: {source}")]
    Transport {
        /// What was asked for.
        what: String,
        /// Scheme and host.
        address: String,
        /// Why.
        source: hull_http::Error,
    },
    /// The transfer broke off.
    #[error("{what}: {reason}")]
    Interrupted {
        /// What was transferred.
        what: String,
        /// Why it ended.
        reason: String,
    },
    /// The answer is not what the protocol says.
    #[error("{what}: registry {host} sent a bad answer: {}", one_line(reason))]
    Answer {
        /// What was asked for.
        what: String,
        /// The registry.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A token server that the registry named is not one that this user's credential may be sent to.
    #[error(
        "registry {host} wants its credential sent to {realm}, which is not of the same domain: if that is right, log in to {realm} itself"
    )]
    Realm {
        /// The registry.
        host: String,
        /// The token server's host.
        realm: String,
    },
    /// Credentials could not be had.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The configuration of registries is wrong, or forbids this one.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// A manifest or an index is not acceptable.
    #[error("{what}: {source}")]
    Document {
        /// Which.
        what: String,
        /// Why.
        source: DocumentError,
    },
    /// A digest is not acceptable.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Error {
    /// Whether another place may still have what this one refused or could not be asked for.
    #[must_use]
    pub fn may_be_elsewhere(&self) -> bool {
        !matches!(self, Self::Credentials(_) | Self::Hosts(_) | Self::Digest(_))
    }

    /// Whether the same may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { source, .. } => source.is_transient(),
            Self::Interrupted { .. } => true,
            _ => false,
        }
    }

    /// Whether it is known not to exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// A status and the errors of its body.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Code and message of the first error in the body, if it is in the protocol's form.
    pub error: Option<(String, String)>,
}

impl Refusal {
    /// Reads `{"errors": [{"code", "message", "detail"}]}`; anything else leaves only the status.
    #[must_use]
    pub fn parse(status: u16, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            errors: Vec<Item>,
            /// Token servers say it so.
            #[serde(default)]
            details: Option<String>,
        }
        #[derive(Deserialize)]
        struct Item {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let body: Option<Body> = serde_json::from_slice(body).ok();
        let error = body.and_then(|body| {
            let first = body.errors.into_iter().next().map(|item| (item.code, item.message));
            first.or_else(|| body.details.map(|details| (String::new(), details)))
        });
        Self { status, error }
    }

    /// The protocol's code, such as `MANIFEST_UNKNOWN`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.error.as_ref().map(|(code, _)| code.as_str()).filter(|code| !code.is_empty())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| one_line(&text.chars().take(300).collect::<String>());
        match &self.error {
            Some((code, message)) if !message.is_empty() => {
                let code = code.to_ascii_lowercase().replace('_', " ");
                let message = short(message);
                if code.is_empty() || message.to_ascii_lowercase().contains(&code) {
                    formatter.write_str(&message)
                } else {
                    write!(formatter, "{}: {message}", short(&code))
                }
            }
            Some((code, _)) if !code.is_empty() => {
                formatter.write_str(&short(&code.to_ascii_lowercase().replace('_', " ")))
            }
            _ => {
                let meaning = match self.status {
                    401 => " (unauthorized)",
                    403 => " (forbidden)",
                    404 => " (not found)",
                    429 => " (too many requests)",
                    500..=599 => " (the registry failed)",
                    _ => "",
                };
                write!(formatter, "HTTP status {}{meaning}", self.status)
            }
        }
    }
}
