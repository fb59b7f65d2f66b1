//! Programs that clients start in containers.
//!
//! ```text
//! STATE/exec/ID.json    what was asked for, and what became of it
//! ```
//!
//! A program belongs to a process of its own ([`step`]), which gets the client's connection, keeps the record and lives
//! as long as the program: a server that is killed changes nothing for either. Records of programs that have ended are
//! removed after a while, or with their container.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hull_engine::exec::{Client, ExecConfig, Served};
use hull_engine::monitor::protocol::{WANTS_STDERR, WANTS_STDIN, WANTS_STDOUT};
use hull_engine::{Container, Engine};
use hull_fs::lock::Lock;
use hull_oci::spec::null_default;
use hull_runtime::state::process_start_time;
use rustix::fs::{Mode, OFlags};
use rustix::net::{SendFlags, send};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::Api;
use crate::http::{Hijacked, Reply, Request};
use crate::refusal::Refusal;
use crate::route::Route;
use crate::wire::create::Words;
use crate::{containers, step as steps};

pub(crate) const ROUTES: &[Route] = &[
    Route::new("POST", "/containers/{id}/exec", create),
    Route::new("POST", "/exec/{id}/start", start),
    Route::new("POST", "/exec/{id}/resize", resize),
    Route::new("GET", "/exec/{id}/json", inspect),
];

/// A program that has ended is known for so long.
const KEPT: Duration = Duration::from_secs(300);

/// One that was never started.
const UNUSED: Duration = Duration::from_secs(3600);

/// What is kept of a program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    id: String,
    container: String,
    config: ExecConfig,
    /// Streams that a client gets.
    wants: u8,
    /// A server has said that it starts it, or the process has that it belongs to.
    started: bool,
    /// That process has: from then on nobody else starts it.
    taken: bool,
    /// Process ID of the program, while it runs.
    pid: i32,
    /// The process that it belongs to, and its start time; before there is one, the server's.
    owner: (i32, u64),
    /// The program's terminal, as a descriptor of that process.
    terminal: Option<i32>,
    /// Height and width that the terminal is to have.
    size: Option<(u16, u16)>,
    code: Option<i32>,
}

impl Record {
    /// Whether whoever starts it, or has it, is there.
    fn is_cared_for(&self) -> bool {
        self.code.is_none() && self.owner.0 > 0 && process_start_time(self.owner.0) == Some(self.owner.1)
    }

    /// Whether it runs, in the care of a process of its own.
    fn is_running(&self) -> bool {
        self.taken && self.is_cared_for()
    }

    /// Whether it was started, or is. A server that was killed before it had a process for it has not started it.
    fn is_started(&self) -> bool {
        self.started && (self.taken || self.is_cared_for())
    }

    /// Makes this process its owner.
    fn own(&mut self) {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        self.owner = (own, process_start_time(own).unwrap_or(0));
    }
}

fn directory(engine: &Engine) -> PathBuf {
    engine.state_root().join("exec")
}

fn path(engine: &Engine, id: &str) -> Option<PathBuf> {
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| directory(engine).join(format!("{id}.json")))
}

fn load(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn save(engine: &Engine, record: &Record) -> Result<(), Refusal> {
    use std::os::unix::fs::DirBuilderExt as _;
    let fail = |error: &dyn std::fmt::Display| Refusal::failed(format!("keep record of program: {error}"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory(engine)).map_err(|error| fail(&error))?;
    let path = path(engine, &record.id).ok_or_else(|| Refusal::failed("a program without an ID"))?;
    let bytes = serde_json::to_vec(record).map_err(|error| fail(&error))?;
    hull_fs::atomic::write_path(&path, &bytes, 0o600).map_err(|error| fail(&error))
}

fn find(api: &Api, id: &str) -> Result<(Record, Arc<Container>), Refusal> {
    let none = || Refusal::missing(format!("No such exec instance: {}", hull_oci::spec::one_line(id)));
    let record = path(&api.engine, id).and_then(|path| load(&path)).ok_or_else(none)?;
    let container = api.container(&record.container).map_err(|_| none())?;
    Ok((record, container))
}

/// Removes records that nobody asks for any more.
fn sweep(engine: &Engine) {
    let now = SystemTime::now();
    let Ok(entries) = fs::read_dir(directory(engine)) else { return };
    for entry in entries.flatten() {
        let age =
            entry.metadata().and_then(|found| found.modified()).ok().and_then(|then| now.duration_since(then).ok());
        let Some(age) = age.filter(|age| *age > KEPT) else { continue };
        let is_old = load(&entry.path()).is_none_or(|record| {
            let gone = engine.container(&record.container).is_err();
            !record.is_cared_for() && (gone || record.started || age > UNUSED)
        });
        if is_old {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Create {
    #[serde(deserialize_with = "null_default")]
    user: String,
    #[serde(deserialize_with = "null_default")]
    privileged: bool,
    #[serde(deserialize_with = "null_default")]
    tty: bool,
    console_size: Option<(u16, u16)>,
    #[serde(deserialize_with = "null_default")]
    attach_stdin: bool,
    #[serde(deserialize_with = "null_default")]
    attach_stderr: bool,
    #[serde(deserialize_with = "null_default")]
    attach_stdout: bool,
    #[serde(deserialize_with = "null_default")]
    detach_keys: String,
    #[serde(deserialize_with = "null_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    working_dir: String,
    #[serde(deserialize_with = "null_default")]
    cmd: Words,
}

fn random() -> Result<String, Refusal> {
    let mut bytes = [0_u8; 32];
    let fail = |errno: rustix::io::Errno| Refusal::failed(format!("random numbers: {errno}"));
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).map_err(fail)?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn create(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let container = api.container(request.param("id"))?;
    let body: Create = request.optional_json("container.ExecOptions")?.unwrap_or_default();
    if body.cmd.0.is_empty() {
        return Err(Refusal::bad("No exec command specified"));
    }
    containers::running(&api.engine, &container)?;
    if api.engine.is_paused(&container.id) {
        let text = "is paused, unpause the container before exec";
        return Err(Refusal::conflict(format!("Container {} {text}", container.id)));
    }
    let detach_keys = hull_engine::attach::detach_keys(&body.detach_keys).map_err(|_| {
        let shown = hull_oci::spec::one_line(&body.detach_keys);
        Refusal::bad(format!("Invalid detach keys ({shown}) provided"))
    })?;
    sweep(&api.engine);
    let wants =
        [(body.attach_stdin, WANTS_STDIN), (body.attach_stdout, WANTS_STDOUT), (body.attach_stderr, WANTS_STDERR)];
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let record = Record {
        id: random()?,
        container: container.id.clone(),
        wants: wants.iter().filter(|(wanted, _)| *wanted).map(|(_, bit)| bit).sum(),
        size: body.console_size.filter(|size| *size != (0, 0)),
        config: ExecConfig {
            args: body.cmd.0,
            env: body.env,
            user: some(body.user),
            workdir: some(body.working_dir),
            tty: body.tty,
            interactive: body.attach_stdin,
            detach: false,
            privileged: body.privileged,
            detach_keys,
        },
        ..Record::default()
    };
    save(&api.engine, &record)?;
    let words = record.config.args.join(" ");
    api.engine.tell(&container, &format!("exec_create: {words}"), &[("execID", &record.id)]);
    Ok(Reply::json(201, &json!({ "Id": record.id })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Start {
    #[serde(deserialize_with = "null_default")]
    detach: bool,
    #[serde(deserialize_with = "null_default")]
    tty: bool,
    console_size: Option<(u16, u16)>,
}

/// Reads a body as any that is sent here. For fuzzing.
pub(crate) fn understand(body: &[u8]) {
    let _ = crate::http::parse::<Create>(body, "container.ExecOptions");
    let _ = crate::http::parse::<Start>(body, "container.ExecStartOptions");
}

/// What a program's process is given beside the record.
fn spawn(engine: &Engine, id: &str, client: Option<Hijacked>) -> Result<(std::process::Child, OwnedFd), Refusal> {
    let fail = |error: std::io::Error| Refusal::failed(format!("pass the connection to a process of hull: {error}"));
    let (early, socket) = client.map_or_else(|| (Vec::new(), None), |client| (client.early, Some(client.socket)));
    let mut bytes = vec![u8::from(socket.is_some())];
    // What does not fit was sent by who does not wait for the program.
    bytes.extend(early.into_iter().take(32 << 10));
    let sockets: Vec<_> = socket.iter().map(OwnedFd::as_fd).collect();
    let (ours, theirs) = steps::message(&bytes, &sockets).map_err(fail)?;
    let child = steps::spawn(engine, &["exec", id], Stdio::from(theirs))?;
    Ok((child, ours))
}

/// The same; without a process the program is as if nobody had started it.
fn spawn_or_let_go(
    engine: &Engine,
    mut record: Record,
    client: Option<Hijacked>,
) -> Result<(std::process::Child, OwnedFd), Refusal> {
    spawn(engine, &record.id, client).inspect_err(|_| {
        (record.started, record.owner) = (false, (0, 0));
        // What cannot be written down is over with this server.
        let _ = save(engine, &record);
    })
}

fn start(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let id = request.param("id").to_owned();
    let body: Start = request.optional_json("container.ExecStartOptions")?.unwrap_or_default();
    let (mut record, container) = find(api, &id)?;
    if record.code.is_some() {
        return Err(Refusal::conflict(format!("Error: Exec command {id} has already run")));
    }
    if record.is_started() {
        return Err(already_running(&id));
    }
    containers::running(&api.engine, &container)?;
    if api.engine.is_paused(&container.id) {
        let text = "is paused, unpause the container before exec";
        return Err(Refusal::conflict(format!("Container {} {text}", container.id)));
    }
    record.started = true;
    record.own();
    record.size = body.console_size.filter(|size| *size != (0, 0)).or(record.size);
    save(&api.engine, &record)?;
    if body.detach {
        let (mut child, _message) = spawn_or_let_go(&api.engine, record, None)?;
        let mut line = Vec::new();
        if let Some(output) = child.stdout.take() {
            use std::io::{BufRead as _, Read as _};
            let _ = std::io::BufReader::new(output.take(1 << 20)).read_until(b'\n', &mut line);
        }
        reap(child);
        steps::answer(&line)?;
        return Ok(Reply::empty(200));
    }
    let tty = body.tty || record.config.tty;
    let api = Arc::clone(api);
    Ok(Reply::hijack(request.stream_kind(tty), move |hijacked| {
        // What goes wrong from here on is told by the process itself, or by the end of the connection.
        if let Ok((mut child, _message)) = spawn_or_let_go(&api.engine, record, Some(hijacked)) {
            let _ = child.wait();
        }
    }))
}

fn already_running(id: &str) -> Refusal {
    Refusal::conflict(format!("Error: Exec command {id} is already running"))
}

/// Waits for a child on a thread of its own.
fn reap(mut child: std::process::Child) {
    let _ = std::thread::Builder::new().stack_size(64 << 10).spawn(move || child.wait());
}

fn resize(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let (height, width) = containers::size(request)?;
    let (mut record, _) = find(api, request.param("id"))?;
    if !record.is_running() {
        if !record.is_started() {
            record.size = Some((height, width));
            save(&api.engine, &record)?;
        }
        return Err(Refusal::conflict("cannot resize a stopped container"));
    }
    if let Some(number) = record.terminal {
        let fail = |errno: rustix::io::Errno| Refusal::failed(format!("resize: {errno}"));
        let pid =
            rustix::process::Pid::from_raw(record.owner.0).ok_or_else(|| Refusal::failed("resize: no process"))?;
        let owner = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(fail)?;
        let terminal =
            rustix::process::pidfd_getfd(&owner, number, rustix::process::PidfdGetfdFlags::empty()).map_err(fail)?;
        let size = rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&terminal, size).map_err(fail)?;
    }
    Ok(Reply::bytes(200, "text/plain; charset=utf-8", ""))
}

fn inspect(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let (record, container) = find(api, request.param("id"))?;
    let running = record.is_running();
    // A process that was killed has told nothing.
    let code = record.code.or((record.taken && !running).then_some(137));
    let (program, args) = record.config.args.split_first().map_or((None, &[][..]), |(first, rest)| (Some(first), rest));
    Ok(Reply::json(
        200,
        &json!({
            "ID": record.id,
            "Running": running,
            "ExitCode": code,
            "ProcessConfig": {
                "tty": record.config.tty,
                "entrypoint": program,
                "arguments": args,
                "privileged": record.config.privileged,
                "user": record.config.user.as_deref().unwrap_or_default(),
            },
            "OpenStdin": record.wants & WANTS_STDIN != 0,
            "OpenStderr": record.wants & WANTS_STDERR != 0,
            "OpenStdout": record.wants & WANTS_STDOUT != 0,
            "CanRemove": code.is_some(),
            "ContainerID": container.id,
            "DetachKeys": "",
            "Pid": record.pid,
        }),
    ))
}

/// Keeps a program's record as it goes on.
struct Keeper<'e> {
    engine: &'e Engine,
    record: Record,
    /// Whoever waits for the start of one without a client.
    told: bool,
}

impl Keeper<'_> {
    fn tell(&mut self, result: &Result<serde_json::Value, Refusal>) {
        if !self.told {
            self.told = true;
            steps::say(result);
        }
    }

    fn save(&self) {
        // It is known by its client's connection in any case.
        let _ = save(self.engine, &self.record);
    }
}

impl Served for Keeper<'_> {
    fn started(&mut self, pid: i32, terminal: Option<&OwnedFd>) {
        self.record.pid = pid;
        self.record.terminal = terminal.map(|fd| fd.as_raw_fd());
        // The size may have been said meanwhile.
        if let Some(known) = path(self.engine, &self.record.id).and_then(|path| load(&path))
            && let (Some(terminal), Some((height, width))) = (terminal, known.size)
        {
            let size = rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
        self.save();
        self.tell(&Ok(json!({})));
    }

    fn ended(&mut self, code: i32) {
        self.record.code = Some(code);
        self.record.pid = 0;
        self.save();
    }
}

/// The record of a program that belongs to this process from now on, unless it belongs to another one. Of two that were
/// asked for, the first server being killed meanwhile, one starts it.
fn take(engine: &Engine, id: &str) -> Option<Result<Record, Refusal>> {
    let path = path(engine, id)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory(engine), flags, Mode::empty()).ok()?;
    let _lock = Lock::exclusive_on(directory, &path).ok()?;
    let mut record = load(&path)?;
    if record.taken {
        return Some(Err(already_running(id)));
    }
    (record.started, record.taken) = (true, true);
    record.own();
    Some(save(engine, &record).map(|()| record))
}

/// The process that a program belongs to.
pub(crate) fn step(engine: &Engine, id: &str) -> u8 {
    let record = match take(engine, id) {
        Some(Ok(record)) => record,
        Some(Err(refusal)) => return steps::say(&Err(refusal)),
        None => return 125,
    };
    let Ok((bytes, descriptors)) = steps::received() else { return 125 };
    // Whoever waits for the start of a program with a client waits for nothing else of this process.
    let client = match (bytes.split_first(), descriptors.into_iter().next()) {
        (Some((1, early)), Some(socket)) => Some(Client { socket, early: early.to_vec(), wants: record.wants }),
        _ => None,
    };
    let answerable = client.as_ref().and_then(|client| client.socket.try_clone().ok());
    let _ = rustix::process::setsid();
    let mut keeper = Keeper { engine, told: client.is_some(), record };
    let (config, size) = (keeper.record.config.clone(), keeper.record.size);
    let done = engine
        .container(&keeper.record.container.clone())
        .and_then(|container| engine.exec_for(&container, &config, id, size, client, &mut keeper));
    match done {
        Ok(_) => 0,
        Err(error) => {
            let code = error.exit_code();
            let text = format!("OCI runtime exec failed: {error}");
            keeper.ended(i32::from(code));
            if let Some(socket) = answerable {
                let mut bytes = Vec::new();
                let line = format!("{text}\r\n");
                if !config.tty {
                    bytes.extend_from_slice(&[1, 0, 0, 0]);
                    bytes.extend_from_slice(&u32::try_from(line.len()).unwrap_or(0).to_be_bytes());
                }
                let _ = bytes.write_all(line.as_bytes());
                let _ = send(&socket, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
            }
            let refusal = match code {
                126 | 127 => Refusal::bad(text),
                _ => Refusal::from(error),
            };
            keeper.tell(&Err(refusal));
            1
        }
    }
}
