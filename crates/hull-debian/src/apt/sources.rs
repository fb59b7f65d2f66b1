//! sources.list(5): the one-line and the deb822 form.

use std::path::PathBuf;

use crate::control::paragraphs;

/// Which keys may sign an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Keyrings; empty means those that apt trusts for all archives, unless there is an embedded key.
    pub files: Vec<PathBuf>,
    /// Only these keys of the keyrings; empty means all.
    pub fingerprints: Vec<String>,
    /// An armored key that stands in the source itself.
    pub embedded: Option<String>,
}

/// One suite of one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The archive's root.
    pub uri: String,
    /// Such as `bookworm-updates`.
    pub suite: String,
    /// Such as `main`.
    pub components: Vec<String>,
    /// Only these; empty means all.
    pub architectures: Vec<String>,
    /// Who may sign it.
    pub keys: Keys,
}

/// Sources of the one-line form. Lines that cannot be read are passed over.
pub(super) fn one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(|line| line_source(line.split('#').next().unwrap_or_default())).collect()
}

fn line_source(line: &str) -> Option<Source> {
    let mut rest = line.trim().strip_prefix("deb")?.trim_start_matches([' ', '\t']);
    // `deb-src` leaves a hyphen here.
    if rest.starts_with('-') || rest.len() == line.trim().len() - 3 {
        return None;
    }
    let (mut keys, mut architectures) = (Keys::default(), Vec::new());
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        rest = after;
        for option in options.split_ascii_whitespace() {
            let Some((name, value)) = option.split_once('=') else { continue };
            match name.trim_end_matches(['+', '-']) {
                "arch" => architectures = value.split(',').map(str::to_owned).collect(),
                "signed-by" => keys = signed_by(&value.replace(',', " ")),
                _ => {}
            }
        }
    }
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Source { uri, suite, components: words.collect(), architectures, keys })
}

/// Sources of the deb822 form.
pub(super) fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for paragraph in paragraphs(text) {
        let disabled = paragraph.get("Enabled").is_some_and(|value| ["no", "false", "off", "0"].contains(&value));
        if disabled || !paragraph.words("Types").contains(&"deb") {
            continue;
        }
        let own =
            |name: &str| paragraph.words(name).into_iter().filter(|word| *word != "#").map(str::to_owned).collect();
        let (components, architectures): (Vec<String>, Vec<String>) = (own("Components"), own("Architectures"));
        let keys = paragraph.get("Signed-By").map(signed_by).unwrap_or_default();
        for uri in paragraph.words("URIs") {
            for suite in paragraph.words("Suites") {
                sources.push(Source {
                    uri: uri.to_owned(),
                    suite: suite.to_owned(),
                    components: components.clone(),
                    architectures: architectures.clone(),
                    keys: keys.clone(),
                });
            }
        }
    }
    sources
}

fn signed_by(value: &str) -> Keys {
    if value.contains("-----BEGIN") {
        // A line with a dot alone stands for an empty one.
        let lines: Vec<&str> = value.lines().map(str::trim).map(|line| if line == "." { "" } else { line }).collect();
        return Keys { embedded: Some(lines.join("\n") + "\n"), ..Keys::default() };
    }
    let mut keys = Keys::default();
    for word in value.split(|one: char| one.is_ascii_whitespace() || one == ',').filter(|word| !word.is_empty()) {
        if word.starts_with('/') {
            keys.files.push(PathBuf::from(word));
        } else {
            keys.fingerprints.push(word.trim_end_matches('!').to_ascii_uppercase());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let sources = one_line(
            "# deb http://no/debian x main\ndeb http://a/debian bookworm main contrib # why\n\
             deb-src http://a/debian bookworm main\ndeb [arch=amd64,arm64 signed-by=/k.gpg,/l.gpg trusted=yes] https://b/ub jammy main\n\
             deb\ndebby x y z\ndeb [broken http://c d e\n",
        );
        assert_eq!(sources.len(), 2);
        assert_eq!((sources[0].uri.as_str(), sources[0].suite.as_str()), ("http://a/debian", "bookworm"));
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(sources[1].architectures, ["amd64", "arm64"]);
        assert_eq!(sources[1].keys.files, [PathBuf::from("/k.gpg"), PathBuf::from("/l.gpg")]);
    }

    #[test]
    fn stanzas() {
        let sources = deb822(
            "Types: deb deb-src\n# note\nURIs: http://a/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\
             Signed-By: /usr/share/keyrings/k.gpg\n\nTypes: deb\nEnabled: no\nURIs: http://b\nSuites: x\n\n\
             Types: deb-src\nURIs: http://c\nSuites: y\n\nTypes: deb\nURIs: http://d\nSuites: z\nSigned-By:\n \
             -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n\n\
             Types: deb\nURIs: http://e\nSuites: z\nSigned-By: abcdef0123456789abcdef0123456789abcdef01!\n",
        );
        let names: Vec<_> = sources.iter().map(|one| format!("{} {}", one.uri, one.suite)).collect();
        assert_eq!(names, ["http://a/debian bookworm", "http://a/debian bookworm-updates", "http://d z", "http://e z"]);
        assert_eq!(sources[0].keys.files, [PathBuf::from("/usr/share/keyrings/k.gpg")]);
        let embedded = sources[2].keys.embedded.as_deref().expect("a key");
        assert!(embedded.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n"), "{embedded:?}");
        assert_eq!(sources[3].keys.fingerprints, ["ABCDEF0123456789ABCDEF0123456789ABCDEF01"]);
    }
}
