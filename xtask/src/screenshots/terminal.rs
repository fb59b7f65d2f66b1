//! A terminal in memory: as much of ECMA-48 and xterm as Hull's own output uses.
//!
//! Lines that scroll away are kept, so that a whole session can be shown. Every character is one column wide.

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

/// A grid of cells.
#[derive(Clone, Debug, Default)]
struct Grid {
    lines: Vec<Vec<Cell>>,
    row: usize,
    column: usize,
}

/// What has been read of an escape sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Text,
    Escape,
    /// Behind `ESC [`.
    Control(String),
    /// Behind `ESC ]`: a title, which nobody sees.
    Title,
}

/// The terminal.
#[derive(Clone, Debug)]
pub(super) struct Terminal {
    columns: usize,
    rows: usize,
    grid: Grid,
    /// The first screen while a program uses the other one.
    other: Option<Grid>,
    style: Style,
    state: State,
    wraps: bool,
    /// Bytes of a character that is not whole yet.
    partial: Vec<u8>,
}

impl Terminal {
    pub(super) fn new(columns: u16, rows: u16) -> Self {
        Self {
            columns: columns.into(),
            rows: rows.into(),
            grid: Grid::default(),
            other: None,
            style: Style::default(),
            state: State::Text,
            wraps: true,
            partial: Vec::new(),
        }
    }

    /// The lines, without what is blank below and behind them.
    pub(super) fn lines(&self) -> Vec<Vec<Cell>> {
        let mut lines = self.grid.lines.clone();
        for line in &mut lines {
            while line.last().is_some_and(|(character, style)| *character == ' ' && !style.reverse) {
                line.pop();
            }
        }
        while lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        lines
    }

    /// Takes what a program wrote.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.partial);
        let whole = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            // What is cut off at the end may go on; what is wrong within becomes a replacement below.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => bytes.len(),
        };
        self.partial = bytes[whole..].to_vec();
        for character in String::from_utf8_lossy(&bytes[..whole]).chars() {
            self.take(character);
        }
    }

    fn take(&mut self, character: char) {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => self.text(character),
            State::Escape => match character {
                '[' => self.state = State::Control(String::new()),
                ']' => self.state = State::Title,
                _ => {}
            },
            State::Title if matches!(character, '\x07' | '\\') => {}
            State::Title => self.state = State::Title,
            State::Control(mut words) if !('@'..='~').contains(&character) => {
                words.push(character);
                self.state = State::Control(words);
            }
            State::Control(words) => self.control(&words, character),
        }
    }

    fn text(&mut self, character: char) {
        match character {
            '\x1b' => self.state = State::Escape,
            '\r' => self.grid.column = 0,
            '\n' => self.grid.row += 1,
            '\x08' => self.grid.column = self.grid.column.saturating_sub(1),
            '\t' => self.grid.column = (self.grid.column / 8 + 1) * 8,
            character if character.is_control() => {}
            character => {
                if self.grid.column >= self.columns {
                    if !self.wraps {
                        return;
                    }
                    (self.grid.row, self.grid.column) = (self.grid.row + 1, 0);
                }
                let (column, style) = (self.grid.column, self.style);
                let line = self.line();
                if line.len() <= column {
                    line.resize(column + 1, (' ', Style::default()));
                }
                line[column] = (character, style);
                self.grid.column += 1;
            }
        }
    }

    fn line(&mut self) -> &mut Vec<Cell> {
        let row = self.grid.row;
        if self.grid.lines.len() <= row {
            self.grid.lines.resize(row + 1, Vec::new());
        }
        &mut self.grid.lines[row]
    }

    /// The uppermost line that is on the screen.
    fn top(&self) -> usize {
        self.grid.lines.len().max(self.grid.row + 1).saturating_sub(self.rows)
    }

    fn control(&mut self, words: &str, end: char) {
        let numbers: Vec<usize> =
            words.trim_start_matches('?').split(';').map(|word| word.parse().unwrap_or(0)).collect();
        let first = numbers.first().copied().unwrap_or(0);
        let count = first.max(1);
        match end {
            'A' => self.grid.row = self.grid.row.saturating_sub(count).max(self.top()),
            'B' => self.grid.row += count,
            'C' => self.grid.column = (self.grid.column + count).min(self.columns),
            'D' => self.grid.column = self.grid.column.saturating_sub(count),
            'G' => self.grid.column = count - 1,
            'H' | 'f' => {
                let top = self.top();
                self.grid.row = top + (count - 1).min(self.rows.saturating_sub(1));
                self.grid.column = numbers.get(1).copied().unwrap_or(1).max(1) - 1;
            }
            'J' => {
                let top = self.top();
                let row = if first >= 2 { top } else { self.grid.row };
                self.grid.lines.truncate(row + usize::from(first < 2));
                if first < 2 {
                    self.erase_line(0);
                }
            }
            'K' => self.erase_line(first),
            'h' | 'l' => self.mode(words, end == 'h'),
            'm' => numbers.iter().for_each(|number| self.render(*number)),
            _ => {}
        }
    }

    fn erase_line(&mut self, which: usize) {
        let (row, column) = (self.grid.row, self.grid.column);
        let Some(line) = self.grid.lines.get_mut(row) else { return };
        match which {
            0 => line.truncate(column),
            1 => line.iter_mut().take(column + 1).for_each(|cell| *cell = (' ', Style::default())),
            _ => line.clear(),
        }
    }

    fn mode(&mut self, words: &str, on: bool) {
        match words {
            "?7" => self.wraps = on,
            "?1049" if on => self.other = Some(std::mem::take(&mut self.grid)),
            "?1049" => self.grid = self.other.take().unwrap_or_default(),
            _ => {}
        }
    }

    fn render(&mut self, number: usize) {
        let style = &mut self.style;
        match number {
            0 => *style = Style::default(),
            1 => style.bold = true,
            2 => style.dim = true,
            22 => (style.bold, style.dim) = (false, false),
            7 => style.reverse = true,
            27 => style.reverse = false,
            30..=37 => style.colour = u8::try_from(number - 30).ok(),
            90..=97 => style.colour = u8::try_from(number - 82).ok(),
            39 => style.colour = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[&str]) -> Vec<String> {
        let mut terminal = Terminal::new(10, 3);
        bytes.iter().for_each(|bytes| terminal.feed(bytes.as_bytes()));
        terminal.lines().iter().map(|line| line.iter().map(|(character, _)| character).collect()).collect()
    }

    #[test]
    fn lines_are_kept_and_written_over() {
        assert_eq!(shown(&["a\r\nb\r\nc\r\nd\r\n"]), ["a", "b", "c", "d"]);
        assert_eq!(shown(&["0123456789xy"]), ["0123456789", "xy"]);
        assert_eq!(shown(&["wait 10 %\r\x1b[K", "done\r\n"]), ["done"]);
        // Two lines up, and everything from there is new.
        assert_eq!(shown(&["one\r\ntwo\r\n\x1b[2A\r\x1b[2Kuno\r\n\x1b[J"]), ["uno"]);
    }

    #[test]
    fn the_other_screen_goes_away_and_sequences_may_be_cut_anywhere() {
        assert_eq!(shown(&["a\r\n", "\x1b[?1049h\x1b[?25l\x1b[2J\x1b[Hscreen\x1b[2;3Hx"]), ["screen", "  x"]);
        assert_eq!(shown(&["a\r\n", "\x1b[?1049hb", "\x1b[?10", "49l", "c"]), ["a", "c"]);
        let mut terminal = Terminal::new(10, 3);
        "é".as_bytes().iter().for_each(|byte| terminal.feed(&[*byte]));
        assert_eq!(terminal.lines(), [vec![('é', Style::default())]]);
    }

    #[test]
    fn styles() {
        let mut terminal = Terminal::new(10, 3);
        terminal.feed(b"\x1b[1;32ma\x1b[0mb\x1b[7m \x1b[0m ");
        let bold = Style { bold: true, colour: Some(2), ..Style::default() };
        let reverse = Style { reverse: true, ..Style::default() };
        assert_eq!(terminal.lines(), [vec![('a', bold), ('b', Style::default()), (' ', reverse)]]);
    }
}
