//! An archive's signed lists: which packages it has, verified from the keyring down to each index.

use std::fs;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::atomic::AtomicU64;

use hull_oci::digest::Digest;

use crate::apt::{Keys, Source};
use crate::deb::{Bounded, xz};
use crate::error::{Error, one_line};
use crate::fetch::{Cache, Client, Wanted};
use crate::openpgp::Keyring;
use crate::release::{DateChecks, Release};

/// Bytes of a Release file.
const MAX_RELEASE: u64 = 32 << 20;

/// Bytes of an index as it is sent.
const MAX_INDEX: u64 = 512 << 20;

/// Bytes of an index as it is read.
const MAX_TEXT: u64 = 1 << 30;

/// Bytes of a keyring.
const MAX_KEYRING: u64 = 64 << 20;

/// An archive whose lists were verified.
#[derive(Debug)]
pub struct Archive {
    /// Where it is.
    pub source: Source,
    /// What is signed.
    pub release: Release,
    /// Digest of the text that is signed.
    pub sha256: String,
    /// The texts of its indexes, for [`crate::index::parse`].
    pub indexes: Vec<String>,
}

/// What [`load`] works with.
#[derive(Debug)]
pub struct Access<'a> {
    /// Downloads.
    pub client: &'a Client,
    /// Indexes are kept here.
    pub cache: &'a Cache,
    /// Seconds since 1970.
    pub now: u64,
    /// Which dates are looked at.
    pub checks: DateChecks,
}

/// Reads the keys that may sign an archive.
///
/// # Errors
/// [`Error::Keyring`].
pub fn keyring(keys: &Keys, uri: &str) -> Result<Keyring, Error> {
    let mut keyring = Keyring::default();
    if let Some(text) = &keys.embedded {
        keyring.add(text.as_bytes(), &format!("of the source {uri}"))?;
    }
    let mut refused = None;
    for path in &keys.files {
        let result = read(path).and_then(|bytes| keyring.add(&bytes, &path.display().to_string()));
        // Of several keyrings one may be what only gpg reads.
        refused = refused.or(result.err());
    }
    if !keys.fingerprints.is_empty() {
        keyring.keep(&keys.fingerprints);
    }
    if keyring.is_empty() {
        return Err(refused.unwrap_or_else(|| Error::Keyring {
            object: format!("for {}", one_line(uri)),
            reason: "none is configured: install the distribution's keyring package, or give --keyring".to_owned(),
        }));
    }
    Ok(keyring)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let wrong =
        |error: std::io::Error| Error::Keyring { object: path.display().to_string(), reason: error.to_string() };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(wrong)?.take(MAX_KEYRING).read_to_end(&mut bytes).map_err(wrong)?;
    Ok(bytes)
}

/// Gets and verifies the Release file of a suite.
///
/// # Errors
/// [`Error::Signature`], [`Error::Release`], [`Error::Download`].
pub fn release(access: &Access<'_>, source: &Source) -> Result<(Release, String), Error> {
    let keyring = keyring(&source.keys, &source.uri)?;
    let base = base(source);
    let inline = format!("{base}/InRelease");
    let (text, url) = match access.client.read(&inline, MAX_RELEASE) {
        Ok(bytes) => (keyring.open_inline(&bytes, access.now, &inline)?, inline),
        Err(Error::Download { missing: true, .. }) => {
            let plain = format!("{base}/Release");
            let bytes = access.client.read(&plain, MAX_RELEASE)?;
            let signature = access.client.read(&format!("{plain}.gpg"), MAX_RELEASE)?;
            keyring.check_detached(&signature, &bytes, access.now, &plain)?;
            let text = String::from_utf8(bytes).map_err(|_| Error::format(&plain, "it is no text"))?;
            (text, plain)
        }
        Err(error) => return Err(error),
    };
    let release = Release::parse(&text, &url)?;
    release.check(&source.suite, access.now, access.checks, &url)?;
    Ok((release, Digest::of(text.as_bytes()).hex().to_owned()))
}

fn base(source: &Source) -> String {
    format!("{}/dists/{}", source.uri.trim_end_matches('/'), source.suite.trim_matches('/'))
}

/// Gets and verifies the indexes of a suite for an architecture.
///
/// # Errors
/// [`Error::Release`] when it has no index of a component, [`Error::Mismatch`], [`Error::Download`].
pub fn load(access: &Access<'_>, source: Source, architecture: &str) -> Result<Archive, Error> {
    let (release, sha256) = release(access, &source)?;
    let base = base(&source);
    let mut indexes = Vec::new();
    for component in &source.components {
        let component = release.component(component);
        let mut architectures = vec![architecture];
        if release.separate_all {
            architectures.push("all");
        }
        for one in architectures {
            let path = format!("{component}/binary-{one}/Packages");
            let listed = [".xz", ".gz", ""].into_iter().find_map(|ending| {
                let path = format!("{path}{ending}");
                release.file(&path).map(|file| (path, file, ending))
            });
            let Some((path, file, ending)) = listed else {
                if one == "all" {
                    continue;
                }
                let reason = format!(
                    "it has no packages of component {component:?} for {one}; it has {} for {}",
                    release.components.join(" "),
                    release.architectures.join(" ")
                );
                return Err(Error::Release { object: one_line(&base), reason: one_line(&reason) });
            };
            let url = format!("{base}/{path}");
            if file.size > MAX_INDEX {
                return Err(Error::format(&url, format!("it is longer than {MAX_INDEX} bytes")));
            }
            let mut urls = vec![url.clone()];
            if release.by_hash
                && let Some((directory, _)) = url.rsplit_once('/')
            {
                urls.insert(0, format!("{directory}/by-hash/SHA256/{}", file.sha256));
            }
            let wanted = Wanted { size: file.size, sha256: file.sha256.clone() };
            let file = access.cache.get(access.client, &urls, &wanted, &AtomicU64::new(0))?;
            indexes.push(unpacked(file, ending, &url)?);
        }
    }
    Ok(Archive { source, release, sha256, indexes })
}

fn unpacked(file: fs::File, ending: &str, object: &str) -> Result<String, Error> {
    let reader = BufReader::with_capacity(128 << 10, file);
    let reader: Box<dyn Read> = match ending {
        ".xz" => Box::new(xz(reader).map_err(|error| Error::format(object, error))?),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        _ => Box::new(reader),
    };
    let mut text = String::new();
    let mut reader = Bounded { reader, left: MAX_TEXT };
    reader.read_to_string(&mut text).map_err(|error| Error::format(object, error))?;
    Ok(text)
}
