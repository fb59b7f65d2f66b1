//! SSH agents of a client, as sockets for a build: each connection is a call back to the client.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::grpc::Failure;
use super::pb::BytesMessage;
use super::session::Session;

const METHOD: &str = "/moby.sshforward.v1.SSH/ForwardAgent";

/// What goes with each call.
const ID: &str = "buildkit.ssh.id";

/// Bytes of one message.
const PIECE: usize = 32 << 10;

/// A socket that leads to an agent, as long as it is held.
#[derive(Debug)]
pub(super) struct Agent(JoinHandle<()>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    /// Listens at a path below a directory that nobody else can enter.
    pub(super) fn listen(session: &Session, id: &str, path: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::unknown(format!("listen on {}: {error}", path.display()));
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Steps may run as other users; the directory keeps others away.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
        let (session, id) = (session.clone(), id.to_owned());
        Ok(Self(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(forward(session.clone(), id.clone(), stream));
            }
        })))
    }
}

async fn forward(session: Session, id: String, stream: UnixStream) {
    let Ok(mut exchange) = session.begin(METHOD, &[(ID.to_owned(), id)]).await else { return };
    let (mut reader, mut writer) = stream.into_split();
    let mut buffer = vec![0; PIECE];
    let mut reading = true;
    loop {
        tokio::select! {
            read = reader.read(&mut buffer), if reading => match read {
                Ok(length) if length > 0 => {
                    let message = BytesMessage { data: buffer[..length].to_vec() };
                    if exchange.outgoing.send(&message).await.is_err() {
                        return;
                    }
                }
                _ => {
                    reading = false;
                    exchange.outgoing.finish();
                }
            },
            answer = exchange.next::<BytesMessage>() => match answer {
                Ok(Some(message)) if writer.write_all(&message.data).await.is_ok() => {}
                _ => return,
            },
        }
    }
}
