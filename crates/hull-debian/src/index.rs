//! Packages indexes: what an archive has, in the order of its text.

use crate::control::{Paragraph, paragraphs};
use crate::error::Error;
use crate::release::is_sha256;
use crate::{relation, version};

/// A package of an index. Texts are of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package<'t> {
    /// Name.
    pub name: &'t str,
    /// Version.
    pub version: &'t str,
    /// Architecture, or `all`.
    pub architecture: &'t str,
    /// Path below the archive's root.
    pub path: &'t str,
    /// Bytes.
    pub size: u64,
    /// Of the file.
    pub sha256: &'t str,
    /// Such as `required`.
    pub priority: &'t str,
    /// Whether dpkg wants it on every system.
    pub essential: bool,
    /// Relations that must hold before it can be unpacked.
    pub pre_depends: &'t str,
    /// Relations that must hold before it can be configured.
    pub depends: &'t str,
    /// What it can stand for.
    pub provides: &'t str,
    /// What it cannot be unpacked beside.
    pub conflicts: &'t str,
    /// What it cannot be configured beside.
    pub breaks: &'t str,
    /// Number of the archive that has it.
    pub source: usize,
}

impl<'t> Package<'t> {
    /// The relations that must hold.
    pub fn dependencies(&self) -> impl Iterator<Item = Vec<relation::Relation<'t>>> + use<'t> {
        relation::parse(self.pre_depends).into_iter().chain(relation::parse(self.depends))
    }

    fn read(paragraph: &Paragraph<'t>, source: usize) -> Option<Self> {
        let text = |name: &str| paragraph.get(name).unwrap_or_default();
        let package = Self {
            name: paragraph.get("Package")?,
            version: paragraph.get("Version")?,
            architecture: paragraph.get("Architecture")?,
            path: paragraph.get("Filename")?,
            size: paragraph.get("Size")?.parse().ok()?,
            sha256: paragraph.get("SHA256")?,
            priority: text("Priority"),
            essential: paragraph.yes("Essential"),
            pre_depends: text("Pre-Depends"),
            depends: text("Depends"),
            provides: text("Provides"),
            conflicts: text("Conflicts"),
            breaks: text("Breaks"),
            source,
        };
        Some(package)
    }
}

/// The packages of an index for one architecture.
///
/// # Errors
/// [`Error::Format`] when a package has a name, version, digest or path that none can have.
pub fn parse<'t>(text: &'t str, architecture: &str, source: usize, object: &str) -> Result<Vec<Package<'t>>, Error> {
    let mut packages = Vec::new();
    for paragraph in paragraphs(text) {
        let Some(package) = Package::read(&paragraph, source) else {
            let name: String = paragraph.get("Package").unwrap_or("without a name").chars().take(64).collect();
            return Err(Error::format(object, format!("package {name} lacks a field, or its size is no number")));
        };
        if package.architecture != architecture && package.architecture != "all" {
            continue;
        }
        check(&package).map_err(|reason| {
            let name: String = package.name.chars().take(64).collect();
            Error::format(object, format!("package {name:?}: {reason}"))
        })?;
        packages.push(package);
    }
    Ok(packages)
}

fn check(package: &Package<'_>) -> Result<(), String> {
    if !is_name(package.name) {
        return Err("that is no package name".to_owned());
    }
    if !version::is_valid(package.version) {
        return Err(format!("{:?} is no version", package.version));
    }
    if !is_sha256(package.sha256) {
        return Err(format!("{:?} is no SHA-256 digest", package.sha256));
    }
    check_path(package.path)
}

/// Whether a text is a package name (deb-control(5)).
#[must_use]
pub fn is_name(text: &str) -> bool {
    let lower = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit();
    (2..=200).contains(&text.len())
        && text.starts_with(lower)
        && text.chars().all(|one| lower(one) || "+-.".contains(one))
}

/// Refuses paths that lead out of the archive, or into another part of a URL.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    let plain = |one: char| one.is_ascii_graphic() && !"?#\\%".contains(one);
    let parts_ok = path.split('/').all(|part| !part.is_empty() && part != "..");
    if path.len() > 1000 || path.contains("://") || !parts_ok || !path.chars().all(plain) {
        return Err(format!("its path {path:?} leads out of the archive or has characters that no path may have"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn entry(name: &str, version: &str, path: &str, digest: &str) -> String {
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: {path}\nSize: 5\nSHA256: {digest}\n\n"
        )
    }

    #[test]
    fn packages_of_one_architecture() {
        let text = entry("a1", "1", "pool/a.deb", DIGEST)
            + &entry("b1", "1", "./pool/b.deb", DIGEST).replace("amd64", "arm64")
            + &entry("c1", "2", "pool/c.deb", DIGEST).replace("amd64", "all");
        let names: Vec<_> = parse(&text, "amd64", 0, "x").expect("parse").iter().map(|one| one.name).collect();
        assert_eq!(names, ["a1", "c1"]);
    }

    #[test]
    fn hostile_fields_are_refused() {
        let long = "a".repeat(300);
        for (text, said) in [
            (entry("../a", "1", "a.deb", DIGEST), "no package name"),
            (entry(&long, "1", "a.deb", DIGEST), "no package name"),
            (entry("aa", "1/2", "a.deb", DIGEST), "no version"),
            (entry("aa", "1", "a.deb", "../x"), "no SHA-256"),
            (entry("aa", "1", "../../etc/passwd", DIGEST), "leads out"),
            (entry("aa", "1", "/etc/passwd", DIGEST), "leads out"),
            (entry("aa", "1", "http://elsewhere/a.deb", DIGEST), "leads out"),
            (entry("aa", "1", "a.deb?x=1", DIGEST), "leads out"),
            (entry("aa", "1", "a%2e%2e/b", DIGEST), "leads out"),
            (entry("aa", "1", "a.deb", DIGEST).replace("Size: 5", "Size: -5"), "lacks a field"),
        ] {
            let error = parse(&text, "amd64", 0, "index").expect_err(said).to_string();
            assert!(error.contains(said) && !error.contains('\n'), "{error}");
        }
    }
}
