//! `hull image`, `hull container` and `hull system`: Docker's groups of commands.

use clap::Subcommand;
use hull_engine::Engine;

use super::{
    Done, api, archives, build, builder, builds, buildx, commit, cp, df, events, exec, explain, explore, history,
    image_inspect, images, info, inspect, life, logs, mount, names, port, prune, ps, readiness, referrers, registry,
    rm, run, signals, stats, top, update, verify,
};

/// Commands on images.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  hull image ls\n  hull image inspect hello\n  hull image prune")]
pub(super) enum Image {
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::Args),
    /// Show all that is known about images, as JSON
    Inspect(image_inspect::Args),
    /// Show what made an image, with the size of each step
    History(history::Args),
    /// Show an image's layers, their files, and what is wasted and why
    Explore(explore::Args),
    /// Give an image another name
    Tag(names::Tag),
    /// Remove names of images, and images without names
    #[command(visible_alias = "remove")]
    Rm(names::Rmi),
    /// Remove images that nothing uses
    Prune(prune::Images),
    /// Download an image from a registry
    Pull(registry::Pull),
    /// Upload an image to a registry
    Push(registry::Push),
    /// List what refers to an image in its registry: signatures, lists of contents
    Referrers(referrers::Args),
    /// Build an image from a Dockerfile
    Build(Box<build::Args>),
    /// Load images from an archive
    Load(archives::Load),
    /// Save images to an archive
    Save(archives::Save),
    /// Make an image of a tar archive of a root file system
    Import(archives::Import),
    /// Merge adjacent layers of an image into one
    Squash(archives::Squash),
    /// Ask whether an image is signed as a policy or a key asks for
    Verify(verify::Verify),
    /// Mount an image's files, read-only, and print where
    Mount(mount::Mount),
    /// Unmount images
    #[command(visible_alias = "umount")]
    Unmount(mount::Unmount),
}

impl Image {
    pub(super) fn main(self, engine: &Engine) -> Done {
        match self {
            Self::Ls(args) => images::main(engine, &args),
            Self::Inspect(args) => image_inspect::main(engine, &args),
            Self::History(args) => history::main(engine, &args),
            Self::Explore(args) => explore::main(engine, &args),
            Self::Tag(args) => names::tag(engine, &args),
            Self::Rm(args) => names::remove(engine, &args),
            Self::Pull(args) => registry::pull(engine, &args),
            Self::Push(args) => registry::push(engine, &args),
            Self::Referrers(args) => referrers::main(&args),
            Self::Prune(args) => prune::images(engine, &args),
            Self::Build(args) => build::main(engine, *args),
            Self::Load(args) => archives::load(engine, args),
            Self::Save(args) => archives::save(engine, &args),
            Self::Import(args) => archives::import(engine, args),
            Self::Squash(args) => archives::squash(engine, &args),
            Self::Verify(args) => verify::verify(engine, &args),
            Self::Mount(args) => mount::mount(engine, &args),
            Self::Unmount(args) => mount::unmount(engine, &args),
        }
    }
}

/// Commands on builds.
#[derive(Debug, Subcommand)]
pub(super) enum Builder {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<build::Args>),
    /// List what was built
    Ls(builds::Ls),
    /// Show all that is known about a build, as JSON
    Inspect(builds::One),
    /// Show what the steps of a build printed
    Logs(builds::One),
    /// Forget builds
    Rm(builds::Rm),
    /// The same commands under buildx's names
    #[command(subcommand, hide = true)]
    History(builds::Past),
    /// Show what the build cache occupies
    Du(builder::Du),
    /// Remove what builds have kept
    Prune(builder::Prune),
    /// Carry cache directories (RUN --mount=type=cache) to other machines
    #[command(subcommand)]
    Cache(builder::Carry),
    /// What buildx has and Hull answers without
    #[command(flatten)]
    Buildx(buildx::Buildx),
}

impl Builder {
    pub(super) fn main(self, engine: &Engine) -> Done {
        match self {
            Self::Build(args) => build::main(engine, *args),
            Self::Ls(args) => builds::ls(engine, &args),
            Self::Inspect(args) => builds::inspect(engine, &args),
            Self::Logs(args) => builds::logs(engine, &args),
            Self::Rm(args) => builds::rm(engine, &args),
            Self::History(command) => command.main(engine),
            Self::Du(args) => builder::du(engine, &args),
            Self::Prune(args) => builder::prune(engine, &args),
            Self::Cache(command) => command.main(engine),
            Self::Buildx(command) => command.main(),
        }
    }
}

/// Commands on containers.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  hull container ls -a\n  hull container prune")]
pub(super) enum Container {
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
    /// Run a command in a running container
    Exec(exec::Args),
    /// List containers
    #[command(visible_aliases = ["ps", "list"])]
    Ls(ps::Args),
    /// Show the processes of a container
    Top(top::Args),
    /// Show what containers use
    Stats(stats::Args),
    /// Show which ports of the machine lead to a container
    Port(port::Args),
    /// Say where a container stands, what is risky, and where a problem is
    Explain(explain::Args),
    /// Change limits and restart policy of containers
    Update(Box<update::Args>),
    /// Show all that is known about containers and images, as JSON
    Inspect(inspect::Args),
    /// Show the output of a container
    Logs(logs::Args),
    /// Wait until containers end, and print their exit codes
    Wait(signals::Wait),
    /// Send a signal to containers
    Kill(signals::Kill),
    /// Stop containers: ask, wait, kill
    Stop(signals::Stop),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
    /// Remove all stopped containers
    Prune(prune::Containers),
    /// Copy files between a container and the host
    Cp(cp::Args),
    /// Make an image of a container's changes
    Commit(commit::Commit),
    /// List the files that a container changed
    Diff(commit::Diff),
    /// Write all files of a container as a tar archive
    Export(commit::Export),
}

impl Container {
    /// Whether a process of a container is started.
    pub(super) fn starts(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Start(_) | Self::Restart(_) | Self::Exec(_))
    }

    /// Whether it only looks at containers.
    pub(super) fn looks(&self) -> bool {
        matches!(self, Self::Ls(_) | Self::Inspect(_) | Self::Logs(_) | Self::Top(_) | Self::Stats(_))
    }

    pub(super) fn main(self, engine: &Engine) -> Done {
        match self {
            Self::Run(args) => run::main(engine, *args),
            Self::Create(args) => life::create(engine, *args),
            Self::Start(args) => life::start(engine, &args),
            Self::Attach(args) => life::attach(engine, &args),
            Self::Restart(args) => life::restart(engine, &args),
            Self::Pause(args) => life::pause(engine, &args),
            Self::Unpause(args) => life::unpause(engine, &args),
            Self::Rename(args) => life::rename(engine, &args),
            Self::Exec(args) => exec::main(engine, args),
            Self::Ls(args) => ps::main(engine, &args),
            Self::Top(args) => top::main(engine, &args),
            Self::Stats(args) => stats::main(engine, &args),
            Self::Port(args) => port::main(engine, &args),
            Self::Explain(args) => explain::main(engine, &args),
            Self::Update(args) => update::main(engine, &args),
            Self::Inspect(args) => inspect::main(engine, &args.containers()),
            Self::Logs(args) => logs::main(engine, &args),
            Self::Wait(args) => signals::wait(engine, &args),
            Self::Kill(args) => signals::kill(engine, &args),
            Self::Stop(args) => signals::stop(engine, &args),
            Self::Rm(args) => rm::main(engine, &args),
            Self::Prune(args) => prune::containers(engine, &args),
            Self::Cp(args) => cp::main(engine, &args),
            Self::Commit(args) => commit::commit(engine, args),
            Self::Diff(args) => commit::diff(engine, &args),
            Self::Export(args) => commit::export(engine, &args),
        }
    }
}

/// Commands on everything that Hull keeps.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  hull system df\n  hull system prune\n  hull system check")]
pub(super) enum System {
    /// Show what images and containers occupy
    Df(df::Df),
    /// Say what this machine lacks, and name what is damaged of what is stored
    Check(readiness::Args),
    /// Remove stopped containers and images that nothing uses
    Prune(prune::System),
    /// Show what happens to containers, images, volumes and networks
    Events(events::Args),
    /// Show what Hull found on this machine
    Info(info::Args),
    /// Connect standard input and output to the API's socket
    DialStdio(api::DialStdio),
}

impl System {
    pub(super) fn main(self, engine: &Engine) -> Done {
        match self {
            Self::Df(args) => df::df(engine, &args),
            Self::Check(args) => readiness::main(engine, &args),
            Self::Prune(args) => prune::system(engine, &args),
            Self::Events(args) => events::main(engine, &args),
            Self::Info(args) => info::main(engine, &args),
            Self::DialStdio(_) => api::dial_stdio(engine),
        }
    }
}
