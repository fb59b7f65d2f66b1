//! Sessions: what a client offers to the builds that it asks for. The connection of `POST /session` is turned around: the
//! client serves, and its files, secrets, agents and credentials are asked for over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::grpc::{Caller, Exchange, Failure, code};
use super::pb;

/// How long a build waits for the session that it names.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// More sessions at once are refused.
const MOST: usize = 1000;

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    caller: Caller,
    /// In lower case: `/moby.filesync.v1.filesync/diffcopy`.
    methods: BTreeSet<String>,
    /// Tells sessions of one name apart.
    number: u64,
}

/// All clients, by the ID that they gave themselves.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    all: Mutex<(BTreeMap<String, Session>, u64)>,
}

impl Sessions {
    fn lock(&self) -> std::sync::MutexGuard<'_, (BTreeMap<String, Session>, u64)> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session; its number is for [`Self::remove`].
    pub(crate) fn add(&self, id: String, caller: Caller, methods: BTreeSet<String>) -> Option<u64> {
        let mut all = self.lock();
        if all.0.len() >= MOST || all.0.contains_key(&id) {
            return None;
        }
        all.1 += 1;
        let number = all.1;
        all.0.insert(id, Session { caller, methods, number });
        Some(number)
    }

    /// The connection has ended.
    pub(crate) fn remove(&self, id: &str, number: u64) {
        let mut all = self.lock();
        if all.0.get(id).is_some_and(|session| session.number == number) {
            all.0.remove(id);
        }
    }

    /// A session, which may be about to come.
    pub(crate) async fn find(&self, id: &str) -> Result<Session, Failure> {
        let begin = tokio::time::Instant::now();
        loop {
            if let Some(session) = self.lock().0.get(id) {
                return Ok(session.clone());
            }
            if begin.elapsed() > PATIENCE {
                return Err(Failure::new(
                    code::NOT_FOUND,
                    format!("no active session for {}", hull_oci::spec::one_line(id)),
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Session {
    /// Whether the client offers a method.
    pub(crate) fn offers(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    /// Begins a call back to the client.
    pub(crate) async fn begin(&self, method: &str, metadata: &[(String, String)]) -> Result<Exchange, Failure> {
        if !self.offers(method) {
            return Err(Failure::new(code::UNIMPLEMENTED, format!("method {method} is not offered by the client")));
        }
        self.caller.begin(method, metadata).await
    }

    /// A secret; `None` when the client does not know it.
    pub(crate) async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Failure> {
        const METHOD: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
        if !self.offers(METHOD) {
            return Ok(None);
        }
        let request = pb::GetSecretRequest { id: id.to_owned() };
        match self.caller.call::<pb::GetSecretResponse>(METHOD, &request).await {
            Ok(found) => Ok(Some(found.data)),
            Err(failure) if failure.code == code::NOT_FOUND => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Who the client is to a registry; `None` for nobody.
    pub(crate) async fn credentials(&self, host: &str) -> Result<Option<(String, String)>, Failure> {
        const METHOD: &str = "/moby.filesync.v1.Auth/Credentials";
        if !self.offers(METHOD) {
            return Ok(None);
        }
        let request = pb::CredentialsRequest { host: host.to_owned() };
        match self.caller.call::<pb::CredentialsResponse>(METHOD, &request).await {
            Ok(found) if found.secret.is_empty() => Ok(None),
            Ok(found) => Ok(Some((found.username, found.secret))),
            Err(failure) if matches!(failure.code, code::NOT_FOUND | code::UNIMPLEMENTED | code::UNAVAILABLE) => {
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Whether the client has such an agent.
    pub(crate) async fn has_agent(&self, id: &str) -> bool {
        const METHOD: &str = "/moby.sshforward.v1.SSH/CheckAgent";
        let request = pb::CheckAgentRequest { id: id.to_owned() };
        self.offers(METHOD) && self.caller.call::<pb::Empty>(METHOD, &request).await.is_ok()
    }
}
