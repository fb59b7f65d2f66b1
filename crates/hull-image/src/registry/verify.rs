//! Who signed an image, and whether it may be used.
//!
//! Signatures are looked for only where a policy or a key asks for them: under the tag `ALGORITHM-HEX.sig`, and among
//! what refers to the manifest. A signature of the index that a name leads to is one of the manifest that was chosen
//! from it, since the index names its digest. How many signatures there may be, and how long, is bounded; more refuse
//! the image rather than being skipped.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use hull_oci::image::{Descriptor, Document, Manifest};
use hull_oci::{Digest, Reference};
use hull_registry::{Client, Remote};
use hull_trust::evidence::{BUNDLE, MAX_BYTES, MAX_SIGNATURES, PAYLOAD, SIGNATURE};
use hull_trust::policy::{Accepted, signed_by};
use hull_trust::{Evidence, Policy, PublicKey, Subject};

use crate::{Error, Runnable, Store};

/// All signatures of an image together.
const MAX_ALL: u64 = 4 << 20;

/// Who must have signed an image.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// This policy instead of the machine's.
    pub policy: Option<PathBuf>,
    /// One of these keys, whatever the policy says; none asks for nothing.
    pub keys: Vec<PublicKey>,
}

/// What was found out about an image.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What the name leads to.
    pub digest: Digest,
    /// The rule that allows it, if there is a policy.
    pub rule: Option<String>,
    /// The signatures that were asked for.
    pub accepted: Vec<Accepted>,
}

/// [`Verification::check`]'s answer.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) rule: Option<String>,
    pub(super) accepted: Vec<Accepted>,
    pub(super) evidence: Vec<Evidence>,
}

impl Verification {
    /// Whether an image may be had. `known` are its signatures where they were had before; else they are fetched when they
    /// are needed.
    pub(super) fn check(
        &self,
        remote: &Remote,
        reference: &Reference,
        subjects: &[Subject<'_>],
        known: Option<Vec<Evidence>>,
    ) -> Result<Checked, Error> {
        let policy = Policy::load(self.policy.as_deref())?;
        let rule = policy.as_ref().map(|policy| policy.rule(reference));
        let wanted = !self.keys.is_empty() || rule.as_ref().is_some_and(hull_trust::policy::Rule::wants_signatures);
        let evidence = match known {
            Some(evidence) => evidence,
            None if wanted => signatures(remote, subjects)?,
            None => Vec::new(),
        };
        let mut accepted = Vec::new();
        if let Some(rule) = &rule {
            accepted = rule.decide(reference, subjects, &evidence)?;
        }
        if !self.keys.is_empty() {
            accepted.push(signed_by(&self.keys, reference, subjects, &evidence)?);
        }
        Ok(Checked { rule: rule.map(|rule| rule.to_string()), accepted, evidence })
    }
}

/// Whether the policy, which may have changed, still allows an image of the store that was pulled from a registry. The
/// signatures that it was pulled with are verified again; nothing is fetched. Without a policy this is a look for its file.
///
/// # Errors
/// [`Error::Refused`], and what is wrong with the policy.
pub fn permitted(store: &Store, image: &Runnable, name: &str) -> Result<(), Error> {
    let Some(policy) = Policy::load(None)?.filter(|policy| !policy.accepts_anything()) else { return Ok(()) };
    let mut origins = store.origins(&image.id)?;
    let asked: Option<Reference> = name.parse::<Reference>().ok().map(Reference::or_latest);
    // A name of one of the places is about that place; an ID, or a name that was given here, about any of them.
    if let Some(repository) = asked.as_ref().map(Reference::repository)
        && origins.iter().any(|origin| origin.repository == repository)
    {
        origins.retain(|origin| origin.repository == repository);
    }
    let digests: Vec<&Digest> = origins.iter().map(|origin| &origin.digest).collect();
    let manifest = if origins.is_empty() { None } else { store.manifest_bytes(&image.id)? };
    let mut refused = None;
    for origin in &origins {
        let pinned: Reference = format!("{}@{}", origin.repository, origin.digest).parse()?;
        let named = asked.clone().filter(|asked| asked.repository() == origin.repository);
        let subjects: Vec<Subject<'_>> = digests
            .iter()
            .map(|digest| {
                let bytes = manifest.as_deref().filter(|_| image.manifest.as_ref() == Some(*digest));
                Subject { digest, bytes }
            })
            .collect();
        let reference = named.unwrap_or(pinned);
        match policy.rule(&reference).decide(&reference, &subjects, &origin.evidence) {
            Ok(_) => return Ok(()),
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    let Some(mut refused) = refused else { return Ok(()) };
    refused.reason.push_str("; `hull image verify` looks for new signatures");
    Err(refused.into())
}

/// Asks whether an image is signed as the policy or keys ask for: the one that the store has by this name, else the one
/// that the registry has. Signatures that are found are kept with the image.
///
/// # Errors
/// [`Error::Refused`]; and when neither a policy nor a key is there, or the registry cannot be asked.
pub fn verify(
    store: &Store,
    client: &Arc<Client>,
    reference: &Reference,
    verification: &Verification,
) -> Result<Verdict, Error> {
    let reference = reference.clone().or_latest();
    let remote = client.pull_from(&reference)?;
    let repository = reference.repository();
    let held = store.find(&reference.to_string()).ok();
    let origins = match &held {
        Some(image) => store.origins(&image.id)?.into_iter().filter(|origin| origin.repository == repository).collect(),
        None => Vec::new(),
    };
    if let (Some(image), true) = (&held, !origins.is_empty()) {
        let manifest = store.manifest_bytes(&image.id)?;
        let subjects: Vec<Subject<'_>> = origins
            .iter()
            .map(|origin| {
                let bytes = manifest.as_deref().filter(|_| image.manifest.as_ref() == Some(&origin.digest));
                Subject { digest: &origin.digest, bytes }
            })
            .collect();
        let digest = reference.digest().unwrap_or(&origins[0].digest).clone();
        let known = origins.iter().flat_map(|origin| origin.evidence.clone()).collect();
        let checked = match verification.check(&remote, &reference, &subjects, Some(known)) {
            Ok(checked) => checked,
            Err(Error::Refused(_)) => {
                let checked = verification.check(&remote, &reference, &subjects, None)?;
                let digests: Vec<&Digest> = origins.iter().map(|origin| &origin.digest).collect();
                store.keep_evidence(&repository, &digests, &checked.evidence)?;
                checked
            }
            Err(error) => return Err(error),
        };
        return verdict(digest, checked);
    }
    let wanted = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let found = remote.manifest(&wanted)?;
    let subjects = [Subject { digest: &found.descriptor.digest, bytes: Some(&found.bytes) }];
    let checked = verification.check(&remote, &reference, &subjects, None)?;
    verdict(found.descriptor.digest.clone(), checked)
}

fn verdict(digest: Digest, checked: Checked) -> Result<Verdict, Error> {
    if checked.rule.is_none() && checked.accepted.is_empty() {
        return Err(Error::image(digest, "there is nothing to verify it by: give a key, or write a policy.json"));
    }
    Ok(Verdict { digest, rule: checked.rule, accepted: checked.accepted })
}

/// The signatures that a registry has of these manifests.
fn signatures(remote: &Remote, subjects: &[Subject<'_>]) -> Result<Vec<Evidence>, Error> {
    let mut found = Found { remote, evidence: Vec::new(), bytes: 0 };
    let mut asked: Vec<&Digest> = Vec::new();
    for subject in subjects {
        if !asked.contains(&subject.digest) {
            asked.push(subject.digest);
            found.tagged(subject.digest)?;
            found.referring(subject.digest)?;
        }
    }
    Ok(found.evidence)
}

/// The tag under which cosign keeps the signatures of a manifest.
pub(super) fn tag(digest: &Digest) -> String {
    format!("{}-{}.sig", digest.algorithm().as_str(), digest.hex())
}

struct Found<'a> {
    remote: &'a Remote,
    evidence: Vec<Evidence>,
    bytes: u64,
}

impl Found<'_> {
    /// A manifest, if the registry has it.
    fn manifest(&self, reference: &str) -> Result<Option<Manifest>, Error> {
        match self.remote.manifest(reference) {
            Ok(fetched) => match fetched.document {
                Document::Manifest(manifest) => Ok(Some(*manifest)),
                Document::Index(_) => Ok(None),
            },
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn tagged(&mut self, digest: &Digest) -> Result<(), Error> {
        let Some(manifest) = self.manifest(&tag(digest))? else { return Ok(()) };
        for layer in manifest.layers.iter().filter(|layer| layer.media_type == PAYLOAD) {
            let Some(signature) = layer.annotations.get(SIGNATURE) else { continue };
            let payload = self.blob(digest, layer)?;
            self.evidence.push(Evidence::Payload { payload, signature: signature.clone() });
        }
        Ok(())
    }

    fn referring(&mut self, digest: &Digest) -> Result<(), Error> {
        let mut referrers = self.remote.referrers(digest, None)?;
        // Some lists give the type of the configuration, or none; only what says that it is something else is skipped.
        referrers.retain(|one| match one.artifact_type.as_deref() {
            None => true,
            Some(kind) => kind == BUNDLE || kind.starts_with("application/vnd.oci.empty") || kind.is_empty(),
        });
        if referrers.len() > MAX_SIGNATURES {
            return Err(self.too_many(digest));
        }
        for referrer in referrers {
            let Some(manifest) = self.manifest(&referrer.digest.to_string())? else { continue };
            if let [layer] = manifest.layers.as_slice()
                && layer.media_type == BUNDLE
            {
                let bundle = self.blob(digest, layer)?;
                self.evidence.push(Evidence::Bundle(bundle));
            }
        }
        Ok(())
    }

    fn too_many(&self, digest: &Digest) -> Error {
        let name = format!("{}@{digest}", self.remote.name());
        Error::image(name, format!("it has more than {MAX_SIGNATURES} signatures"))
    }

    /// A signature's bytes, bounded and compared with their digest.
    fn blob(&mut self, subject: &Digest, layer: &Descriptor) -> Result<Vec<u8>, Error> {
        if self.evidence.len() >= MAX_SIGNATURES {
            return Err(self.too_many(subject));
        }
        let name = || format!("signature {} of {}@{subject}", layer.digest, self.remote.name());
        if layer.size > MAX_BYTES || self.bytes + layer.size > MAX_ALL {
            let reason = format!("it has {} bytes: more than {MAX_BYTES}, or than {MAX_ALL} together", layer.size);
            return Err(Error::image(name(), reason));
        }
        self.bytes += layer.size;
        let reader = self.remote.blob(layer, 0)?.reader;
        let mut bytes = Vec::new();
        reader.take(layer.size + 1).read_to_end(&mut bytes).map_err(Error::io("download", name()))?;
        let mut hasher = layer.digest.hasher();
        hasher.update(&bytes);
        let found = hasher.finish();
        if bytes.len() as u64 != layer.size || found != layer.digest {
            let reason = format!("the registry sent {} bytes of digest {found}", bytes.len());
            return Err(Error::Blob { expected: layer.digest.clone(), reason });
        }
        Ok(bytes)
    }
}
