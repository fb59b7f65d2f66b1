//! Watching from a fresh image: the process executes its own program again and goes on where it was.
//!
//! What it knows goes through a file in memory (JSON, [`Handover`]), what it holds stays open under the same numbers. The
//! lines by which it lends mounts to others (`STATE/mounts`) name process, start time and descriptor: they stay true.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use hull_image::snapshot::Lower;
use hull_network::dns::Resolver;
use hull_network::{Protocol, Proxy, Reservation};
use hull_sys::clone::{ExecArray, fexecve, keep_across_exec, take_inherited_fd};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::client::{self, Client};
use super::watch::{Output, Program};
use super::{Facts, Monitor, health};
use crate::error::Error;
use crate::logs::Log;
use crate::network::Reach;
use crate::records::{Engine, Intent, Sockets};

/// The name that the process has from then on.
pub const NAME: &str = "hull-monitor";

/// A handover is never larger.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Handover {
    root: PathBuf,
    state: PathBuf,
    facts: Facts,
    sockets: Sockets,
    intent: PathBuf,
    log: crate::logs::Plan,
    /// Text without a line feed, by stream, and whether some of its line is written.
    partial: BTreeMap<u8, (Vec<u8>, bool)>,
    signals: i32,
    listener: i32,
    clients: Vec<(i32, client::Facts)>,
    health: Option<health::Kept>,
    pid: i32,
    pidfd: i32,
    outputs: Vec<(i32, u8)>,
    stdin: Option<i32>,
    mounts: Option<Vec<(String, i32)>>,
    reservations: Vec<Port>,
    /// Network namespace of the container, sockets for UDP and TCP.
    resolver: Option<[i32; 3]>,
    networked: bool,
}

/// A published port.
#[derive(Serialize, Deserialize)]
struct Port {
    socket: i32,
    protocol: Protocol,
    host: IpAddr,
    both: bool,
    host_port: u16,
    target: SocketAddr,
}

impl Monitor<'_> {
    /// Gives back what memory watching does not need; what is needed at no time but when something happens is given back
    /// by the wait itself ([`hull_sys::memory::poll_at_rest`]).
    pub(super) fn rest(&mut self, program: Option<&Program>) {
        if !self.lean {
            // Nothing of the store is needed until the end, which may be far.
            self.engine.images.database().rest();
        }
        if !self.lean
            && let Some(program) = program
            && program.pending.is_empty()
            && self.log.is_settled()
            && self.health.as_ref().is_none_or(health::Watched::is_settled)
            && self.clients.iter().all(Client::is_settled)
            && self.reach.ports.as_ref().is_none_or(Proxy::is_idle)
        {
            // It only returns when it failed; then this image goes on.
            let _ = self.replace(program);
            self.lean = true;
        }
        hull_sys::memory::trim();
    }

    fn replace(&self, program: &Program) -> Result<(), Error> {
        let fail = Error::io::<rustix::io::Errno>("hand over", &self.facts.id);
        let mut kept: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd(), self.listener.as_fd(), program.pidfd.as_fd()];
        kept.extend(self.clients.iter().map(Client::socket));
        let open: Vec<&Output> = program.outputs.iter().filter(|output| output.open).collect();
        kept.extend(open.iter().map(|output| output.source.as_fd()));
        kept.extend(program.stdin.as_ref().map(AsFd::as_fd));
        kept.extend(self.lower.iter().flat_map(Lower::held).map(|(_, mount)| mount));
        let ports = self.reach.ports.as_ref().map(Proxy::listeners).unwrap_or_default();
        kept.extend(ports.iter().map(AsFd::as_fd));
        let resolver = self.reach.resolver.as_ref().and_then(Resolver::sockets);
        kept.extend(resolver.iter().flatten());
        let port = |port: &Reservation| Port {
            socket: port.as_fd().as_raw_fd(),
            protocol: port.protocol,
            host: port.host,
            both: port.both,
            host_port: port.host_port,
            target: port.target,
        };
        let handover = Handover {
            reservations: ports.iter().map(port).collect(),
            resolver: resolver.map(|sockets| sockets.map(|socket| socket.as_raw_fd())),
            networked: self.firewall.is_some(),
            root: self.engine.root().to_owned(),
            state: self.engine.state_root().to_owned(),
            facts: self.facts.clone(),
            sockets: self.engine.sockets.clone(),
            intent: self.intent.path().to_owned(),
            log: self.log.plan().clone(),
            partial: self.log.partial(),
            signals: self.signals.as_raw_fd(),
            listener: self.listener.as_raw_fd(),
            clients: self.clients.iter().map(|client| (client.socket().as_raw_fd(), client.facts)).collect(),
            health: self.health.as_ref().map(health::Watched::keep),
            pid: program.pid,
            pidfd: program.pidfd.as_raw_fd(),
            outputs: open.iter().map(|output| (output.source.as_raw_fd(), output.stream)).collect(),
            stdin: program.stdin.as_ref().map(|stdin| stdin.as_raw_fd()),
            mounts: self
                .lower
                .as_ref()
                .map(|lower| lower.held().map(|(name, mount)| (name.to_owned(), mount.as_raw_fd())).collect()),
        };
        let bytes = serde_json::to_vec(&handover).map_err(|error| Error::flag("handover", error.to_string()))?;
        let memory = match rustix::fs::memfd_create("handover", MemfdFlags::CLOEXEC) {
            Ok(memory) => memory,
            Err(errno) => return Err(fail(errno)),
        };
        let mut file = File::from(memory);
        file.write_all(&bytes).and_then(|()| file.rewind()).map_err(Error::io("write", "handover"))?;
        kept.push(file.as_fd());
        let exe = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("open", "/proc/self/exe"))?;
        // The last one tells whoever looks at the process whose it is.
        let whose = self.engine.state_root().as_os_str().as_bytes();
        let args = [NAME.as_bytes(), self.facts.id.as_bytes(), file.as_raw_fd().to_string().as_bytes(), whose]
            .map(|arg| CString::new(arg).unwrap_or_default());
        let args = ExecArray::new(args.into());
        let env = ExecArray::new(crate::own::environment(std::env::vars_os()));
        for fd in &kept {
            keep_across_exec(*fd).map_err(Error::io("keep", "descriptor"))?;
        }
        let errno = fexecve(exe.as_fd(), &args, &env);
        for fd in &kept {
            let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
        }
        Err(Error::io("execute", "/proc/self/exe")(errno))
    }
}

/// Takes up what [`Monitor::rest`] handed over, and returns when the container has ended for good. `args` are those of the
/// process, without its name.
///
/// # Errors
/// When this is no such handover.
pub fn resume(args: &[OsString]) -> Result<(), Error> {
    let invalid = || Error::flag(NAME, "this is how Hull calls itself, not a command");
    let number = args.get(1).and_then(|text| text.to_str()?.parse().ok()).ok_or_else(invalid)?;
    let memory = inherited(number)?;
    let mut bytes = Vec::new();
    File::from(memory).take(MAX_BYTES).read_to_end(&mut bytes).map_err(Error::io("read", "handover"))?;
    let handover: Handover = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    drop(bytes);
    let engine = Engine::new(handover.root, handover.state).with_sockets(handover.sockets);
    let program = Program {
        pid: handover.pid,
        pidfd: inherited(handover.pidfd)?,
        outputs: handover
            .outputs
            .into_iter()
            .map(|(fd, stream)| Ok(Output { source: inherited(fd)?, stream, open: true }))
            .collect::<Result<_, Error>>()?,
        stdin: handover.stdin.map(inherited).transpose()?,
        tty: handover.facts.tty,
        pending: Vec::new(),
        ending: false,
    };
    let lower = handover.mounts.map(|mounts| {
        let mounts: Result<Vec<_>, Error> = mounts.into_iter().map(|(name, fd)| Ok((name, inherited(fd)?))).collect();
        mounts.map(|mounts| Lower::resume(&engine.mounts(), mounts))
    });
    let reservation = |port: Port| {
        let socket = inherited(port.socket)?;
        Ok(Reservation::resume(socket, port.protocol, port.host, port.both, port.host_port, port.target))
    };
    let resolver = handover.resolver.map(|[namespace, udp, tcp]| {
        let (namespace, udp, tcp) = (inherited(namespace)?, inherited(udp)?, inherited(tcp)?);
        engine.resume_resolver(&handover.facts.id, namespace, udp, tcp)
    });
    let ports: Vec<Reservation> = handover.reservations.into_iter().map(reservation).collect::<Result<_, Error>>()?;
    let reach = Reach::resume(ports, resolver.transpose()?)?;
    let firewall = if handover.networked { hull_network::Watch::open(&engine.networks()).ok() } else { None };
    let mut log = Log::with(&engine.directory(&handover.facts.id), handover.log);
    log.continue_with(handover.partial);
    let monitor = Monitor {
        signals: inherited(handover.signals)?,
        listener: inherited(handover.listener)?,
        clients: handover
            .clients
            .into_iter()
            .map(|(fd, facts)| Ok(Client::new(inherited(fd)?, facts)))
            .collect::<Result<_, Error>>()?,
        log,
        intent: Intent::of(handover.intent),
        lower: lower.transpose()?,
        reach,
        firewall,
        health: handover.health.map(health::Watched::resume),
        lean: true,
        rested: false,
        remains: false,
        removed: None,
        quiet: false,
        facts: handover.facts,
        engine: &engine,
    };
    monitor.live(program);
    Ok(())
}

fn inherited(number: i32) -> Result<OwnedFd, Error> {
    let fd = take_inherited_fd(number).ok_or_else(|| Error::flag(NAME, format!("descriptor {number} is not open")))?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(Error::io("keep", "descriptor"))?;
    Ok(fd)
}
