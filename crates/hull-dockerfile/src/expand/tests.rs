use proptest::prelude::*;

use super::*;

fn vars() -> Vec<(String, String)> {
    let pairs = [("a", "A"), ("z", ""), ("f", "/x/foo.tar.gz"), ("l", "1 2"), ("m", "one\ntwo")];
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn text(source: &str) -> String {
    Expander::new('\\').expand(source, &vars()).unwrap().text
}

#[test]
fn white_space_of_values_cuts_words_unless_it_is_quoted() {
    let words = |source: &str| Expander::new('\\').expand(source, &vars()).unwrap().words;
    assert_eq!(words("x $l y"), ["x", "1", "2", "y"]);
    assert_eq!(words("\"$l\" ' 3 ' 4\\ 5"), ["1 2", " 3 ", "4 5"]);
    assert_eq!(words("x${u:-p q}y"), ["xp", "qy"]);
    assert_eq!(words(""), [""; 0]);
}

#[test]
fn what_was_asked_for_is_reported() {
    let out = Expander::new('\\').expand("$a ${u:-$a$v} ${z+$w} '$no' \\$no", &vars()).unwrap();
    assert_eq!(out.used.iter().collect::<Vec<_>>(), ["a", "z"]);
    assert_eq!(out.unset.iter().collect::<Vec<_>>(), ["u", "v", "w"]);
}

#[test]
fn wildcards_stop_at_line_feeds() {
    assert_eq!(text("${m#*}"), "one\ntwo");
    assert_eq!(text("${m##*}"), "\ntwo");
    assert_eq!(text("${m%%*}"), "one\n");
    assert_eq!(text("${m//*/x}"), "x\nx");
    assert_eq!(text("${m//?/x}"), "xxx\nxxx");
}

#[test]
fn other_escape_characters_escape_and_patterns_keep_theirs() {
    let out = Expander::new('`').expand("`$a \\$a \"`\"\" ${f#`/x}", &vars()).unwrap();
    assert_eq!(out.text, "$a \\A \" /x/foo.tar.gz");
}

#[test]
fn bodies_of_heredocs_keep_quotes_and_shown_commands_what_is_unset() {
    assert_eq!(Expander::heredoc().expand("\"$a\" '$a' \\$a $u", &vars()).unwrap().text, "\"A\" 'A' $a ");
    assert_eq!(Expander::display('\\').expand("x \"$a\" $u ${u:-q}", &vars()).unwrap().text, "x \"A\" $u ${u:-q}");
}

#[test]
fn nesting_and_output_are_bounded() {
    let nested = format!("{}x{}", "${u:-".repeat(5000), "}".repeat(5000));
    let error = Expander::new('\\').expand(&nested, &vars()).unwrap_err();
    assert!(error.reason.contains("nest more than 100 deep"), "{}", error.reason);
    let big = vec![("b".to_owned(), "x".repeat(1 << 20))];
    let error = Expander::new('\\').expand(&"$b".repeat(100), &big).unwrap_err();
    assert!(error.reason.contains("expands to more than"), "{}", error.reason);
    let error = Expander::new('\\').expand(&format!("${{b//x/{}}}", "y".repeat(100)), &big).unwrap_err();
    assert!(error.reason.contains("expands to more than"), "{}", error.reason);
}

#[test]
fn patterns_of_many_stars_take_no_time() {
    let value = vec![("v".to_owned(), "a".repeat(4000))];
    let pattern = "*a".repeat(40);
    let out = Expander::new('\\').expand(&format!("${{v//{pattern}b/x}}"), &value).unwrap();
    assert_eq!(out.text.len(), 4000);
    assert_eq!(Expander::new('\\').expand(&format!("${{v##{pattern}}}"), &value).unwrap().text, "");
}

/// A pattern's meaning by trying every split: slow and plainly right.
fn matches(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|n| !text[..n].contains(&'\n') && matches(rest, &text[n..])),
        Some(('?', rest)) => text.first().is_some_and(|c| *c != '\n') && matches(rest, &text[1..]),
        Some((c, rest)) => text.first() == Some(c) && matches(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn any_text_expands_or_is_refused(source in "\\PC{0,60}", shell in "[$a{}:+?#%/*\\\\\"'<\\- -]{0,40}") {
        for expander in [Expander::new('\\'), Expander::new('`'), Expander::heredoc(), Expander::display('\\'), Expander::verbatim()] {
            let _ = expander.expand(&source, &vars());
            let _ = expander.expand(&shell, &vars());
        }
    }

    #[test]
    fn text_without_special_characters_stays(source in "[a-zA-Z0-9 .,:/=_-]{0,80}") {
        let out = Expander::new('\\').expand(&source, &Unset).unwrap();
        prop_assert_eq!(&out.text, &source);
        prop_assert_eq!(out.words, source.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn quoting_protects_everything(value in "[^']{0,60}") {
        prop_assert_eq!(Expander::new('\\').expand(&format!("'{value}'"), &vars()).unwrap().text, value);
    }

    #[test]
    fn trimming_takes_the_shortest_and_the_longest(pattern in "[ab*?\n]{0,6}", value in "[ab\n]{0,10}") {
        let variables = vec![("v".to_owned(), value.clone())];
        let run = |form: &str| Expander::new('\\').expand(form, &variables).unwrap().text;
        let (chars, tokens): (Vec<char>, Vec<char>) = (value.chars().collect(), pattern.chars().collect());
        let heads: Vec<usize> = (0..=chars.len()).filter(|n| matches(&tokens, &chars[..*n])).collect();
        let rest = |n: Option<&usize>| chars[n.copied().unwrap_or(0)..].iter().collect::<String>();
        prop_assert_eq!(run(&format!("${{v#{pattern}}}")), rest(heads.first()));
        prop_assert_eq!(run(&format!("${{v##{pattern}}}")), rest(heads.last()));
        let tails: Vec<usize> = (0..=chars.len()).filter(|n| matches(&tokens, &chars[*n..])).collect();
        let head = |n: Option<&usize>| chars[..n.copied().unwrap_or(chars.len())].iter().collect::<String>();
        prop_assert_eq!(run(&format!("${{v%{pattern}}}")), head(tails.last()));
        prop_assert_eq!(run(&format!("${{v%%{pattern}}}")), head(tails.first()));
    }

    #[test]
    fn replacing_takes_what_is_leftmost_and_longest(pattern in "[ab*?]{1,5}", value in "[ab\n]{0,10}") {
        let variables = vec![("v".to_owned(), value.clone())];
        let (chars, tokens): (Vec<char>, Vec<char>) = (value.chars().collect(), pattern.chars().collect());
        let end = |start: usize| (start..=chars.len()).rev().find(|end| matches(&tokens, &chars[start..*end]));
        let found = (0..=chars.len()).find_map(|start| Some((start, end(start)?)));
        let expected = match found {
            Some((start, end)) => {
                chars[..start].iter().chain(&['X']).chain(&chars[end..]).collect::<String>()
            }
            None => value,
        };
        let out = Expander::new('\\').expand(&format!("${{v/{pattern}/X}}"), &variables).unwrap();
        prop_assert_eq!(out.text, expected);
    }
}
