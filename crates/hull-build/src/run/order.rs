//! What a step's process is told: everything decided that the build knows, as plain data.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hull_dockerfile::ast::Sharing;
use hull_engine::RunConfig;
use hull_engine::config::{NamespaceChoice, Source, UserChoice};
use hull_engine::flags;
use hull_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::graph::{MountSpec, Network, RunMount, RunOp};
use crate::request::Secret;
use crate::solve::Solver;

/// A larger secret is refused, as `BuildKit` does.
const MAX_SECRET: u64 = 500 << 10;

/// Where heredocs are that a shell does not read by itself.
const PIPES: &str = "/dev/pipes";

/// Where the machine's authorities are, and the variables by which programs are told of it. `/dev` is in memory: nothing
/// of it comes into the layer. The step's own file of authorities stays as it is, since packages replace it.
const CERTIFICATES: &str = "/dev/hull-certificates.pem";
const CERTIFICATE_VARIABLES: &[&str] = &[
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];
/// A larger bundle is refused.
const MAX_CERTIFICATES: u64 = 8 << 20;

/// Reads a bundle of authorities for steps.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn certificates(path: &Path) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(Error::io("open certificates", path))?;
    file.take(MAX_CERTIFICATES + 1).read_to_end(&mut content).map_err(Error::io("read certificates", path))?;
    let begins = b"-----BEGIN ";
    if content.len() as u64 > MAX_CERTIFICATES || !content.windows(begins.len()).any(|part| part == begins) {
        return Err(Error::Request(format!("certificates {}: it is no bundle of PEM certificates", path.display())));
    }
    Ok(content)
}

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) root: PathBuf,
    pub(super) state: PathBuf,
    pub(super) config: RunConfig,
    /// Diff IDs, lowest first.
    pub(super) layers: Vec<Digest>,
    pub(super) epoch: Option<i64>,
    /// What the layer is normalised by, if it is.
    pub(super) seed: Option<String>,
    pub(super) mounts: Vec<OrderMount>,
}

/// One mount.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OrderMount {
    pub(super) target: String,
    pub(super) read_only: bool,
    pub(super) shows: Shows,
}

/// What a mount shows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Shows {
    /// A path of layers.
    Layers { layers: Vec<Digest>, source: String },
    /// A directory that stays, or a path of it; a new one is filled from layers.
    Cache { name: String, sharing: Share, mode: u32, uid: u32, gid: u32, layers: Vec<Digest>, source: String },
    /// Memory.
    Tmpfs { size: Option<u64> },
    /// Files in memory by name, each with its content, in a directory.
    Files { files: BTreeMap<String, Vec<u8>>, mode: u32 },
    /// One file in memory.
    File { content: Vec<u8>, mode: u32, uid: u32, gid: u32 },
    /// A socket that leads to one of the machine's.
    Agent { socket: PathBuf, mode: u32, uid: u32, gid: u32 },
}

/// [`Sharing`], as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Share {
    Shared,
    Private,
    Locked,
}

impl From<Share> for Sharing {
    fn from(share: Share) -> Self {
        match share {
            Share::Shared => Self::Shared,
            Share::Private => Self::Private,
            Share::Locked => Self::Locked,
        }
    }
}

/// An absolute path without `.`, `..` and empty names.
pub(super) fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

impl Order {
    /// Reads secrets, and turns words into what the engine takes.
    pub(super) fn new(
        solver: &Solver<'_>,
        op: &RunOp,
        epoch: Option<i64>,
        layers: &[Digest],
        shown: &[Vec<Digest>],
    ) -> Result<Self, Error> {
        let mut config = configuration(solver.defaults, op)?;
        if let Some(epoch) = epoch {
            // What programs write into files agrees with what becomes of these; the step's own word goes before.
            config.env.insert(0, format!("SOURCE_DATE_EPOCH={epoch}"));
        }
        let mut mounts = Vec::new();
        for (index, mount) in op.mounts.iter().enumerate() {
            let layers = shown.get(index).cloned().unwrap_or_default();
            let target = clean(&mount.target);
            let shows = match &mount.spec {
                MountSpec::Secret { id, env, file, required, mode, uid, gid } => {
                    let Some(content) = secret(solver, id, *required)? else { continue };
                    if let Some(name) = env {
                        let value =
                            String::from_utf8(content.clone()).ok().filter(|value| !value.contains('\0')).ok_or_else(
                                || Error::Request(format!("secret {id}: it cannot be a variable: it is no text")),
                            )?;
                        config.env.push(format!("{name}={value}"));
                    }
                    if !file {
                        continue;
                    }
                    Shows::File { content, mode: *mode, uid: *uid, gid: *gid }
                }
                MountSpec::Ssh { id, required, mode, uid, gid } => {
                    let Some(socket) = agent(solver, id, *required)? else { continue };
                    if !config.env.iter().any(|one| one.starts_with("SSH_AUTH_SOCK=")) {
                        config.env.push(format!("SSH_AUTH_SOCK={target}"));
                    }
                    Shows::Agent { socket, mode: *mode, uid: *uid, gid: *gid }
                }
                _ => plain(mount, layers),
            };
            if target == "/" {
                return Err(Error::Request(format!("invalid mount target {:?}", mount.target)));
            }
            mounts.push(OrderMount { target, read_only: mount.read_only, shows });
        }
        if let Some(content) = solver.certificates {
            let shows = Shows::File { content: content.to_vec(), mode: 0o444, uid: 0, gid: 0 };
            mounts.push(OrderMount { target: CERTIFICATES.to_owned(), read_only: true, shows });
            for name in CERTIFICATE_VARIABLES {
                // What the Dockerfile says goes before.
                if !config.env.iter().any(|one| one.split_once('=').is_some_and(|(known, _)| known == *name)) {
                    config.env.push(format!("{name}={CERTIFICATES}"));
                }
            }
        }
        if !op.pipes.is_empty() {
            let content = |(name, content): (&String, &String)| (name.clone(), content.clone().into_bytes());
            let files = op.pipes.iter().map(content).collect();
            let shows = Shows::Files { files, mode: 0o755 };
            mounts.push(OrderMount { target: PIPES.to_owned(), read_only: true, shows });
        }
        let (root, state) = (solver.engine.root().to_owned(), solver.engine.state_root().to_owned());
        let seed = || format!("{}\n{}", crate::solve::key::layers(layers), op.args.join("\n"));
        let seed = op.normalise.then(seed);
        Ok(Self { root, state, config, layers: layers.to_vec(), epoch, seed, mounts })
    }
}

fn plain(mount: &RunMount, layers: Vec<Digest>) -> Shows {
    match &mount.spec {
        MountSpec::Cache { id, sharing, mode, uid, gid } => {
            let sharing = match sharing {
                Sharing::Shared => Share::Shared,
                Sharing::Private => Share::Private,
                Sharing::Locked => Share::Locked,
            };
            // One that begins with other files is another one.
            let name = match layers.is_empty() {
                true => id.clone(),
                false => format!("{id}\n{}", crate::solve::key::layers(&layers)),
            };
            let source = mount.source.clone();
            Shows::Cache { name, sharing, mode: *mode, uid: *uid, gid: *gid, layers, source }
        }
        MountSpec::Tmpfs { size } => Shows::Tmpfs { size: *size },
        MountSpec::Bind | MountSpec::Secret { .. } | MountSpec::Ssh { .. } => {
            Shows::Layers { layers, source: mount.source.clone() }
        }
    }
}

fn secret(solver: &Solver<'_>, id: &str, required: bool) -> Result<Option<Vec<u8>>, Error> {
    // BuildKit's words.
    let missing = || Error::Request(format!("secret {id}: not found"));
    let content = match solver.secrets.get(id) {
        None if required => return Err(missing()),
        None => return Ok(None),
        Some(Secret::Variable(name)) => match std::env::var_os(name) {
            Some(value) => std::os::unix::ffi::OsStringExt::into_vec(value),
            None if required => return Err(missing()),
            None => return Ok(None),
        },
        Some(Secret::File(path)) => {
            let mut content = Vec::new();
            let file = File::open(path).map_err(Error::io("open secret", path))?;
            file.take(MAX_SECRET + 1).read_to_end(&mut content).map_err(Error::io("read secret", path))?;
            content
        }
    };
    if content.len() as u64 > MAX_SECRET {
        return Err(Error::Request(format!("secret {id}: it is larger than {MAX_SECRET} bytes")));
    }
    Ok(Some(content))
}

/// The socket of an agent. Keys in files need an agent that holds them.
fn agent(solver: &Solver<'_>, id: &str, required: bool) -> Result<Option<PathBuf>, Error> {
    use std::os::unix::fs::FileTypeExt as _;
    match solver.ssh.get(id) {
        None if required => Err(Error::Request(format!("unset ssh forward key {id}"))),
        None => Ok(None),
        Some(paths) => {
            let socket = match paths.first() {
                Some(path) => path.clone(),
                None => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).unwrap_or_default(),
            };
            let is_socket = std::fs::metadata(&socket).is_ok_and(|metadata| metadata.file_type().is_socket());
            if is_socket {
                return Ok(Some(socket));
            }
            if !required && !socket.exists() {
                return Ok(None);
            }
            let shown = socket.display();
            let reason = format!("ssh {id}: {shown} is no agent's socket: add keys to ssh-agent and give its socket");
            Err(Error::Request(reason))
        }
    }
}

/// The container of a step: as `hull run` without flags, but for what the step says.
fn configuration(defaults: &RunConfig, op: &RunOp) -> Result<RunConfig, Error> {
    let mut config = defaults.clone();
    config.source = Source::Image(String::new());
    config.command.clone_from(&op.args);
    config.entrypoint = None;
    config.env = op.quiet_env.iter().chain(&op.env).cloned().collect();
    config.user = (!op.user.is_empty()).then(|| op.user.clone());
    config.workdir = (!op.workdir.is_empty()).then(|| op.workdir.clone());
    config.hostname = Some(op.hostname.clone()).filter(|name| !name.is_empty());
    config.dns.hosts.extend(op.extra_hosts.iter().cloned());
    config.shm_size = op.shm_size.or(config.shm_size);
    config.cdi.extend(op.devices.iter().cloned());
    // Directories that stay belong to the machine's users.
    config.namespaces.user = UserChoice::Host;
    config.detach = false;
    config.interactive = false;
    config.tty = false;
    match op.network {
        Network::Default => {}
        Network::None => {
            config.namespaces.network = NamespaceChoice::Private;
            config.networks.clear();
        }
        Network::Host => {
            config.namespaces.network = NamespaceChoice::Host;
            config.networks.clear();
        }
    }
    if op.insecure {
        config.security.privileged = true;
    }
    for text in &op.ulimits {
        config.ulimits.push(flags::ulimit(text).map_err(|reason| Error::Request(format!("--ulimit: {reason}")))?);
    }
    for (name, value) in &op.limits {
        limit(&mut config, name, value).map_err(|reason| Error::Request(format!("--{name}: {reason}")))?;
    }
    Ok(config)
}

fn limit(config: &mut RunConfig, name: &str, value: &str) -> Result<(), String> {
    let limits = &mut config.limits;
    let number = |text: &str| text.parse::<i64>().map_err(|_| format!("{text:?}: expected a number"));
    let positive = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?}: expected a number"));
    match name {
        "memory" => limits.memory = Some(flags::bytes(value)?),
        "memory-swap" => limits.memory_swap = Some(flags::bytes_or_unlimited(value)?),
        "memory-reservation" => limits.memory_reservation = Some(flags::bytes(value)?),
        "cpus" => limits.nano_cpus = Some(flags::cpus(value)?),
        "cpu-shares" => limits.cpu_shares = Some(positive(value)?),
        "cpu-quota" => limits.cpu_quota = Some(number(value)?),
        "cpu-period" => limits.cpu_period = Some(positive(value)?),
        "cpuset-cpus" => limits.cpuset_cpus = flags::cpu_list(value)?,
        "cpuset-mems" => limits.cpuset_mems = flags::cpu_list(value)?,
        "pids-limit" => limits.pids = Some(number(value)?),
        "oom-score-adj" => {
            limits.oom_score_adj = Some(value.parse().map_err(|_| format!("{value:?}: expected a number"))?);
        }
        "cgroup-parent" => limits.cgroup_parent = Some(value.to_owned()),
        _ => return Err("steps of a build have no such limit".to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_clean() {
        for (path, expected) in [("/", "/"), ("/a//b/./c/", "/a/b/c"), ("/../../x", "/x"), ("a/../b", "/b"), ("", "/")]
        {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn limits_are_those_of_run() {
        let mut config = RunConfig::default();
        limit(&mut config, "memory", "64m").unwrap();
        limit(&mut config, "cpus", "1.5").unwrap();
        limit(&mut config, "cgroup-parent", "/builds").unwrap();
        assert_eq!((config.limits.memory, config.limits.nano_cpus), (Some(64 << 20), Some(1_500_000_000)));
        assert_eq!(config.limits.cgroup_parent.as_deref(), Some("/builds"));
        for (name, value) in [("memory", "x"), ("cpu-shares", "-1"), ("blkio", "1")] {
            assert!(limit(&mut config, name, value).is_err(), "{name}={value}");
        }
    }
}
