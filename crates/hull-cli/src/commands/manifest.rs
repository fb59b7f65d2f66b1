//! `hull manifest`: manifests in registries, and lists of them that are put together here.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use hull_engine::Engine;
use hull_image::registry::{self, Entry, List, Lists, Looked};
use hull_oci::Reference;
use hull_oci::image::{Descriptor, Document, Platform, media_type};
use hull_registry::Client;

use super::{Done, Failure};
use crate::output::{error, print};

/// What Go names, as far as images are built for it: operating system and architecture.
const PLATFORMS: &[(&str, &[&str])] = &[
    ("darwin", &["386", "amd64", "arm", "arm64"]),
    ("dragonfly", &["amd64"]),
    ("freebsd", &["386", "amd64", "arm", "arm64", "riscv64"]),
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64le", "riscv64",
            "s390x",
        ],
    ),
    ("netbsd", &["386", "amd64", "arm"]),
    ("openbsd", &["386", "amd64", "arm"]),
    ("plan9", &["386", "amd64"]),
    ("solaris", &["amd64"]),
    ("windows", &["386", "amd64", "arm", "arm64"]),
];

/// Look at manifests in registries, and make lists of them
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  hull manifest inspect registry.example/team/app:v1\n  hull manifest create registry.example/team/app:v1 registry.example/team/app:v1-arm64"
)]
pub(super) enum Manifest {
    /// Set the platform of a manifest in a list
    Annotate(Annotate),
    /// Make a list of manifests, to be annotated and pushed
    Create(Create),
    /// Show a manifest or a list of manifests
    Inspect(Inspect),
    /// Push a list to its registry
    Push(Push),
    /// Forget lists
    Rm(Rm),
}

/// Set the platform of a manifest in a list
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull manifest annotate --arch arm64 --variant v8 r.example/app:1 r.example/app:1-arm64"
)]
pub(super) struct Annotate {
    /// Architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Features of the operating system
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// The list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// One of its manifests
    #[arg(value_name = "MANIFEST")]
    manifest: String,
}

/// Make a list of manifests, to be annotated and pushed
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull manifest create r.example/app:1 r.example/app:1-amd64 r.example/app:1-arm64\n  hull manifest push r.example/app:1"
)]
pub(super) struct Create {
    /// Change a list that exists
    #[arg(short, long)]
    amend: bool,
    /// Speak to a registry without encryption, or with a certificate that nobody knows
    #[arg(long)]
    insecure: bool,
    /// The list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// Its manifests, which are in registries
    #[arg(value_name = "MANIFEST", required = true)]
    manifests: Vec<String>,
}

/// Show a manifest or a list of manifests
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull manifest inspect debian:bookworm\n  hull manifest inspect --verbose r.example/app@sha256:..."
)]
pub(super) struct Inspect {
    /// Speak to a registry without encryption, or with a certificate that nobody knows
    #[arg(long)]
    insecure: bool,
    /// Show descriptors and platforms too
    #[arg(short, long)]
    verbose: bool,
    /// A manifest, after the list here that it is in
    #[arg(value_name = "[MANIFEST_LIST] MANIFEST", num_args = 1..=2, required = true)]
    words: Vec<String>,
}

/// Push a list to its registry
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull manifest push registry.example/team/app:v1")]
pub(super) struct Push {
    /// Speak to a registry without encryption, or with a certificate that nobody knows
    #[arg(long)]
    insecure: bool,
    /// Forget the list when it is pushed
    #[arg(short, long)]
    purge: bool,
    /// The list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
}

/// Forget lists
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull manifest rm registry.example/team/app:v1")]
pub(super) struct Rm {
    /// The lists
    #[arg(value_name = "MANIFEST_LIST", required = true)]
    lists: Vec<String>,
}

impl Manifest {
    pub(super) fn main(self, engine: &Engine) -> Done {
        match self {
            Self::Annotate(args) => annotate(engine, args),
            Self::Create(args) => create(engine, &args),
            Self::Inspect(args) => inspect(engine, &args),
            Self::Push(args) => push(engine, &args),
            Self::Rm(args) => rm(engine, &args),
        }
    }
}

fn name(text: &str) -> Result<Reference, Failure> {
    let parsed: Reference = text.parse().map_err(|error| Failure::new(format!("{error}")))?;
    Ok(parsed.or_latest())
}

fn client(insecure: bool) -> Arc<Client> {
    if insecure { Client::insecure() } else { Client::from_environment() }
}

fn look(client: &Arc<Client>, reference: &Reference) -> Result<Looked, Failure> {
    registry::look(client, reference).map_err(|error| match &error {
        hull_image::Error::Registry(inner) if inner.is_not_found() => {
            Failure { missing: true, ..Failure::new(format!("no such manifest: {}", reference.familiar())) }
        }
        _ => error.into(),
    })
}

fn missing(name: &Reference) -> Failure {
    Failure { missing: true, ..Failure::new(format!("No such manifest: {name}")) }
}

fn create(engine: &Engine, args: &Create) -> Done {
    let target = name(&args.list)?;
    let lists = Lists::open(&engine.images)?;
    let known = lists.get(&target)?;
    if known.is_some() && !args.amend {
        return Err(Failure::new("refusing to amend an existing manifest list with no --amend flag"));
    }
    let mut list = known.unwrap_or_else(|| List { name: target.to_string(), entries: Vec::new() });
    let client = client(args.insecure);
    for word in &args.manifests {
        let found = look(&client, &name(word)?)?;
        if matches!(found.fetched.document, Document::Index(_)) {
            return Err(Failure::new(format!("{} is a manifest list", found.reference.familiar())));
        }
        let descriptor = Descriptor { platform: found.platform, ..found.fetched.descriptor };
        let entry = Entry { reference: found.reference.to_string(), descriptor };
        match list.entries.iter_mut().find(|known| known.reference == entry.reference) {
            Some(known) => *known = entry,
            None => list.entries.push(entry),
        }
    }
    lists.put(&target, &list)?;
    print(format_args!("Created manifest list {target}\n"));
    Ok(0)
}

fn annotate(engine: &Engine, args: Annotate) -> Done {
    let (target, manifest) = (name(&args.list)?, name(&args.manifest)?);
    let lists = Lists::open(&engine.images)?;
    let mut list = lists.get(&target)?.ok_or_else(|| missing(&target))?;
    let wanted = manifest.to_string();
    let entry = list.entries.iter_mut().find(|entry| entry.reference == wanted);
    let entry = entry.ok_or_else(|| {
        Failure::new(format!("manifest for image {} does not exist in {}", manifest.familiar(), target.familiar()))
    })?;
    let platform = entry.descriptor.platform.get_or_insert_with(Platform::default);
    if let Some(os) = args.os {
        platform.os = os;
    }
    if let Some(architecture) = args.arch {
        platform.architecture = architecture;
    }
    platform.variant = args.variant.or(platform.variant.take());
    platform.os_version = args.os_version.or(platform.os_version.take());
    for feature in args.os_features {
        if !platform.os_features.contains(&feature) {
            platform.os_features.push(feature);
        }
    }
    let known = PLATFORMS
        .iter()
        .any(|(os, architectures)| *os == platform.os && architectures.contains(&platform.architecture.as_str()));
    if !known {
        return Err(Failure::new(format!(
            "manifest entry for image has unsupported os/arch combination: {}/{}",
            platform.os, platform.architecture
        )));
    }
    lists.put(&target, &list)?;
    Ok(0)
}

fn push(engine: &Engine, args: &Push) -> Done {
    let target = name(&args.list)?;
    if target.digest().is_some() {
        return Err(Failure::new("a manifest list is pushed under a tag"));
    }
    let lists = Lists::open(&engine.images)?;
    let list = lists.get(&target)?.ok_or_else(|| missing(&target))?;
    let repository = target.repository();
    let digest = registry::push_list(&client(args.insecure), &target, &list, &mut |digest| {
        print(format_args!("Pushed ref {repository}@{digest} with digest: {digest}\n"));
    })?;
    print(format_args!("{digest}\n"));
    if args.purge {
        lists.remove(&target)?;
    }
    Ok(0)
}

fn rm(engine: &Engine, args: &Rm) -> Done {
    let lists = Lists::open(&engine.images)?;
    let mut failures = Vec::new();
    for word in &args.lists {
        let done = name(word).and_then(|name| match lists.remove(&name)? {
            true => Ok(()),
            false => Err(missing(&name)),
        });
        failures.extend(done.err());
    }
    let Some(last) = failures.pop() else { return Ok(0) };
    failures.iter().for_each(|failure| error(&failure.message));
    Err(last)
}

fn inspect(engine: &Engine, args: &Inspect) -> Done {
    let client = client(args.insecure);
    let (list, manifest) = match args.words.as_slice() {
        [list, manifest] => (Some(name(list)?), name(manifest)?),
        words => (None, name(words.first().map_or("", String::as_str))?),
    };
    if let Some(target) = list {
        let list = Lists::open(&engine.images)?.get(&target)?.ok_or_else(|| missing(&target))?;
        let wanted = manifest.to_string();
        let entry = list.entries.iter().find(|entry| entry.reference == wanted).ok_or_else(|| missing(&manifest))?;
        return show(&entry_of(&client, entry)?, args.verbose);
    }
    if let Some(list) = Lists::open(&engine.images)?.get(&manifest)? {
        if !args.verbose {
            let (bytes, _) = list.document()?;
            print(format_args!("{}\n", String::from_utf8_lossy(&bytes)));
            return Ok(0);
        }
        let found: Vec<Looked> = list.entries.iter().map(|entry| entry_of(&client, entry)).collect::<Result<_, _>>()?;
        return show_all(&found);
    }
    let found = look(&client, &manifest)?;
    match &found.fetched.document {
        Document::Index(index) if args.verbose => {
            let mut all = registry::look_into(&client, &found.reference, index)?;
            // As Docker names them: the tag stays.
            let tagged = |one: &Looked| format!("{}@{}", found.reference, one.fetched.descriptor.digest).parse();
            all.iter_mut().for_each(|one| one.reference = tagged(one).unwrap_or_else(|_| one.reference.clone()));
            show_all(&all)
        }
        _ => show(&found, args.verbose),
    }
}

/// A manifest of a list here, with the platform that it has there.
fn entry_of(client: &Arc<Client>, entry: &Entry) -> Result<Looked, Failure> {
    let reference: Reference = entry.reference.parse().map_err(|error| Failure::new(format!("{error}")))?;
    let mut found = look(client, &reference.with_digest(entry.descriptor.digest.clone()))?;
    found.reference = reference;
    found.platform.clone_from(&entry.descriptor.platform);
    Ok(found)
}

fn show(found: &Looked, verbose: bool) -> Done {
    let text = match &found.fetched.document {
        Document::Index(_) => indented(&found.fetched.bytes, "   "),
        Document::Manifest(_) if verbose => indented(whole(found)?.as_bytes(), "\t"),
        Document::Manifest(_) => indented(&found.fetched.bytes, "\t"),
    };
    print(format_args!("{text}\n"));
    Ok(0)
}

fn show_all(found: &[Looked]) -> Done {
    let all: Vec<String> = found.iter().map(whole).collect::<Result<_, _>>()?;
    print(format_args!("{}\n", indented(format!("[{}]", all.join(",")).as_bytes(), "\t")));
    Ok(0)
}

/// Docker's form of all that is known: the name, the descriptor, the bytes, and the document as it is.
fn whole(found: &Looked) -> Result<String, Failure> {
    let failed = |error: serde_json::Error| Failure::new(error.to_string());
    let descriptor = Descriptor { platform: found.platform.clone(), ..found.fetched.descriptor.clone() };
    let field = match (&found.fetched.document, descriptor.media_type.as_str()) {
        (Document::Index(_), _) => "Index",
        (Document::Manifest(_), media_type::DOCKER_MANIFEST) => "SchemaV2Manifest",
        (Document::Manifest(_), _) => "OCIManifest",
    };
    Ok(format!(
        r#"{{"Ref":{},"Descriptor":{},"Raw":"{}","{field}":{}}}"#,
        serde_json::to_string(&found.reference.to_string()).map_err(failed)?,
        serde_json::to_string(&descriptor).map_err(failed)?,
        STANDARD.encode(&found.fetched.bytes),
        String::from_utf8_lossy(&found.fetched.bytes)
    ))
}

/// JSON with its fields in their order, one a line. The text is valid: it was parsed.
fn indented(text: &[u8], indent: &str) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut quoted, mut escaped, mut opened) = (0_usize, false, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str(indent));
    };
    for character in text.chars() {
        if quoted {
            out.push(character);
            quoted = escaped || character != '"';
            escaped = character == '\\' && !escaped;
            continue;
        }
        if character.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(character, '}' | ']');
        if opened && !closes {
            line(&mut out, depth);
        }
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !opened {
                    line(&mut out, depth);
                }
            }
            '"' => quoted = true,
            _ => {}
        }
        opened = matches!(character, '{' | '[');
        out.push(character);
        match character {
            ',' => line(&mut out, depth),
            ':' => out.push(' '),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_order() {
        let text = br#"{"b":[1,{"x":"a\\\"{,:"}],"a":{},"c":[ ],"d":null}"#;
        let expected = "{\n\t\"b\": [\n\t\t1,\n\t\t{\n\t\t\t\"x\": \"a\\\\\\\"{,:\"\n\t\t}\n\t],\n\t\"a\": {},\n\t\"c\": [],\n\t\"d\": null\n}";
        assert_eq!(indented(text, "\t"), expected);
        let again: serde_json::Value = serde_json::from_str(&indented(text, "   ")).expect("still valid");
        assert_eq!(again, serde_json::from_slice::<serde_json::Value>(text).expect("valid"));
    }
}
