//! Where clients come from: Unix sockets of the owner and a group, TCP with certificates on both sides, and sockets
//! that the service manager passed.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use hull_engine::records::Sockets;
use rustix::fs::Mode;
use rustix::net::AddressFamily;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::tls;
use crate::error::Error;
use crate::options::{Listen, Options};

/// Milliseconds that a client may leave what was sent to it.
const STUCK: u32 = 120_000;

/// A socket that clients can reach.
pub(super) struct Bound {
    pub(super) address: String,
    socket: OwnedFd,
    /// Path and inode of a socket that is removed in the end.
    own: Option<(PathBuf, u64)>,
    tls: Option<TlsAcceptor>,
}

impl Bound {
    /// Removes the path, unless another server has replaced it.
    pub(super) fn remove(&self) {
        if let Some((path, inode)) = &self.own
            && std::fs::symlink_metadata(path).is_ok_and(|found| found.ino() == *inode)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A group's number, by name or number.
fn group(text: &str) -> Result<rustix::fs::Gid, Error> {
    let unknown = || Error::Group(text.to_owned());
    let number = match text.parse::<u32>() {
        Ok(number) => Some(number),
        Err(_) => std::fs::read_to_string("/etc/group").ok().and_then(|groups| {
            let line = groups.lines().find(|line| line.split(':').next() == Some(text))?;
            line.split(':').nth(2)?.parse().ok()
        }),
    };
    number.map(rustix::fs::Gid::from_raw).ok_or_else(unknown)
}

fn unix(path: &Path, group: Option<rustix::fs::Gid>) -> Result<Bound, Error> {
    let address = format!("unix://{}", path.display());
    let fail = |source: io::Error| Error::Listen { address: address.clone(), source };
    if StdUnixStream::connect(path).is_ok() {
        return Err(Error::Busy(address));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            // Of a server that was killed.
            std::fs::remove_file(path).map_err(fail)?;
        }
        Ok(_) => return Err(fail(io::ErrorKind::AlreadyExists.into())),
        Err(_) => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(fail)?;
            }
        }
    }
    // Nobody else may connect, not even before the mode is set; there is no second thread yet.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = StdUnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.map_err(fail)?;
    if let Some(group) = group {
        rustix::fs::chown(path, None, Some(group)).map_err(|errno| fail(errno.into()))?;
    }
    rustix::fs::chmod(path, Mode::from_raw_mode(0o660)).map_err(|errno| fail(errno.into()))?;
    let inode = std::fs::symlink_metadata(path).map_err(fail)?.ino();
    Ok(Bound { address, socket: listener.into(), own: Some((path.to_owned(), inode)), tls: None })
}

fn passed(tls: Option<&TlsAcceptor>) -> Result<Vec<Bound>, Error> {
    let count = i32::try_from(Sockets::of_environment().count).unwrap_or(0);
    let mut list = Vec::new();
    for number in 3..3 + count {
        // This process has no sockets of its own yet, and what is none was not passed.
        let is_socket = std::fs::read_link(format!("/proc/self/fd/{number}"))
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        let Some(socket) = is_socket.then(|| hull_sys::clone::take_inherited_fd(number)).flatten() else { continue };
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).map_err(|errno| Error::Runtime(errno.into()))?;
        list.push(Bound { address: format!("fd://{number}"), socket, own: None, tls: tls.cloned() });
    }
    if list.is_empty() { Err(Error::NotPassed) } else { Ok(list) }
}

/// Listens everywhere.
pub(super) fn bind(options: &Options) -> Result<Vec<Bound>, Error> {
    let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
    let group = options.group.as_deref().map(group).transpose()?;
    let mut list = Vec::new();
    for listen in &options.listen {
        match listen {
            Listen::Unix(path) => list.push(unix(path, group)?),
            Listen::Passed => list.extend(passed(tls.as_ref())?),
            Listen::Tcp(address) => {
                let acceptor = tls.clone().ok_or(Error::NoTls)?;
                let fail = |source| Error::Listen { address: format!("tcp://{address}"), source };
                let listener = StdTcpListener::bind(address).map_err(fail)?;
                let local = listener.local_addr().map_err(fail)?;
                let address = format!("tcp://{local}");
                list.push(Bound { address, socket: listener.into(), own: None, tls: Some(acceptor) });
            }
        }
    }
    Ok(list)
}

/// A client that has come.
pub(super) enum Accepted {
    Unix(UnixStream),
    Tls(TcpStream, TlsAcceptor),
}

/// A socket in the runtime's hands.
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener, TlsAcceptor),
}

impl Listener {
    pub(super) fn of(bound: &Bound) -> Result<Self, Error> {
        let fail = |source: io::Error| Error::Listen { address: bound.address.clone(), source };
        let socket = bound.socket.try_clone().map_err(fail)?;
        let family = rustix::net::getsockname(socket.as_fd()).map_err(|errno| fail(errno.into()))?.address_family();
        rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| fail(errno.into()))?;
        if family == AddressFamily::UNIX {
            return UnixListener::from_std(socket.into()).map(Self::Unix).map_err(fail);
        }
        let tls = bound.tls.clone().ok_or(Error::NoTls)?;
        TcpListener::from_std(socket.into()).map(|listener| Self::Tcp(listener, tls)).map_err(fail)
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
            Self::Tcp(listener, tls) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                // A client that takes nothing of its answer any more must not keep its place.
                let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, STUCK);
                let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
                Ok(Accepted::Tls(stream, tls.clone()))
            }
        }
    }
}
