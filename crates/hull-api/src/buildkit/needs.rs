//! What a Dockerfile may ask of the client: secrets, agents, registries. It is a guess from the text, made before the
//! build runs: a client is asked for what is named, and what it does not have is the build's affair.

use std::collections::BTreeSet;

use hull_oci::Reference;

/// More of each are not asked for.
const MOST: usize = 64;

/// What is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// IDs of secrets.
    pub(super) secrets: BTreeSet<String>,
    /// IDs of agents.
    pub(super) agents: BTreeSet<String>,
    /// Registries, as references name them.
    pub(super) registries: BTreeSet<String>,
}

impl Needs {
    /// Reads a Dockerfile.
    pub(super) fn of(dockerfile: &[u8]) -> Self {
        let text = String::from_utf8_lossy(dockerfile);
        let mut needs = Self::default();
        for word in text.split_whitespace() {
            if let Some(mount) = word.strip_prefix("--mount=") {
                needs.mount(mount.trim_matches(['"', '\'']));
            } else if let Some(image) = word.strip_prefix("--from=") {
                needs.image(image);
            }
        }
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if words.next().is_some_and(|word| word.eq_ignore_ascii_case("FROM"))
                && let Some(image) = words.find(|word| !word.starts_with("--"))
            {
                needs.image(image);
            }
        }
        needs
    }

    fn mount(&mut self, text: &str) {
        let field = |name: &str| {
            text.split(',')
                .find_map(|field| field.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
        };
        let target = || field("target").or(field("dst")).or(field("destination"));
        match field("type") {
            Some("secret") => {
                let id = field("id").or_else(|| target()?.rsplit('/').next());
                if let Some(id) = id.filter(|id| !id.is_empty() && self.secrets.len() < MOST) {
                    self.secrets.insert(id.to_owned());
                }
            }
            Some("ssh") if self.agents.len() < MOST => {
                self.agents.insert(field("id").unwrap_or("default").to_owned());
            }
            _ => {}
        }
        if let Some(image) = field("from") {
            self.image(image);
        }
    }

    /// A name that may be an image's, or a stage's.
    pub(super) fn image(&mut self, text: &str) {
        if let Ok(name) = text.parse::<Reference>()
            && self.registries.len() < MOST
        {
            self.registries.insert(name.domain().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_and_images_are_found() {
        let text = "# syntax=docker/dockerfile:1\nfrom --platform=$BUILDPLATFORM r.example:5000/base:1 AS b\n\
                    RUN --mount=type=secret,id=token,env=T \\\n  --mount=type=secret,target=/run/secrets/other cat\n\
                    RUN --mount=type=ssh git clone x\nRUN --mount=type=ssh,id=two --mount=type=cache,target=/c x\n\
                    FROM scratch\nCOPY --from=ghcr.example/x/y /a /b\nCOPY --from=b /a /b\n";
        let needs = Needs::of(text.as_bytes());
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(needs.secrets, set(&["other", "token"]));
        assert_eq!(needs.agents, set(&["default", "two"]));
        assert_eq!(needs.registries, set(&["docker.io", "ghcr.example", "r.example:5000"]));
        assert_eq!(Needs::of(b""), Needs::default());
    }

    proptest::proptest! {
        #[test]
        fn anything_is_read(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let _ = Needs::of(&bytes);
        }
    }
}
