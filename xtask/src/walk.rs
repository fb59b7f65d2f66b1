//! Keeps ARCHITECTURE.md true: every `path/to/file.rs:name` and every path that it names in backquotes exists.

/// One place that a document names.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    path: &'a str,
    /// A function, type or module defined there.
    name: Option<&'a str>,
}

/// The files and names in backquotes.
fn places(document: &str) -> Vec<Place<'_>> {
    let quoted = document.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|text| {
            let (path, name) = match text.split_once(".rs:") {
                Some((stem, name)) => (&text[..stem.len() + 3], Some(name)),
                None => (text, None),
            };
            let is_path = path.contains('/') && (path.ends_with(".rs") || path.ends_with(".md"));
            (is_path && !path.contains([' ', '*', '<'])).then_some(Place { path, name })
        })
        .collect()
}

/// Whether Rust source defines `name`.
fn defines(source: &str, name: &str) -> bool {
    let last = name.rsplit("::").next().unwrap_or(name);
    let ends = |rest: &str| rest.chars().next().is_none_or(|next| !next.is_alphanumeric() && next != '_');
    ["fn ", "struct ", "enum ", "trait ", "const ", "static ", "mod ", "type "].iter().any(|keyword| {
        let wanted = format!("{keyword}{last}");
        source.match_indices(&wanted).any(|(at, found)| ends(&source[at + found.len()..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn architecture_names_what_exists() {
        let root = workspace();
        let mut faults = Vec::new();
        for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "docs/kernel-features.md"] {
            let text = std::fs::read_to_string(root.join(document)).unwrap();
            for Place { path, name } in places(&text) {
                match (std::fs::read_to_string(root.join(path)), name) {
                    (Err(error), _) => faults.push(format!("{document}: {path}: {error}")),
                    (Ok(source), Some(name)) if !defines(&source, name) => {
                        faults.push(format!("{document}: {path} does not define {name}"));
                    }
                    _ => {}
                }
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn places_are_what_stands_in_backquotes() {
        let text = "x `crates/a/src/lib.rs:main` y `docs/a.md` z `a/b c.rs` `hull run` crates/no/a.rs";
        let found = places(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Place { path: "crates/a/src/lib.rs", name: Some("main") });
        assert_eq!(found[1], Place { path: "docs/a.md", name: None });
    }

    #[test]
    fn a_definition_is_more_than_a_prefix() {
        assert!(defines("pub(crate) fn run(x: u8) {}", "run"));
        assert!(defines("impl A { fn new<T>() {} }", "A::new"));
        assert!(!defines("fn running() {}", "run"));
    }
}
