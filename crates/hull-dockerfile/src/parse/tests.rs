use proptest::prelude::*;

use super::*;
use crate::ast::{MountKind, Sharing};
use crate::expand::Unset;

fn first(text: &str) -> Kind {
    let (file, _) = parse(text.as_bytes()).unwrap();
    file.stages[0].instructions[0].kind.clone()
}

fn refused(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_file_becomes_stages_with_their_lines() {
    let source = b"# syntax=docker/dockerfile:1 x\n# check=skip=all\nARG v=1\n# web serves\nFROM a AS Web\nRUN x \\\n  # no\n  y\nFROM web\n";
    let (file, warnings) = parse(source).unwrap();
    assert_eq!((file.syntax.as_deref(), file.check.as_deref()), (Some("docker/dockerfile:1 x"), Some("skip=all")));
    assert_eq!(file.args.len(), 1);
    let stage = &file.stages[0];
    assert_eq!((stage.name.as_deref(), stage.comment.as_deref()), (Some("Web"), Some("serves")));
    assert_eq!(stage.instructions[0].original, "RUN x   y");
    assert_eq!(stage.instructions[0].lines, Lines { start: 6, end: 8 });
    assert_eq!(file.stages[1].lines, Lines { start: 9, end: 9 });
    assert!(warnings.is_empty());
}

#[test]
fn mounts_are_judged_when_they_are_expanded() {
    let Kind::Run(run) = first("FROM a\nRUN --mount=type=cache,target=$d,uid=$u,sharing=locked,from=base x\n") else {
        panic!("a RUN");
    };
    let mount = &run.mounts[0];
    assert_eq!((mount.kind, mount.target.as_deref(), mount.uid), (MountKind::Cache, Some("$d"), None));
    let variables = vec![("d".to_owned(), "/c".to_owned()), ("u".to_owned(), "7".to_owned())];
    let mount = mount.resolve(&Expander::new('\\'), &variables).unwrap();
    assert_eq!((mount.target.as_deref(), mount.uid, mount.sharing), (Some("/c"), Some(7), Sharing::Locked));
    assert_eq!(mount.from.as_deref(), Some("base"));
    assert_eq!(run.mounts[0].resolve(&Expander::new('\\'), &Unset).unwrap_err(), "invalid value  for uid");
}

#[test]
fn sizes_of_mounts_have_units() {
    let size = |text: &str| {
        let mount = Mount { raw: format!("type=tmpfs,target=/x,size={text}"), ..Mount::default() };
        mount.resolve(&Expander::new('\\'), &Unset).ok().and_then(|mount| mount.size)
    };
    assert_eq!(size("64"), Some(64));
    assert_eq!(size("64b"), Some(64));
    assert_eq!(size("2k"), Some(2048));
    assert_eq!(size("1.5GiB"), Some(3 << 29));
    assert_eq!(size("1TB"), Some(1 << 40));
    for bad in ["", "x", "1x", "-1", "1.2.3m", "9999999999p"] {
        assert_eq!(size(bad), None, "{bad}");
    }
}

#[test]
fn a_trigger_is_read_again_whole() {
    let Kind::Onbuild(text) = first("FROM a\nONBUILD COPY <<-EOF /x\n\thello\n\tEOF\n") else { panic!("an ONBUILD") };
    assert_eq!(text, "COPY <<-EOF /x\n\thello\nEOF");
    let lines = Lines { start: 3, end: 3 };
    let instruction = parse_onbuild(&text, lines).unwrap();
    assert_eq!(instruction.lines, lines);
    let Kind::Copy(copy) = instruction.kind else { panic!("a COPY") };
    assert_eq!(copy.heredocs[0].content, "hello\n");
    for (text, reason) in [
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("RUNN x", "unknown instruction: RUNN (did you mean RUN?)"),
        ("", "the Dockerfile cannot be empty"),
    ] {
        assert_eq!(parse_onbuild(text, lines).unwrap_err().to_string(), reason);
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_only_where_a_file_would_be_made_of_them() {
    assert!(parse(b"# caf\xe9\nFROM a\nRUN <<E\n# caf\xe9\nE\n").is_ok());
    let error = parse(b"FROM a\nCOPY <<E /x\n\xe9\nE\n").unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.lines.map(|lines| lines.start)),
        ("heredoc E is not valid UTF-8", Some(2))
    );
}

#[test]
fn messages_are_one_line_and_harmless() {
    assert_eq!(refused("FROM a\n\u{1b}[2J x\n"), "dockerfile parse error on line 2: unknown instruction: \\u{1b}[2J");
    let error = parse(b"FROM a\n\x1b[2J x\n").unwrap_err();
    let shown = error.excerpt("Dockerfile", b"FROM a\n\x1b[2J x\n").unwrap().to_string();
    assert!(shown.contains("   2 | >>> \\u{1b}[2J x\n"), "{shown}");
}

#[test]
fn triggers_in_triggers_do_not_nest_without_end() {
    let text = format!("FROM a\n{}RUN x\n", "ONBUILD \\\n".repeat(200_000));
    assert!(refused(&text).contains("ONBUILD ONBUILD"));
}

#[test]
fn json_documents_and_other_comments_name_a_syntax() {
    let image = |source: &[u8]| crate::detect_syntax(source).map(|syntax| (syntax.image, syntax.line));
    assert_eq!(image(b"#!/bin/x\n# syntax = a/b:1 c\nFROM x"), Some(("a/b:1".into(), 2)));
    assert_eq!(image(b"// syntax=a\n"), Some(("a".into(), 1)));
    assert_eq!(image(b"{\"syntax\": \"a\"}"), Some(("a".into(), 0)));
    assert_eq!(image(b"\n# syntax=a\n"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn anything_like_a_file_is_parsed_or_refused(
        lines in proptest::collection::vec((0..INSTRUCTIONS.len(), "[-a$<E=\"' \\[\\],\\\\\n\t]{0,20}"), 0..12)
    ) {
        let mut text = "FROM x\n".to_owned();
        for (index, rest) in lines {
            text.push_str(&format!("{} {rest}\n", INSTRUCTIONS[index]));
        }
        match parse(text.as_bytes()) {
            Ok((file, _)) => {
                for stage in &file.stages {
                    let ends = stage.instructions.iter().map(|instruction| instruction.lines.end);
                    prop_assert!(ends.max().unwrap_or(1) as usize <= text.lines().count());
                }
            }
            Err(error) => {
                let shown = error.excerpt("Dockerfile", text.as_bytes()).map(|excerpt| excerpt.to_string());
                prop_assert!(shown.is_none_or(|shown| shown.contains(">>>")), "{}", error);
            }
        }
    }
}
