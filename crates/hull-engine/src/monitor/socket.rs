//! The socket of a monitor: `STATE/attach/ID`.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen as listen_on, socket_with,
};

use crate::error::Error;
use crate::records::{Engine, create_private};

fn directory(engine: &Engine) -> PathBuf {
    engine.state_root().join("attach")
}

/// The address by way of an open directory: a path of sockets has at most 107 bytes.
fn address(engine: &Engine, id: &str) -> Result<(OwnedFd, SocketAddrUnix), Error> {
    let path = directory(engine);
    let opened = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open", &path))?;
    let name = format!("/proc/self/fd/{}/{id}", opened.as_raw_fd());
    let address = SocketAddrUnix::new(name).map_err(Error::io("name socket of", id))?;
    Ok((opened, address))
}

fn socket() -> Result<OwnedFd, Error> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::io("create", "socket"))
}

/// Takes clients of a container from now on. What a killed monitor left is replaced.
pub(super) fn listen(engine: &Engine, id: &str) -> Result<OwnedFd, Error> {
    create_private(&directory(engine))?;
    remove(engine, id);
    let (_directory, address) = address(engine, id)?;
    let socket = socket()?;
    bind(&socket, &address).map_err(Error::io("bind socket of", id))?;
    listen_on(&socket, 16).map_err(Error::io("listen for", id))?;
    let flags = rustix::fs::fcntl_getfl(&socket).map_err(Error::io("read flags of", "socket"))?;
    rustix::fs::fcntl_setfl(&socket, flags | OFlags::NONBLOCK).map_err(Error::io("set flags of", "socket"))?;
    Ok(socket)
}

/// A connection to a container's monitor; `None` when nobody listens.
pub(crate) fn reach(engine: &Engine, id: &str) -> Result<Option<OwnedFd>, Error> {
    use rustix::io::Errno;
    let (_directory, address) = match address(engine, id) {
        Ok(address) => address,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let socket = socket()?;
    match connect(&socket, &address) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(errno) => Err(Error::io("connect to the monitor of", id)(errno)),
    }
}

/// Takes no more clients.
pub(crate) fn remove(engine: &Engine, id: &str) {
    // What is left refuses connections, and goes with the next start or the machine.
    let _ = fs::remove_file(directory(engine).join(id));
    engine.forget_pause(id);
}
