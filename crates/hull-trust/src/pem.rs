//! PEM (RFC 7468): the first block of a text, its label and its bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A decoded block.
pub(crate) struct Block {
    pub(crate) label: String,
    pub(crate) bytes: Vec<u8>,
}

/// The first block of a text; text before it is a comment.
pub(crate) fn decode(text: &str) -> Result<Block, &'static str> {
    let (_, rest) = text.split_once("-----BEGIN ").ok_or("it is not PEM: it has no BEGIN line")?;
    let (label, rest) = rest.split_once("-----").ok_or("its BEGIN line does not end")?;
    let (body, rest) = rest.split_once("-----END ").ok_or("it has no END line")?;
    if !rest.starts_with(label) || !rest[label.len()..].starts_with("-----") {
        return Err("its END line is for something else than its BEGIN line");
    }
    let body: String = body.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(body).map_err(|_| "what is between its lines is not base64")?;
    Ok(Block { label: label.to_owned(), bytes })
}

/// One block.
pub(crate) fn encode(label: &str, bytes: &[u8]) -> String {
    let body = STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back() {
        let bytes: Vec<u8> = (0..=200).collect();
        let text = encode("PUBLIC KEY", &bytes);
        assert!(text.lines().all(|line| line.len() <= 64), "{text}");
        let block = decode(&format!("a comment\n{text}more")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((block.label.as_str(), block.bytes), ("PUBLIC KEY", bytes));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for bad in [
            "",
            "-----BEGIN X",
            "-----BEGIN X-----\nAA==",
            "-----BEGIN X-----\nAA==\n-----END Y-----",
            "-----BEGIN X-----\n%%\n-----END X-----",
        ] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
