//! Release files: what an archive's signature covers.
//!
//! The file names every index with size and digest. Only SHA-256 is read: older digests are ignored, so an archive that
//! has nothing better is refused. `Date` and `Valid-Until` bound how old an answer a mirror can give.

use std::collections::BTreeMap;

use crate::control::{Paragraph, paragraphs};
use crate::error::{Error, one_line};
use crate::time;

/// Seconds that the archive's clock may be ahead (apt's `Acquire::Max-FutureTime`).
const MAX_AHEAD: u64 = 10;

/// Which of the dates are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateChecks {
    /// Refuse what says that it is no longer valid.
    pub valid_until: bool,
    /// Refuse what comes from the future.
    pub date: bool,
}

impl Default for DateChecks {
    fn default() -> Self {
        Self { valid_until: true, date: true }
    }
}

/// Size and digest of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Bytes.
    pub size: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// A Release file whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Such as `stable`.
    pub suite: String,
    /// Such as `bookworm`.
    pub codename: String,
    /// Such as `Debian`.
    pub origin: String,
    /// Seconds since 1970.
    pub date: u64,
    /// Seconds since 1970.
    pub valid_until: Option<u64>,
    /// Architectures; `all` among them.
    pub architectures: Vec<String>,
    /// Components as they are in index paths.
    pub components: Vec<String>,
    /// Whether indexes can be had by their digest, so that an update in between does not matter.
    pub by_hash: bool,
    /// Whether packages of all architectures are only in the index of `all`.
    pub separate_all: bool,
    files: BTreeMap<String, File>,
}

impl Release {
    /// Reads the text that was signed. `object` is for errors.
    ///
    /// # Errors
    /// [`Error::Release`] when a field is missing or cannot be read.
    pub fn parse(text: &str, object: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Release { object: one_line(object), reason: one_line(&reason) };
        let paragraph = paragraphs(text).next().unwrap_or_default();
        let words = |name: &str| paragraph.words(name).into_iter().map(str::to_owned).collect();
        let moment = |name: &str| {
            let Some(text) = paragraph.get(name) else { return Ok(None) };
            time::parse(text).map(Some).ok_or_else(|| wrong(format!("{name} {text:?} is no date in UTC")))
        };
        let date = moment("Date")?.ok_or_else(|| wrong("it has no Date".to_owned()))?;
        let files = files(&paragraph).ok_or_else(|| wrong("it has no list of SHA256 digests".to_owned()))?;
        let text = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        let architectures: Vec<String> = words("Architectures");
        let separate_all = architectures.iter().any(|one| one == "all")
            && !paragraph.words("No-Support-for-Architecture-all").contains(&"Packages");
        Ok(Self {
            suite: text("Suite"),
            codename: text("Codename"),
            origin: text("Origin"),
            date,
            valid_until: moment("Valid-Until")?,
            architectures,
            components: words("Components"),
            by_hash: paragraph.yes("Acquire-By-Hash"),
            separate_all,
            files,
        })
    }

    /// Refuses a file of another suite, or one that is not valid at `now`.
    ///
    /// # Errors
    /// [`Error::Release`].
    pub fn check(&self, wanted: &str, now: u64, checks: DateChecks, object: &str) -> Result<(), Error> {
        let wrong = |reason: String| Error::Release { object: one_line(object), reason: one_line(&reason) };
        let wanted = wanted.trim_end_matches('/');
        if self.suite != wanted && self.codename != wanted {
            return Err(wrong(format!("it is of suite {:?} ({:?}), not {wanted:?}", self.suite, self.codename)));
        }
        if checks.date && self.date > now.saturating_add(MAX_AHEAD) {
            let date = time::format(self.date);
            return Err(wrong(format!("its Date {date} is in the future: is this machine's clock right?")));
        }
        if let Some(until) = self.valid_until.filter(|until| checks.valid_until && *until < now) {
            let until = time::format(until);
            return Err(wrong(format!(
                "it expired on {until}: the mirror is out of date, or the suite is archived; --ignore-valid-until takes it all the same"
            )));
        }
        Ok(())
    }

    /// An index by its path below the suite's directory.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }

    /// A component's name in index paths: security archives have `updates/main` for `main`.
    #[must_use]
    pub fn component<'a>(&'a self, wanted: &'a str) -> &'a str {
        let suffix = self.components.iter().find(|one| one.rsplit('/').next() == Some(wanted));
        match suffix {
            Some(found) if self.file_of(found).is_none() && self.file_of(wanted).is_some() => wanted,
            Some(found) => found,
            None => wanted,
        }
    }

    fn file_of(&self, component: &str) -> Option<&File> {
        let prefix = format!("{component}/binary-");
        self.files.range(prefix.clone()..).next().filter(|(path, _)| path.starts_with(&prefix)).map(|(_, file)| file)
    }
}

fn files(paragraph: &Paragraph<'_>) -> Option<BTreeMap<String, File>> {
    let mut files = BTreeMap::new();
    for line in paragraph.get("SHA256")?.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [sha256, size, path] = words[..] else { continue };
        if is_sha256(sha256)
            && let Ok(size) = size.parse()
        {
            files.insert(path.to_owned(), File { size, sha256: sha256.to_owned() });
        }
    }
    Some(files)
}

/// Whether a text is a digest as archives write it.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn text() -> String {
        format!(
            "Origin: Debian\nSuite: stable\nCodename: bookworm\nDate: Sat, 14 Jun 2025 09:15:31 UTC\n\
             Valid-Until: Sat, 21 Jun 2025 09:15:31 UTC\nArchitectures: all amd64\nComponents: updates/main\n\
             Acquire-By-Hash: yes\nMD5Sum:\n x 0 a\nSHA256:\n {DIGEST} 12 main/binary-amd64/Packages.xz\n short 1 b\n"
        )
    }

    #[test]
    fn fields_and_files() {
        let release = Release::parse(&text(), "x").expect("parse");
        assert_eq!((release.suite.as_str(), release.codename.as_str()), ("stable", "bookworm"));
        assert!(release.by_hash && release.separate_all);
        assert_eq!(release.file("main/binary-amd64/Packages.xz").map(|file| file.size), Some(12));
        assert_eq!(release.file("b"), None);
        // The list has paths without the prefix that the field has.
        assert_eq!(release.component("main"), "main");
    }

    #[test]
    fn dates_and_suite_are_checked() {
        let release = Release::parse(&text(), "x").expect("parse");
        let day = 86_400;
        let check = |suite, now| release.check(suite, now, DateChecks::default(), "x").map_err(|e| e.to_string());
        assert_eq!(check("bookworm", release.date), Ok(()));
        assert_eq!(check("stable", release.date + day), Ok(()));
        assert!(check("trixie", release.date).is_err_and(|text| text.contains("not \"trixie\"")));
        assert!(check("bookworm", release.date + 8 * day).is_err_and(|text| text.contains("expired on Sat, 21 Jun")));
        assert!(check("bookworm", release.date - day).is_err_and(|text| text.contains("future")));
        let off = DateChecks { valid_until: false, date: false };
        assert!(release.check("bookworm", release.date + 8 * day, off, "x").is_ok());
        assert!(release.check("bookworm", release.date - day, off, "x").is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        for (remove, said) in [("Date:", "no Date"), ("SHA256:", "SHA256")] {
            let error = Release::parse(&text().replace(remove, "X-Gone:"), "f").expect_err("incomplete");
            assert!(error.to_string().contains(said), "{error}");
        }
        let error = Release::parse(&text().replace("Jun 2025", "Foo 2025"), "f").expect_err("no date");
        assert!(error.to_string().contains("is no date"), "{error}");
    }
}
