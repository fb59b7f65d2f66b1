//! Results that go to a client: an archive as bytes, or a directory by fsutil's protocol, as the side that sends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::grpc::{Exchange, Failure, code};
use super::pb::{BytesMessage, Packet, Stat, packet};
use super::session::Session;

const METHOD: &str = "/moby.filesync.v1.FileSend/DiffCopy";

/// Which of the client's outputs it is.
const ID: &str = "buildkit-attachable-exporter-id";

/// Bytes of one message.
const PIECE: usize = 64 << 10;

fn metadata(number: usize) -> [(String, String); 1] {
    [(ID.to_owned(), number.to_string())]
}

fn failed(operation: &str, path: &Path, error: &std::io::Error) -> Failure {
    let path = hull_oci::spec::one_line(&path.display().to_string());
    Failure::unknown(format!("{operation} {path}: {error}"))
}

/// Sends a file's bytes.
pub(super) async fn file(session: &Session, number: usize, path: &Path) -> Result<(), Failure> {
    let mut input = File::open(path).map_err(|error| failed("open", path, &error))?;
    let mut exchange = session.begin(METHOD, &metadata(number)).await?;
    loop {
        let mut data = vec![0; PIECE];
        let length = input.read(&mut data).map_err(|error| failed("read", path, &error))?;
        if length == 0 {
            break;
        }
        data.truncate(length);
        exchange.outgoing.send(&BytesMessage { data }).await?;
    }
    exchange.outgoing.finish();
    exchange.end().await
}

/// Sends a directory.
pub(super) async fn directory(session: &Session, number: usize, root: &Path) -> Result<(), Failure> {
    let mut exchange = session.begin(METHOD, &metadata(number)).await?;
    let mut files = Vec::new();
    let mut links = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    // In the order that the other side demands: by names, directories before what is in them.
    while let Some(path) = pending.pop() {
        let whole = root.join(&path);
        if !path.as_os_str().is_empty() {
            let metadata = whole.symlink_metadata().map_err(|error| failed("look at", &whole, &error))?;
            let stat = stat(&path, &whole, &metadata, &mut links)?;
            let wanted = metadata.is_file() && stat.linkname.is_empty();
            files.push(wanted.then(|| whole.clone()));
            exchange.outgoing.send(&Packet { kind: packet::STAT, stat: Some(stat), ..Packet::default() }).await?;
            if !metadata.is_dir() {
                continue;
            }
        }
        let entries = std::fs::read_dir(&whole).map_err(|error| failed("read", &whole, &error))?;
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
        pending.extend(names.into_iter().map(|name| path.join(name)));
    }
    exchange.outgoing.send(&Packet { kind: packet::STAT, ..Packet::default() }).await?;
    serve(&mut exchange, &files).await
}

/// Sends what the other side asks for, until it has everything.
async fn serve(exchange: &mut Exchange, files: &[Option<PathBuf>]) -> Result<(), Failure> {
    while let Some(next) = exchange.next::<Packet>().await? {
        match next.kind {
            packet::REQ => {
                let file = usize::try_from(next.id).ok().and_then(|id| files.get(id)).and_then(Option::as_ref);
                let path = file.ok_or_else(|| Failure::new(code::INVALID_ARGUMENT, "no file of that number"))?;
                let mut input = File::open(path).map_err(|error| failed("open", path, &error))?;
                loop {
                    let mut data = vec![0; PIECE];
                    let length = input.read(&mut data).map_err(|error| failed("read", path, &error))?;
                    data.truncate(length);
                    exchange
                        .outgoing
                        .send(&Packet { kind: packet::DATA, id: next.id, data, ..Packet::default() })
                        .await?;
                    if length == 0 {
                        break;
                    }
                }
            }
            packet::FIN => {
                exchange.outgoing.send(&Packet { kind: packet::FIN, ..Packet::default() }).await?;
                exchange.outgoing.finish();
                return exchange.end().await;
            }
            packet::ERR => {
                let text = hull_oci::spec::one_line(&String::from_utf8_lossy(&next.data));
                return Err(Failure::unknown(format!("error from receiver: {text}")));
            }
            _ => return Err(Failure::new(code::INVALID_ARGUMENT, "an unexpected packet came")),
        }
    }
    Err(Failure::unknown("the client ended the transfer early"))
}

/// What is said of a file; a further name of one that was sent is a link.
fn stat(
    path: &Path,
    whole: &Path,
    metadata: &std::fs::Metadata,
    links: &mut BTreeMap<(u64, u64), String>,
) -> Result<Stat, Failure> {
    let name = path.to_str().ok_or_else(|| Failure::unknown(format!("{} is not UTF-8", whole.display())))?.to_owned();
    let kind = metadata.file_type();
    let mut mode = metadata.mode() & 0o777;
    for (unix, go) in [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)] {
        if metadata.mode() & unix != 0 {
            mode |= go;
        }
    }
    let mut linkname = String::new();
    if kind.is_dir() {
        mode |= 1 << 31;
    } else if kind.is_symlink() {
        mode |= 1 << 27;
        let target = std::fs::read_link(whole).map_err(|error| failed("read link", whole, &error))?;
        linkname = target.to_string_lossy().into_owned();
    } else if kind.is_fifo() {
        mode |= 1 << 25;
    } else if kind.is_socket() {
        mode |= 1 << 24;
    } else if kind.is_block_device() {
        mode |= 1 << 26;
    } else if kind.is_char_device() {
        mode |= 1 << 26 | 1 << 21;
    } else if metadata.nlink() > 1 {
        let first = links.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.clone());
        if *first != name {
            linkname.clone_from(first);
        }
    }
    Ok(Stat {
        mode,
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: if kind.is_file() { i64::try_from(metadata.len()).unwrap_or(i64::MAX) } else { 0 },
        mod_time: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
        linkname,
        path: name,
        ..Stat::default()
    })
}
