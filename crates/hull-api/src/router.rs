//! Which function answers: versions and paths.

use crate::http::Reply;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::version::{API_VERSION, MIN_API_VERSION, Version};

/// Where routes are looked for, in this order.
const TABLES: &[&[Route]] = &[
    crate::system::ROUTES,
    crate::events::ROUTES,
    crate::usage::ROUTES,
    crate::registry::ROUTES,
    crate::containers::ROUTES,
    crate::exec::ROUTES,
    crate::images::ROUTES,
    crate::networks::ROUTES,
    crate::volumes::ROUTES,
    crate::commit::ROUTES,
    crate::distribution::ROUTES,
    crate::build::ROUTES,
    crate::buildkit::ROUTES,
    crate::swarm::ROUTES,
];

/// What a path leads to.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) route: Route,
    pub(crate) version: Version,
    /// Without the version.
    pub(crate) path: String,
    pub(crate) params: Vec<(&'static str, String)>,
}

fn own_version() -> Version {
    Version::parse(API_VERSION).unwrap_or(Version { major: 1, minor: 0 })
}

/// The version at the beginning of a path, and the rest of it.
fn split_version(path: &str) -> (Option<&str>, &str) {
    let versioned = path.strip_prefix("/v").and_then(|rest| {
        let (version, _) = rest.split_once('/')?;
        let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        is_version.then(|| (version, &rest[version.len()..]))
    });
    versioned.map_or((None, path), |(version, rest)| (Some(version), rest))
}

/// The values of a pattern's parameters in a path.
fn matches(pattern: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let pattern: Vec<&'static str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    let mut params = Vec::new();
    let mut at = 0;
    for (index, part) in pattern.iter().enumerate() {
        let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        let after = pattern.len() - index - 1;
        match name.map(|name| (name, name.strip_suffix("..."))) {
            None => {
                if path.get(at)? != part {
                    return None;
                }
                at += 1;
            }
            Some((_, Some(name))) => {
                let end = path.len().checked_sub(after)?;
                let value = path.get(at..end).filter(|parts| !parts.is_empty())?.join("/");
                if value.is_empty() {
                    return None;
                }
                params.push((name, value));
                at = end;
            }
            Some((name, None)) => {
                let value = path.get(at).filter(|value| !value.is_empty())?;
                params.push((name, (*value).to_owned()));
                at += 1;
            }
        }
    }
    (at == path.len()).then_some(params)
}

/// Finds who answers a decoded path.
pub(crate) fn find(method: &str, path: &str) -> Result<Found, Refusal> {
    let (asked, path) = split_version(path);
    // Browsers ask before they ask; nothing of what they read is promised.
    if method == "OPTIONS" {
        let route = Route::new("OPTIONS", "/", |_, _| Ok(Reply::empty(200)));
        return Ok(Found { route, version: own_version(), path: path.to_owned(), params: Vec::new() });
    }
    let none = || Refusal::missing("page not found");
    let found = TABLES.iter().copied().flatten().filter(|route| route.method == method).find_map(|route| {
        let params = matches(route.pattern, path)?;
        Some((*route, params))
    });
    let (route, params) = found.ok_or_else(none)?;
    let own = own_version();
    let version = match asked {
        None => own,
        Some(text) => {
            let version = Version::parse(text).ok_or_else(none)?;
            let ask = |what: &str| Refusal::bad(format!("client version {text} is too {what}"));
            if Version::parse(MIN_API_VERSION).is_some_and(|least| version < least) {
                return Err(ask(&format!(
                    "old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your client to a newer version"
                )));
            }
            if version > own {
                return Err(ask(&format!("new. Maximum supported API version is {API_VERSION}")));
            }
            version
        }
    };
    Ok(Found { route, version, path: path.to_owned(), params })
}

/// Understands a request as the server does, and does nothing: `METHOD PATH?QUERY`, a line feed, and a body, which is
/// taken for each that there is. For fuzzing.
pub fn understand(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, body) = (String::from_utf8_lossy(&bytes[..at]), bytes.get(at + 1..).unwrap_or_default());
    let (method, address) = line.split_once(' ').unwrap_or((&line, ""));
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    if let Some(path) = crate::query::decode(path, false) {
        let _ = find(method, &path);
    }
    let query = crate::query::Query::parse(query);
    let _ = query.filters(&["label", "name"]).map(|filters| filters.truth("name"));
    let _ = query.number::<i64>("limit");
    let _ = crate::images::platform(query.text("platform"));
    let _ = crate::images::name_of(query.text("repo"), query.text("tag"));
    if let Ok(Some(body)) = crate::http::parse::<Option<crate::wire::create::Create>>(body, "container.CreateRequest") {
        let _ = crate::containers::config(body);
    }
    crate::containers::understand(body);
    crate::exec::understand(body);
    crate::networks::understand(body);
    crate::volumes::understand(body);
    let _ = crate::http::parse::<crate::registry::AuthConfig>(body, "registry.AuthConfig");
    crate::buildkit::understand(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_have_slashes() {
        let all = |pattern, path| {
            matches(pattern, path).map(|list| list.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
        };
        assert_eq!(all("/images/{name...}/json", "/images/a/b:c/json"), Some(vec!["a/b:c".to_owned()]));
        assert_eq!(all("/images/{name...}/json", "/images/json"), None);
        assert_eq!(all("/images/{name...}/json", "/images//json"), None);
        assert_eq!(all("/containers/{id}/json", "/containers/a/b/json"), None);
        assert_eq!(all("/containers/{id}/json", "/containers/a/json"), Some(vec!["a".to_owned()]));
        assert_eq!(all("/images/{name...}", "/images/x/y"), Some(vec!["x/y".to_owned()]));
        assert_eq!(all("/a", "/a/"), None);
    }

    #[test]
    fn versions_are_checked_in_docker_s_words() {
        assert!(find("GET", "/_ping").is_ok() && find("GET", "/v1.24/_ping").is_ok());
        assert_eq!(
            find("GET", "/v1.23/_ping").unwrap_err().message,
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        let new = find("GET", "/v1.99/_ping").unwrap_err();
        assert_eq!(
            (new.status, new.message.as_str()),
            (400, "client version 1.99 is too new. Maximum supported API version is 1.51")
        );
        for wrong in ["/", "", "/v1.24", "/v1.24/", "/nothing", "/vx/_ping", "/v/_ping", "/v1.2.3.4/", "//_ping"] {
            assert_eq!(find("GET", wrong).unwrap_err(), Refusal::missing("page not found"), "{wrong}");
        }
    }
}
