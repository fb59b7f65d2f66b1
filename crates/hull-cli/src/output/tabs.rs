//! Tab-separated cells to aligned columns, as Go's `tabwriter` with Docker's settings: at least 10 wide, 3 spaces apart.
//!
//! A column is a run of consecutive lines that have a cell there which a tab ends, so a line without tabs begins new
//! columns. What follows the last tab of a line is not padded.

const NARROWEST: usize = 10;
const GAP: usize = 3;

/// Aligns the cells.
pub(super) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut line = 0;
        while line < lines.len() {
            let end = (line..lines.len()).find(|next| widths[*next].len() <= column).unwrap_or(lines.len());
            if end == line {
                line += 1;
                continue;
            }
            let widest = lines[line..end].iter().map(|cells| cells[column].chars().count() + GAP).max();
            let width = widest.unwrap_or(0).max(NARROWEST);
            widths[line..end].iter_mut().for_each(|widths| widths[column] = width);
            line = end;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (index, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for (column, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(column) {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_blocks_of_lines() {
        assert_eq!(align("A\tB\nlong cell 1\tb\nc\t\n"), "A             B\nlong cell 1   b\nc             \n");
        assert_eq!(align("NAMES\tPORTS\nweb\t80\n"), "NAMES     PORTS\nweb       80\n");
        assert_eq!(align("a very long cell\tx\nno tab\nb\ty\n"), "a very long cell   x\nno tab\nb         y\n");
        assert_eq!(align("a\tb\tc\n123456789\t\n"), "a           b         c\n123456789   \n");
        assert_eq!(align(""), "");
    }
}
