//! Programs that keep secrets: `docker-credential-NAME get|store|erase`, with the server's name or a JSON document on
//! standard input and JSON on standard output, as Docker's credential-helper protocol has it.
//!
//! A name comes from the user's own configuration but must be a plain word, so that it names a program in `PATH` and
//! nothing else. A helper that hangs is the user's to interrupt: it may be asking for a passphrase.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Credential, CredentialError};

/// Answers longer than this are cut off.
const MAX_ANSWER: u64 = 1 << 20;

/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks for the credential of a server; `None` when the helper knows none.
///
/// # Errors
/// [`CredentialError::Helper`].
pub fn get(name: &str, server: &str) -> Result<Option<Credential>, CredentialError> {
    let (success, answer) = run(name, "get", server.as_bytes())?;
    if !success {
        let said = answer.to_ascii_lowercase();
        if said.contains("credentials not found") || said.contains("no credentials") {
            return Ok(None);
        }
        return Err(failed(name, &answer));
    }
    let document: Document = serde_json::from_str(&answer).map_err(|_| CredentialError::Helper {
        name: name.to_owned(),
        reason: "answer is not valid JSON".to_owned(),
    })?;
    if document.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if document.username == TOKEN_USER {
        Credential::Identity(document.secret)
    } else {
        Credential::Password { username: document.username, password: document.secret }
    }))
}

/// Hands a credential over.
///
/// # Errors
/// [`CredentialError::Helper`].
pub fn store(name: &str, server: &str, credential: &Credential) -> Result<(), CredentialError> {
    let (username, secret) = match credential {
        Credential::Password { username, password } => (username.as_str(), password.as_str()),
        Credential::Identity(token) | Credential::Bearer(token) => (TOKEN_USER, token.as_str()),
    };
    let document = Document { server: server.to_owned(), username: username.to_owned(), secret: secret.to_owned() };
    let json = serde_json::to_vec(&document)
        .map_err(|error| CredentialError::Helper { name: name.to_owned(), reason: error.to_string() })?;
    match run(name, "store", &json)? {
        (true, _) => Ok(()),
        (false, answer) => Err(failed(name, &answer)),
    }
}

/// Makes the helper forget a server. One that knew nothing of it is no failure.
///
/// # Errors
/// [`CredentialError::Helper`].
pub fn erase(name: &str, server: &str) -> Result<(), CredentialError> {
    match run(name, "erase", server.as_bytes())? {
        (true, _) => Ok(()),
        (false, answer) if answer.to_ascii_lowercase().contains("not found") => Ok(()),
        (false, answer) => Err(failed(name, &answer)),
    }
}

fn failed(name: &str, answer: &str) -> CredentialError {
    let reason = hull_oci::spec::one_line(answer.trim());
    CredentialError::Helper { name: name.to_owned(), reason }
}

/// Whether it succeeded, and what it said.
fn run(name: &str, verb: &str, input: &[u8]) -> Result<(bool, String), CredentialError> {
    let fail = |reason: String| CredentialError::Helper { name: name.to_owned(), reason };
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(word) {
        return Err(fail("its name must be letters, digits, `-`, `_` and `.`".to_owned()));
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| fail(format!("start: {error}; is it in PATH?")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input says why by its exit status.
        let _ = stdin.write_all(input);
    }
    let mut answer = String::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = stdout.take(MAX_ANSWER).read_to_string(&mut answer);
    }
    let status = child.wait().map_err(|error| fail(format!("wait: {error}")))?;
    Ok((status.success(), answer))
}
