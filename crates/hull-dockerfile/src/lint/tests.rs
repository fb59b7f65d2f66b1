use super::*;

fn report(text: &str, base: LookAt<'_>) -> Report {
    let build_args = BTreeMap::new();
    let options = Options {
        build_args: &build_args,
        target: None,
        platform: "linux/arm64",
        build_platform: "linux/amd64",
        ignore: None,
        base,
    };
    check(text.as_bytes(), &options)
}

fn details(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.detail.as_str()).collect()
}

fn unknown(_: &str, _: &str) -> Result<Option<Base>, String> {
    Ok(None)
}

#[test]
fn variables_of_an_unknown_base_are_not_called_undefined() {
    let text = "FROM golang\nENV x=$GOROOT\nFROM scratch\nENV x=$GOROOT\n";
    let found = report(text, &unknown);
    assert_eq!(details(&found), ["Usage of undefined variable '$GOROOT'"]);
    assert_eq!(found.findings[0].lines.start, 4);
}

#[test]
fn what_depends_on_an_unknown_base_is_not_judged() {
    let text = "FROM x\nENV a=1 b=${c:?must}\nENV a=$c\nSTOPSIGNAL $c\nVOLUME $c\nEXPOSE $c$a\nWORKDIR $a\nRUN --mount=type=$c \
                true\nCOPY --chmod=$c $c /\nSTOPSIGNAL nonsense\n";
    let found = report(text, &unknown);
    assert_eq!(details(&found), [""; 0]);
    assert_eq!(found.error.map(|error| error.to_string()).as_deref(), Some("invalid signal: nonsense"));
}

#[test]
fn builds_are_told_of_their_own_stages_only() {
    let text = "FROM scratch AS unused\nCMD x\nSTOPSIGNAL y\nFROM scratch\nCMD z\n";
    let build_args = BTreeMap::new();
    let options = Options {
        build_args: &build_args,
        target: None,
        platform: "linux/amd64",
        build_platform: "linux/amd64",
        ignore: None,
        base: &unknown,
    };
    let found = check_build(text.as_bytes(), &options);
    assert_eq!(found.findings.iter().map(|finding| finding.lines.start).collect::<Vec<_>>(), [5]);
    assert_eq!(found.error, None);
    assert!(check(text.as_bytes(), &options).error.is_some());
    let denied = |text: &str| {
        let found = check_build(text.as_bytes(), &options);
        (found.denied, found.error.is_some())
    };
    assert_eq!(denied("# check=error=true\nFROM scratch\nCMD z\n"), (true, true));
    assert_eq!(denied("# check=error=true\nFROM scratch\nCMD z\nSTOPSIGNAL y\n"), (false, true));
    assert_eq!(denied("# check=skip=all;error=true\nFROM scratch\nCMD z\n"), (false, false));
}

#[test]
fn a_known_base_brings_variables_triggers_and_its_platform() {
    let base = |name: &str, platform: &str| {
        assert_eq!((name, platform), ("golang", "linux/arm64"));
        Ok(Some(Base {
            env: vec![("GOPATH".into(), "/go".into())],
            shell: true,
            onbuild: vec!["ENV y=$GOROOT".into()],
            platform: Some("linux/amd64".into()),
        }))
    };
    let found = report("FROM golang\nENV x=$GOPATH\nCMD x\n", &base);
    assert_eq!(
        details(&found),
        [
            "Base image golang was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build",
            "Usage of undefined variable '$GOROOT'"
        ]
    );
    assert_eq!(found.findings[1].lines.start, 1);
}

#[test]
fn ignored_sources_are_found_where_the_patterns_alone_say_so() {
    let ignore = Ignore::parse(b"secret\n*.log\n").unwrap();
    let build_args = BTreeMap::new();
    let options = Options {
        build_args: &build_args,
        target: None,
        platform: "linux/amd64",
        build_platform: "linux/amd64",
        ignore: Some(&ignore),
        base: &unknown,
    };
    let text =
        "FROM scratch AS a\nCOPY secret/key ./a.log b /\nADD x.log https://h/x.log /\nFROM a\nCOPY --from=a secret /\n";
    let found = check(text.as_bytes(), &options);
    assert_eq!(
        details(&found),
        [
            "Attempting to Copy file \"secret/key\" that is excluded by .dockerignore",
            "Attempting to Copy file \"a.log\" that is excluded by .dockerignore",
            "Attempting to Add file \"x.log\" that is excluded by .dockerignore",
        ]
    );
}

#[test]
fn json_has_what_programs_read() {
    let source = b"FROM scratch AS A\nCMD \\\n x\n";
    let report = report("FROM scratch AS A\nCMD \\\n x\n", &unknown);
    let json: serde_json::Value = serde_json::from_str(&report.json("Dockerfile", source)).unwrap();
    assert_eq!(json["warnings"][1]["ruleName"], "JSONArgsRecommended");
    assert_eq!(json["warnings"][1]["location"]["ranges"][1]["start"]["line"], 3);
    assert_eq!(json["sources"][0]["filename"], "Dockerfile");
    assert!(json.get("buildError").is_none());
    assert_eq!(report.findings[0].short(), "StageNameCasing: Stage name 'A' should be lowercase (line 1)");
    let clean = Report::default().json("Dockerfile", b"");
    assert!(clean.starts_with("\n{\n  \"warnings\": null,\n  \"sources\": [\n"), "{clean}");
}

#[test]
fn variables_and_stages_are_bounded() {
    let doubling: String = (0..40).map(|_| "ENV a=$a$a\n").collect();
    let found = report(&format!("FROM scratch\nENV a=aaaaaaaa\n{doubling}"), &unknown);
    let error = found.error.unwrap().to_string();
    assert!(error.contains("more than"), "{error}");
    let big = "b".repeat(60_000);
    let stages: String = (0..3000).map(|i| format!("FROM s{i} AS s{}\nENV x{i}=1\n", i + 1)).collect();
    let found = report(&format!("FROM scratch AS s0\nENV a={big}\n{stages}"), &unknown);
    assert_eq!(
        found.error.map(|error| error.to_string()).as_deref(),
        Some("the file's variables take more than 16777216 bytes")
    );
    let found = report(&"FROM scratch\n".repeat(5000), &unknown);
    assert_eq!(found.error.map(|error| error.to_string()).as_deref(), Some("the Dockerfile has more than 4096 stages"));
}

/// Time is what a hostile file would take: each of these is gone through in far less than a test may take.
#[test]
fn long_files_take_no_time() {
    let names: String = (0..20_000).map(|i| format!("ENV v{i:05}=1\n")).collect();
    let uses: String = (0..20_000).map(|i| format!("USER $w{i:05}\n")).collect();
    let found = report(&format!("FROM scratch\n{names}{uses}"), &unknown);
    assert_eq!((found.findings.len(), found.error), (10_000, None));
    let heredocs = format!("FROM scratch\nCOPY {}/x\n{}", "<<A ".repeat(15_000), "A\n".repeat(15_000));
    assert_eq!(report(&heredocs, &unknown).error, None);
    let triggers = format!("FROM scratch AS a\n{}", "ONBUILD RUN x\n".repeat(2000));
    let found = report(&format!("{triggers}{}", "FROM a\n".repeat(3000)), &unknown);
    assert!(found.error.unwrap().to_string().contains("more than 10000 triggers"));
    let stars = format!("FROM scratch\nENV a={}\nUSER ${{a//{}b/x}}\n", "a".repeat(60_000), "*a".repeat(3000));
    assert!(report(&stars, &unknown).error.unwrap().to_string().contains("the pattern is too long"));
    let mounts = "RUN --mount=from=s1,target=/x true\n".repeat(5000);
    let stages: String = (0..4000).map(|i| format!("FROM scratch AS s{i}\n")).collect();
    assert_eq!(report(&format!("{stages}{mounts}"), &unknown).error, None);
    let comments = format!("{}ARG {}\nFROM scratch\n", "# x y\n".repeat(20_000), "a ".repeat(30_000));
    assert_eq!(report(&comments, &unknown).error, None);
}

#[test]
fn every_rule_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), 22);
}

proptest::proptest! {
    #[test]
    fn anything_like_a_file_is_checked(
        lines in proptest::collection::vec((0..18usize, "[-a$<E=\"' :/\\[\\],{}\n]{0,16}"), 0..10)
    ) {
        let words = ["ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "ONBUILD",
            "RUN", "RUN --mount=", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR", "COPY --from="];
        let mut text = "FROM scratch AS a\n".to_owned();
        for (index, rest) in lines {
            text.push_str(&format!("{} {rest}\n", words[index]));
        }
        let found = report(&text, &unknown);
        let printed = found.text("Dockerfile", text.as_bytes());
        proptest::prop_assert_eq!(printed.findings.matches("\nWARNING: ").count(), found.findings.len());
        let build_args = BTreeMap::new();
        let options = Options {
            build_args: &build_args, target: None, platform: "linux/amd64", build_platform: "linux/amd64", ignore: None,
            base: &unknown,
        };
        let _ = outline(text.as_bytes(), &options).map(|outline| (outline.text(), outline.json(text.as_bytes())));
        let _ = targets(text.as_bytes()).map(|targets| (targets.text(), targets.json(text.as_bytes())));
    }
}
