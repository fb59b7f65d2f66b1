//! A client's content stores: directories of blobs that it offers to builds by `containerd.services.content.v1`. Shared
//! caches of `type=local` are in these, and layouts of this machine stand for them while a build runs.
//!
//! What a client gives is hostile: its blobs are bounded by their descriptors here, and compared with their digests by the
//! build that reads them.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use hull_oci::Digest;
use hull_oci::image::{Descriptor, Document, MAX_LAYERS, MAX_MANIFEST_BYTES, Manifest};
use hull_oci::spec::one_line;
use prost::Message;
use serde_json::{Value, json};

use super::grpc::{Exchange, Failure, code};
use super::session::Session;

const SERVICE: &str = "/containerd.services.content.v1.Content";
/// Which of the client's stores it is.
const STORE: &str = "buildkit-attachable-store-id";
/// Bytes of one message.
const PIECE: usize = 1 << 20;
/// Bytes of all blobs of a cache that is taken.
const MAX_CACHE: u64 = 64 << 30;
/// The longest document.
const MAX_DOCUMENT: u64 = 16 << 20;

const WRITE: i32 = 1;
const COMMIT: i32 = 2;

#[derive(Clone, PartialEq, Eq, Message)]
struct InfoRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    size: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ReadRequest {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    size: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ReadResponse {
    #[prost(int64, tag = "1")]
    offset: i64,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct WriteRequest {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(string, tag = "2")]
    reference: String,
    #[prost(int64, tag = "3")]
    total: i64,
    #[prost(string, tag = "4")]
    expected: String,
    #[prost(int64, tag = "5")]
    offset: i64,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct WriteResponse {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(int64, tag = "4")]
    offset: i64,
}

/// A store of a client.
pub(super) struct Store<'s> {
    session: &'s Session,
    id: String,
}

fn failed(operation: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::unknown(format!("{operation} {}: {error}", one_line(&path.display().to_string())))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The path of a blob in a layout.
fn place(layout: &Path, digest: &Digest) -> std::path::PathBuf {
    layout.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

impl<'s> Store<'s> {
    /// The store that the client has for a directory of its own.
    pub(super) fn local(session: &'s Session, directory: &str) -> Self {
        Self { session, id: format!("local:{directory}") }
    }

    async fn begin(&self, method: &str) -> Result<Exchange, Failure> {
        let metadata = [(STORE.to_owned(), self.id.clone())];
        self.session.begin(&format!("{SERVICE}/{method}"), &metadata).await
    }

    /// The length of a blob; `None` if it is not there.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, Failure> {
        let mut exchange = self.begin("Info").await?;
        exchange.outgoing.send(&InfoRequest { digest: digest.to_string() }).await?;
        exchange.outgoing.finish();
        match exchange.next::<InfoResponse>().await {
            Ok(found) => Ok(found.and_then(|found| found.info).and_then(|info| u64::try_from(info.size).ok())),
            Err(failure) if failure.code == code::NOT_FOUND => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Copies a blob into a layout. It must have the length that is known of it.
    async fn take(&self, digest: &Digest, size: u64, layout: &Path) -> Result<(), Failure> {
        let path = place(layout, digest);
        let mut file = File::create(&path).map_err(|error| failed("create", &path, &error))?;
        let mut exchange = self.begin("Read").await?;
        exchange.outgoing.send(&ReadRequest { digest: digest.to_string(), offset: 0, size: 0 }).await?;
        exchange.outgoing.finish();
        let mut done = 0_u64;
        while let Some(part) = exchange.next::<ReadResponse>().await? {
            done = done.saturating_add(part.data.len() as u64);
            if part.offset < 0 || done > size {
                return Err(Failure::new(code::INVALID_ARGUMENT, format!("blob {digest} is longer than {size} bytes")));
            }
            file.write_all(&part.data).map_err(|error| failed("write", &path, &error))?;
        }
        if done < size {
            return Err(Failure::new(code::INVALID_ARGUMENT, format!("blob {digest} is shorter than {size} bytes")));
        }
        Ok(())
    }

    /// Copies a blob of a layout, unless it is there.
    async fn put(&self, digest: &Digest, layout: &Path) -> Result<(), Failure> {
        let path = place(layout, digest);
        let mut file = File::open(&path).map_err(|error| failed("open", &path, &error))?;
        let size = file.metadata().map_err(|error| failed("read", &path, &error))?.len();
        if self.size(digest).await? == Some(size) {
            return Ok(());
        }
        let result = self.write(digest, size, &mut file, &path).await;
        match result {
            // Somebody else has written it meanwhile.
            Err(failure) if failure.code == code::ALREADY_EXISTS => Ok(()),
            result => result,
        }
    }

    async fn write(&self, digest: &Digest, size: u64, file: &mut File, path: &Path) -> Result<(), Failure> {
        let mut exchange = self.begin("Write").await?;
        let mut offset = 0_u64;
        loop {
            let mut data = Vec::new();
            let read = std::io::Read::by_ref(file).take(PIECE as u64).read_to_end(&mut data);
            read.map_err(|error| failed("read", path, &error))?;
            let end = offset + data.len() as u64;
            let last = data.is_empty() || end >= size;
            let request = WriteRequest {
                action: if last { COMMIT } else { WRITE },
                reference: format!("hull-{}-{}", std::process::id(), digest.hex()),
                total: signed(size),
                expected: digest.to_string(),
                offset: signed(offset),
                data,
            };
            exchange.outgoing.send(&request).await?;
            if last {
                exchange.outgoing.finish();
            }
            let answer = exchange.next::<WriteResponse>().await?;
            let answer = answer.ok_or_else(|| Failure::unknown("the client ended the transfer early"))?;
            if answer.offset != signed(end) && answer.action != COMMIT {
                return Err(Failure::unknown("the client has written something else than it was sent"));
            }
            offset = end;
            if last {
                return exchange.end().await;
            }
        }
    }

    /// Sends the only manifest of a layout with everything that it names. Returns its descriptor.
    pub(super) async fn send(&self, layout: &Path) -> Result<Value, Failure> {
        let root = hull_fs::Root::open(layout).map_err(|error| Failure::unknown(error.to_string()))?;
        let bytes = root.read_bounded(Path::new("index.json"), 1 << 20);
        let bytes = bytes.map_err(|error| Failure::unknown(error.to_string()))?;
        let index: Value = serde_json::from_slice(&bytes).map_err(|error| failed("read", layout, &error))?;
        let top = &index["manifests"][0];
        let digest: Digest = top["digest"]
            .as_str()
            .and_then(|digest| digest.parse().ok())
            .ok_or_else(|| Failure::unknown("the build has written no cache"))?;
        let path = place(layout, &digest);
        let manifest = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
        let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|error| failed("read", &path, &error))?;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            self.put(&blob.digest, layout).await?;
        }
        self.put(&digest, layout).await?;
        Ok(json!({"mediaType": top["mediaType"], "digest": digest, "size": top["size"]}))
    }

    /// Makes a layout of a manifest: with its document, and those of its layers that `wanted` is for, once there is a
    /// document of this type.
    pub(super) async fn receive(
        &self,
        digest: &Digest,
        layout: &Path,
        kind: &str,
        wanted: &(dyn Fn(&Digest) -> bool + Sync),
    ) -> Result<(), Failure> {
        let missing = |digest: &Digest| Failure::new(code::NOT_FOUND, format!("the client has no blob {digest}"));
        let long = || Failure::new(code::INVALID_ARGUMENT, "the client's cache is too long");
        for name in ["sha256", "sha512"] {
            let path = layout.join("blobs").join(name);
            fs::create_dir_all(&path).map_err(|error| failed("create directory", &path, &error))?;
        }
        let size = self.size(digest).await?.ok_or_else(|| missing(digest))?;
        if size > MAX_MANIFEST_BYTES {
            return Err(long());
        }
        self.take(digest, size, layout).await?;
        let path = place(layout, digest);
        let bytes = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::new(code::INVALID_ARGUMENT, format!("the client's cache: {}", one_line(&error.to_string())))
        };
        let document = Document::parse(&bytes, None).map_err(|error| wrong(&error))?;
        let media_type = match &document {
            Document::Manifest(_) => hull_oci::image::media_type::MANIFEST,
            Document::Index(_) => hull_oci::image::media_type::INDEX,
        };
        let mut top = json!(Descriptor::new(media_type, digest.clone(), size));
        top["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [top]}).to_string();
        let path = layout.join("index.json");
        fs::write(&path, index).map_err(|error| failed("write", &path, &error))?;
        let Document::Manifest(manifest) = document else { return Ok(()) };
        if manifest.config.media_type != kind {
            // The build says what it is.
            return Ok(());
        }
        let all = manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        if manifest.layers.len() > MAX_LAYERS || all > MAX_CACHE || manifest.config.size > MAX_DOCUMENT {
            return Err(long());
        }
        self.take(&manifest.config.digest, manifest.config.size, layout).await?;
        let path = place(layout, &manifest.config.digest);
        let bytes = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
        #[derive(serde::Deserialize)]
        struct Records {
            #[serde(default)]
            layers: Vec<Digest>,
        }
        let records: Records = serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
        for (blob, diff_id) in manifest.layers.iter().zip(&records.layers) {
            if wanted(diff_id) {
                self.take(&blob.digest, blob.size, layout).await?;
            }
        }
        Ok(())
    }
}
