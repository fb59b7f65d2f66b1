//! `hull pull`, `hull push`, `hull login` and `hull logout`.

use std::io::Read as _;
use std::path::PathBuf;

use hull_engine::{Engine, events};
use hull_image::registry::{self, PullOptions, PushOptions};
use hull_oci::Reference;
use hull_oci::image::Platform;
use hull_registry::credentials::{Credential, Kept};
use hull_registry::{Client, ssh};

use super::ask::ask;
use super::progress::Shown;
use super::verify::{Signers, signing_key};
use super::{Done, Failure};
use crate::output::{print, warning};

/// A password on standard input is at most so long.
const MAX_PASSWORD: u64 = 1 << 20;

/// Download an image from a registry
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull pull debian:bookworm\n  hull pull --platform linux/arm64 registry.example.com/team/app@sha256:...\n  hull pull --verify-key cosign.pub registry.example.com/team/app\n  hull pull ssh://user@build-host team/app:v1\n\nFrom ssh://[USER@]HOST[:PORT][/ROOT] an image comes straight from that machine's store: only the layers that this one\nlacks, without a registry. HULL_SSH names another command than 'ssh', HULL_SSH_HULL another one than 'hull' there,\nsuch as 'sudo hull'; ROOT is its --root."
)]
pub(super) struct Pull {
    /// Download all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Every platform that it is for
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Choose this platform where there are several; those that are here already stay
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]],...", value_delimiter = ',', value_parser = Platform::parse)]
    platform: Vec<Platform>,
    #[command(flatten)]
    signers: Signers,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
    /// For 'hull run': without the name at the end
    #[arg(long, hide = true)]
    for_run: bool,
    /// Accepted for compatibility; signatures are the policy's business
    #[arg(
        long,
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        hide = true
    )]
    disable_content_trust: bool,
    /// The image, after the machine that it comes from if that is no registry
    #[arg(value_name = "[ssh://HOST] NAME[:TAG|@DIGEST]", num_args = 1..=2, required = true)]
    image: Vec<String>,
}

/// Upload an image to a registry
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull push registry.example.com/team/app:v1\n  hull push --all-tags registry.example.com/team/app\n  hull push --sign-key cosign.key registry.example.com/team/app:v1\n  hull push ssh://user@host team/app:v1\n\nTo ssh://[USER@]HOST[:PORT][/ROOT] an image goes straight into that machine's store: only the layers that it lacks,\nwithout a registry. HULL_SSH names another command than 'ssh', HULL_SSH_HULL another one than 'hull' there, such as\n'sudo hull'; ROOT is its --root."
)]
pub(super) struct Push {
    /// Upload every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Sign what was uploaded with this private key, as cosign does; COSIGN_PASSWORD is its password
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Upload layers in requests of at most this many bytes, for proxies that limit them
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    chunk_size: Option<u64>,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
    /// Accepted for compatibility
    #[arg(
        long,
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        hide = true
    )]
    disable_content_trust: bool,
    /// Upload only these platforms [default: all that are here]
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]],...", value_delimiter = ',', value_parser = Platform::parse)]
    platform: Vec<Platform>,
    /// The image, after the machine that it goes to if that is no registry
    #[arg(value_name = "[ssh://HOST] NAME[:TAG]", num_args = 1..=2, required = true)]
    image: Vec<String>,
}

/// Log in to a registry
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull login registry.example.com\n  echo \"$TOKEN\" | hull login -u robot --password-stdin registry.example.com"
)]
pub(super) struct Login {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password; others on this machine may see it: better use --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Log out from a registry
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull logout\n  hull logout registry.example")]
pub(super) struct Logout {
    /// The registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// A machine and the name of an image there, in either order, or the name alone.
fn place(words: &[String]) -> Result<(Option<ssh::Address>, &str), Failure> {
    let is_machine = |word: &String| word.starts_with("ssh://");
    let (machine, name) = match words {
        [name] if is_machine(name) => {
            return Err(Failure::new(format!("{name}: the name of an image is missing")));
        }
        [name] => return Ok((None, name)),
        [machine, name] if is_machine(machine) && !is_machine(name) => (machine, name),
        [name, machine] if is_machine(machine) && !is_machine(name) => (machine, name),
        _ => return Err(Failure::new("expected one image, and perhaps one ssh://[USER@]HOST[:PORT][/ROOT] before it")),
    };
    let machine = machine.parse().map_err(|error: ssh::AddressError| Failure::new(error.to_string()))?;
    Ok((Some(machine), name))
}

/// The image that a name means: what `registries.conf` says of names without a registry counts.
fn meant(name: &str) -> Result<Reference, Failure> {
    let plain: Reference = name.parse().map_err(|error| Failure::new(format!("{error}")))?;
    let found = hull_registry::hosts::meant(name).map_err(|error| Failure::new(error.to_string()))?;
    Ok(found.into_iter().next().unwrap_or(plain))
}

pub(super) fn pull(engine: &Engine, args: &Pull) -> Done {
    let (machine, name) = place(&args.image)?;
    let reference: Reference = match &machine {
        Some(_) => name.parse().map_err(|error| Failure::new(format!("{error}")))?,
        None => meant(name)?,
    };
    let client = match &machine {
        Some(machine) => Client::over_ssh(machine),
        None => Client::from_environment(),
    };
    let options = PullOptions {
        platforms: args.platform.clone(),
        all_platforms: args.all_platforms,
        verification: args.signers.verification()?,
        ..PullOptions::default()
    };
    let done = |pulled: &registry::Pulled| {
        let name = pulled.reference.familiar();
        events::emit_image(engine, "pull", &name, &pulled.reference.familiar_repository());
        if args.quiet {
            return;
        }
        let (status, name) = (status(pulled.is_newer), pulled.reference.familiar());
        print(format_args!("Digest: {}\nStatus: {status} {name}\n", pulled.digest));
    };
    if args.all_tags {
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(Failure::new("tag can't be used with --all-tags/-a"));
        }
        let shown = Shown::pull(args.quiet);
        let there = machine.map(|machine| format!(" at {machine}")).unwrap_or_default();
        let mut newer = false;
        let result = registry::pull_all(&engine.images, &client, &reference, &options, &shown, &mut |name, pulled| {
            let Some(pulled) = pulled else {
                if !args.quiet {
                    let tag = name.tag().unwrap_or_default();
                    print(format_args!("{tag}: Pulling from {}{there}\n", short_path(name)));
                }
                return;
            };
            shown.end();
            newer |= pulled.is_newer;
            if !args.quiet {
                print(format_args!("Digest: {}\n", pulled.digest));
            }
        });
        shown.end();
        result?;
        if !args.quiet {
            print(format_args!("Status: {} {}\n", status(newer), reference.familiar_repository()));
        }
        print(format_args!("{}\n", reference.repository()));
        return Ok(0);
    }
    if !args.quiet {
        if reference.tag().is_none() && reference.digest().is_none() && !args.for_run {
            print("Using default tag: latest\n");
        }
        let whole = reference.clone().or_latest();
        let at = whole.digest().map(ToString::to_string).or(whole.tag().map(str::to_owned)).unwrap_or_default();
        let there = machine.map(|machine| format!(" at {machine}")).unwrap_or_default();
        print(format_args!("{at}: Pulling from {}{there}\n", short_path(&reference)));
    }
    let shown = Shown::pull(args.quiet);
    let pulled = registry::pull(&engine.images, &client, &reference, &options, &shown);
    shown.end();
    let pulled = pulled?;
    done(&pulled);
    if !args.for_run {
        print(format_args!("{}\n", pulled.reference));
    }
    Ok(0)
}

fn status(is_newer: bool) -> &'static str {
    if is_newer { "Downloaded newer image for" } else { "Image is up to date for" }
}

/// The repository as Docker shows it here: without its registry, if that is Docker's own.
fn short_path(reference: &Reference) -> String {
    if reference.domain() == "docker.io" { reference.path().to_owned() } else { reference.repository() }
}

pub(super) fn push(engine: &Engine, args: &Push) -> Done {
    let (machine, name) = place(&args.image)?;
    let reference: Reference = name.parse().map_err(|error| Failure::new(format!("{error}")))?;
    let names: Vec<Reference> = if args.all_tags {
        if reference.tag().is_some() {
            return Err(Failure::new("tag can't be used with --all-tags/-a"));
        }
        let all = engine.images.list()?.into_iter().flat_map(|image| image.names);
        let mut own: Vec<Reference> = all.filter(|name| name.repository() == reference.repository()).collect();
        own.sort();
        own
    } else {
        if !args.quiet && reference.tag().is_none() && reference.digest().is_none() {
            print("Using default tag: latest\n");
        }
        vec![reference.clone().or_latest()]
    };
    let missing =
        || Failure::new(format!("An image does not exist locally with the tag: {}", reference.familiar_repository()));
    if names.is_empty() {
        return Err(missing());
    }
    if !args.quiet {
        let there = machine.as_ref().map(|machine| format!(" at {machine}")).unwrap_or_default();
        print(format_args!("The push refers to repository [{}]{there}\n", reference.repository()));
    }
    if machine.is_some() && args.sign_key.is_some() {
        return Err(Failure::new("--sign-key: another machine's store keeps no signatures: push to a registry"));
    }
    // A key that cannot be used is found out before anything is sent.
    let key = args.sign_key.as_deref().map(signing_key).transpose()?;
    let client = match &machine {
        Some(machine) => Client::over_ssh(machine),
        None => Client::from_environment(),
    };
    let options = PushOptions { chunk: args.chunk_size, ..PushOptions::default() };
    for name in &names {
        let images = engine.images.find_several(&name.familiar(), &args.platform).map_err(|error| match error {
            hull_image::Error::Platform { .. } => error.into(),
            _ => missing(),
        })?;
        let shown = Shown::push(args.quiet);
        let pushed = registry::push_platforms(&engine.images, &client, &images, name, &options, &shown);
        shown.end();
        let (_, pushed) = pushed?;
        events::emit_image(engine, "push", &name.familiar(), &name.familiar_repository());
        if let Some(key) = &key {
            registry::sign(&client, name, &pushed.digest, key)?;
        }
        if !args.quiet {
            let tag = name.tag().unwrap_or_default();
            print(format_args!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size));
        }
    }
    if args.quiet {
        names.iter().for_each(|name| print(format_args!("{name}\n")));
    }
    Ok(0)
}

/// The registry's name as references have it: users give addresses too.
fn domain(server: Option<&str>) -> Result<String, Failure> {
    let server = server.unwrap_or("docker.io");
    let bare = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    if matches!(bare, "docker.io" | "index.docker.io" | "registry-1.docker.io") {
        return Ok("docker.io".to_owned());
    }
    let parsed: Option<Reference> = format!("{bare}/x").parse().ok();
    match parsed {
        Some(reference) if reference.domain() == bare => Ok(bare.to_owned()),
        _ => Err(Failure::new(format!("{server:?} is no registry: expected HOST[:PORT]"))),
    }
}

pub(super) fn login(args: Login) -> Done {
    let domain = domain(args.server.as_deref())?;
    if args.password_stdin && args.username.is_none() {
        return Err(Failure::new("the --password-stdin option requires --username to be set"));
    }
    if args.password.is_some() {
        warning("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let username = match args.username {
        Some(username) => username,
        None => ask("Username: ", true)?,
    };
    let password = match args.password {
        Some(password) => password,
        None if args.password_stdin => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(MAX_PASSWORD).read_to_string(&mut text);
            read.map_err(|error| Failure::new(format!("read the password from standard input: {error}")))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => ask("Password: ", false)?,
    };
    if username.is_empty() || username.contains(':') || password.is_empty() {
        return Err(Failure::new("username and password must not be empty, and no username has a colon in it"));
    }
    let client = Client::from_environment();
    let credential = Credential::Password { username, password };
    client.log_in(&domain, &credential).map_err(|error| Failure::new(error.to_string()))?;
    let kept = client.credentials().store(&domain, &credential).map_err(|error| Failure::new(error.to_string()))?;
    if let Kept::File(path) = kept {
        warning(format_args!(
            "WARNING! Your credentials are stored unencrypted in '{}'. Configure a credential helper to keep them elsewhere.",
            path.display()
        ));
    }
    print("Login Succeeded\n");
    Ok(0)
}

pub(super) fn logout(args: &Logout) -> Done {
    let domain = domain(args.server.as_deref())?;
    let client = Client::from_environment();
    // Docker's words, whether there were any.
    client.credentials().erase(&domain).map_err(|error| Failure::new(error.to_string()))?;
    print(format_args!("Removing login credentials for {domain}\n"));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_as_users_write_them() {
        let of = |server: &str| domain(Some(server)).ok();
        assert_eq!(domain(None).ok().as_deref(), Some("docker.io"));
        assert_eq!(of("https://index.docker.io/v1/").as_deref(), Some("docker.io"));
        assert_eq!(of("https://r.example:5000/").as_deref(), Some("r.example:5000"));
        assert_eq!(of("localhost:5000").as_deref(), Some("localhost:5000"));
        for bad in ["", "a b", "r.example/team", "nodots", "ftp://r.example"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
