//! `hull image verify`, and the flags for signatures that `pull` and `push` have.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use hull_engine::Engine;
use hull_image::registry::{self, Verification};
use hull_oci::Reference;
use hull_registry::Client;
use hull_trust::{PublicKey, SigningKey};

use super::{Done, Failure};
use crate::output::print;

/// Ask whether an image is signed as a policy or a key asks for
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The image is the one that the store has by this name, else the one that the registry has.\n\nExamples:\n  hull image verify --key cosign.pub registry.example.com/team/app:v1\n  hull image verify --policy policy.json registry.example.com/team/app:v1"
)]
pub(super) struct Verify {
    /// Ask for a signature by this public key, or by one of several; may be given several times
    #[arg(long = "key", visible_alias = "verify-key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Use this policy instead of ~/.config/containers/policy.json or /etc/containers/policy.json
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// NAME[:TAG|@DIGEST]
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

/// Who must have signed what is pulled.
#[derive(Debug, clap::Args)]
pub(super) struct Signers {
    /// Refuse an image without a signature by this public key, or by one of several; may be given several times
    #[arg(long = "verify-key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Use this policy instead of ~/.config/containers/policy.json or /etc/containers/policy.json
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

impl Signers {
    pub(super) fn verification(&self) -> Result<Verification, Failure> {
        verification(&self.keys, self.policy.as_deref())
    }
}

fn verification(keys: &[PathBuf], policy: Option<&Path>) -> Result<Verification, Failure> {
    let keys = keys.iter().map(|path| PublicKey::read(path)).collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(|error| Failure::new(error.to_string()))?;
    Ok(Verification { policy: policy.map(Path::to_owned), keys })
}

/// A key to sign with. Its password is in `COSIGN_PASSWORD`, as for cosign, or asked for.
pub(super) fn signing_key(path: &Path) -> Result<SigningKey, Failure> {
    let password = || {
        if let Some(password) = std::env::var_os("COSIGN_PASSWORD") {
            return Some(password.into_encoded_bytes());
        }
        if !std::io::stdin().is_terminal() {
            return None;
        }
        super::ask::ask(&format!("Password of {}: ", path.display()), false).ok().map(String::into_bytes)
    };
    SigningKey::read(path, password).map_err(|error| Failure::new(format!("--sign-key: {error}")))
}

pub(super) fn verify(engine: &Engine, args: &Verify) -> Done {
    let reference: Reference = args.image.parse().map_err(|error| Failure::new(format!("{error}")))?;
    let reference = reference.or_latest();
    let verification = verification(&args.keys, args.policy.as_deref())?;
    let client = Client::from_environment();
    let verdict = registry::verify(&engine.images, &client, &reference, &verification)?;
    let image = reference.with_digest(verdict.digest.clone()).familiar();
    for accepted in &verdict.accepted {
        let key = &accepted.key;
        let name = accepted.name.as_ref().map(|name| format!(" as {name:?}")).unwrap_or_default();
        print(format_args!("{image}: signed by {} ({}, {}){name}\n", key.origin(), key.algorithm(), key.id()));
    }
    if let Some(rule) = &verdict.rule {
        print(format_args!("{image}: allowed by {rule}\n"));
    }
    Ok(0)
}
