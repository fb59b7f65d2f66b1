//! A terminal's lines as SVG: dark, monospaced, every run of one style where it is on the grid whatever font is there.

use std::fmt::Write as _;

use super::terminal::{Cell, Style};

const WIDTH: f64 = 8.4;
const HEIGHT: usize = 19;
const MARGIN: usize = 16;
/// Above the first line: the title's bar.
const BAR: usize = 30;
const BACKGROUND: &str = "#12161c";
const PLAIN: &str = "#d3dae3";
/// Black to white, then the bright ones.
const COLOURS: [&str; 16] = [
    "#2b323b", "#f07178", "#8fd46a", "#f2c14e", "#6cb2f7", "#c792ea", "#5fd0c5", "#d3dae3", "#76818e", "#ff8b92",
    "#a9e388", "#ffd97a", "#8cc5ff", "#dbb1f5", "#86e6dc", "#ffffff",
];

fn colour(style: Style) -> &'static str {
    style.colour.and_then(|colour| COLOURS.get(usize::from(colour)).copied()).unwrap_or(PLAIN)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A picture of some lines.
pub(super) fn picture(title: &str, columns: u16, lines: &[Vec<Cell>]) -> String {
    let width = (f64::from(columns) * WIDTH).ceil() as usize + 2 * MARGIN;
    let height = BAR + lines.len() * HEIGHT + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         xml:space=\"preserve\" role=\"img\" aria-label=\"{title}\">\n\
         <style>text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre;\
         fill:{PLAIN}}}.b{{font-weight:bold}}.d{{opacity:.65}}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n",
        title = escape(title)
    );
    for (place, dot) in ["#f07178", "#f2c14e", "#8fd46a"].iter().enumerate() {
        let _ = writeln!(svg, "<circle cx=\"{}\" cy=\"15\" r=\"5\" fill=\"{dot}\"/>", MARGIN + 5 + place * 17);
    }
    for (row, line) in lines.iter().enumerate() {
        let top = BAR + row * HEIGHT;
        let mut column = 0;
        for run in line.chunk_by(|one, other| one.1 == other.1) {
            draw(&mut svg, run, column, top);
            column += run.len();
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// One run of characters of one style.
fn draw(svg: &mut String, run: &[Cell], column: usize, top: usize) {
    let Some((_, style)) = run.first().copied() else { return };
    let at = |column: usize| MARGIN as f64 + column as f64 * WIDTH;
    if style.reverse {
        let (x, width, fill) = (at(column), run.len() as f64 * WIDTH, colour(style));
        let _ =
            writeln!(svg, "<rect x=\"{x:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"{fill}\"/>");
    }
    let text: String = run.iter().map(|(character, _)| character).collect();
    let (before, text) = (text.len() - text.trim_start_matches(' ').len(), text.trim_end_matches(' '));
    let text = text.get(before..).unwrap_or_default();
    if text.is_empty() {
        return;
    }
    let mut attributes = String::new();
    match (style.bold, style.dim) {
        (true, _) => attributes.push_str(" class=\"b\""),
        (false, true) => attributes.push_str(" class=\"d\""),
        (false, false) => {}
    }
    match (style.reverse, style.colour) {
        (true, _) => attributes.push_str(&format!(" style=\"fill:{BACKGROUND}\"")),
        (false, Some(_)) => attributes.push_str(&format!(" style=\"fill:{}\"", colour(style))),
        (false, None) => {}
    }
    let (x, y, length) = (at(column + before), top + 14, text.chars().count() as f64 * WIDTH);
    let text = escape(text);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y}\" textLength=\"{length:.1}\" lengthAdjust=\"spacingAndGlyphs\"{attributes}>{text}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_placed_on_the_grid() {
        let green = Style { colour: Some(2), bold: true, ..Style::default() };
        let line = vec![(' ', Style::default()), ('<', Style::default()), ('b', green)];
        let svg = picture("a & b", 10, &[line]);
        assert!(svg.contains("aria-label=\"a &amp; b\""), "{svg}");
        assert!(
            svg.contains("<text x=\"24.4\" y=\"44\" textLength=\"8.4\" lengthAdjust=\"spacingAndGlyphs\">&lt;</text>"),
            "{svg}"
        );
        assert!(svg.contains("class=\"b\" style=\"fill:#8fd46a\">b</text>"), "{svg}");
    }

    #[test]
    fn what_is_reversed_has_a_ground() {
        let reverse = Style { reverse: true, ..Style::default() };
        let svg = picture("", 10, &[vec![('x', reverse), (' ', reverse)]]);
        assert!(svg.contains("width=\"16.8\" height=\"19\" fill=\"#d3dae3\"/>"), "{svg}");
    }
}
