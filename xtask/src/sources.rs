//! The workspace's Rust files, and what the fences look for in their text.

use std::path::{Path, PathBuf};

/// Every `.rs` file below `directory`, in a stable order, without build output.
pub(crate) fn rust_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                let name = entry.file_name();
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    pending.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file says in its first lines that a program wrote it.
pub(crate) fn is_generated(text: &str) -> bool {
    text.lines().take(5).any(|line| line.contains("@generated"))
}

/// Replaces comments and the contents of string and character literals by spaces, so that only code is left to search.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + block_comment(rest)
        } else if let Some(length) = raw_string(bytes, at) {
            at + length
        } else if rest[0] == b'"' {
            at + quoted(rest)
        } else if rest[0] == b'\'' && character(rest) > 1 {
            at + character(rest)
        } else {
            out.push(rest[0]);
            at += 1;
            continue;
        };
        out.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { b'\n' } else { b' ' }));
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Length of a nested block comment.
fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// Length of a raw string that begins at `at` (`r"`, `br#"`, ...), if one does.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|index| bytes[index]);
    if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let rest = &bytes[at..];
    let mut length = usize::from(matches!(rest.first(), Some(b'b' | b'c')));
    if rest.get(length) != Some(&b'r') {
        return None;
    }
    length += 1;
    let hashes = rest[length..].iter().take_while(|&&byte| byte == b'#').count();
    length += hashes;
    if rest.get(length) != Some(&b'"') {
        return None;
    }
    length += 1;
    while length < rest.len() {
        if rest[length] == b'"'
            && rest[length + 1..].iter().take(hashes).filter(|&&byte| byte == b'#').count() == hashes
        {
            return Some(length + 1 + hashes);
        }
        length += 1;
    }
    Some(rest.len())
}

/// Length of a `"..."` literal.
fn quoted(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Length of a character literal, or 1 for the quote of a lifetime.
fn character(bytes: &[u8]) -> usize {
    if bytes.get(1) == Some(&b'\\') {
        let close = bytes.iter().skip(3).position(|&byte| byte == b'\'');
        return close.map_or(1, |index| index + 4);
    }
    let width = match bytes.get(1) {
        Some(byte) if byte.is_ascii() => 1,
        Some(byte) if *byte >= 0xf0 => 4,
        Some(byte) if *byte >= 0xe0 => 3,
        Some(_) => 2,
        None => return 1,
    };
    if bytes.get(1 + width) == Some(&b'\'') { width + 2 } else { 1 }
}

/// The 1-based lines on which `code` (see [`code_only`]) opens something unsafe.
pub(crate) fn unsafe_lines(code: &str) -> Vec<usize> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = code.as_bytes();
    let mut lines = Vec::new();
    for (at, word) in code.match_indices("unsafe") {
        let starts = at.checked_sub(1).is_none_or(|before| !is_word(bytes[before]));
        let after = &code[at + word.len()..];
        let ends = after.bytes().next().is_none_or(|byte| !is_word(byte));
        let next = after.trim_start();
        let opens = ["{", "fn ", "impl", "extern", "trait", "("].iter().any(|start| next.starts_with(start));
        if starts && ends && opens {
            lines.push(code[..at].bytes().filter(|&byte| byte == b'\n').count() + 1);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "let a = \"unsafe { }\"; // unsafe {\n/* unsafe fn /* x */ */ let c = '\"'; let r = r#\"unsafe {\"#;\nfn f<'a>() {}";
        let code = code_only(text);
        assert!(!code.contains("unsafe"), "{code}");
        assert!(code.contains("fn f<'a>() {}"), "{code}");
        assert_eq!(code.lines().count(), 3);
    }

    #[test]
    fn unsafe_code_is_found_where_it_stands() {
        let code = code_only(
            "fn a() {}\nunsafe fn b() {}\nfn c() { unsafe { b() } }\nlet unsafe_code = 1;\n'\\u{1}' unsafe impl Send for X {}",
        );
        assert_eq!(unsafe_lines(&code), [2, 3, 5]);
    }

    #[test]
    fn generated_files_are_marked_at_their_head() {
        assert!(is_generated("//! Table.\n// @generated by hand\n"));
        assert!(!is_generated("\n\n\n\n\n\n// @generated\n"));
    }
}
