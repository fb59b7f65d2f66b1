//! What is changed: end-4 to 7, 9 to 11, 13 and 14 of the specification.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use hull_oci::Digest;
use hull_oci::digest::Algorithm;
use hull_oci::image::MAX_MANIFEST_BYTES;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use tokio::sync::OwnedMutexGuard;

use crate::Server;
use crate::auth::Grant;
use crate::content::Changes;
use crate::http::{Answer, PIECE, answer, blocking, piece};
use crate::read::header;
use crate::refusal::Refusal;
use crate::route::{self, Query, Route, Target};
use crate::storage::{Storage, Upload};

/// A request waits so long for another one that works on the same upload.
const TURN: Duration = Duration::from_secs(10);

/// A manifest may get so many tags at once.
const MOST_TAGS: usize = 100;

type Answered = Result<Response<Answer>, Refusal>;

/// An upload that this request works on.
type Held = OwnedMutexGuard<Option<Upload>>;

fn gone() -> Refusal {
    Refusal::missing("BLOB_UPLOAD_UNKNOWN", "the upload has ended")
}

impl Server {
    /// Answers a request that is not a question about content.
    pub(crate) async fn change(
        self: &Arc<Self>,
        parts: &Parts,
        body: &mut Incoming,
        route: Route,
        query: &Query,
        grant: &Grant,
    ) -> Answered {
        let Some((storage, changes)) = self.writes.clone() else {
            return Err(Refusal::unsupported("this registry is read only").with("allow", "GET, HEAD"));
        };
        let allowed = match (&route, &parts.method) {
            (Route::Uploads(_), &Method::POST)
            | (Route::Upload(..), &Method::GET | &Method::HEAD | &Method::PATCH | &Method::PUT | &Method::DELETE)
            | (Route::Manifest(..), &Method::PUT | &Method::DELETE)
            | (Route::Blob(..), &Method::DELETE) => "",
            (Route::Uploads(_), _) => "POST",
            (Route::Upload(..), _) => "GET, PATCH, PUT, DELETE",
            (Route::Manifest(..), _) => "GET, HEAD, PUT, DELETE",
            (Route::Blob(..), _) => "GET, HEAD, DELETE",
            _ => "GET, HEAD",
        };
        if !allowed.is_empty() {
            return Err(Refusal::unsupported(format!("use one of: {allowed}")).with("allow", allowed));
        }
        match route {
            Route::Uploads(name) => begin(storage, changes, parts, body, name, query, grant).await,
            Route::Upload(name, id) => {
                let (held, name) = hold(&storage, name, id).await?;
                match parts.method {
                    Method::PATCH => {
                        let held = receive(held, parts, body, &name).await?;
                        progress(&held, &name, StatusCode::ACCEPTED)
                    }
                    Method::PUT => {
                        let digest = query
                            .get("digest")
                            .ok_or_else(|| Refusal::bad("DIGEST_INVALID", "the upload's end lacks ?digest="))?;
                        let digest = route::digest(digest)?;
                        let held = receive(held, parts, body, &name).await?;
                        finish(storage, held, name, digest).await
                    }
                    Method::DELETE => {
                        blocking(move || {
                            let mut held = held;
                            storage.cancel(&held.take().ok_or_else(gone)?);
                            Ok(answer(StatusCode::NO_CONTENT, &[], Answer::empty()))
                        })
                        .await
                    }
                    _ => progress(&held, &name, StatusCode::NO_CONTENT),
                }
            }
            Route::Manifest(name, target) if parts.method == Method::PUT => {
                put_manifest(changes, parts, body, name, target, query).await
            }
            Route::Manifest(name, target) => {
                blocking(move || changes.delete_manifest(&name, &target)).await?;
                Ok(answer(StatusCode::ACCEPTED, &[], Answer::empty()))
            }
            Route::Blob(name, digest) => {
                blocking(move || changes.delete_blob(&name, &digest)).await?;
                Ok(answer(StatusCode::ACCEPTED, &[], Answer::empty()))
            }
            _ => Err(Refusal::unsupported("no such operation")),
        }
    }
}

/// `POST`: a mount, a whole blob, or the begin of an upload.
async fn begin(
    storage: Arc<Storage>,
    changes: Arc<dyn Changes>,
    parts: &Parts,
    body: &mut Incoming,
    name: String,
    query: &Query,
    grant: &Grant,
) -> Answered {
    let mount = query.get("mount").map(route::digest).transpose()?;
    let from = query.get("from").map(str::to_owned);
    from.as_deref().map_or(Ok(()), route::name)?;
    // Who may not read where it is must send it, and does not learn that it is there.
    let may_read = from.as_ref().map_or(*grant == Grant::All, |from| grant.allows("repository", from, "pull"));
    if let Some(digest) = mount.filter(|_| may_read) {
        let (name, wanted) = (name.clone(), digest.clone());
        let mounted = blocking(move || {
            let mounted = changes.mount(&name, from.as_deref(), &wanted);
            mounted.map(|mounted| mounted.then_some(name)).map_err(|error| Refusal::io("mount blob", &error))
        });
        if let Some(name) = mounted.await? {
            return Ok(created(&name, &digest));
        }
    }
    let whole = query.get("digest").map(route::digest).transpose()?;
    let algorithm = match (&whole, query.get("digest-algorithm")) {
        (Some(digest), _) => digest.algorithm(),
        (None, None | Some("sha256")) => Algorithm::Sha256,
        (None, Some("sha512")) => Algorithm::Sha512,
        (None, Some(_)) => return Err(Refusal::bad("DIGEST_INVALID", "the algorithm is not sha256 or sha512")),
    };
    let (opener, repository) = (Arc::clone(&storage), name.clone());
    let (id, shared) = blocking(move || opener.begin(&repository, algorithm)).await?;
    let held = shared.lock_owned().await;
    let Some(digest) = whole else { return progress(&held, &name, StatusCode::ACCEPTED) };
    match receive(held, parts, body, &name).await {
        Ok(held) => finish(storage, held, name, digest).await,
        Err(refusal) => {
            // Nobody can continue it, as nobody was told its ID.
            blocking(move || {
                storage.abandon(&name, &id);
                Ok(())
            })
            .await?;
            Err(refusal)
        }
    }
}

/// Waits for the turn to work on an upload.
async fn hold(storage: &Arc<Storage>, name: String, id: String) -> Result<(Held, String), Refusal> {
    let finder = Arc::clone(storage);
    let (shared, name) = blocking(move || finder.upload(&name, &id).map(|shared| (shared, name))).await?;
    match tokio::time::timeout(TURN, shared.lock_owned()).await {
        Ok(held) if held.is_some() => Ok((held, name)),
        Ok(_) => Err(gone()),
        Err(_) => {
            let message = "another request works on this upload";
            Err(Refusal::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", message))
        }
    }
}

fn location(name: &str, upload: &Upload) -> Vec<(&'static str, String)> {
    vec![
        ("location", format!("/v2/{name}/blobs/uploads/{}", upload.id)),
        ("range", format!("0-{}", upload.length.saturating_sub(1))),
        ("docker-upload-uuid", upload.id.clone()),
    ]
}

fn progress(held: &Held, name: &str, status: StatusCode) -> Answered {
    let upload = held.as_ref().ok_or_else(gone)?;
    Ok(answer(status, &location(name, upload), Answer::empty()))
}

fn created(name: &str, digest: &Digest) -> Response<Answer> {
    let headers = [("location", format!("/v2/{name}/blobs/{digest}")), ("docker-content-digest", digest.to_string())];
    answer(StatusCode::CREATED, &headers, Answer::empty())
}

/// `FIRST-LAST`, as chunks have it; `bytes` before it is what some clients write.
fn chunk(text: &str) -> Option<(u64, u64)> {
    let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches([' ', '=']));
    let (first, last) = text.split('/').next()?.split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// Adds a request's body to an upload; what is said of it in `Content-Range` must be so. It is on disk at the end.
async fn receive(held: Held, parts: &Parts, body: &mut Incoming, name: &str) -> Result<Held, Refusal> {
    let upload = held.as_ref().ok_or_else(gone)?;
    let start = upload.length;
    let length = header(parts, "content-length").and_then(|text| text.parse::<u64>().ok());
    let mut wanted = None;
    // A body that is empty has no range to be in order.
    let is_empty = length == Some(0) && parts.method == Method::PUT;
    if let Some(text) = header(parts, "content-range").filter(|_| !is_empty) {
        let Some((first, last)) = chunk(text) else {
            return Err(Refusal::bad("BLOB_UPLOAD_INVALID", "Content-Range is not FIRST-LAST"));
        };
        if first != start {
            let mut refusal = Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "BLOB_UPLOAD_INVALID",
                format!("the chunk begins at {first}, the upload continues at {start}"),
            );
            refusal.headers = location(name, upload);
            return Err(refusal);
        }
        let count = (last - first).checked_add(1);
        if count.is_none() || length.is_some_and(|length| Some(length) != count) {
            return Err(Refusal::bad("SIZE_INVALID", "Content-Range and Content-Length do not agree"));
        }
        wanted = count;
    }
    let (mut held, mut file) = blocking(move || {
        let file = held.as_ref().ok_or_else(gone)?.open().map_err(|error| Refusal::io("open upload", &error))?;
        Ok((held, file))
    })
    .await?;
    let mut pending = Vec::new();
    let mut taken = 0_u64;
    loop {
        let next = piece(body).await;
        let ended = !matches!(next, Ok(Some(_)));
        if let Ok(Some(bytes)) = &next {
            taken += bytes.len() as u64;
            if wanted.is_none_or(|wanted| taken <= wanted) {
                pending.extend_from_slice(bytes);
            }
        }
        let wrong = wanted.filter(|wanted| taken > *wanted || (ended && next.is_ok() && taken < *wanted));
        if wrong.is_some() {
            return blocking(move || {
                let upload = held.as_mut().ok_or_else(gone)?;
                upload.truncate(&file, start).map_err(|error| Refusal::io("shorten upload", &error))?;
                Err(Refusal::bad("SIZE_INVALID", "the body has not as many bytes as Content-Range says"))
            })
            .await;
        }
        if ended || pending.len() >= PIECE {
            // What came before a connection broke is kept: the client asks how much it is, and goes on from there.
            (held, file) = append(held, file, std::mem::take(&mut pending), ended).await?;
        }
        match next {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(held),
            Err(refusal) => return Err(refusal),
        }
    }
}

async fn append(held: Held, file: File, bytes: Vec<u8>, sync: bool) -> Result<(Held, File), Refusal> {
    blocking(move || {
        let mut held = held;
        let failed = |error| Refusal::io("write upload", &error);
        let upload = held.as_mut().ok_or_else(gone)?;
        upload.append(&file, &bytes).map_err(failed)?;
        if sync {
            upload.sync(&file).map_err(failed)?;
        }
        Ok((held, file))
    })
    .await
}

/// Makes an upload a blob.
async fn finish(storage: Arc<Storage>, held: Held, name: String, digest: Digest) -> Answered {
    blocking(move || {
        let mut held = held;
        storage.finish(&mut held, &digest)?;
        Ok(created(&name, &digest))
    })
    .await
}

async fn put_manifest(
    changes: Arc<dyn Changes>,
    parts: &Parts,
    body: &mut Incoming,
    name: String,
    target: Target,
    query: &Query,
) -> Answered {
    let too_large = || {
        let message = format!("a manifest is at most {MAX_MANIFEST_BYTES} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message)
    };
    let length = header(parts, "content-length").and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_MANIFEST_BYTES) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(piece) = piece(body).await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(too_large());
        }
    }
    let tags: Vec<String> = query.all("tag").map(str::to_owned).collect();
    if tags.len() > MOST_TAGS {
        let message = format!("a manifest gets at most {MOST_TAGS} tags at once");
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "UNSUPPORTED", message));
    }
    for tag in &tags {
        route::tag(tag)?;
    }
    let kind = header(parts, "content-type").map(str::to_owned);
    blocking(move || {
        let put = changes.put_manifest(&name, &target, &tags, kind.as_deref(), &bytes)?;
        let mut headers = vec![
            ("location", format!("/v2/{name}/manifests/{}", put.digest)),
            ("docker-content-digest", put.digest.to_string()),
        ];
        headers.extend(put.subject.map(|subject| ("oci-subject", subject.to_string())));
        headers.extend(tags.into_iter().map(|tag| ("oci-tag", tag)));
        Ok(answer(StatusCode::CREATED, &headers, Answer::empty()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks() {
        assert_eq!(chunk("0-9"), Some((0, 9)));
        assert_eq!(chunk("bytes 0-9/10"), Some((0, 9)));
        assert_eq!(chunk("bytes=5-5"), Some((5, 5)));
        for bad in ["", "-", "5", "9-5", "-5", "5-", "+1-2", "0x1-2", "1-99999999999999999999", " 1-2", "1 - 2"] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }
}
