//! What is asked for: end-1, 2, 3, 8 and 12 of the specification, and Docker's catalog.

use std::sync::Arc;

use hull_oci::Digest;
use hull_oci::image::media_type;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::json;

use crate::Server;
use crate::auth::{Access, Door, Grant, Need, TOKEN_PATH};
use crate::http::{Answer, answer, blocking, piece};
use crate::refusal::Refusal;
use crate::route::{Query, Route, Target, encode};

/// Entries of a page where the client does not say.
const PAGE: usize = 1000;

/// A form is at most so long.
const MAX_FORM: usize = 64 << 10;

type Answered = Result<Response<Answer>, Refusal>;

/// A header's value, if it is there once and is text.
pub(crate) fn header<'p>(parts: &'p Parts, name: &str) -> Option<&'p str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

impl Server {
    /// Answers one request.
    pub(crate) async fn answer(self: &Arc<Self>, parts: &Parts, body: &mut Incoming) -> Answered {
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        let authorization = header(parts, "authorization").map(str::to_owned);
        if parts.uri.path() == TOKEN_PATH
            && let Access::Tokens(tokens) = &self.access
            && tokens.issuer().is_some()
        {
            return self.token(parts, body, authorization, query).await;
        }
        let route = Route::parse(parts.uri.path());
        let grant = if self.access.is_open() {
            Grant::All
        } else {
            let need = route.as_ref().ok().and_then(|route| Need::of(&parts.method, route, &query));
            let door = Door { encrypted: self.encrypted, host: header(parts, "host").map(str::to_owned) };
            let server = Arc::clone(self);
            blocking(move || server.access.check(authorization.as_deref(), need.as_ref(), &door, server.anonymous_pull))
                .await?
        };
        // What is asked is not judged before it is known who asks.
        let route = route?;
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        match route {
            Route::Base if reads => Ok(json(StatusCode::OK, &[], "{}".to_owned())),
            Route::Catalog if reads => self.catalog(query).await,
            Route::Tags(name) if reads => self.tags(name, query).await,
            Route::Referrers(name, digest) if reads => self.referrers(name, digest, query).await,
            Route::Manifest(name, target) if reads => self.manifest(parts, name, target).await,
            Route::Blob(name, digest) if reads => self.blob(parts, name, digest).await,
            route => self.change(parts, body, route, &query, &grant).await,
        }
    }

    /// Issues a token.
    async fn token(
        self: &Arc<Self>,
        parts: &Parts,
        body: &mut Incoming,
        authorization: Option<String>,
        query: Query,
    ) -> Answered {
        let form = match parts.method {
            Method::GET | Method::HEAD => None,
            Method::POST => {
                let mut bytes = Vec::new();
                while let Some(piece) = piece(body).await? {
                    bytes.extend_from_slice(&piece);
                    if bytes.len() > MAX_FORM {
                        let status = StatusCode::PAYLOAD_TOO_LARGE;
                        return Err(Refusal::new(status, "SIZE_INVALID", "the form is too long"));
                    }
                }
                let text = String::from_utf8(bytes);
                Some(Query::parse(&text.map_err(|_| Refusal::bad("UNSUPPORTED", "the form is not text"))?)?)
            }
            _ => return Err(Refusal::unsupported("use one of: GET, POST").with("allow", "GET, POST")),
        };
        let server = Arc::clone(self);
        let token = blocking(move || match &server.access {
            Access::Tokens(tokens) => match tokens.issuer() {
                Some((own, service)) => own.answer(service, authorization.as_deref(), &query, form.as_ref()),
                None => Err(Refusal::missing("UNSUPPORTED", "tokens are not issued here")),
            },
            _ => Err(Refusal::missing("UNSUPPORTED", "tokens are not issued here")),
        });
        let headers = [("cache-control", "no-store".to_owned())];
        Ok(json(StatusCode::OK, &headers, token.await?))
    }

    async fn catalog(self: &Arc<Self>, query: Query) -> Answered {
        let server = Arc::clone(self);
        let names = blocking(move || server.content.repositories()).await?;
        let (page, link) = page(names, &query, Some(PAGE), "/v2/_catalog", &[])?;
        Ok(json(StatusCode::OK, &link, json!({"repositories": page}).to_string()))
    }

    async fn tags(self: &Arc<Self>, name: String, query: Query) -> Answered {
        let (server, repository) = (Arc::clone(self), name.clone());
        let tags = blocking(move || server.content.tags(&repository)).await?;
        let (page, link) = page(tags, &query, None, &format!("/v2/{name}/tags/list"), &[])?;
        Ok(json(StatusCode::OK, &link, json!({"name": name, "tags": page}).to_string()))
    }

    async fn referrers(self: &Arc<Self>, name: String, digest: Digest, query: Query) -> Answered {
        let (server, repository, subject) = (Arc::clone(self), name.clone(), digest.clone());
        let mut found = blocking(move || server.content.referrers(&repository, &subject)).await?;
        let mut headers = Vec::new();
        let mut kept = Vec::new();
        if let Some(kind) = query.get("artifactType") {
            found.retain(|descriptor| descriptor["artifactType"] == *kind);
            headers.push(("oci-filters-applied", "artifactType".to_owned()));
            kept.push(("artifactType", kind.to_owned()));
        }
        let key = |descriptor: &serde_json::Value| descriptor["digest"].as_str().unwrap_or_default().to_owned();
        found.sort_by_key(key);
        let digests: Vec<String> = found.iter().map(key).collect();
        let (digests, link) = page(digests, &query, Some(PAGE), &format!("/v2/{name}/referrers/{digest}"), &kept)?;
        found.retain(|descriptor| digests.binary_search(&key(descriptor)).is_ok());
        headers.extend(link);
        headers.push(("content-type", media_type::INDEX.to_owned()));
        let body = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": found});
        Ok(answer(StatusCode::OK, &headers, Answer::bytes(body.to_string())))
    }

    async fn manifest(self: &Arc<Self>, parts: &Parts, name: String, target: Target) -> Answered {
        let server = Arc::clone(self);
        let stored = blocking(move || server.content.manifest(&name, &target)).await?;
        let mut headers = identity(&stored.digest);
        if is_known(parts, &stored.digest) {
            return Ok(answer(StatusCode::NOT_MODIFIED, &headers, Answer::empty()));
        }
        headers.push(("content-type", stored.media_type));
        Ok(answer(StatusCode::OK, &headers, Answer::bytes(stored.bytes)))
    }

    async fn blob(self: &Arc<Self>, parts: &Parts, name: String, digest: Digest) -> Answered {
        let (server, wanted) = (Arc::clone(self), digest.clone());
        let is_question = parts.method == Method::HEAD;
        let (file, length) = blocking(move || {
            let file = server.content.blob(&name, &wanted)?;
            if is_question {
                server.content.used(&name, &wanted);
            }
            let length = file.metadata().map_err(|error| Refusal::io("read blob", &error))?.len();
            Ok((file, length))
        })
        .await?;
        let mut headers = identity(&digest);
        headers.push(("accept-ranges", "bytes".to_owned()));
        if is_known(parts, &digest) {
            return Ok(answer(StatusCode::NOT_MODIFIED, &headers, Answer::empty()));
        }
        headers.push(("content-type", "application/octet-stream".to_owned()));
        headers.push(("cache-control", "max-age=31536000, immutable".to_owned()));
        let is_same = header(parts, "if-range").is_none_or(|tag| tag == format!("\"{digest}\""));
        match header(parts, "range").filter(|_| is_same).map_or(Ranged::Whole, |text| range(text, length)) {
            Ranged::Whole => Ok(answer(StatusCode::OK, &headers, Answer::file(file, 0, length))),
            Ranged::Part(first, count) => {
                headers.push(("content-range", format!("bytes {first}-{}/{length}", first + count - 1)));
                Ok(answer(StatusCode::PARTIAL_CONTENT, &headers, Answer::file(file, first, count)))
            }
            Ranged::Beyond => {
                let refusal = Refusal::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "SIZE_INVALID",
                    format!("the range is not in the blob's {length} bytes"),
                );
                Err(refusal.with("content-range", format!("bytes */{length}")))
            }
        }
    }
}

fn json(status: StatusCode, headers: &[(&'static str, String)], body: String) -> Response<Answer> {
    let mut all = vec![("content-type", "application/json".to_owned())];
    all.extend(headers.iter().cloned());
    answer(status, &all, Answer::bytes(body))
}

fn identity(digest: &Digest) -> Vec<(&'static str, String)> {
    vec![("docker-content-digest", digest.to_string()), ("etag", format!("\"{digest}\""))]
}

/// Whether the client has this content already.
fn is_known(parts: &Parts, digest: &Digest) -> bool {
    let tag = format!("\"{digest}\"");
    header(parts, "if-none-match").is_some_and(|known| known.split(',').any(|one| one.trim() == tag))
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Ranged {
    Whole,
    /// First byte and count.
    Part(u64, u64),
    Beyond,
}

/// One range of bytes (RFC 9110, 14.1.2). Several, and what is no range, are answered with everything.
fn range(text: &str, length: u64) -> Ranged {
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|text| text.split_once('-')) else {
        return Ranged::Whole;
    };
    let (first, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(length)),
        (Some(first), None) if last.is_empty() => (first, length),
        (None, Some(0)) if first.is_empty() => return Ranged::Beyond,
        (None, Some(count)) if first.is_empty() => (length.saturating_sub(count), length),
        _ => return Ranged::Whole,
    };
    if first >= length { Ranged::Beyond } else { Ranged::Part(first, end - first) }
}

type Link = Vec<(&'static str, String)>;

/// A page of a sorted list by `n` and `last`, and the header that leads to the next.
fn page(
    mut all: Vec<String>,
    query: &Query,
    most: Option<usize>,
    path: &str,
    kept: &[(&str, String)],
) -> Result<(Vec<String>, Link), Refusal> {
    let wanted = match query.get("n") {
        None => None,
        Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(text.parse().unwrap_or(usize::MAX))
        }
        Some(_) => return Err(Refusal::bad("PAGINATION_NUMBER_INVALID", "n is not a number")),
    };
    if let Some(last) = query.get("last") {
        all.retain(|entry| entry.as_str() > last);
    }
    let count = wanted.or(most).unwrap_or(usize::MAX);
    if all.len() <= count || count == 0 {
        all.truncate(count);
        return Ok((all, Vec::new()));
    }
    all.truncate(count);
    let mut target = format!("{path}?n={count}&last={}", encode(all.last().map_or("", String::as_str)));
    for (key, value) in kept {
        target.push_str(&format!("&{key}={}", encode(value)));
    }
    Ok((all, vec![("link", format!("<{target}>; rel=\"next\""))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("bytes=0-0", Ranged::Part(0, 1)),
            ("bytes=2-", Ranged::Part(2, 8)),
            ("bytes=2-100", Ranged::Part(2, 8)),
            ("bytes=-3", Ranged::Part(7, 3)),
            ("bytes=-30", Ranged::Part(0, 10)),
            ("bytes=9-18446744073709551615", Ranged::Part(9, 1)),
            ("bytes=10-", Ranged::Beyond),
            ("bytes=-0", Ranged::Beyond),
            ("bytes=3-2", Ranged::Whole),
            ("bytes=0-1,3-4", Ranged::Whole),
            ("bytes=+1-2", Ranged::Whole),
            ("bytes=-", Ranged::Whole),
            ("bytes=99999999999999999999-", Ranged::Whole),
            ("lines=1-2", Ranged::Whole),
        ] {
            assert_eq!(range(text, 10), expected, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), Ranged::Beyond);
    }

    #[test]
    fn pages_lead_to_each_other() {
        let all: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let ask = |query: &str| {
            let query = Query::parse(query).map_err(|refusal| refusal.code)?;
            page(all.clone(), &query, None, "/v2/x/tags/list", &[]).map_err(|refusal| refusal.code)
        };
        assert_eq!(ask("").expect("page"), (all.clone(), vec![]));
        let (first, link) = ask("n=2").expect("page");
        assert_eq!(first, ["a", "b"]);
        assert_eq!(link[0].1, "</v2/x/tags/list?n=2&last=b>; rel=\"next\"");
        assert_eq!(ask("n=2&last=b").expect("page"), (vec!["c".to_owned()], vec![]));
        assert_eq!(ask("n=0").expect("page"), (vec![], vec![]));
        assert_eq!(ask("n=99999999999999999999999").expect("page").0.len(), 3);
        assert_eq!(ask("n=-1"), Err("PAGINATION_NUMBER_INVALID"));
    }
}
