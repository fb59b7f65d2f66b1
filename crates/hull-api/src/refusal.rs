//! What clients hear when something is refused or fails: a status and Docker's words.

use hull_engine::Error;
use hull_oci::spec::one_line;

/// An answer with a status of 400 or more, and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer.
    pub status: u16,
    /// What `message` of its document says.
    pub message: String,
    /// Exit code of the program that failed, in a stream's last line.
    pub code: Option<i64>,
}

impl Refusal {
    /// Any status.
    #[must_use]
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None }
    }

    /// 400: the request itself is wrong.
    #[must_use]
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// 403: the socket does not allow it.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, message)
    }

    /// 404: what it names is not there.
    #[must_use]
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }

    /// 409: it does not fit the state of things.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, message)
    }

    /// 500: it failed.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// No container of that name.
    #[must_use]
    pub fn no_container(name: &str) -> Self {
        Self::missing(format!("No such container: {}", one_line(name)))
    }

    /// The document that says it.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut text = serde_json::json!({ "message": self.message }).to_string();
        text.push('\n');
        text.into_bytes()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::NoContainer(name) => Self::no_container(&name),
            Error::Ambiguous(prefix) => {
                Self::bad(format!("multiple IDs found with provided prefix: {}", one_line(&prefix)))
            }
            Error::NameTaken { name, id } => Self::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
            )),
            Error::Flag { reason, .. } | Error::Refused(reason) => Self::bad(reason),
            Error::NoVolume(_) => Self::missing(error.to_string()),
            Error::Volume(text) if text.contains("in use") => Self::conflict(text),
            Error::Volume(text) => Self::bad(text),
            Error::Status { .. } => Self::conflict(error.to_string()),
            Error::Unreadable => Self::new(501, error.to_string()),
            Error::Copy(text) if text.contains("Could not find") || text.contains("no such file") => {
                Self::missing(text)
            }
            Error::Copy(text) if text.starts_with("cannot overwrite ") => Self::failed(text),
            Error::Copy(text) => Self::bad(text),
            Error::Start { no_image: true, message, .. } => Self::missing(message),
            Error::Image(error) => error.into(),
            Error::Network(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<hull_image::Error> for Refusal {
    fn from(error: hull_image::Error) -> Self {
        match &error {
            hull_image::Error::NoImage(name) => Self::missing(format!("No such image: {}", one_line(&tagged(name)))),
            hull_image::Error::Platform { name, wanted, .. } => Self::missing(format!(
                "image with reference {name} was found but does not provide the specified platform ({wanted})"
            )),
            hull_image::Error::Conflict(_) => Self::conflict(error.to_string()),
            hull_image::Error::Reference(_) | hull_image::Error::Change { .. } => Self::bad(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}

/// What a network operation refused, with Docker's status.
impl From<hull_network::Error> for Refusal {
    fn from(error: hull_network::Error) -> Self {
        let text = error.to_string();
        match error {
            hull_network::Error::UnknownDriver(name) => {
                Refusal::missing(format!("plugin {:?} not found", one_line(&name)))
            }
            // With Docker's space.
            hull_network::Error::PredefinedName(_) => Refusal::forbidden(format!("{text} ")),
            hull_network::Error::NotConnected { .. } => Refusal::failed(text),
            hull_network::Error::NotFound(_) => Refusal::missing(text),
            hull_network::Error::Exists(_) => Refusal::conflict(text),
            hull_network::Error::Predefined(_)
            | hull_network::Error::InUse { .. }
            | hull_network::Error::Connected { .. } => Refusal::forbidden(text),
            hull_network::Error::Unsupported(_) | hull_network::Error::Overlap { .. } => Refusal::forbidden(text),
            hull_network::Error::InvalidName(_)
            | hull_network::Error::Invalid { .. }
            | hull_network::Error::Ambiguous(..)
            | hull_network::Error::AddressOutside { .. }
            | hull_network::Error::AddressUnsupported => Refusal::bad(text),
            hull_network::Error::AddressTaken { .. } => Refusal::forbidden(text),
            _ => Refusal::failed(text),
        }
    }
}

/// A name with the tag that is meant without one.
pub(crate) fn tagged(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || last.contains('@') { name.to_owned() } else { format!("{name}:latest") }
}
