//! Addresses of repositories, as contexts and `ADD` have them.

use crate::files::Error;
use crate::graph::GitSource;

/// Reads an address of a repository; `None` if the text is not one but a path or another address.
///
/// # Errors
/// What is wrong with the part after `#` or `?`.
#[must_use]
pub fn parse(text: &str) -> Option<Result<GitSource, Error>> {
    let (address, fragment) = match text.split_once('#') {
        Some((address, fragment)) => (address, Some(fragment)),
        None => (text, None),
    };
    let (address, query) = match address.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (address, None),
    };
    if !is_repository(address) {
        return None;
    }
    let url = if address.starts_with("github.com/") { format!("https://{address}") } else { address.to_owned() };
    Some(words(url, fragment, query))
}

pub(super) fn is_repository(address: &str) -> bool {
    let lower = address.to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        return lower.ends_with(".git");
    }
    if lower.starts_with("git://") || lower.starts_with("ssh://") || lower.starts_with("github.com/") {
        return true;
    }
    // USER@HOST:PATH
    let Some((user, rest)) = address.split_once('@') else { return false };
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    word(user) && rest.split_once(':').is_some_and(|(host, path)| word(host) && !path.is_empty())
}

fn words(url: String, fragment: Option<&str>, query: Option<&str>) -> Result<GitSource, Error> {
    let wrong = |reason: String| Error::Refused(format!("git address {url}: {reason}"));
    let mut source = GitSource { url: url.clone(), submodules: true, ..GitSource::default() };
    if let Some(fragment) = fragment {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        source.reference = reference.to_owned();
        source.subdir = subdir.to_owned();
    }
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value).ok_or_else(|| wrong(format!("{key:?} has a bad escape")))?;
        let flag = || match value.as_str() {
            "" | "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            other => Err(wrong(format!("{key} is {other:?}, expected true or false"))),
        };
        let reference = match key {
            "ref" => value,
            "tag" => format!("refs/tags/{value}"),
            "branch" => format!("refs/heads/{value}"),
            "subdir" => {
                if !source.subdir.is_empty() && source.subdir != value {
                    return Err(wrong("subdir is given twice".to_owned()));
                }
                source.subdir = value;
                continue;
            }
            "checksum" | "commit" => {
                source.checksum = Some(value);
                continue;
            }
            "keep-git-dir" => {
                source.keep_git_dir = flag()?;
                continue;
            }
            "submodules" => {
                source.submodules = flag()?;
                continue;
            }
            // Files have the commit's time here in any case, and commits are always asked for by name.
            "mtime" | "fetch-by-commit" => continue,
            other => return Err(wrong(format!("unexpected query {other:?}"))),
        };
        if !source.reference.is_empty() && source.reference != reference {
            return Err(wrong("ref conflicts".to_owned()));
        }
        source.reference = reference;
    }
    Ok(source)
}

/// `%2F` and the like.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}
