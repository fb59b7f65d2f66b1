//! Any Dockerfile either is refused with a line that exists or can be checked, expanded and gone through.
#![no_main]

use std::collections::BTreeMap;

use hull_dockerfile::lint::{self, Options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = hull_dockerfile::detect_syntax(bytes);
    match hull_dockerfile::parse(bytes) {
        Ok((file, _)) => {
            let bases: Vec<String> = file.stages.iter().map(|stage| stage.base.clone()).collect();
            if let Ok(graph) = hull_dockerfile::stages::graph(&file, &bases) {
                assert!(graph.reachable(bases.len() - 1).contains(&(bases.len() - 1)));
            }
        }
        Err(error) => {
            if let Some(excerpt) = error.excerpt("Dockerfile", bytes) {
                assert!(excerpt.to_string().contains(">>>"), "{error}");
            }
        }
    }
    let build_args = BTreeMap::new();
    let options = Options {
        build_args: &build_args,
        target: None,
        platform: "linux/amd64",
        build_platform: "linux/amd64",
        ignore: None,
        base: &|_, _| Ok(None),
    };
    let report = lint::check(bytes, &options);
    let _ = (report.text("Dockerfile", bytes), report.json("Dockerfile", bytes));
    let _ = lint::outline(bytes, &options).map(|outline| outline.text());
});
