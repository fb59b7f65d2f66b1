//! The commands of `hull`, one file each or one for a few that belong together, and what they share: global flags,
//! repair, exit codes.

mod api;
mod archives;
mod ask;
mod boot;
mod bootstrap;
mod build;
mod builder;
mod builds;
mod buildx;
mod client;
mod commit;
mod complete;
mod compose;
mod config;
mod containers;
mod context;
mod cp;
mod df;
mod documents;
mod events;
mod exec;
mod explain;
mod explore;
mod filter;
mod groups;
mod healthcheck;
mod history;
mod image_inspect;
mod images;
mod info;
mod inspect;
mod life;
mod listing;
mod logs;
mod man;
mod manifest;
mod mount;
mod names;
mod network;
mod network_list;
mod pace;
mod port;
mod progress;
mod prune;
mod ps;
mod readiness;
mod referrers;
mod registry;
mod rm;
mod run;
mod search;
mod serve;
mod short;
mod signals;
mod stats;
mod suggest;
mod top;
mod ui;
mod update;
mod usage;
mod values;
mod verify;
mod volume;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hull_engine::records::{LOOKING, Sockets};
use hull_engine::{Engine, Error};

use crate::output;

/// Exit code of usage errors, and of Hull's own failures in `run` and `exec`.
const USAGE: u8 = 125;

/// A container engine in one binary: containers in milliseconds, no daemon.
#[derive(Debug, Parser)]
#[command(
    name = "hull",
    version,
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    after_help = "Examples:\n  hull run hello\n  hull import rootfs.tar.gz mine\n  hull run -it --rm --memory 512m mine sh\n  hull oci --help\n\n'hull COMMAND --help' explains a command."
)]
struct CommandLine<C: Subcommand> {
    /// Directory of images and containers
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Directory of runtime state
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    client: client::Flags,
    #[command(subcommand)]
    command: C,
}

/// A command line that may name any of the commands.
type Cli = CommandLine<Command>;

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a container from an image and run a command in it
    Run(Box<run::Args>),
    /// Create a container without starting it
    Create(Box<run::Args>),
    /// Start containers that were made or have ended
    Start(life::Start),
    /// Attach this terminal to a running container
    Attach(life::Attach),
    /// Stop containers, if they run, and start them
    Restart(life::Restart),
    /// Suspend all processes of containers
    Pause(life::Pause),
    /// Let paused containers go on
    Unpause(life::Unpause),
    /// Give a container another name
    Rename(life::Rename),
    /// Run a command in a container
    Exec(exec::Args),
    /// List containers
    #[command(visible_alias = "ls")]
    Ps(ps::Args),
    /// Show the processes of a container; without a name, a screen of all containers
    Top(top::Args),
    /// Watch containers on a screen: use, logs, processes, layers
    Ui(ui::Args),
    /// Show what containers use
    Stats(stats::Args),
    /// Show which ports of the machine lead to a container
    Port(port::Args),
    /// Say where a container stands, what is risky, and where a problem is
    Explain(explain::Args),
    /// Change limits and restart policy of containers
    Update(Box<update::Args>),
    /// Show all that is known about containers, as JSON
    Inspect(inspect::Args),
    /// Show the output of a container
    Logs(logs::Args),
    /// Show what happens to containers, images, volumes and networks
    Events(events::Args),
    /// Wait until containers end, and print their exit codes
    Wait(signals::Wait),
    /// Send a signal to containers
    Kill(signals::Kill),
    /// Stop containers: ask, wait, kill
    Stop(signals::Stop),
    /// Commands on the health of containers
    #[command(subcommand)]
    Healthcheck(healthcheck::Healthcheck),
    /// Start the containers whose restart policy wants them to run
    Boot(boot::Args),
    /// Remove containers
    Rm(rm::Args),
    /// List images
    Images(images::Args),
    /// Show what made an image, with the size of each step
    History(history::Args),
    /// Give an image another name
    Tag(names::Tag),
    /// Remove names of images, and images without names
    Rmi(names::Rmi),
    /// Download an image from a registry
    Pull(registry::Pull),
    /// Upload an image to a registry
    Push(registry::Push),
    /// Search a registry for images
    Search(search::Args),
    /// Look at manifests in registries, and make lists of them
    #[command(subcommand)]
    Manifest(manifest::Manifest),
    /// Log in to a registry
    Login(registry::Login),
    /// Log out from a registry
    Logout(registry::Logout),
    /// Commands on registries
    #[command(subcommand)]
    Registry(serve::Registry),
    /// Build an image from a Dockerfile
    Build(Box<build::Args>),
    /// Commands on builds
    #[command(subcommand, visible_alias = "buildx")]
    Builder(groups::Builder),
    /// Load images from an archive
    Load(archives::Load),
    /// Save images to an archive
    Save(archives::Save),
    /// Make an image of a distribution's signed packages
    Bootstrap(bootstrap::Args),
    /// Make an image of a tar archive of a root file system
    Import(archives::Import),
    /// Copy files between a container and the host
    Cp(cp::Args),
    /// Make an image of a container's changes
    Commit(commit::Commit),
    /// List the files that a container changed
    Diff(commit::Diff),
    /// Write all files of a container as a tar archive
    Export(commit::Export),
    /// Merge adjacent layers of an image into one
    Squash(archives::Squash),
    /// Commands on images
    #[command(subcommand)]
    Image(groups::Image),
    /// Commands on containers
    #[command(subcommand)]
    Container(groups::Container),
    /// Commands on networks
    #[command(subcommand)]
    Network(network::Network),
    /// Commands on volumes
    #[command(subcommand)]
    Volume(volume::Commands),
    /// Commands on everything that Hull keeps
    #[command(subcommand)]
    System(groups::System),
    /// Serve the Docker Engine API, for every client that speaks it
    Serve(api::Args),
    #[command(name = hull_api::COMMAND, hide = true)]
    ApiStep(api::Step),
    /// Show what Hull found on this machine
    Info(info::Args),
    /// Show the version
    Version(info::Version),
    /// Commands on settings
    #[command(subcommand)]
    Config(config::Config),
    /// Print the completion script of a shell
    Completion(complete::Args),
    /// Write man pages into a directory
    Man(man::Args),
    /// Commands on contexts: there is one, this machine
    #[command(subcommand)]
    Context(context::Context),
    /// What Docker has and Hull has something else for
    #[command(flatten)]
    Elsewhere(context::Elsewhere),
    /// Every command with its flags
    #[command(name = "__commands", hide = true)]
    Commands,
    /// OCI runtime command line, as runc's ('hull oci --help')
    #[command(
        disable_help_flag = true,
        after_help = "Examples:\n  hull oci --help\n  hull oci run --bundle ./bundle one\n  hull oci list"
    )]
    Oci,
}

/// Parses words, and makes of them what can be made without looking at the machine.
pub(crate) fn understand(args: &[OsString]) {
    complete::understand(args.get(1..).unwrap_or_default());
    let Ok(cli) = usage::parse(args) else { return };
    // Flags that name files would read them.
    let reads = |word: &OsString| word.to_str().is_none_or(|word| word.contains("file") || word.contains("seccomp"));
    match cli.command {
        Command::Run(run) if !args.iter().any(reads) => drop(run.config()),
        Command::Build(build) if !args.iter().any(reads) => build.understand(),
        _ => {}
    }
}

/// Parses the command line, repairs what killed processes left, and runs the command.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    if complete::is_asked(args) {
        return complete::answer(args.get(2..).unwrap_or_default());
    }
    if matches!(args, [_, word] if word == "--version" || word == "-v") {
        // Without the description of every command, which costs more than all else here.
        output::print(concat!("hull ", env!("CARGO_PKG_VERSION"), "\n"));
        return ExitCode::SUCCESS;
    }
    let cli = match usage::parse(args) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if let Some(failure) = cli.client.check(args) {
        return failed(&failure);
    }
    // A container must never reach the machine's own binary through a process that starts in it.
    let starts = match &cli.command {
        Command::Run(_)
        | Command::Healthcheck(_)
        | Command::Start(_)
        | Command::Restart(_)
        | Command::Exec(_)
        | Command::ApiStep(_)
        | Command::Bootstrap(_) => true,
        Command::Boot(args) => args.starts(),
        Command::Container(command) => command.starts(),
        _ => false,
    };
    if starts && let Err(error) = hull_runtime::seal() {
        output::error(error);
        return ExitCode::from(USAGE);
    }
    if let Err(error) = hull_config::init() {
        output::error(error);
        return ExitCode::from(USAGE);
    }
    let flags = config::Flags { root: cli.root.is_some(), state: cli.state.is_some() };
    let engine = engine(cli.root, cli.state);
    let engine = if starts { engine.with_sockets(Sockets::of_environment()) } else { engine };
    // Who lists or looks at containers is not delayed by one that is stuck.
    let looks = match &cli.command {
        Command::Ps(_) | Command::Inspect(_) | Command::Logs(_) | Command::Top(_) | Command::Stats(_) => true,
        Command::Container(command) => command.looks(),
        _ => false,
    };
    let repaired = if looks { engine.repair_apart(LOOKING) } else { engine.repair() };
    if let Err(error) = repaired {
        // What cannot be repaired now may be later, and does not concern this command.
        output::error(format!("repair: {error}"));
    }
    let result = match cli.command {
        Command::Run(args) => run::main(&engine, *args),
        Command::Create(args) => life::create(&engine, *args),
        Command::Start(args) => life::start(&engine, &args),
        Command::Attach(args) => life::attach(&engine, &args),
        Command::Restart(args) => life::restart(&engine, &args),
        Command::Pause(args) => life::pause(&engine, &args),
        Command::Unpause(args) => life::unpause(&engine, &args),
        Command::Rename(args) => life::rename(&engine, &args),
        Command::Exec(args) => exec::main(&engine, args),
        Command::Ps(args) => ps::main(&engine, &args),
        Command::Top(args) => top::main(&engine, &args),
        Command::Ui(args) => ui::main(&engine, &args),
        Command::Stats(args) => stats::main(&engine, &args),
        Command::Port(args) => port::main(&engine, &args),
        Command::Explain(args) => explain::main(&engine, &args),
        Command::Update(args) => update::main(&engine, &args),
        Command::Inspect(args) => inspect::main(&engine, &args),
        Command::Logs(args) => logs::main(&engine, &args),
        Command::Events(args) => events::main(&engine, &args),
        Command::Wait(args) => signals::wait(&engine, &args),
        Command::Kill(args) => signals::kill(&engine, &args),
        Command::Stop(args) => signals::stop(&engine, &args),
        Command::Healthcheck(command) => command.main(&engine),
        Command::Boot(args) => boot::main(&engine, &args),
        Command::Rm(args) => rm::main(&engine, &args),
        Command::Images(args) => images::main(&engine, &args),
        Command::History(args) => history::main(&engine, &args),
        Command::Tag(args) => names::tag(&engine, &args),
        Command::Bootstrap(args) => bootstrap::main(&engine, args),
        Command::Rmi(args) => names::remove(&engine, &args),
        Command::Pull(args) => registry::pull(&engine, &args),
        Command::Push(args) => registry::push(&engine, &args),
        Command::Search(args) => search::main(&args),
        Command::Manifest(command) => command.main(&engine),
        Command::Login(args) => registry::login(args),
        Command::Logout(args) => registry::logout(&args),
        Command::Registry(command) => command.main(&engine),
        Command::Build(args) => build::main(&engine, *args),
        Command::Builder(command) => command.main(&engine),
        Command::Load(args) => archives::load(&engine, args),
        Command::Save(args) => archives::save(&engine, &args),
        Command::Import(args) => archives::import(&engine, args),
        Command::Cp(args) => cp::main(&engine, &args),
        Command::Commit(args) => commit::commit(&engine, args),
        Command::Diff(args) => commit::diff(&engine, &args),
        Command::Export(args) => commit::export(&engine, &args),
        Command::Squash(args) => archives::squash(&engine, &args),
        Command::Image(command) => command.main(&engine),
        Command::Container(command) => command.main(&engine),
        Command::Network(command) => command.main(&engine),
        Command::Volume(command) => command.main(&engine),
        Command::System(command) => command.main(&engine),
        Command::Serve(args) => api::serve(engine, args),
        Command::ApiStep(args) => Ok(api::step(&engine, &args)),
        Command::Info(args) => info::main(&engine, &args),
        Command::Version(args) => info::version(&args),
        Command::Config(command) => command.main(&engine, flags),
        Command::Completion(args) => complete::main(&args),
        Command::Man(args) => man::main(&args),
        Command::Context(command) => command.main(),
        Command::Elsewhere(command) => command.main(&engine),
        Command::Commands => listing::main(),
        Command::Oci => Err(Failure::usage("'oci' must be the first word: hull oci ...")),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failed(&failure),
    }
}

/// Tells of a failure, unless that has been done.
fn failed(failure: &Failure) -> ExitCode {
    if !failure.message.is_empty() {
        output::error(format_args!("{}{}", failure.message, rights(&failure.message)));
    }
    ExitCode::from(failure.code)
}

/// What an ordinary user can do about what the machine does not let them do.
fn rights(message: &str) -> &'static str {
    if message.contains("Permission denied (os error 13)") && !rustix::process::geteuid().is_root() {
        return "; use 'sudo hull ...': it needs root, or another --root and --state";
    }
    ""
}

/// How a command ended: its exit code, or a message and the exit code that belongs to it.
type Done = Result<u8, Failure>;

/// A failed command. An empty message was printed already.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
    /// What was asked for is not there.
    missing: bool,
}

impl Failure {
    /// A failure of any command but `run` and `exec`.
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1, missing: false }
    }

    /// A wrong flag of `run` or `exec`.
    fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::new(message) }
    }

    /// An engine error of `run` or `exec`, with the exit code that Docker gives it.
    fn start(error: &Error) -> Self {
        Self { code: error.exit_code(), ..Self::new(error.to_string()) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Image(error) => error.into(),
            Error::NoContainer(_) => Self { missing: true, ..Self::new(error.to_string()) },
            error => Self::new(error.to_string()),
        }
    }
}

impl From<hull_image::Error> for Failure {
    fn from(error: hull_image::Error) -> Self {
        Self { missing: matches!(error, hull_image::Error::NoImage(_)), ..Self::new(error.to_string()) }
    }
}

/// Why a file that the user names cannot be opened, in Go's words.
fn opening(path: &std::path::Path, error: &std::io::Error) -> String {
    let reason = rustix::io::Errno::from_io_error(error).map_or_else(|| error.to_string(), errno_words);
    format!("open {}: {reason}", path.display())
}

/// What the kernel answered, in the words of Go's tools.
fn errno_words(errno: rustix::io::Errno) -> String {
    match errno {
        rustix::io::Errno::NOENT => "no such file or directory".to_owned(),
        rustix::io::Errno::ACCESS => "permission denied".to_owned(),
        rustix::io::Errno::ISDIR => "is a directory".to_owned(),
        rustix::io::Errno::NOTDIR => "not a directory".to_owned(),
        rustix::io::Errno::EXIST => "file exists".to_owned(),
        other => other.to_string(),
    }
}

/// The moment that a flag names, in nanoseconds since 1970.
fn moment(flag: &str, text: Option<&str>) -> Result<Option<u64>, Failure> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let parsed = text.filter(|text| !text.is_empty()).map(|text| hull_engine::time::moment(text, now));
    parsed.transpose().map_err(|reason| {
        Failure::new(if flag.is_empty() { reason } else { format!("invalid value for {flag:?}: {reason}") })
    })
}

/// The directories: given, or the settings', or the system's for root and the user's own otherwise.
fn engine(root: Option<PathBuf>, state: Option<PathBuf>) -> Engine {
    let user = !rustix::process::geteuid().is_root();
    let variable = |name: &str| std::env::var_os(name).filter(|_| user).map(PathBuf::from);
    let setting = |key: &str| hull_config::text(key).filter(|text| !text.is_empty()).map(PathBuf::from);
    let root = root.or_else(|| setting("root")).unwrap_or_else(|| {
        let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
        data.map_or_else(|| PathBuf::from("/var/lib/hull"), |data| data.join("hull"))
    });
    let state = state.or_else(|| setting("state")).unwrap_or_else(|| {
        variable("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/run/hull"), |runtime| runtime.join("hull"))
    });
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    Engine::new(absolute(root), absolute(state))
}
