//! Heredocs: where a line announces one, and what its delimiter says about its body.

use crate::expand::{Expander, Unset};

/// A heredoc as its operator announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operator {
    pub(crate) name: String,
    pub(crate) fd: u32,
    pub(crate) expand: bool,
    pub(crate) chomp: bool,
}

/// A heredoc with its body as it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) operator: Operator,
    pub(crate) text: String,
}

/// The heredoc that a word announces: `[FD]<<[-]DELIMITER`, the delimiter being one word and not empty.
pub(crate) fn operator(word: &str) -> Result<Option<Operator>, String> {
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let Some(rest) = word[digits..].strip_prefix("<<") else { return Ok(None) };
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let delimiter = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
    if delimiter.is_empty() || delimiter.contains('<') {
        return Ok(None);
    }
    let words = |quotes| Expander::delimiter(quotes).expand(delimiter, &Unset).map(|out| out.words);
    let (bare, quoted) = (words(false).map_err(|e| e.to_string())?, words(true).map_err(|e| e.to_string())?);
    let ([bare], [quoted]) = (bare.as_slice(), quoted.as_slice()) else { return Ok(None) };
    // Any quote at all in the delimiter means that the body is to be left alone.
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let fd = if digits == 0 { 0 } else { word[..digits].parse().unwrap_or(u32::MAX) };
    Ok(Some(Operator { name: bare.clone(), fd, expand: quotes(bare) == quotes(quoted), chomp }))
}

/// The heredocs that an instruction's line announces.
pub(crate) fn in_line(line: &str) -> Result<Vec<Operator>, String> {
    // A line that is no shell text announces none; its own parser will say what is wrong with it.
    let Ok(out) = Expander::verbatim().expand(line, &Unset) else { return Ok(Vec::new()) };
    out.words.iter().filter_map(|word| operator(word).transpose()).collect()
}

/// `text` without the tabs that its lines begin with.
pub(crate) fn chomp(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
