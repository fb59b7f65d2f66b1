//! What requests about registries bring with them: who the client is there. Nothing of it is kept, and the credentials of
//! who runs the server are never used for who asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hull_oci::spec::one_line;
use hull_registry::credentials::{Credential, Credentials};
use hull_registry::{Client, Error};
use serde::Deserialize;

use crate::http::Request;
use crate::refusal::Refusal;

/// Who a client is to a registry, as Docker's clients say it.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuthConfig {
    username: Option<String>,
    password: Option<String>,
    /// `USER:PASSWORD` in base64.
    auth: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
    pub(crate) serveraddress: Option<String>,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AuthConfig").field("username", &self.username).finish_non_exhaustive()
    }
}

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Base64 of either alphabet, with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let alphabet = if text.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, ANY_PADDING).decode(text.trim()).ok()
}

impl AuthConfig {
    /// From the header `X-Registry-Auth`. What cannot be understood is nobody, as Docker has it: an image may be public.
    pub(crate) fn of_header(header: Option<&str>) -> Option<Self> {
        serde_json::from_slice(&decode(header?)?).ok()
    }

    /// What a registry is told.
    pub(crate) fn credential(&self) -> Option<Credential> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Some(Credential::Bearer(token));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Some(Credential::Identity(token));
        }
        if let (Some(username), Some(password)) = (given(&self.username), given(&self.password)) {
            return Some(Credential::Password { username, password });
        }
        let pair = String::from_utf8(decode(&given(&self.auth)?)?).ok()?;
        let (username, password) = pair.split_once(':')?;
        Some(Credential::Password { username: username.to_owned(), password: password.trim_matches('\0').to_owned() })
    }
}

/// Asks a registry whether somebody is who they say. Nothing is kept: that is for the client.
fn auth(_api: &Arc<crate::api::Api>, request: &mut Request) -> Result<crate::http::Reply, Refusal> {
    let auth: AuthConfig = request.json("registry.AuthConfig").map_err(|refusal| {
        match refusal.message.strip_prefix("invalid JSON: json: ") {
            // Read by another part of dockerd.
            Some(text) => Refusal::failed(format!("json: {text}")),
            None => refusal,
        }
    })?;
    let address = auth.serveraddress.clone().unwrap_or_default();
    let domain = address.trim_start_matches("https://").trim_start_matches("http://").split('/').next().unwrap_or("");
    let domain = match domain {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        domain => domain,
    };
    format!("{domain}/x")
        .parse::<hull_oci::Reference>()
        .map_err(|_| Refusal::bad(format!("invalid registry address: {}", one_line(&address))))?;
    let none = || Refusal::bad("no username or password is given");
    let credential = auth.credential().ok_or_else(none)?;
    Client::with_credentials(Credentials::given(Vec::new().into_iter().collect()))
        .log_in(domain, &credential)
        .map_err(|error| Refusal { status: 401, ..refusal(error) })?;
    let document = serde_json::json!({ "Status": "Login Succeeded", "IdentityToken": "" });
    Ok(crate::http::Reply::json(200, &document))
}

pub(crate) const ROUTES: &[crate::route::Route] = &[crate::route::Route::new("POST", "/auth", auth)];

/// All that the header `X-Registry-Config` says, by the registry's address.
pub(crate) fn configs(header: Option<&str>) -> BTreeMap<String, AuthConfig> {
    let decoded = header.and_then(decode);
    decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// A client for one registry, as whoever the request says.
pub(crate) fn client(request: &Request, domain: &str) -> Arc<Client> {
    let credential = AuthConfig::of_header(request.header("x-registry-auth")).and_then(|auth| auth.credential());
    Client::with_credentials(Credentials::given(credential.map(|one| (domain.to_owned(), one)).into_iter().collect()))
}

/// What a registry refused, in Docker's words and with its status.
pub(crate) fn refusal(error: Error) -> Refusal {
    let text = one_line(&error.to_string());
    match error {
        Error::NotFound { .. } => Refusal::missing(text),
        Error::Denied { .. } => Refusal::new(401, text),
        _ => Refusal::failed(text),
    }
}

/// The same for a pull: who may not see a repository cannot know whether it is there.
pub(crate) fn pull_refusal(name: &str, error: hull_image::Error) -> Refusal {
    match error {
        hull_image::Error::Registry(error) => match *error {
            Error::Denied { refusal, .. } => Refusal::missing(format!(
                "pull access denied for {}, repository does not exist or may require 'docker login': denied: {}",
                one_line(name),
                one_line(&refusal.to_string()),
            )),
            other => refusal(other),
        },
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(document: &str) -> String {
        base64::engine::general_purpose::URL_SAFE.encode(document)
    }

    #[test]
    fn clients_say_who_they_are_in_several_ways() {
        let of = |document: &str| AuthConfig::of_header(Some(&header(document))).and_then(|auth| auth.credential());
        let password = Credential::Password { username: "u".to_owned(), password: "p:?>".to_owned() };
        assert_eq!(of(r#"{"username":"u","password":"p:?>","serveraddress":"r"}"#), Some(password.clone()));
        assert_eq!(of(r#"{"auth":"dTpwOj8+"}"#), Some(password));
        assert_eq!(
            of(r#"{"identitytoken":"t","username":"","password":null}"#),
            Some(Credential::Identity("t".to_owned()))
        );
        assert_eq!(of(r#"{"registrytoken":"t"}"#), Some(Credential::Bearer("t".to_owned())));
        for nobody in ["{}", "null", "[]", "x", ""] {
            assert_eq!(of(nobody), None, "{nobody}");
        }
        assert!(AuthConfig::of_header(Some("e30=")).is_some() && AuthConfig::of_header(Some("e30")).is_some());
        assert!(AuthConfig::of_header(Some("***")).is_none());
    }

    #[test]
    fn a_build_brings_several() {
        let found = configs(Some(&header(r#"{"https://index.docker.io/v1/":{"username":"a","password":"b"},"r":{}}"#)));
        assert_eq!(found.len(), 2);
        assert!(found["r"].credential().is_none());
        assert!(!format!("{found:?}").contains("\"b\""));
    }
}
