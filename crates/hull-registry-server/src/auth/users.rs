//! Users and passwords: a file of Apache's `htpasswd -B`, one `USER:BCRYPT-HASH` a line.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_oci::Digest;

use crate::Error;

/// Longer passwords than bcrypt sees would be cut silently.
const MAX_PASSWORD: usize = 72;

/// Checked credentials that are remembered.
const MOST_KNOWN: usize = 1000;

/// Compared with when a user is not known, so that the answer takes as long.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuuB4M0hyLWZ2Yq6IKjFnW2vmjdJ3Zl0Fm";

/// Users and the hashes of their passwords. The file is read again when it has changed.
pub(crate) struct Users {
    path: PathBuf,
    hashes: Mutex<Hashes>,
    /// Digests of credentials that were right, as bcrypt is slow on purpose.
    known: Mutex<Vec<Digest>>,
    /// One comparison at a time: many would take all cores.
    turn: Mutex<()>,
}

/// What a file said, and which state of the file that was.
struct Hashes {
    users: HashMap<String, String>,
    state: Option<State>,
}

/// Inode, length and time: a file that is replaced or written changes one of them.
type State = (u64, u64, i64, i64);

fn state(path: &Path) -> Option<State> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

impl std::fmt::Debug for Users {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Users").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Reads a file of users.
fn parse(path: &Path) -> Result<HashMap<String, String>, Error> {
    let io = |source| Error::File { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(io)?;
    let mut hashes = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = line.split_once(':').filter(|(_, hash)| {
            ["$2y$", "$2a$", "$2b$", "$2x$"].iter().any(|prefix| hash.starts_with(prefix)) && hash.len() == 60
        });
        let Some((user, hash)) = entry else {
            return Err(Error::Htpasswd { path: path.to_owned(), line: number + 1 });
        };
        hashes.insert(user.to_owned(), hash.to_owned());
    }
    Ok(hashes)
}

impl Users {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let hashes = Hashes { state: state(path), users: parse(path)? };
        let (known, turn) = (Mutex::default(), Mutex::default());
        Ok(Self { path: path.to_owned(), hashes: Mutex::new(hashes), known, turn })
    }

    /// The hash of a user's password, as the file has it now.
    fn hash(&self, user: &str) -> Option<String> {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = state(&self.path);
        if now != hashes.state {
            // What cannot be read counts for nothing until it changes again.
            match parse(&self.path) {
                Ok(users) => hashes.users = users,
                Err(error) => crate::log(format_args!("the users stay as they were: {error}")),
            }
            hashes.state = now;
        }
        hashes.users.get(user).cloned()
    }

    /// The user that an `Authorization` header names and proves to be. Takes long for new credentials.
    pub(crate) fn login(&self, header: &str) -> Option<String> {
        let (_, text) = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))?;
        let decoded = String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        self.is_right(user, password).then(|| user.to_owned())
    }

    /// Whether this is the user's password. Takes long for new ones.
    pub(crate) fn is_right(&self, user: &str, password: &str) -> bool {
        let hash = self.hash(user);
        let hash = hash.as_deref();
        let secret = Digest::of(format!("{}\0{user}\0{password}", hash.unwrap_or_default()).as_bytes());
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&secret) {
            return true;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&secret) {
            return true;
        }
        let fits = bcrypt::verify(password, hash.unwrap_or(NOBODY)).unwrap_or(false);
        if !fits || hash.is_none() || password.len() > MAX_PASSWORD {
            return false;
        }
        let mut known = known();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.push(secret);
        true
    }

    /// What changes with the user's password; nothing for one that is not known.
    pub(crate) fn mark(&self, user: &str) -> Option<String> {
        let hash = self.hash(user)?;
        Some(Digest::of(format!("{user}\0{hash}").as_bytes()).hex()[..32].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_their_passwords() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("htpasswd");
        let hash = bcrypt::hash("secret", 4).expect("hash").replacen("$2b$", "$2y$", 1);
        std::fs::write(&path, format!("# users\n\nanna:{hash}\n")).expect("written");
        let users = Users::read(&path).expect("read");
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(users.login(&basic("anna:secret")).as_deref(), Some("anna"));
        assert_eq!(users.login(&basic("anna:secret")).as_deref(), Some("anna"), "the second time it is remembered");
        for wrong in ["anna:Secret", "anna:", "otto:secret", "anna", ":"] {
            assert_eq!(users.login(&basic(wrong)), None, "{wrong}");
        }
        assert!(bcrypt::verify("x", NOBODY).is_ok(), "as slow as any other");
        assert!(users.login("").is_none() && users.login("Basic %%%").is_none() && users.login("Bearer x").is_none());
        assert!(users.mark("anna").is_some() && users.mark("otto").is_none());
        // A user who was added is known without a new start; a broken file changes nothing.
        std::fs::write(&path, format!("anna:{hash}\notto:{hash}\n")).expect("written");
        assert_eq!(users.login(&basic("otto:secret")).as_deref(), Some("otto"));
        std::fs::write(&path, "nonsense").expect("written");
        assert_eq!(users.login(&basic("otto:secret")).as_deref(), Some("otto"));
        std::fs::write(&path, format!("anna:{hash}\n")).expect("written");
        assert_eq!(users.login(&basic("otto:secret")), None);
        std::fs::write(&path, "anna:{SHA}abc\n").expect("written");
        assert!(Users::read(&path).expect_err("refused").to_string().contains("line 1"));
    }
}
