//! A rule of a policy, applied to an image.

use std::fmt;

use hull_oci::Reference;
use hull_oci::spec::one_line;

use super::{KeySource, Requirement};
use crate::Error;
use crate::evidence::{Evidence, Subject};
use crate::key::PublicKey;

/// The requirements that apply to an image, and where they are.
#[derive(Clone, Debug)]
pub struct Rule<'p> {
    pub(super) origin: &'p str,
    pub(super) scope: Option<String>,
    pub(super) requirements: &'p [Requirement],
}

impl fmt::Display for Rule<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(formatter, "transports.docker[{scope:?}] of {}", self.origin),
            None => write!(formatter, "default of {}", self.origin),
        }
    }
}

/// A signature that was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who made it.
    pub key: PublicKey,
    /// What it calls the image; a bundle does not say.
    pub name: Option<String>,
}

/// An image that must not be used, and what is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image {image} is refused by {rule}: {reason}")]
pub struct Refused {
    /// The image.
    pub image: String,
    /// Which rule of which file.
    pub rule: String,
    /// What it asks for, and what there is.
    pub reason: String,
}

impl Rule<'_> {
    /// Whether signatures make a difference: they need not be fetched otherwise.
    #[must_use]
    pub fn wants_signatures(&self) -> bool {
        let hopeless = |one: &Requirement| matches!(one, Requirement::Reject | Requirement::Unsupported(_));
        !self.requirements.iter().any(hopeless)
            && self.requirements.iter().any(|one| matches!(one, Requirement::Signed { .. }))
    }

    /// Whether the image may be used, and by which signatures.
    ///
    /// # Errors
    /// What is missing.
    pub fn decide(
        &self,
        image: &Reference,
        subjects: &[Subject<'_>],
        evidence: &[Evidence],
    ) -> Result<Vec<Accepted>, Refused> {
        let refused = |reason: String| Refused {
            image: image.to_string(),
            rule: self.to_string(),
            reason: one_line(&reason).to_string(),
        };
        let mut accepted = Vec::new();
        for requirement in self.requirements {
            match requirement {
                Requirement::Accept => {}
                Requirement::Reject => return Err(refused("it lets no image be used".to_owned())),
                Requirement::Unsupported(what) => return Err(refused(format!("it asks for {what}"))),
                Requirement::Signed { keys, identity } => {
                    let keys = keys.iter().map(read).collect::<Result<Vec<_>, _>>();
                    let keys = keys.map_err(|error| refused(error.to_string()))?;
                    let fits = |name: Option<&str>| match name {
                        Some(name) if identity.accepts(image, name) => Ok(()),
                        Some(name) => {
                            Err(format!("a signature is for {name:?}, expected {}", identity.expected(image)))
                        }
                        None => Err("a bundle does not say what the image is called, which a policy's signedIdentity \
                                     compares: sign with `hull push --sign-key`, or cosign's --new-bundle-format=false"
                            .to_owned()),
                    };
                    accepted.push(any(&keys, subjects, evidence, &fits).map_err(refused)?);
                }
            }
        }
        Ok(accepted)
    }
}

/// Whether any of the keys signed the image, whatever the signature calls it.
///
/// # Errors
/// What is missing.
pub fn signed_by(
    keys: &[PublicKey],
    image: &Reference,
    subjects: &[Subject<'_>],
    evidence: &[Evidence],
) -> Result<Accepted, Refused> {
    any(keys, subjects, evidence, &|_| Ok(())).map_err(|reason| Refused {
        image: image.to_string(),
        rule: "the key that was given".to_owned(),
        reason: one_line(&reason).to_string(),
    })
}

/// The first signature that is good; else what is wrong with all of them.
fn any(
    keys: &[PublicKey],
    subjects: &[Subject<'_>],
    evidence: &[Evidence],
    fits: &dyn Fn(Option<&str>) -> Result<(), String>,
) -> Result<Accepted, String> {
    let mut reasons: Vec<String> = Vec::new();
    for one in evidence {
        let checked = one.verify(keys, subjects).map_err(|invalid| invalid.to_string());
        let reason = match checked {
            Ok((claim, key)) => match fits(claim.name.as_deref()) {
                Ok(()) => return Ok(Accepted { key: key.clone(), name: claim.name }),
                Err(reason) => reason,
            },
            Err(reason) => reason,
        };
        if !reasons.contains(&reason) && reasons.len() < 3 {
            reasons.push(reason);
        }
    }
    let names: Vec<&str> = keys.iter().map(PublicKey::origin).collect();
    let wanted = format!("it needs a signature by {}", names.join(" or "));
    if reasons.is_empty() {
        return Err(format!("{wanted}, and has none"));
    }
    Err(format!("{wanted}: {}", reasons.join("; ")))
}

fn read(source: &KeySource) -> Result<PublicKey, Error> {
    match source {
        KeySource::File(path) => PublicKey::read(path),
        KeySource::Inline(pem) => PublicKey::from_pem(pem, "keyData"),
    }
}
