//! `cargo xtask layers`: the shape that ARCHITECTURE.md promises, checked against what cargo and the files say.
//!
//! The layer table is read from ARCHITECTURE.md: rows `| LAYER | crate | ...`, where LAYER is a number or `-` for what
//! stands beside the layers. A crate may depend on crates of lower layers only. Crates beside the layers may use any
//! crate, and are themselves used by tests alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::{Result, cargo, sources, workspace};

/// The longest a Rust file may be.
const MOST_LINES: usize = 700;

/// The only crate that may name libc or contain unsafe code.
const SYSTEM_CRATE: &str = "hull-sys";

/// Third-party crates that only certain crates may name directly.
const FENCED: &[(&str, &[&str])] = &[
    ("libc", &[SYSTEM_CRATE]),
    ("nix", &[]),
    ("regex", &[]),
    ("tokio", &["hull-api", "hull-registry-server"]),
    ("hyper", &["hull-api", "hull-registry-server"]),
];

/// Those of them that every crate's tests may name: they are clients of what is served.
const FREE_IN_TESTS: &[&str] = &["tokio", "hyper"];

/// A crate's place: a layer, or beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Layer(u32),
    Beside,
}

/// One `dependent -> dependency` of a workspace crate.
#[derive(Debug)]
struct Edge {
    from: String,
    to: String,
    /// Whether only tests use it.
    dev: bool,
}

/// Runs every check and prints what each looked at.
pub(crate) fn run() -> Result<()> {
    let root = workspace();
    let places = table(&std::fs::read_to_string(root.join("ARCHITECTURE.md"))?)?;
    let output = cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]).output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    let (members, edges) = workspace_edges(&serde_json::from_slice(&output.stdout)?)?;
    let mut faults = check_edges(&places, &members, &edges);
    let mut files = 0;
    for directory in ["crates", "xtask", "fuzz"] {
        let directory = root.join(directory);
        if directory.is_dir() {
            for path in sources::rust_files(&directory)? {
                files += 1;
                let name = path.strip_prefix(&root).unwrap_or(&path);
                faults.extend(check_file(name, &std::fs::read_to_string(&path)?));
            }
        }
    }
    if faults.is_empty() {
        println!("layers: {} crates, {} dependencies, {files} files in order", members.len(), edges.len());
        return Ok(());
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    Err(format!("{} faults", faults.len()).into())
}

/// Reads the layer table.
fn table(architecture: &str) -> Result<BTreeMap<String, Place>> {
    let mut places = BTreeMap::new();
    for line in architecture.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(layer), Some(name)) = (cells.next(), cells.next()) else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let place = match layer.parse() {
            Ok(layer) => Place::Layer(layer),
            Err(_) if layer == "-" => Place::Beside,
            Err(_) => continue,
        };
        places.insert(name.to_owned(), place);
    }
    if places.is_empty() { Err("ARCHITECTURE.md has no layer table".into()) } else { Ok(places) }
}

/// The workspace's crates and their direct dependencies.
fn workspace_edges(metadata: &Value) -> Result<(Vec<String>, Vec<Edge>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().ok_or("cargo metadata: no packages")?;
    let members = packages.iter().map(|package| text(&package["name"])).collect();
    let edges = packages.iter().flat_map(|package| {
        package["dependencies"].as_array().into_iter().flatten().map(|dependency| Edge {
            from: text(&package["name"]),
            to: text(&dependency["name"]),
            dev: dependency["kind"].as_str() == Some("dev"),
        })
    });
    Ok((members, edges.collect()))
}

/// What is wrong with the dependencies.
fn check_edges(places: &BTreeMap<String, Place>, members: &[String], edges: &[Edge]) -> Vec<String> {
    let mut faults = Vec::new();
    for member in members.iter().filter(|member| !places.contains_key(*member)) {
        faults.push(format!("{member}: not in the layer table of ARCHITECTURE.md"));
    }
    for name in places.keys().filter(|name| !members.contains(name)) {
        faults.push(format!("{name}: in the layer table of ARCHITECTURE.md, but no crate of the workspace"));
    }
    for Edge { from, to, dev } in edges {
        if let Some((_, owners)) = FENCED.iter().find(|(fenced, _)| fenced == to) {
            let is_free = *dev && FREE_IN_TESTS.contains(&to.as_str());
            if !owners.contains(&from.as_str()) && !is_free {
                faults.push(format!("{from} -> {to}: only {owners:?} may name it"));
            }
            continue;
        }
        match (places.get(from), places.get(to)) {
            (Some(Place::Layer(upper)), Some(Place::Layer(lower))) if lower >= upper => {
                faults.push(format!("{from} (layer {upper}) -> {to} (layer {lower}): dependencies point down only"));
            }
            (Some(Place::Layer(_)), Some(Place::Beside)) if !dev => {
                faults.push(format!("{from} -> {to}: only tests may use it"));
            }
            _ => {}
        }
    }
    faults
}

/// What is wrong with one Rust file.
fn check_file(path: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > MOST_LINES && !sources::is_generated(text) {
        faults.push(format!("{}: {lines} lines; more than {MOST_LINES} is more than one concern", path.display()));
    }
    if !path.starts_with(Path::new("crates").join(SYSTEM_CRATE)) {
        for line in sources::unsafe_lines(&sources::code_only(text)) {
            faults.push(format!("{}:{line}: unsafe code outside {SYSTEM_CRATE}", path.display()));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
| layer | crate | owns |
|---|---|---|
| 2 | `hull-cgroup` | cgroups |
| 2 | `hull-seccomp` | filters |
| 1 | `hull-fs` | paths |
| 0 | `hull-sys` | system calls |
| - | `hull-testkit` | tests |
";

    fn faults(edges: &[(&str, &str, bool)]) -> Vec<String> {
        let places = table(TABLE).unwrap();
        let members: Vec<String> = places.keys().cloned().collect();
        let edges: Vec<Edge> =
            edges.iter().map(|&(from, to, dev)| Edge { from: from.to_owned(), to: to.to_owned(), dev }).collect();
        check_edges(&places, &members, &edges)
    }

    #[test]
    fn edges_down_are_in_order() {
        let edges = [
            ("hull-cgroup", "hull-fs", false),
            ("hull-fs", "hull-sys", false),
            ("hull-sys", "libc", false),
            ("hull-fs", "hull-testkit", true),
            ("hull-testkit", "hull-cgroup", false),
            ("hull-fs", "serde", false),
        ];
        assert_eq!(faults(&edges), [""; 0]);
    }

    #[test]
    fn edges_up_sideways_and_across_fences_are_faults() {
        for edge in [
            ("hull-fs", "hull-cgroup", false),
            ("hull-fs", "hull-cgroup", true),
            ("hull-cgroup", "hull-seccomp", false),
            ("hull-fs", "libc", false),
            ("hull-fs", "hull-testkit", false),
            ("hull-sys", "nix", false),
        ] {
            assert_eq!(faults(&[edge]).len(), 1, "{edge:?}");
        }
    }

    #[test]
    fn the_table_and_the_workspace_name_the_same_crates() {
        let places = table(TABLE).unwrap();
        let mut members: Vec<String> = places.keys().cloned().collect();
        members.retain(|name| name != "hull-fs");
        members.push("hull-new".to_owned());
        let faults = check_edges(&places, &members, &[]);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn a_table_is_required() {
        assert!(table("# Architecture\n\n| a | b |\n").is_err());
    }

    #[test]
    fn long_files_and_unsafe_code_are_faults() {
        let long = "x\n".repeat(MOST_LINES + 1);
        assert_eq!(check_file(Path::new("crates/hull-fs/src/lib.rs"), &long).len(), 1);
        assert_eq!(check_file(Path::new("crates/hull-fs/src/lib.rs"), &format!("// @generated\n{long}")), [""; 0]);
        let code = "fn f() { unsafe { g() } }";
        assert_eq!(check_file(Path::new("crates/hull-fs/src/lib.rs"), code).len(), 1);
        assert_eq!(check_file(Path::new("crates/hull-sys/src/lib.rs"), code), [""; 0]);
    }

    #[test]
    fn metadata_gives_members_and_kinds() {
        let metadata = serde_json::json!({"packages": [{"name": "a", "dependencies": [
            {"name": "b", "kind": null}, {"name": "c", "kind": "dev"}]}]});
        let (members, edges) = workspace_edges(&metadata).unwrap();
        assert_eq!(members, ["a"]);
        assert_eq!(
            edges.iter().map(|edge| (edge.to.as_str(), edge.dev)).collect::<Vec<_>>(),
            [("b", false), ("c", true)]
        );
    }
}
