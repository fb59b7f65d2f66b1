//! Tokens: JSON web tokens (RFC 7519) with the claims of Docker's registries.
//!
//! `BASE64(HEADER).BASE64(CLAIMS).BASE64(SIGNATURE)`; the claim `access` lists `{type, name, actions}`. This server signs its
//! own with HMAC and takes no others then; those of another issuer must be signed with a private key. The header of a token
//! never decides which kind of key it is checked with.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::keys::Trusted;

/// A token is at most so long.
const MAX_TOKEN: usize = 64 << 10;

/// Clocks may differ by so many seconds.
const LEEWAY: u64 = 60;

/// Who signs this server's own tokens.
pub(super) const OWN: &str = "hull registry";

/// What a token lets its holder do with one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
}

/// What a token says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    pub(super) iss: String,
    #[serde(default)]
    pub(super) sub: String,
    #[serde(default)]
    pub(super) aud: Audience,
    pub(super) exp: u64,
    #[serde(default)]
    pub(super) nbf: u64,
    #[serde(default)]
    pub(super) iat: u64,
    #[serde(default, deserialize_with = "null_default")]
    pub(super) access: Vec<Access>,
    /// In a token that others are had for: what changes with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mark: Option<String>,
}

fn null_default<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Access>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// One name or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Audience {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(all) => all.iter().any(|one| one == name),
        }
    }
}

/// A token's header, as far as it counts.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    #[serde(default)]
    pub(super) kid: Option<String>,
    #[serde(default)]
    pub(super) x5c: Vec<String>,
    #[serde(default)]
    pub(super) jwk: Option<serde_json::Value>,
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Signs with this server's own key.
pub(super) fn sign(key: &hmac::Key, claims: &Claims) -> Result<String, serde_json::Error> {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let mut text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?));
    let tag = hmac::sign(key, text.as_bytes());
    text.push('.');
    text.push_str(&URL_SAFE_NO_PAD.encode(tag));
    Ok(text)
}

#[derive(Debug)]
enum Trust {
    Own(hmac::Key),
    Outside { name: Option<String>, keys: Trusted },
}

/// Checks tokens.
#[derive(Debug)]
pub(super) struct Verifier {
    service: String,
    trust: Trust,
}

impl Verifier {
    /// Of this server's own tokens.
    pub(super) fn own(service: &str, key: hmac::Key) -> Self {
        Self { service: service.to_owned(), trust: Trust::Own(key) }
    }

    /// Of another issuer's; `name` is what it must call itself.
    pub(super) fn outside(service: &str, name: Option<String>, keys: Trusted) -> Self {
        Self { service: service.to_owned(), trust: Trust::Outside { name, keys } }
    }

    /// What a token says, if it is genuine and for this service, now.
    pub(super) fn verify(&self, token: &str, now: u64) -> Result<Claims, &'static str> {
        if token.len() > MAX_TOKEN {
            return Err("the token is too long");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("this is no token")?;
        let (header, claims) =
            signed.split_once('.').filter(|(_, rest)| !rest.contains('.')).ok_or("this is no token")?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| "this is no token");
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| "the token's header is not valid")?;
        let signature = decode(signature)?;
        let issuer = match &self.trust {
            Trust::Own(key) => {
                let is_ours = header.alg == "HS256" && hmac::verify(key, signed.as_bytes(), &signature).is_ok();
                is_ours.then_some(Some(OWN)).ok_or("the token's signature is wrong")?
            }
            Trust::Outside { name, keys } => {
                keys.verify(&header, signed.as_bytes(), &signature)?;
                name.as_deref()
            }
        };
        let claims: Claims =
            serde_json::from_slice(&decode(claims)?).map_err(|_| "the token's claims are not valid")?;
        if issuer.is_some_and(|issuer| issuer != claims.iss) {
            return Err("the token is of another issuer");
        }
        if !claims.aud.has(&self.service) {
            return Err("the token is for another service");
        }
        if claims.exp.saturating_add(LEEWAY) < now {
            return Err("the token has expired");
        }
        if claims.nbf > now.saturating_add(LEEWAY) {
            return Err("the token is not valid yet");
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let access = vec![Access { kind: "repository".into(), name: "a".into(), actions: vec!["pull".into()] }];
        let (iss, aud) = (OWN.to_owned(), Audience::One("me".into()));
        Claims { iss, sub: "anna".into(), aud, exp: 2000, nbf: 1000, iat: 1000, access, mark: None }
    }

    #[test]
    fn own_tokens() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let token = sign(&key, &claims()).expect("token");
        let verifier = Verifier::own("me", key.clone());
        assert_eq!(verifier.verify(&token, 1500).expect("good").access, claims().access);
        assert_eq!(verifier.verify(&token, 2100).err(), Some("the token has expired"));
        assert_eq!(verifier.verify(&token, 900).err(), Some("the token is not valid yet"));
        let other = Verifier::own("other", key.clone());
        assert_eq!(other.verify(&token, 1500).err(), Some("the token is for another service"));
        let wrong = Verifier::own("me", hmac::Key::new(hmac::HMAC_SHA256, b"other"));
        assert_eq!(wrong.verify(&token, 1500).err(), Some("the token's signature is wrong"));
        // No algorithm is none.
        let (_, rest) = token.split_once('.').expect("parts");
        let none = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        assert_eq!(verifier.verify(&none, 1500).err(), Some("the token's signature is wrong"));
        let body = rest.split('.').next().expect("claims");
        for bad in ["", ".", "..", "a.b.c", "a.b.c.d", &format!("{token}."), &format!("{}.{body}.", &none[..20])] {
            assert!(verifier.verify(bad, 1500).is_err(), "{bad}");
        }
        // Nobody else's key is a secret of ours.
        let outside = Verifier::outside("me", None, Trusted::default());
        assert!(outside.verify(&token, 1500).is_err());
        let mut foreign = claims();
        foreign.iss = "evil".into();
        let token = sign(&key, &foreign).expect("token");
        assert_eq!(verifier.verify(&token, 1500).err(), Some("the token is of another issuer"));
    }
}
