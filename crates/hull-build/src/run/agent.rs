//! The socket of an SSH agent in a step: a socket in memory, with the owner and mode that the step asks for, whose
//! connections are passed on to the agent of the machine. The container never sees the agent's own.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

/// Connections at once; more wait.
const MAX: usize = 64;

/// A side that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// One socket.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: UnixListener,
    pub(super) agent: PathBuf,
}

/// All sockets of a step, and their connections.
#[derive(Debug)]
pub(super) struct Relay {
    listeners: Vec<Listener>,
    /// Two by two.
    ends: Vec<UnixStream>,
}

impl Relay {
    pub(super) fn new(listeners: Vec<Listener>) -> Self {
        Self { listeners, ends: Vec::new() }
    }

    /// What is to be watched, in the order of [`Self::on_ready`].
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listeners = if self.ends.len() < 2 * MAX { self.listeners.as_slice() } else { &[] };
        self.ends.iter().map(|end| end.as_fd()).chain(listeners.iter().map(|one| one.socket.as_fd()))
    }

    /// Something can be done. What goes wrong is the connection's own affair.
    pub(super) fn on_ready(&mut self, place: usize) {
        match place.checked_sub(self.ends.len()) {
            Some(listener) => {
                if let Some(Listener { socket, agent }) = self.listeners.get(listener)
                    && let Ok((client, _)) = socket.accept()
                    && let Ok(server) = UnixStream::connect(agent)
                {
                    for end in [&client, &server] {
                        let _ = end.set_write_timeout(Some(PATIENCE));
                    }
                    self.ends.extend([client, server]);
                }
            }
            None => {
                let other = place ^ 1;
                let mut buffer = [0; 32 << 10];
                let going = match self.ends[place].read(&mut buffer) {
                    Ok(0) => false,
                    Ok(count) => self.ends[other].write_all(&buffer[..count]).is_ok(),
                    Err(error) => error.kind() == ErrorKind::Interrupted,
                };
                if !going {
                    let first = place & !1;
                    self.ends.drain(first..first + 2);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_passed_on() {
        let directory = tempfile::tempdir().unwrap();
        let (outer, inner) = (directory.path().join("agent"), directory.path().join("step"));
        let agent = UnixListener::bind(&outer).unwrap();
        let mut relay = Relay::new(vec![Listener { socket: UnixListener::bind(&inner).unwrap(), agent: outer }]);
        let mut client = UnixStream::connect(&inner).unwrap();
        relay.on_ready(0);
        let (mut server, _) = agent.accept().unwrap();
        client.write_all(b"question").unwrap();
        relay.on_ready(0);
        let mut text = [0; 8];
        server.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"question");
        server.write_all(b"answer").unwrap();
        relay.on_ready(1);
        let mut text = [0; 6];
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"answer");
        drop(client);
        relay.on_ready(0);
        assert_eq!(relay.ends.len(), 0);
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    }
}
