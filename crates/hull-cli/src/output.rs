//! What every command prints the same way.

use std::fmt::Display;
use std::io::Write as _;

/// Writes one line to standard error.
pub(crate) fn error(message: impl Display) {
    // Only whoever closed standard error could be told.
    let text = hull_oci::spec::one_line(&message.to_string().trim_end().replace('\n', " "));
    let _ = writeln!(std::io::stderr(), "hull: {text}");
}

/// Writes to standard output; a reader that has gone away has seen enough.
pub(crate) fn print(text: impl Display) {
    let _ = write!(std::io::stdout(), "{text}");
}

/// Columns as wide as their widest cell, three spaces apart, as Docker's tables.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// The first twelve digits of an ID.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let rows = vec![vec!["long cell".to_owned(), "b".to_owned()], vec!["c".to_owned(), String::new()]];
        assert_eq!(table(&["A", "B"], &rows), "A           B\nlong cell   b\nc\n");
    }
}
