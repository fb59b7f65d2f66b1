//! `hull serve` and `hull system dial-stdio`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use hull_api::{Listen, Options, Rule, Tls};
use hull_engine::Engine;

use super::{Done, Failure};
use crate::output;

/// Serve the Docker Engine API, for every client that speaks it
///
/// The server keeps nothing: containers and programs in them go on when it ends or is killed. By default it listens on
/// docker.sock in the directory of runtime state; a client is pointed to it with DOCKER_HOST. Containers get Docker's
/// defaults of isolation, or those of HULL_SECURITY if that is set.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull serve\n  hull serve -H unix:///var/run/docker.sock --group docker\n  hull serve -H fd:// --idle 300\n  hull serve -H unix:///run/watch.sock --read-only\n  hull serve -H unix:///run/team.sock --allow 'GET *' --allow 'POST /containers/*' --label team=x"
)]
pub(super) struct Args {
    /// Address: unix:///PATH, tcp://ADDRESS:PORT (with certificates) or fd:// (sockets of the service manager)
    #[arg(short = 'H', long = "host", value_name = "ADDRESS", value_parser = Listen::parse)]
    hosts: Vec<Listen>,
    /// Group that may use Unix sockets, beside their owner
    #[arg(short = 'G', long, value_name = "GROUP")]
    group: Option<String>,
    /// Certificates in PEM, the server's own first
    #[arg(long, value_name = "FILE", requires_all = ["tlskey", "tlscacert"])]
    tlscert: Option<PathBuf>,
    /// Private key in PEM
    #[arg(long, value_name = "FILE", requires = "tlscert")]
    tlskey: Option<PathBuf>,
    /// Authorities that clients' certificates must be of
    #[arg(long, value_name = "FILE", requires = "tlscert")]
    tlscacert: Option<PathBuf>,
    /// End after so many seconds without a request
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,
    /// Refuse every request that changes something
    #[arg(long)]
    read_only: bool,
    /// Allow only such requests: METHOD PATTERN
    #[arg(long, value_name = "RULE", value_parser = Rule::parse)]
    allow: Vec<Rule>,
    /// See only objects with this label, and give it to what is made
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = hull_engine::flags::pair)]
    labels: Vec<(String, String)>,
}

/// Where the server listens unless it is told.
pub(super) fn default_socket(engine: &Engine) -> PathBuf {
    engine.state_root().join("docker.sock")
}

pub(super) fn serve(engine: Engine, args: Args) -> Done {
    let tls = match (args.tlscert, args.tlskey, args.tlscacert) {
        (Some(certificate), Some(key), Some(authorities)) => Some(Tls { certificate, key, authorities }),
        _ => None,
    };
    let mut listen = args.hosts;
    if listen.is_empty() {
        listen.push(Listen::Unix(default_socket(&engine)));
    }
    let options = Options {
        listen,
        group: args.group,
        tls,
        idle: args.idle.map(Duration::from_secs),
        read_only: args.read_only,
        allow: args.allow,
        labels: args.labels,
    };
    let ready = |addresses: &[String]| {
        addresses.iter().for_each(|address| output::print(format_args!("API listen on {address}\n")));
    };
    hull_api::serve(engine, options, ready).map(|()| 0).map_err(|error| Failure::new(error.to_string()))
}

/// Connect standard input and output to the API's socket, as ssh:// addresses need
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  DOCKER_HOST=ssh://user@machine docker ps")]
pub(super) struct DialStdio {}

fn pass(mut from: impl Read, mut to: impl Write) -> std::io::Result<()> {
    let mut buffer = [0; 64 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => {
                to.write_all(&buffer[..length])?;
                to.flush()?;
            }
        }
    }
}

pub(super) fn dial_stdio(engine: &Engine) -> Done {
    let named = std::env::var("DOCKER_HOST").ok();
    let path = named.as_deref().and_then(|host| host.strip_prefix("unix://")).map(PathBuf::from);
    let path = path.unwrap_or_else(|| default_socket(engine));
    let fail = |error: std::io::Error| Failure::new(format!("connect to {}: {error}", path.display()));
    let socket = UnixStream::connect(&path).map_err(fail)?;
    let input = socket.try_clone().map_err(fail)?;
    std::thread::spawn(move || {
        // Whatever ends the input, the server is told that there is no more.
        let _ = pass(std::io::stdin(), &input);
        let _ = input.shutdown(Shutdown::Write);
    });
    pass(&socket, std::io::stdout().lock()).map(|()| 0).map_err(fail)
}

/// A part of a request to the API that needs a process of its own
#[derive(Debug, clap::Args)]
pub(super) struct Step {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub(super) fn step(engine: &Engine, args: &Step) -> u8 {
    hull_api::step(engine, &args.words)
}
