//! `/token`: this server as the issuer of its own tokens, by Docker's protocol and the OAuth 2.0 one of its registries.
//!
//! ```text
//! GET  /token?service=&scope=TYPE:NAME:ACTION,ACTION&offline_token=true    with a password, or nobody's
//! POST /token  grant_type=password&username=&password=&access_type=offline
//!              grant_type=refresh_token&refresh_token=
//! ```
//!
//! Tokens last five minutes. A refresh token lasts 90 days, and no longer than the password that it was had for. The key is
//! in the registry's directory, so that tokens outlive the server.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ring::hmac;
use serde_json::json;

use super::jwt::{Access, Audience, Claims, OWN, Verifier, now, sign};
use super::users::Users;
use super::{ask, ask_password};
use crate::Error;
use crate::refusal::Refusal;
use crate::route::{self, Query};

/// Where tokens are had.
pub(crate) const PATH: &str = "/token";

/// Seconds that a token is good for.
const LIFE: u64 = 300;

/// Seconds that a refresh token is good for.
const LONG_LIFE: u64 = 90 * 24 * 3600;

/// Scopes of one token.
const MOST_SCOPES: usize = 100;

/// What the server needs to issue tokens.
#[derive(Debug)]
pub(crate) struct Own {
    pub(super) key: hmac::Key,
    pub(super) users: Option<Users>,
    pub(super) anonymous_pull: bool,
}

/// The server's key, made at its first use.
pub(super) fn key(directory: &Path) -> Result<hmac::Key, Error> {
    let path = directory.join("token-key");
    let io = |source| Error::File { path: path.clone(), source };
    let made = || -> std::io::Result<()> {
        fs::create_dir_all(directory)?;
        let mut random = [0_u8; 32];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name: String = random[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let new = directory.join(format!(".token-key-{name}"));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let done = (|| {
            let mut secret = [0_u8; 32];
            rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())?;
            file.write_all(&secret)?;
            file.sync_all()?;
            match fs::hard_link(&new, &path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
                _ => fs::File::open(directory)?.sync_all(),
            }
        })();
        fs::remove_file(&new)?;
        done
    };
    if !path.exists() {
        made().map_err(io)?;
    }
    let secret = fs::read(&path).map_err(io)?;
    if secret.len() < 32 {
        let reason = "it has less than 32 bytes: remove it, and another is made".to_owned();
        return Err(Error::Keys { path, reason });
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

/// `TYPE:NAME:ACTION,...`; a name may have colons.
fn scope(text: &str) -> Option<Access> {
    let (kind, rest) = text.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let is_name = match kind {
        "repository" => route::name(name).is_ok(),
        "registry" => name == "catalog",
        _ => false,
    };
    let known = |action: &&str| ["pull", "push", "delete", "*"].contains(action);
    let actions: Vec<String> = actions.split(',').filter(known).map(str::to_owned).collect();
    (is_name && !actions.is_empty()).then(|| Access { kind: kind.to_owned(), name: name.to_owned(), actions })
}

impl Own {
    /// Answers a question for a token. May take long.
    pub(crate) fn answer(
        &self,
        service: &str,
        authorization: Option<&str>,
        query: &Query,
        form: Option<&Query>,
    ) -> Result<String, Refusal> {
        let parameters = form.unwrap_or(query);
        if parameters.get("service").is_some_and(|asked| !asked.is_empty() && asked != service) {
            return Err(Refusal::bad("UNSUPPORTED", "tokens for another service are not issued here"));
        }
        let user = match form {
            None => self.who(authorization)?,
            Some(form) => Some(self.granted(service, form)?),
        };
        let mut access: Vec<Access> =
            parameters.all("scope").flat_map(|scopes| scopes.split(' ')).filter_map(scope).take(MOST_SCOPES).collect();
        if user.is_none() {
            access.retain_mut(|one| {
                one.actions.retain(|action| action == "pull");
                one.kind == "repository" && !one.actions.is_empty()
            });
        }
        let now = now();
        let claims = Claims {
            iss: OWN.to_owned(),
            sub: user.clone().unwrap_or_default(),
            aud: Audience::One(service.to_owned()),
            exp: now + LIFE,
            nbf: now,
            iat: now,
            access,
            mark: None,
        };
        let failed = |error| Refusal::internal("sign token", &error);
        let token = sign(&self.key, &claims).map_err(failed)?;
        let mut answer = json!({"token": token, "access_token": token, "expires_in": LIFE});
        let offline =
            parameters.get("offline_token") == Some("true") || parameters.get("access_type") == Some("offline");
        if offline && let Some(user) = user {
            let mark = self.users.as_ref().and_then(|users| users.mark(&user));
            let aud = Audience::One(refreshes(service));
            let claims = Claims { sub: user, aud, exp: now + LONG_LIFE, access: Vec::new(), mark, ..claims };
            answer["refresh_token"] = json!(sign(&self.key, &claims).map_err(failed)?);
        }
        Ok(answer.to_string())
    }

    /// The user of a `GET`; nothing for anybody.
    fn who(&self, authorization: Option<&str>) -> Result<Option<String>, Refusal> {
        match authorization {
            None if self.anonymous_pull => Ok(None),
            None => Err(ask_password()),
            Some(header) => {
                let user = self.users.as_ref().and_then(|users| users.login(header));
                user.map(Some).ok_or_else(ask_password)
            }
        }
    }

    /// The user of a `POST`.
    fn granted(&self, service: &str, form: &Query) -> Result<String, Refusal> {
        let denied = || ask("Basic realm=\"hull registry\", charset=\"UTF-8\"".to_owned());
        let users = self.users.as_ref().ok_or_else(denied)?;
        match form.get("grant_type") {
            Some("password") => {
                let (user, password) = form.get("username").zip(form.get("password")).ok_or_else(denied)?;
                users.is_right(user, password).then(|| user.to_owned()).ok_or_else(denied)
            }
            Some("refresh_token") => {
                let verifier = Verifier::own(&refreshes(service), self.key.clone());
                let token = form.get("refresh_token").ok_or_else(denied)?;
                let claims = verifier.verify(token, now()).map_err(|_| denied())?;
                let is_same = claims.mark.is_some() && claims.mark == users.mark(&claims.sub);
                is_same.then_some(claims.sub).ok_or_else(denied)
            }
            _ => Err(Refusal::bad("UNSUPPORTED", "grant_type is not password or refresh_token")),
        }
    }
}

/// The audience of refresh tokens, which let nobody in by themselves.
fn refreshes(service: &str) -> String {
    format!("{service}\n{PATH}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let found = scope("repository:team/app:pull,push,fly").expect("scope");
        assert_eq!((&*found.name, &*found.actions.join(",")), ("team/app", "pull,push"));
        assert!(scope("registry:catalog:*").is_some());
        for bad in
            ["", "repository", "repository:a", "repository:a:", "repository:../a:pull", "x:a:pull", "registry:a:*"]
        {
            assert_eq!(scope(bad), None, "{bad}");
        }
    }
}
