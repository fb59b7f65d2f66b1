//! Which name a signature must have for an image that was asked for by another, or the same.

use hull_oci::Reference;

/// `signedIdentity` of a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `matchExact`: the same name and tag or digest.
    Exact,
    /// `matchRepoDigestOrExact`: the same name and tag; the same repository for an image that was asked for by digest.
    RepoDigestOrExact,
    /// `matchRepository`: the same repository.
    Repository,
    /// `exactReference`: this name, whatever was asked for.
    ExactReference(Reference),
    /// `exactRepository`: this repository, whatever was asked for.
    ExactRepository(String),
    /// `remapIdentity`: as `matchRepoDigestOrExact`, after one prefix was replaced by another.
    Remap {
        /// Of what was asked for.
        prefix: String,
        /// Of what was signed.
        signed: String,
    },
}

impl Identity {
    /// Whether a signature of something called `signed` is good for what was asked for.
    #[must_use]
    pub fn accepts(&self, asked: &Reference, signed: &str) -> bool {
        let Ok(reference) = signed.parse::<Reference>() else { return false };
        match self {
            Self::Exact => is_specific(asked) && is_specific(&reference) && *asked == reference,
            Self::RepoDigestOrExact => repo_digest_or_exact(asked, &reference),
            Self::Repository => asked.repository() == reference.repository(),
            Self::ExactReference(wanted) => *wanted == reference,
            Self::ExactRepository(wanted) => *wanted == reference.repository(),
            Self::Remap { prefix, signed } => match remap(asked, prefix, signed) {
                Some(Ok(asked)) => repo_digest_or_exact(&asked, &reference),
                Some(Err(())) => false,
                None => repo_digest_or_exact(asked, &reference),
            },
        }
    }

    /// What would be accepted, in words.
    pub(super) fn expected(&self, asked: &Reference) -> String {
        match self {
            Self::RepoDigestOrExact if asked.digest().is_some() => {
                format!("a tag or digest of {}", asked.repository())
            }
            Self::Exact | Self::RepoDigestOrExact => asked.to_string(),
            Self::Repository => asked.repository(),
            Self::ExactReference(wanted) => wanted.to_string(),
            Self::ExactRepository(wanted) => wanted.clone(),
            Self::Remap { prefix, signed } => match remap(asked, prefix, signed) {
                Some(Ok(asked)) => asked.to_string(),
                _ => asked.to_string(),
            },
        }
    }
}

fn is_specific(reference: &Reference) -> bool {
    reference.tag().is_some() || reference.digest().is_some()
}

fn repo_digest_or_exact(asked: &Reference, signed: &Reference) -> bool {
    if !is_specific(signed) {
        return false;
    }
    // The digest itself was compared with what is signed before.
    match (asked.digest(), asked.tag()) {
        (Some(_), _) => asked.repository() == signed.repository(),
        (None, Some(_)) => asked == signed,
        (None, None) => false,
    }
}

/// What was asked for under the name it was signed by, if the prefix is its.
fn remap(asked: &Reference, prefix: &str, signed: &str) -> Option<Result<Reference, ()>> {
    let text = asked.to_string();
    let rest = text.strip_prefix(prefix)?;
    if !rest.is_empty() && !rest.starts_with(['/', ':', '@']) {
        return None;
    }
    // A host's port is no tag.
    if !prefix.contains('/') && rest.starts_with(':') {
        return None;
    }
    Some(format!("{signed}{rest}").parse().map_err(drop))
}
