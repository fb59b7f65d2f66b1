//! What a terminal shows of what is written to it, with the lines that have scrolled away.

/// Lines that are kept when they scroll away.
const KEPT: usize = 1000;

/// How a character looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// One of the sixteen colours, or the default.
    pub(super) colour: Option<u8>,
    pub(super) bold: bool,
    pub(super) dim: bool,
    pub(super) reverse: bool,
}

/// A character and its style.
pub(super) type Cell = (char, Style);

/// An empty terminal.
pub(super) fn new(columns: u16, rows: u16) -> vt100::Parser {
    vt100::Parser::new(rows, columns, KEPT)
}

/// All lines up to the last with anything on it, each up to its last character.
pub(super) fn lines(screen: &vt100::Screen) -> Vec<Vec<Cell>> {
    let mut screen = screen.clone();
    let (rows, _) = screen.size();
    // More than there are is all of them.
    screen.set_scrollback(KEPT);
    let mut lines = Vec::new();
    for back in (1..=screen.scrollback()).rev() {
        screen.set_scrollback(back);
        lines.push(line(&screen, 0));
    }
    screen.set_scrollback(0);
    lines.extend((0..rows).map(|row| line(&screen, row)));
    let end = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    lines.truncate(end);
    lines
}

fn line(screen: &vt100::Screen, row: u16) -> Vec<Cell> {
    let (_, columns) = screen.size();
    let mut cells: Vec<Cell> = (0..columns).filter_map(|column| screen.cell(row, column).map(cell)).collect();
    let end = cells.iter().rposition(|cell| *cell != (' ', Style::default())).map_or(0, |last| last + 1);
    cells.truncate(end);
    cells
}

fn cell(cell: &vt100::Cell) -> Cell {
    let colour = match cell.fgcolor() {
        vt100::Color::Idx(colour @ 0..16) => Some(colour),
        _ => None,
    };
    let style = Style { colour, bold: cell.bold(), dim: cell.dim(), reverse: cell.inverse() };
    (cell.contents().chars().next().unwrap_or(' '), style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<Vec<Cell>> {
        let mut parser = new(10, 3);
        parser.process(text.as_bytes());
        lines(parser.screen())
    }

    #[test]
    fn lines_that_scroll_away_are_kept() {
        let text: Vec<String> = shown("one\r\ntwo\r\n\r\nfour\r\n\x1b[1Afive\r\n\r\n")
            .into_iter()
            .map(|line| line.into_iter().map(|(character, _)| character).collect())
            .collect();
        assert_eq!(text, ["one", "two", "", "five"]);
    }

    #[test]
    fn styles_are_kept_and_blanks_at_the_end_are_not() {
        let lines = shown("\x1b[1;32mok\x1b[0m \x1b[7m \x1b[0m  ");
        let green = Style { colour: Some(2), bold: true, ..Style::default() };
        let ground = Style { reverse: true, ..Style::default() };
        assert_eq!(lines, [vec![('o', green), ('k', green), (' ', Style::default()), (' ', ground)]]);
    }
}
