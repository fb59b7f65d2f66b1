//! The screen as text: as many lines as there are rows, none longer than there are columns.

use super::app::{App, Prompt, Row, Tab, View, page};
use crate::output::units;

const BOLD: &str = "\x1b[1m";
const REVERSE: &str = "\x1b[7m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

const HELP: &[&str] = &[
    "j k, arrows      move, or scroll",
    "g G, home end    to the beginning, to the end",
    "enter, l         logs of the container",
    "p                its processes",
    "e                explain: where it stands, what is risky",
    "i                the layers of its image, and what they waste",
    "s                stop it",
    "r                restart it",
    "x                kill it; asks first",
    "/                show only containers with a text in their names",
    "q, escape        back; from the list, out",
    "ctrl-c           out",
];

/// At most so many characters.
fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}

/// Exactly so many.
fn fit(text: &str, width: usize) -> String {
    let text = if text.chars().count() > width && width > 1 { cut(text, width - 1) + "…" } else { cut(text, width) };
    format!("{text:<width$}")
}

/// A column: its title, the width it has, whether its text may be cut, and what it shows.
struct Column {
    title: &'static str,
    width: usize,
    right: bool,
    cell: fn(&Row) -> String,
}

/// In the order in which they are given up when the screen is narrow, last first.
const COLUMNS: [Column; 8] = [
    Column { title: "NAME", width: 12, right: false, cell: |row| row.name.clone() },
    Column { title: "CPU %", width: 7, right: true, cell: |row| format!("{:.1}", row.cpu) },
    Column { title: "MEMORY", width: 9, right: true, cell: |row| units::binary(row.memory) },
    Column { title: "STATUS", width: 20, right: false, cell: |row| row.status.clone() },
    Column { title: "MEM %", width: 6, right: true, cell: |row| format!("{:.1}", row.memory_percent) },
    Column { title: "NET I/O", width: 19, right: true, cell: |row| row.network.clone() },
    Column { title: "BLOCK I/O", width: 19, right: true, cell: |row| row.block.clone() },
    Column { title: "IMAGE", width: 20, right: false, cell: |row| row.image.clone() },
];

/// How many columns there is room for, and how wide the first is.
fn room(width: usize) -> (usize, usize) {
    let mut used = COLUMNS[0].width;
    let mut count = 1;
    for column in &COLUMNS[1..] {
        if used + 1 + column.width > width {
            break;
        }
        used += 1 + column.width;
        count += 1;
    }
    (count, (COLUMNS[0].width + width.saturating_sub(used)).min(width.max(1)))
}

fn cells(width: usize, cell: impl Fn(&Column) -> String) -> String {
    let (count, first) = room(width);
    let mut line = String::new();
    for (index, column) in COLUMNS[..count].iter().enumerate() {
        let (text, width) = (cell(column), if index == 0 { first } else { column.width });
        if index > 0 {
            line.push(' ');
        }
        match column.right {
            true => line.push_str(&format!("{:>width$}", cut(&text, width))),
            false => line.push_str(&fit(&text, width)),
        }
    }
    cut(&line, width)
}

fn colour(row: &Row) -> &'static str {
    match (row.paused, row.running, row.failed) {
        (true, ..) => YELLOW,
        (_, true, _) => GREEN,
        (_, _, true) => RED,
        _ => "",
    }
}

/// The whole screen.
pub(super) fn frame(app: &App, (columns, rows): (u16, u16), color: bool) -> String {
    let (width, height) = (usize::from(columns), usize::from(rows));
    let styled =
        |style: &str, text: &str| if style.is_empty() { text.to_owned() } else { format!("{style}{text}{PLAIN}") };
    let page = page(height);
    let mut lines: Vec<String> = vec![styled(BOLD, &fit(&title(app), width))];
    match &app.view {
        View::List => {
            lines.push(styled(BOLD, &cells(width, |column| column.title.to_owned())));
            let visible = app.visible();
            let place = visible.iter().position(|row| Some(&row.id) == app.chosen.as_ref()).unwrap_or(0);
            let first = place.saturating_sub(page.saturating_sub(1));
            for row in visible.iter().skip(first).take(page) {
                let text = cells(
                    width,
                    |column| if row.running || !column.right { (column.cell)(row) } else { String::new() },
                );
                let chosen = Some(&row.id) == app.chosen.as_ref();
                let style = if color { colour(row) } else { "" };
                lines.push(styled(&format!("{style}{}", if chosen { REVERSE } else { "" }), &text));
            }
            if visible.is_empty() {
                lines.push(cut("no containers: hull run -d IMAGE makes one", width));
            }
        }
        View::Open(_, tab) => {
            lines.push(styled(BOLD, &cut(&tabs(*tab), width)));
            let first = app.first(page);
            lines.extend(app.lines.iter().skip(first).take(page).map(|line| cut(line, width)));
        }
        View::Help => {
            lines.push(String::new());
            lines.extend(HELP.iter().take(page).map(|line| cut(line, width)));
        }
    }
    // The last row is for what is asked and said; a screen of one row has nothing else.
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), String::new());
    lines.push(cut(&footer(app), width));
    let body = lines.join("\x1b[K\r\n");
    format!("\x1b[H{body}\x1b[K\x1b[J")
}

fn title(app: &App) -> String {
    match (&app.view, app.current()) {
        (View::Open(..), Some(row)) => format!("{}  {}  {}", row.name, row.status, row.image),
        (View::Open(..), None) => "this container is gone".to_owned(),
        (View::Help, _) => "hull: keys".to_owned(),
        (View::List, _) => {
            let running = app.rows.iter().filter(|row| row.running).count();
            let cpu: f64 = app.rows.iter().map(|row| row.cpu).sum();
            let memory: u64 = app.rows.iter().map(|row| row.memory).sum();
            let filter = if app.filter.is_empty() { String::new() } else { format!("  /{}", app.filter) };
            format!(
                "hull: {running} of {} running  CPU {cpu:.1} %  memory {}{filter}",
                app.rows.len(),
                units::binary(memory)
            )
        }
    }
}

fn tabs(open: Tab) -> String {
    let name = |(tab, key, name): &(Tab, char, &str)| match *tab == open {
        true => format!("[{name}]"),
        false => format!("{key} {name}"),
    };
    Tab::ALL.iter().map(name).collect::<Vec<_>>().join("  ")
}

fn footer(app: &App) -> String {
    match &app.prompt {
        Some(Prompt::Filter) => format!("/{}_", app.filter),
        Some(Prompt::Kill(_, name)) => format!("kill {name}? y/n"),
        None if !app.message.is_empty() => hull_oci::spec::one_line(&app.message),
        None => match app.view {
            View::List => "? help  enter logs  s stop  r restart  x kill  / filter  q quit".to_owned(),
            View::Open(..) => "q back  j k scroll  s stop  r restart  x kill".to_owned(),
            View::Help => "q back".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Key;
    use super::*;

    fn app() -> App {
        let mut app = App::new(String::new());
        let row = |name: &str, running: bool| Row {
            id: format!("id-{name}"),
            name: name.to_owned(),
            status: "Up 2 minutes".to_owned(),
            image: "hello".to_owned(),
            running,
            failed: !running,
            cpu: 12.34,
            memory: 5 << 20,
            ..Row::default()
        };
        app.take(Ok(vec![row("web", true), row("a-name-that-is-much-too-long-for-a-narrow-screen", false)]));
        app
    }

    /// The lines without their styles.
    fn plain(frame: &str) -> Vec<String> {
        let mut text = frame.to_owned();
        for style in [BOLD, REVERSE, GREEN, YELLOW, RED, PLAIN, "\x1b[H", "\x1b[J", "\x1b[K"] {
            text = text.replace(style, "");
        }
        text.split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn every_size_is_filled_and_not_exceeded() {
        let mut app = app();
        for key in ['l', 'q', '?', 'q', '/'] {
            for (columns, rows) in [(1, 1), (1, 24), (20, 5), (20, 24), (80, 2), (80, 24), (300, 100)] {
                let lines = plain(&frame(&app, (columns, rows), true));
                assert_eq!(lines.len(), usize::from(rows), "{columns}x{rows}");
                for line in &lines {
                    assert!(line.chars().count() <= usize::from(columns), "{columns}x{rows}: {line:?}");
                    assert!(!line.contains('\x1b'), "{line:?}");
                }
            }
            app.key(Key::Char(key), 24);
        }
    }

    #[test]
    fn a_narrow_screen_keeps_what_matters() {
        let narrow = plain(&frame(&app(), (20, 8), false)).join("\n");
        assert!(narrow.contains("NAME") && narrow.contains("CPU %") && narrow.contains("12.3"), "{narrow}");
        assert!(!narrow.contains("IMAGE"), "{narrow}");
        let wide = plain(&frame(&app(), (160, 8), false)).join("\n");
        assert!(wide.contains("IMAGE") && wide.contains("5MiB") && wide.contains("1 of 2 running"), "{wide}");
    }

    #[test]
    fn without_colour_there_is_none() {
        let text = frame(&app(), (80, 24), false);
        assert!(!text.contains("\x1b[3"), "{text:?}");
        assert!(frame(&app(), (80, 24), true).contains(GREEN));
    }
}
