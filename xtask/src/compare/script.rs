//! The files of lines: `$ LINE`, `~ REASON` of the difference of the line before, `#` comments.

use crate::Result;

/// A line for the shell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Why the engines differ here, if they do.
    pub(super) known: Option<String>,
}

/// Reads a file of lines.
pub(super) fn parse(text: &str) -> Result<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
        } else if let Some(text) = line.strip_prefix("$ ") {
            lines.push(Line { text: text.to_owned(), known: None });
        } else if let (Some(reason), Some(last)) = (line.strip_prefix("~ "), lines.last_mut()) {
            last.known = Some(reason.to_owned());
        } else {
            return Err(
                format!("line {}: expected '$ LINE', '~ REASON' or '# COMMENT', not {line:?}", number + 1).into()
            );
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_lines() {
        let lines = parse("# c\n$ docker ps\n~ because\n\n$ docker info\n").expect("parses");
        let known: Vec<Option<&str>> = lines.iter().map(|line| line.known.as_deref()).collect();
        assert_eq!(known, [Some("because"), None]);
        assert!(parse("docker ps").is_err() && parse("~ nothing before").is_err());
    }

    #[test]
    fn the_lines_of_the_repository_are_readable() {
        let mut count = 0;
        let mut known = 0;
        for entry in std::fs::read_dir(crate::workspace().join("xtask/compare")).expect("directory") {
            let path = entry.expect("entry").path();
            let lines = parse(&std::fs::read_to_string(&path).expect("read")).expect("parses");
            known += lines.iter().filter(|line| line.known.is_some()).count();
            count += lines.len();
        }
        assert!(count >= 400, "{count} lines");
        assert!(known * 20 <= count, "{known} of {count} lines are listed as different");
    }
}
