//! A build that a client asked for through its session: its files are received, `hull build` runs on them, and what it
//! made goes where the client wants it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_registry::credentials::Credential;
use rustix::fs::{CWD, Mode, OFlags};

use super::agents::Agent;
use super::builds::{Build, Made};
use super::grpc::{Failure, code};
use super::needs::Needs;
use super::receive::{Wanted, receive};
use super::result::Kept;
use super::session::Session;
use super::{pb, send, status};
use crate::api::Api;
use crate::build::process::{Command, Ended, Ender, Process, Said};
use crate::build::work::Work;
use crate::refusal::Refusal;

mod caches;
mod options;

/// A Dockerfile is at most so long.
const MAX_DOCKERFILE: usize = 4 << 20;

/// What a build made.
#[derive(Debug, Default)]
pub(super) struct Solved {
    /// What the client calls the result by.
    pub(super) reference: String,
    /// For the answer of the exporters.
    pub(super) made: Made,
    /// For the client's frontend.
    pub(super) metadata: BTreeMap<String, Vec<u8>>,
    /// What another build's input is made from.
    pub(super) kept: Option<Arc<Kept>>,
}

/// What a frontend is asked for.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) frontend: &'a str,
    pub(super) options: &'a BTreeMap<String, String>,
    /// Results of other builds, by the names that options refer to.
    pub(super) inputs: &'a BTreeMap<String, pb::Definition>,
    pub(super) imports: &'a [pb::CacheOptionsEntry],
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.status {
            400 => code::INVALID_ARGUMENT,
            404 => code::NOT_FOUND,
            _ => code::UNKNOWN,
        };
        Self::new(code, refusal.message)
    }
}

/// Ends a build that nobody waits for any more.
struct Ending(Ender);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Runs the frontend with its options.
pub(super) async fn frontend(api: &Arc<Api>, build: &Arc<Build>, asked: &Asked<'_>) -> Result<Solved, Failure> {
    let (name, options) = (asked.frontend, asked.options);
    let is_dockerfile = name == "dockerfile.v0"
        || name == "gateway.v0" && options.get("source").is_some_and(|source| source.starts_with("docker/dockerfile"));
    if !is_dockerfile {
        let text = format!("frontend {} is not supported: only dockerfile.v0 is", hull_oci::spec::one_line(name));
        return Err(Failure::new(code::UNIMPLEMENTED, text));
    }
    let request = build.request().await?;
    let session = api.sessions.find(&request.session).await?;
    let engine = Arc::clone(api);
    let made = tokio::task::spawn_blocking(move || Work::new(&engine.engine)).await;
    let work = Arc::new(made.map_err(|_| Failure::unknown("making directories broke off"))??);
    let solve = Solve { api, build, session: &session, work: &work, options, inputs: asked.inputs, request: &request };
    solve.run(asked.imports).await
}

struct Solve<'s> {
    api: &'s Arc<Api>,
    build: &'s Arc<Build>,
    session: &'s Session,
    work: &'s Arc<Work>,
    options: &'s BTreeMap<String, String>,
    inputs: &'s BTreeMap<String, pb::Definition>,
    request: &'s pb::SolveRequest,
}

/// Where something of the build is.
enum Place {
    Directory(PathBuf),
    /// An address that the build fetches itself.
    Remote(String),
}

fn is_remote(text: &str) -> bool {
    text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/") || text.ends_with(".git")
}

impl Solve<'_> {
    fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The session that a directory is of.
    async fn session_of(&self, name: &str) -> Result<Session, Failure> {
        match self.option(&format!("local-sessionid:{name}")) {
            Some(id) => self.api.sessions.find(id).await,
            None => Ok(self.session.clone()),
        }
    }

    /// Receives a directory, and says so as a step.
    async fn receive(&self, wanted: Wanted, place: &str, told: Option<&str>) -> Result<PathBuf, Failure> {
        let session = self.session_of(&wanted.name).await?;
        let path = self.work.directory(place)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &path, flags, Mode::empty())
            .map_err(|errno| Failure::unknown(format!("open {}: {errno}", path.display())))?;
        let step = told.map(|name| Step::begin(self.build, name));
        let mut last = std::time::Instant::now();
        let result = receive(&session, &wanted, &root, &mut |bytes| {
            if let Some(step) = step.as_ref().filter(|_| last.elapsed().as_millis() > 100) {
                last = std::time::Instant::now();
                step.transferred(bytes, false);
            }
        })
        .await;
        if let Some(step) = step {
            step.end(result.as_ref().map(|received| received.bytes));
        }
        result.map(|_| path)
    }

    async fn run(&self, imports: &[pb::CacheOptionsEntry]) -> Result<Solved, Failure> {
        let filename = self.option("filename").unwrap_or("Dockerfile").to_owned();
        let context = self.option("context").filter(|text| is_remote(text));
        let mut needs = Needs::default();
        let dockerfile = self.dockerfile(&filename, context.is_some(), &mut needs).await?;
        let context = match context {
            Some(address) => Place::Remote(address.to_owned()),
            None => Place::Directory(self.context(dockerfile.as_deref()).await?),
        };
        let mut command = Command::default();
        options::words(self.options, self.request, &mut command)?;
        let caches = self.caches(imports, &mut command).await?;
        for (name, value) in &self.api.options.labels {
            command.flag("label", format!("{name}={value}"));
        }
        for (name, place) in self.named_contexts().await? {
            let value = match place {
                Place::Directory(path) => path.into_os_string(),
                Place::Remote(text) => text.into(),
            };
            let mut word = std::ffi::OsString::from(format!("{name}="));
            word.push(value);
            command.flag("build-context", word);
        }
        let exports = options::exports(self.request, self.work, &mut needs, &mut command)?;
        self.secrets(&needs, &mut command).await?;
        let agents = self.agents(&needs, &mut command).await?;
        self.credentials(&needs, &mut command).await?;
        let call = options::call(self.options)?;
        if let Some(call) = &call {
            command.word(format!("--call={call},format=json"));
        }
        let (iidfile, metadata) = (self.work.file("id"), self.work.file("metadata.json"));
        command.flag("iidfile", &iidfile);
        command.flag("metadata-file", &metadata);
        if let Some(path) = &dockerfile {
            command.flag("file", path);
        } else if self.option("filename").is_some() {
            command.flag("file", &filename);
        }
        command.word("--");
        command.word(match &context {
            Place::Directory(path) => path.clone().into_os_string(),
            Place::Remote(address) => address.clone().into(),
        });
        let kept = call.is_none().then(|| Arc::new(Kept::new(&command, self.work)));
        let process = command.start(&self.api.engine)?;
        let (ended, output) = self.follow(process).await?;
        drop(agents);
        if !ended.success && call.is_none() {
            let source = dockerfile.as_deref().and_then(|path| options::source(&ended, path));
            return Err(Failure { details: source.into_iter().collect(), ..Failure::unknown(ended.reason) });
        }
        if let Some(call) = call {
            return options::called(&call, &ended, &output);
        }
        for (number, export) in exports.iter().enumerate() {
            match export {
                options::Export::Here => {}
                options::Export::File(path) => send::file(self.session, number, path).await?,
                options::Export::Directory(path) => send::directory(self.session, number, path).await?,
            }
        }
        let mut made = options::made(&iidfile, &metadata, self.request);
        made.extend(self.send_caches(&caches).await?);
        let mut random = [0_u8; 16];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Failure::unknown(format!("get random bytes: {errno}")))?;
        let reference = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Solved { reference, made, metadata: BTreeMap::new(), kept })
    }

    /// The Dockerfile, if it comes from the client, with its own ignore file beside it.
    async fn dockerfile(&self, name: &str, remote: bool, needs: &mut Needs) -> Result<Option<PathBuf>, Failure> {
        let key = self.option("dockerfilekey").unwrap_or("dockerfile").to_owned();
        let mut follow = vec![name.to_owned(), format!("{name}.dockerignore")];
        if name == "Dockerfile" {
            follow.push("dockerfile".to_owned());
        }
        let wanted = Wanted { name: key, follow, ..Wanted::default() };
        let step = (!remote).then(|| format!("[internal] transfer {}", hull_oci::spec::one_line(name)));
        let directory = match self.receive(wanted, "dockerfile", step.as_deref()).await {
            // It is in the remote context.
            Err(_) if remote => return Ok(None),
            received => received?,
        };
        let root = hull_fs::Root::open(&directory).map_err(|error| Failure::unknown(error.to_string()))?;
        let mut found = None;
        for candidate in [name, "dockerfile"].into_iter().take(if name == "Dockerfile" { 2 } else { 1 }) {
            if let Ok(bytes) = root.read_bounded(Path::new(candidate), MAX_DOCKERFILE) {
                *needs = Needs::of(&bytes);
                found = Some(directory.join(candidate));
                break;
            }
        }
        match found {
            None if remote => Ok(None),
            // The build itself says that it is missing.
            None => Ok(Some(directory.join(name))),
            found => Ok(found),
        }
    }

    /// The context, without what its ignore file names.
    async fn context(&self, dockerfile: Option<&Path>) -> Result<PathBuf, Failure> {
        let key = self.option("contextkey").unwrap_or("context").to_owned();
        let own = dockerfile.map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dockerignore");
            PathBuf::from(name)
        });
        let mut ignore = own.and_then(|path| read_within(&path));
        if ignore.is_none() {
            let follow = vec![".dockerignore".to_owned()];
            let wanted = Wanted { name: key.clone(), follow, ..Wanted::default() };
            let directory = self.receive(wanted, "ignore", None).await?;
            ignore = read_within(&directory.join(".dockerignore"));
        }
        let exclude = patterns(&String::from_utf8_lossy(&ignore.unwrap_or_default()));
        let wanted = Wanted { name: key, exclude, ..Wanted::default() };
        self.receive(wanted, "context", Some("[internal] transfer context")).await
    }

    async fn named_contexts(&self) -> Result<Vec<(String, Place)>, Failure> {
        let mut found = Vec::new();
        for (number, (name, value)) in
            self.options.iter().filter_map(|(key, value)| Some((key.strip_prefix("context:")?, value))).enumerate()
        {
            let place = if let Some(key) = value.strip_prefix("local:") {
                let wanted = Wanted { name: key.to_owned(), ..Wanted::default() };
                let told = format!("[internal] transfer context {}", hull_oci::spec::one_line(name));
                Place::Directory(self.receive(wanted, &format!("named-{number}"), Some(&told)).await?)
            } else if let Some(key) = value.strip_prefix("input:") {
                let id = super::result::input(self.api, name, self.inputs.get(key)).await?;
                Place::Remote(format!("docker-image://{id}"))
            } else if value.starts_with("oci-layout:") {
                let text = format!(
                    "context {}: {} is not supported",
                    hull_oci::spec::one_line(name),
                    hull_oci::spec::one_line(value)
                );
                return Err(Failure::new(code::UNIMPLEMENTED, text));
            } else {
                // A path of this machine is no business of the client's.
                if !is_remote(value) {
                    let text = format!(
                        "context {}: {} is no address",
                        hull_oci::spec::one_line(name),
                        hull_oci::spec::one_line(value)
                    );
                    return Err(Failure::new(code::INVALID_ARGUMENT, text));
                }
                Place::Remote(value.clone())
            };
            found.push((name.to_owned(), place));
        }
        Ok(found)
    }

    async fn secrets(&self, needs: &Needs, command: &mut Command) -> Result<(), Failure> {
        for (number, id) in needs.secrets.iter().enumerate() {
            if let Some(bytes) = self.session.secret(id).await? {
                let path = self.work.secret(&format!("secret-{number}"), &bytes)?;
                command.flag("secret", format!("id={id},src={}", path.display()));
            }
        }
        Ok(())
    }

    async fn agents(&self, needs: &Needs, command: &mut Command) -> Result<Vec<Agent>, Failure> {
        let mut agents = Vec::new();
        for (number, id) in needs.agents.iter().enumerate() {
            if self.session.has_agent(id).await {
                let path = self.work.secrets().join(format!("agent-{number}"));
                agents.push(Agent::listen(self.session, id, &path)?);
                command.flag("ssh", format!("{id}={}", path.display()));
            }
        }
        Ok(agents)
    }

    async fn credentials(&self, needs: &Needs, command: &mut Command) -> Result<(), Failure> {
        let mut known = BTreeMap::new();
        for domain in &needs.registries {
            // As clients keep it.
            let hub = domain == "docker.io";
            let host = if hub { "registry-1.docker.io" } else { domain };
            let Some((username, secret)) = self.session.credentials(host).await? else { continue };
            let credential = if username.is_empty() || username == "<token>" {
                Credential::Identity(secret)
            } else {
                Credential::Password { username, password: secret }
            };
            let key = if hub { "https://index.docker.io/v1/".to_owned() } else { domain.clone() };
            known.insert(key, credential);
        }
        Ok(crate::build::credentials(command, self.work, &known)?)
    }

    /// Passes on what the process says, until it has ended; it ends when this is dropped.
    async fn follow(&self, mut process: Process) -> Result<(Ended, Vec<u8>), Failure> {
        use std::io::Read as _;
        let ending = Ending(process.ender()?);
        let output = process.output();
        let build = Arc::clone(self.build);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let run = move || {
            let reader = std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(output) = output {
                    // What is more is dropped with the pipe.
                    let _ = output.take(64 << 20).read_to_end(&mut bytes);
                }
                bytes
            });
            let ended = process.follow(&mut |said| {
                if let Said::Status(status) = said {
                    build.say(status::message(&status));
                }
            });
            let _ = sender.send((ended, reader.join().unwrap_or_default()));
        };
        std::thread::Builder::new()
            .name("build".to_owned())
            .stack_size(1 << 20)
            .spawn(run)
            .map_err(|error| Failure::unknown(format!("start a thread: {error}")))?;
        let ended = receiver.await.map_err(|_| Failure::unknown("the build broke off"));
        drop(ending);
        ended
    }
}

/// A file that came from the client, whatever links it consists of.
fn read_within(path: &Path) -> Option<Vec<u8>> {
    let root = hull_fs::Root::open(path.parent()?).ok()?;
    root.read_bounded(Path::new(path.file_name()?), MAX_DOCKERFILE).ok()
}

/// The patterns of an ignore file.
fn patterns(text: &str) -> Vec<String> {
    let clean = |line: &str| {
        let line = line.trim();
        let (not, path) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
        let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
        let path = parts.collect::<Vec<_>>().join("/");
        (!path.is_empty()).then(|| format!("{not}{path}"))
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().filter(|line| !line.starts_with('#')).filter_map(clean).collect()
}

/// A step that is not of the build itself, as clients see it.
struct Step<'b> {
    build: &'b Build,
    vertex: pb::Vertex,
}

fn now() -> Option<pb::Timestamp> {
    let nanoseconds = crate::images::now();
    Some(pb::Timestamp {
        seconds: i64::try_from(nanoseconds / 1_000_000_000).ok()?,
        nanos: i32::try_from(nanoseconds % 1_000_000_000).ok()?,
    })
}

impl<'b> Step<'b> {
    fn begin(build: &'b Build, name: &str) -> Self {
        let digest = hull_oci::Digest::of(format!("{name}{:?}", std::time::Instant::now()).as_bytes()).to_string();
        let vertex = pb::Vertex { digest, name: name.to_owned(), started: now(), ..pb::Vertex::default() };
        build.say(pb::StatusResponse { vertexes: vec![vertex.clone()], ..pb::StatusResponse::default() });
        Self { build, vertex }
    }

    fn transferred(&self, bytes: u64, done: bool) {
        let current = i64::try_from(bytes).unwrap_or(i64::MAX);
        let status = pb::VertexStatus {
            id: "transferring".to_owned(),
            vertex: self.vertex.digest.clone(),
            current,
            timestamp: now(),
            started: self.vertex.started.clone(),
            completed: if done { now() } else { None },
            ..pb::VertexStatus::default()
        };
        self.build.say(pb::StatusResponse { statuses: vec![status], ..pb::StatusResponse::default() });
    }

    fn end(mut self, result: Result<u64, &Failure>) {
        match result {
            Ok(bytes) => self.transferred(bytes, true),
            Err(failure) => self.vertex.error.clone_from(&failure.message),
        }
        self.vertex.completed = now();
        let vertexes = vec![self.vertex];
        self.build.say(pb::StatusResponse { vertexes, ..pb::StatusResponse::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignore_files_are_patterns() {
        let text = "\u{feff}# comment\n\n/target/\n !keep \n./a//b\n*.tmp\n  # no comment\n/\n";
        assert_eq!(patterns(text), ["target", "!keep", "a/b", "*.tmp", "# no comment"]);
    }
}
