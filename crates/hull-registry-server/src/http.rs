//! Connections, requests and bodies.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hull_image::Store;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::refusal::Refusal;
use crate::storage::Storage;
use crate::{Error, Options, Server};

/// Bytes of one piece of a body.
pub(crate) const PIECE: usize = 256 << 10;

/// Threads that read and write files.
const THREADS: usize = 128;

/// A request's headers must be there after so long, and so must each piece of a body.
const PATIENCE: Duration = Duration::from_secs(60);

/// Milliseconds that a client may leave what was sent to it.
const STUCK: u32 = 120_000;

/// A body that was refused is read so far, so that the client gets to the answer.
const DRAIN: usize = 32 << 20;

/// Connections at once, where the limit of descriptors allows them.
const MOST_CONNECTIONS: usize = 1000;

/// Clients that wait to be accepted; the kernel may allow less (`net.core.somaxconn`).
const QUEUE: u32 = 4096;

/// The answer's body.
#[derive(Debug)]
pub(crate) enum Answer {
    Bytes(Option<Bytes>),
    File { file: Arc<File>, at: u64, left: u64, reading: Option<JoinHandle<io::Result<Vec<u8>>>> },
}

impl Answer {
    pub(crate) fn empty() -> Self {
        Self::Bytes(None)
    }

    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::Bytes(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }

    pub(crate) fn file(file: File, at: u64, left: u64) -> Self {
        Self::File { file: Arc::new(file), at, left, reading: None }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::File { left: 0, .. } => Poll::Ready(None),
            Self::File { file, at, left, reading } => {
                let task = reading.get_or_insert_with(|| {
                    let (file, at, left) = (Arc::clone(file), *at, *left);
                    tokio::task::spawn_blocking(move || {
                        let mut buffer = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
                        file.read_exact_at(&mut buffer, at)?;
                        Ok(buffer)
                    })
                });
                let Poll::Ready(read) = Pin::new(task).poll(context) else { return Poll::Pending };
                *reading = None;
                let read = read.map_err(io::Error::other).and_then(|read| read);
                if let Ok(bytes) = &read {
                    *at += bytes.len() as u64;
                    *left -= bytes.len() as u64;
                }
                Poll::Ready(Some(read.map(|bytes| Frame::data(bytes.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Bytes(None) | Self::File { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::File { left, .. } => SizeHint::with_exact(*left),
        }
    }
}

/// The next piece of a request's body; nothing at its end.
pub(crate) async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    let broken = |reason: &str| Refusal::bad("BLOB_UPLOAD_INVALID", format!("the request's body {reason}"));
    loop {
        let next = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        match tokio::time::timeout(PATIENCE, next).await {
            Err(_) => return Err(broken("does not come")),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(broken("broke off")),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Runs what may wait on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Refusal::internal("request", &error)),
    }
}

/// An answer with headers.
pub(crate) fn answer(status: StatusCode, headers: &[(&'static str, String)], body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        // Values are made of checked names, or are left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    response
}

async fn handle(server: Arc<Server>, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let (parts, mut body) = request.into_parts();
    let mut response = match server.answer(&parts, &mut body).await {
        Ok(response) => response,
        Err(refusal) => {
            if !parts.headers.contains_key("expect") {
                let mut seen = 0;
                while let Ok(Some(bytes)) = piece(&mut body).await {
                    seen += bytes.len();
                    if seen > DRAIN {
                        break;
                    }
                }
            }
            let mut headers = vec![("content-type", "application/json".to_owned())];
            headers.extend(refusal.headers.iter().cloned());
            answer(refusal.status, &headers, Answer::bytes(refusal.body()))
        }
    };
    let headers = response.headers_mut();
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if parts.method == Method::HEAD && !headers.contains_key("content-length") {
        let length = response.body().size_hint().exact().unwrap_or(0);
        response.headers_mut().insert("content-length", HeaderValue::from(length));
    }
    Ok(response)
}

/// Serves one client. `half` is what becomes of answers when it has closed its side: they are sent all the same.
async fn connection(server: Arc<Server>, stream: impl AsyncRead + AsyncWrite + Unpin, half: bool) {
    let service = service_fn(move |request| handle(Arc::clone(&server), request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).half_close(half);
    // What a client does to its connection is its own affair.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

fn acceptor(certificate: &Path, key: &Path) -> Result<tokio_rustls::TlsAcceptor, Error> {
    let bad = |reason: String| Error::Tls { path: certificate.to_owned(), reason };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| bad(error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("it has no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(format!("key {}: {error}", key.display())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|error| bad(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build()
        .map_err(Error::Runtime)
}

/// As many connections as there can be descriptors for: one each, and one or two for its file.
fn connections() -> usize {
    let most = hull_fs::descriptors().map_or(MOST_CONNECTIONS, |most| most / 4);
    most.clamp(8, MOST_CONNECTIONS)
}

/// Collects garbage for ever, four times in a grace period, at most once a second and at least once an hour.
async fn collect(storage: Arc<Storage>, store: Option<Store>, grace: Duration) {
    let pause = (grace / 4).clamp(Duration::from_secs(1), Duration::from_secs(3600));
    loop {
        tokio::time::sleep(pause).await;
        let (storage, store) = (Arc::clone(&storage), store.clone());
        let done = blocking(move || {
            store
                .map_or(Ok(0), |store| storage.tidy(&store))
                .map_err(|error| Refusal::io("follow the images", &error))?;
            storage.collect(grace).map_err(|error| Refusal::io("collect garbage", &error))
        });
        if let Ok(done) = done.await
            && done != crate::storage::Collected::default()
        {
            crate::log(format_args!(
                "garbage: {} blobs taken from repositories, {} deleted ({} bytes), {} uploads forgotten",
                done.unlinked, done.deleted, done.bytes, done.uploads
            ));
        }
    }
}

/// Clients wait in the kernel's queue while there are too many connections; what does not fit in it is reset.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

pub(crate) fn serve(options: &Options, address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
    let (server, kept) = Server::new(options)?;
    let server = Arc::new(server);
    let tls = options.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
    let most = Arc::new(Semaphore::new(connections()));
    runtime()?.block_on(async move {
        let bad = |source| Error::Listen { address, source };
        let listener = listen(address).map_err(bad)?;
        ready(listener.local_addr().map_err(bad)?);
        if let (Some((storage, store)), Some(grace)) = (kept, options.grace) {
            tokio::spawn(collect(storage, store, grace));
        }
        loop {
            let Ok(permit) = Arc::clone(&most).acquire_owned().await else { return Ok(()) };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors or memory: connections that end give some back.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            // A client that takes nothing of its answer any more must not keep its place.
            let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, STUCK);
            let (server, tls) = (Arc::clone(&server), tls.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let Some(tls) = tls else { return connection(server, stream, false).await };
                if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
                    connection(server, stream, false).await;
                }
            });
        }
    })
}

pub(crate) fn serve_stdio(options: &Options) -> Result<(), Error> {
    let (server, _) = Server::new(options)?;
    let runtime = runtime()?;
    let streams = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    runtime.block_on(connection(Arc::new(server), streams, true));
    // A read of standard input may still wait on its thread.
    runtime.shutdown_background();
    Ok(())
}
