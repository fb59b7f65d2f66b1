//! Flags to a request, in the words of `docker buildx build`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_build::BuildRequest;
use hull_build::call::{self, Method};
use hull_build::graph::Network;
use hull_build::request::{
    Annotation, CacheEntry, Context, DockerfileSource, LockOptions, Output, OutputKind, Provenance, Secret,
};
use hull_engine::{Engine, RunConfig, flags};
use hull_oci::Reference;
use hull_oci::image::Platform;
use rustix::fs::{Mode, OFlags};

use super::super::{Failure, run};
use super::Args;

/// A Dockerfile on standard input of more bytes is refused.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// What is done with a Dockerfile instead of building it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    method: Method,
    json: bool,
}

impl Call {
    pub(super) fn parse(text: &str, check: bool) -> Result<Option<Self>, Failure> {
        let mut fields = text.split(',');
        let mut method = match fields.next().unwrap_or_default() {
            "build" | "" => None,
            "check" | "lint" => Some(Method::Check),
            "outline" => Some(Method::Outline),
            "targets" => Some(Method::Targets),
            other => return Err(Failure::new(format!("--call {other:?}: expected build, check, outline or targets"))),
        };
        let mut json = false;
        for field in fields {
            match field.split_once('=') {
                Some(("format", "json")) => json = true,
                Some(("format", "text")) => json = false,
                _ => return Err(Failure::new(format!("--call: {field:?}: expected format=text or format=json"))),
            }
        }
        if check {
            method = Some(Method::Check);
        }
        Ok(method.map(|method| Self { method, json }))
    }

    pub(super) fn main(self, engine: &Engine, request: &BuildRequest) -> super::Done {
        let called = call::call(engine, request, self.method, self.json).map_err(super::told)?;
        crate::output::print(&called.output);
        if !called.error.is_empty() {
            super::say(called.error.trim_end());
        }
        Ok(u8::from(called.failed))
    }
}

/// Everything that is asked for.
pub(super) fn request(engine: &Engine, args: &Args) -> Result<BuildRequest, Failure> {
    let mut request = BuildRequest {
        target: Some(args.target.clone()).filter(|target| !target.is_empty()),
        extra_hosts: hosts(&args.hosts)?,
        network: network(&args.network)?,
        no_cache: args.no_cache,
        no_cache_filter: args.no_cache_filter.clone(),
        pull: args.pull,
        allow: args.allow.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect(),
        explain: args.explain,
        keep_times: args.timestamps == "keep",
        keep_noise: args.no_normalise,
        ulimits: args.ulimits.clone(),
        ..BuildRequest::default()
    };
    for text in &args.tags {
        let name: Result<Reference, _> = text.parse();
        let name = name.map_err(|error| Failure::new(format!("invalid tag {text:?}: {error}")))?;
        if name.digest().is_some() {
            return Err(Failure::new(format!("invalid tag {text:?}: it has a digest")));
        }
        request.tags.push(name.or_latest());
    }
    for text in &args.build_args {
        match text.split_once('=') {
            Some((name, value)) => drop(request.build_args.insert(name.to_owned(), value.to_owned())),
            None => {
                if let Ok(value) = std::env::var(text) {
                    request.build_args.insert(text.clone(), value);
                }
            }
        }
    }
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"] {
        for name in [name.to_owned(), name.to_ascii_lowercase()] {
            if let Ok(value) = std::env::var(&name) {
                request.proxies.insert(name, value);
            }
        }
    }
    for text in &args.labels {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        request.labels.insert(key.to_owned(), value.to_owned());
    }
    request.annotations = args.annotations.iter().map(|text| annotation(text)).collect::<Result<_, _>>()?;
    for text in &args.secrets {
        let (id, secret) = secret(text)?;
        request.secrets.insert(id, secret);
    }
    request.certificates = args.host_certificates.as_deref().map(certificates).transpose()?;
    for text in &args.ssh {
        let (id, paths) = ssh(text)?;
        request.ssh.insert(id, paths);
    }
    for text in &args.platform {
        request.platforms.push(Platform::parse(text).map_err(Failure::new)?);
    }
    if let Some(text) = &args.shm_size {
        let size = flags::bytes(text).map_err(|reason| Failure::new(format!("--shm-size: {reason}")))?;
        request.shm_size = u64::try_from(size).ok().filter(|size| *size > 0);
    }
    request.cache_from = args.cache_from.iter().map(|text| cache(text)).collect::<Result<_, _>>()?;
    request.cache_to = args.cache_to.iter().map(|text| cache(text)).collect::<Result<_, _>>()?;
    request.outputs = outputs(args)?;
    epoch(&mut request)?;
    contexts(engine, args, &mut request)?;
    request.lock = LockOptions { path: lock_path(args, &request), write: args.lock, locked: args.locked };
    if (args.lock || args.locked) && request.lock.path.is_none() {
        return Err(Failure::new("this build has no place for a lock: say where it is with --lock-file"));
    }
    (request.provenance, request.attest.provenance) = provenance(args)?;
    request.attest.sbom = sbom(args)?;
    Ok(request)
}

/// The bundle that `--host-certificates` means.
fn certificates(given: &Path) -> Result<PathBuf, Failure> {
    if given != Path::new("host") {
        return Ok(given.to_owned());
    }
    let own = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let usual = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let found = own.into_iter().chain(usual.map(PathBuf::from)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::new("--host-certificates: this machine has no bundle at a usual place: give its file".to_owned())
    })
}

/// Beside the Dockerfile: `hull.lock`, or with its name where that is another one.
fn lock_path(args: &Args, request: &BuildRequest) -> Option<PathBuf> {
    if let Some(path) = &args.lock_file {
        return Some(path.clone());
    }
    match (&request.dockerfile, &request.context) {
        (DockerfileSource::Path(path), Context::Directory(_) | Context::Empty) => {
            let name = path.file_name()?.to_string_lossy().into_owned();
            let own =
                if name.eq_ignore_ascii_case("Dockerfile") { "hull.lock".to_owned() } else { name + ".hull.lock" };
            Some(path.with_file_name(own))
        }
        (DockerfileSource::Default, Context::Directory(directory)) => Some(directory.join("hull.lock")),
        _ => None,
    }
}

/// `--attest type=KIND[,...]`: everything but the type.
fn attested<'a>(args: &'a Args, wanted: &str) -> Option<&'a str> {
    let of = |text: &'a String| {
        let (kind, rest) = text.strip_prefix("type=")?.split_once(',').unwrap_or((text.strip_prefix("type=")?, ""));
        (kind == wanted).then_some(rest)
    };
    args.attest.iter().find_map(of)
}

/// `--sbom`, or `--attest=type=sbom`.
fn sbom(args: &Args) -> Result<bool, Failure> {
    let known = |text: &&String| ["type=provenance", "type=sbom"].contains(&text.split(',').next().unwrap_or_default());
    if let Some(other) = args.attest.iter().find(|text| !known(text)) {
        return Err(Failure::new(format!("--attest {other:?}: expected type=provenance or type=sbom")));
    }
    let mut wanted = false;
    let Some(text) = args.sbom.as_deref().or_else(|| attested(args, "sbom")) else { return Ok(false) };
    for word in text.split(',') {
        wanted = match word {
            "" | "true" | "1" | "disabled=false" => true,
            "false" | "0" | "disabled=true" => return Ok(false),
            word if word.starts_with("generator=") => {
                return Err(Failure::new(format!(
                    "--sbom {word:?}: the packages are listed by Hull itself, not by an image"
                )));
            }
            other => return Err(Failure::new(format!("--sbom {other:?}: expected true or false"))),
        };
    }
    Ok(wanted)
}

/// `--provenance`, or `--attest=type=provenance,...`, and whether it is said expressly, for more than the images that
/// hold it themselves.
fn provenance(args: &Args) -> Result<(Provenance, bool), Failure> {
    let text = args.provenance.as_deref().or_else(|| attested(args, "provenance"));
    let mut asked = text.is_some();
    let mut mode = Provenance::default();
    for word in text.unwrap_or_default().split(',') {
        mode = match word {
            "" | "true" | "1" | "mode=min" | "disabled=false" => mode,
            "false" | "0" | "disabled=true" => Provenance::Off,
            "mode=max" => Provenance::Max,
            // Clients send this by themselves.
            "inline-only=true" => {
                asked = false;
                mode
            }
            // What BuildKit knows besides changes nothing that is told here.
            other
                if ["builder-id=", "filename=", "reproducible=", "inline-only=", "version="]
                    .iter()
                    .any(|known| other.starts_with(known)) =>
            {
                mode
            }
            other => {
                return Err(Failure::new(format!(
                    "--provenance {other:?}: expected true, false, mode=min or mode=max"
                )));
            }
        };
    }
    Ok((mode, asked && mode != Provenance::Off))
}

/// `SOURCE_DATE_EPOCH`, as an argument or of this process.
fn epoch(request: &mut BuildRequest) -> Result<(), Failure> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    if let (None, Ok(own)) = (request.build_args.get(NAME), std::env::var(NAME)) {
        request.build_args.insert(NAME.to_owned(), own);
    }
    if let Some(text) = request.build_args.get(NAME).filter(|text| !text.is_empty()) {
        let seconds = text.parse().ok().filter(|seconds: &i64| *seconds >= 0);
        let wrong = || Failure::new(format!("invalid SOURCE_DATE_EPOCH: {text}: expected seconds since 1970"));
        request.source_date_epoch = Some(seconds.ok_or_else(wrong)?);
    }
    Ok(())
}

/// The contexts, and where the Dockerfile is.
fn contexts(engine: &Engine, args: &Args, request: &mut BuildRequest) -> Result<(), Failure> {
    let Some(word) = &args.context else {
        return Err(Failure::new("'hull build' requires 1 argument: the context, such as '.'"));
    };
    let from_stdin = args.file.as_deref() == Some("-");
    if from_stdin && word == "-" {
        return Err(Failure::new("invalid argument: can't use stdin for both build context and dockerfile"));
    }
    request.context = if word == "-" { stdin(engine, request, args)? } else { context(word, true)? };
    for text in &args.contexts {
        let Some((name, value)) = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())
        else {
            return Err(Failure::new(format!("invalid context value: {text}, expected key=value")));
        };
        request.contexts.insert(name.to_owned(), context(value, false)?);
    }
    match args.file.as_deref() {
        None | Some("") => {}
        Some("-") => {
            let mut text = Vec::new();
            let read = std::io::stdin().lock().take(MAX_DOCKERFILE).read_to_end(&mut text);
            read.map_err(|error| Failure::new(format!("read the Dockerfile from standard input: {error}")))?;
            request.dockerfile = DockerfileSource::Text(text);
        }
        Some(path) => request.dockerfile = DockerfileSource::Path(PathBuf::from(path)),
    }
    Ok(())
}

/// Standard input is a Dockerfile, or an archive of the context.
fn stdin(engine: &Engine, request: &mut BuildRequest, args: &Args) -> Result<Context, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("read the context from standard input: {error}"));
    let mut text = Vec::new();
    let mut input = std::io::stdin().lock();
    input.by_ref().take(512).read_to_end(&mut text).map_err(failed)?;
    if hull_build::begins_archive(&text) {
        // It is read more than once.
        std::fs::create_dir_all(engine.root()).map_err(failed)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(engine.root(), flags, Mode::from_raw_mode(0o600));
        let mut file = file.map(File::from).map_err(|errno| failed(errno.into()))?;
        file.write_all(&text).map_err(failed)?;
        std::io::copy(&mut input, &mut file).map_err(failed)?;
        return Ok(Context::Archive(Arc::new(file)));
    }
    input.take(MAX_DOCKERFILE).read_to_end(&mut text).map_err(failed)?;
    if args.file.is_some() {
        return Err(Failure::new("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles"));
    }
    request.dockerfile = DockerfileSource::Text(text);
    Ok(Context::Empty)
}

/// A context as a word.
fn context(word: &str, main: bool) -> Result<Context, Failure> {
    if let Some(reference) = word.strip_prefix("docker-image://") {
        return Ok(Context::Image(reference.to_owned()));
    }
    if let Some(stage) = word.strip_prefix("target:").filter(|_| !main) {
        return Ok(Context::Target(stage.to_owned()));
    }
    if let Some(layout) = word.strip_prefix("oci-layout://") {
        let (rest, digest) = match layout.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|error| Failure::new(format!("context {word}: {error}")))?;
                (rest, Some(digest))
            }
            None => (layout, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (rest, None),
        };
        return Ok(Context::OciLayout { path: absolute(path), tag, digest });
    }
    let is_directory = |word: &str| std::fs::metadata(absolute(word)).is_ok_and(|metadata| metadata.is_dir());
    if let Some(repository) = hull_build::files::git::parse(word).filter(|_| !is_directory(word)) {
        return repository.map(Context::Git).map_err(|error| Failure::new(format!("context {word}: {error}")));
    }
    if word.starts_with("http://") || word.starts_with("https://") {
        return Ok(Context::Url(word.to_owned()));
    }
    let path = absolute(word);
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Ok(Context::Directory(path)),
        Ok(_) => Err(Failure::new(format!("unable to prepare context: {word} is not a directory"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("unable to prepare context: path {word:?} not found")))
        }
        Err(error) => Err(Failure::new(format!("unable to prepare context: {word}: {error}"))),
    }
}

fn absolute(path: &str) -> PathBuf {
    let path = Path::new(path);
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn network(text: &str) -> Result<Network, Failure> {
    match text {
        "" | "default" | "bridge" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => Err(Failure::new(format!(
            "network mode {other:?} not supported by buildkit - you can define a custom network for your builder: \
             expected default, none or host"
        ))),
    }
}

/// `NAME:ADDRESS`, also from `NAME=ADDRESS`.
fn hosts(texts: &[String]) -> Result<Vec<String>, Failure> {
    let host = |text: &String| {
        let wrong = || Failure::new(format!("invalid host: {text}"));
        let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || (address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err()) {
            return Err(wrong());
        }
        Ok(format!("{name}:{address}"))
    };
    texts.iter().map(host).collect()
}

/// Fields of a flag's value, which may be quoted as in CSV.
fn fields(flag: &str, text: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    if quoted {
        return Err(Failure::new(format!("{flag}: {text:?}: a quote is not closed")));
    }
    fields.push(field);
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.trim().to_ascii_lowercase(), value.to_owned()),
        None => (field, String::new()),
    };
    Ok(fields.into_iter().map(pair).collect())
}

fn secret(text: &str) -> Result<(String, Secret), Failure> {
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, String::new());
    for (key, value) in fields("--secret", text)? {
        match key.as_str() {
            "type" if matches!(value.as_str(), "file" | "env") => kind = value,
            "type" => return Err(Failure::new(format!("unsupported secret type {value:?}"))),
            "id" => id = Some(value),
            "src" | "source" => file = Some(value),
            "env" => variable = Some(value),
            _ => return Err(Failure::new(format!("unexpected key '{key}' in '{key}={value}'"))),
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return Err(Failure::new(format!("--secret {text:?}: id is missing")));
    };
    if kind == "env" && variable.is_none() {
        variable = file.take();
    }
    let secret = match (variable, file) {
        (Some(variable), _) => Secret::Variable(variable),
        (None, Some(file)) => Secret::File(absolute(&file)),
        (None, None) if std::env::var_os(&id).is_some() => Secret::Variable(id.clone()),
        (None, None) => Secret::File(absolute(&id)),
    };
    if let Secret::File(path) = &secret {
        let failed = |error| Failure::new(format!("failed to stat {}: {error}", path.display()));
        std::fs::metadata(path).map_err(failed)?;
    }
    Ok((id, secret))
}

fn ssh(text: &str) -> Result<(String, Vec<PathBuf>), Failure> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let mut paths: Vec<PathBuf> = paths.split(',').filter(|path| !path.is_empty()).map(absolute).collect();
    if paths.is_empty() {
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        let missing = || {
            let text = "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set";
            Failure::new(text)
        };
        paths.push(socket.map(PathBuf::from).ok_or_else(missing)?);
    }
    Ok((id.to_owned(), paths))
}

fn annotation(text: &str) -> Result<Annotation, Failure> {
    let wrong = || Failure::new(format!("invalid annotation {text:?}: expected [TYPE:]KEY=VALUE"));
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    let known = |kind: &str| {
        matches!(kind.split('[').next(), Some("manifest" | "index" | "manifest-descriptor" | "index-descriptor"))
    };
    let (kind, key) = match key.split_once(':') {
        Some((kind, key)) if kind.split(',').all(known) => (kind, key),
        _ => ("manifest", key),
    };
    let (kind, platform) = match kind.split_once('[') {
        Some((kind, platform)) => {
            let platform = Platform::parse(platform.trim_end_matches(']')).map_err(Failure::new)?;
            (kind, Some(platform))
        }
        None => (kind, None),
    };
    if key.is_empty() {
        return Err(wrong());
    }
    Ok(Annotation { kind: kind.to_owned(), platform, key: key.to_owned(), value: value.to_owned() })
}

fn cache(text: &str) -> Result<CacheEntry, Failure> {
    if !text.contains('=') {
        let attributes = BTreeMap::from([("ref".to_owned(), text.to_owned())]);
        return Ok(CacheEntry { kind: "registry".to_owned(), attributes });
    }
    let mut entry = CacheEntry::default();
    for (key, value) in fields("--cache-from", text)? {
        if key == "type" {
            entry.kind = value;
        } else {
            entry.attributes.insert(key, value);
        }
    }
    if entry.kind.is_empty() {
        return Err(Failure::new(format!("type required form> {text:?}")));
    }
    if entry.kind == "gha" {
        // What a job has, unless something else is said.
        for (key, variable) in [("token", "ACTIONS_RUNTIME_TOKEN"), ("url_v2", "ACTIONS_RESULTS_URL")] {
            let said = entry.attributes.contains_key(key) || key == "url_v2" && entry.attributes.contains_key("url");
            if let (false, Ok(value)) = (said, std::env::var(variable)) {
                entry.attributes.insert(key.to_owned(), value);
            }
        }
    }
    Ok(entry)
}

fn outputs(args: &Args) -> Result<Vec<Output>, Failure> {
    let mut outputs = args.outputs.iter().map(|text| output(text)).collect::<Result<Vec<_>, _>>()?;
    if args.push {
        let attributes = BTreeMap::from([("push".to_owned(), "true".to_owned())]);
        match outputs.iter_mut().find(|output| output.kind == OutputKind::Image) {
            Some(output) => output.attributes.extend(attributes),
            None => outputs.push(Output { kind: OutputKind::Image, destination: None, attributes }),
        }
    }
    if args.load && !outputs.iter().any(|output| output.kind == OutputKind::Image) {
        outputs.push(Output { kind: OutputKind::Docker, destination: None, attributes: BTreeMap::new() });
    }
    Ok(outputs)
}

fn output(text: &str) -> Result<Output, Failure> {
    let wrong = |reason: &str| Failure::new(format!("--output {text:?}: {reason}"));
    if !text.contains('=') {
        // A path alone; '-' is a tar on standard output.
        let (kind, destination) = match text {
            "-" => (OutputKind::Tar, None),
            path => (OutputKind::Local, Some(absolute(path))),
        };
        return Ok(Output { kind, destination, attributes: BTreeMap::new() });
    }
    let (mut kind, mut destination, mut attributes) = (None, None, BTreeMap::new());
    for (key, value) in fields("--output", text)? {
        match key.as_str() {
            "type" => kind = Some(value),
            "dest" => destination = Some(value),
            _ => drop(attributes.insert(key, value)),
        }
    }
    let kind = match kind.as_deref() {
        Some("image") => OutputKind::Image,
        Some("registry") => {
            attributes.entry("push".to_owned()).or_insert_with(|| "true".to_owned());
            OutputKind::Image
        }
        Some("docker") => OutputKind::Docker,
        Some("oci") => OutputKind::Oci,
        Some("local") => OutputKind::Local,
        Some("tar") => OutputKind::Tar,
        Some("cacheonly") => OutputKind::CacheOnly,
        Some(other) => return Err(wrong(&format!("unknown type {other:?}"))),
        None => return Err(wrong("type is required for output")),
    };
    if kind == OutputKind::Local && destination.as_deref().is_none_or(|path| path == "-") {
        return Err(wrong("dest is required for local output"));
    }
    // Without a place, an archive goes to standard output; Docker's becomes an image.
    let to_stdout = destination.as_deref() == Some("-")
        || (destination.is_none() && matches!(kind, OutputKind::Oci | OutputKind::Tar));
    if to_stdout && rustix::termios::isatty(rustix::stdio::stdout()) {
        return Err(wrong("dest file is required: refusing to write to a terminal"));
    }
    let destination = match destination {
        Some(path) if path == "-" => (kind == OutputKind::Docker).then(|| PathBuf::from("/dev/stdout")),
        Some(path) => Some(absolute(&path)),
        None => None,
    };
    Ok(Output { kind, destination, attributes })
}

/// What every step starts from: `hull run` with the flags that a build has too.
pub(super) fn defaults(args: &Args) -> Result<RunConfig, Failure> {
    let mut words = Vec::new();
    let mut add = |flag: &str, value: Option<&String>| {
        if let Some(value) = value {
            words.push(format!("--{flag}={value}"));
        }
    };
    add("memory", args.memory.as_ref());
    add("memory-swap", args.memory_swap.as_ref());
    add("cpus", args.cpus.as_ref());
    add("cpu-shares", args.cpu_shares.as_ref());
    add("cpu-period", args.cpu_period.as_ref());
    add("cpu-quota", args.cpu_quota.as_ref());
    add("cpuset-cpus", args.cpuset_cpus.as_ref());
    add("cpuset-mems", args.cpuset_mems.as_ref());
    add("cgroup-parent", args.cgroup_parent.as_ref());
    add("security", args.security.as_ref());
    for option in &args.security_options {
        add("security-opt", Some(option));
    }
    for text in &args.resource {
        for (key, value) in fields("--resource", text)? {
            let known = [
                "memory",
                "memory-swap",
                "cpus",
                "cpu-shares",
                "cpu-period",
                "cpu-quota",
                "cpuset-cpus",
                "cpuset-mems",
            ];
            if !known.contains(&key.as_str()) {
                return Err(Failure::new(format!(
                    "--resource: {key:?} is unknown: expected one of {}",
                    known.join(", ")
                )));
            }
            add(&key, Some(&value));
        }
    }
    run::of_flags(&words)
}
