//! The screen in a real pseudo-terminal, as a person sees it.

use std::process::Command;
use std::time::{Duration, Instant};

use hull_testkit::home;
use hull_testkit::terminal::Terminal;

const LIMIT: Duration = Duration::from_secs(30);

/// A program on a terminal, and what is seen there.
struct Screen {
    terminal: Terminal,
    seen: vt100::Parser,
}

impl Screen {
    fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        command.env("TERM", "xterm");
        let terminal = Terminal::start(command, columns, rows).expect("start hull");
        Self { terminal, seen: vt100::Parser::new(rows, columns, 0) }
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        self.seen.screen_mut().set_size(rows, columns);
        self.terminal.resize(columns, rows).expect("set its size");
    }

    fn press(&mut self, keys: &str) {
        self.terminal.press(keys).expect("press keys");
    }

    /// The characters on it, a line each row.
    fn text(&self) -> String {
        self.seen.screen().contents()
    }

    #[track_caller]
    fn until(&mut self, what: &str, shown: impl Fn(&str) -> bool) {
        let begin = Instant::now();
        while !shown(&self.text()) {
            assert!(begin.elapsed() < LIMIT, "never: {what}; the screen:\n{}", self.text());
            let bytes = self.terminal.read().expect("read the terminal");
            self.seen.process(&bytes);
        }
    }

    /// Whether anything has a colour.
    fn is_coloured(&self) -> bool {
        let screen = self.seen.screen();
        let (rows, columns) = screen.size();
        let coloured = |row, column| {
            let cell = screen.cell(row, column);
            cell.is_some_and(|cell| (cell.fgcolor(), cell.bgcolor()) != (vt100::Color::Default, vt100::Color::Default))
        };
        (0..rows).any(|row| (0..columns).any(|column| coloured(row, column)))
    }

    /// Waits for its end, which leaves the terminal as it was.
    #[track_caller]
    fn ends(mut self) {
        assert!(self.seen.screen().alternate_screen(), "it wrote over what was there before");
        let status = self.terminal.end(LIMIT, |bytes| self.seen.process(bytes)).expect("read the terminal");
        let status = status.expect("it does not end");
        assert!(status.success(), "{status}");
        let screen = self.seen.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "the other screen stays:\n{}", screen.contents());
        assert_eq!(screen.contents(), "");
        assert!(self.terminal.is_as_before().expect("its modes"));
    }
}

#[test]
fn keys_lead_through_the_screen_and_ctrl_c_restores_the_terminal() {
    let home = home!(plain).without(&["NO_COLOR"]);
    let mut screen = Screen::start(home.hull(&["ui"]), 80, 24);
    screen.until("an empty list", |text| text.contains("no containers"));
    screen.press("?");
    screen.until("help", |text| text.contains("explain: where it stands"));
    screen.press("q");
    screen.until("the list", |text| text.contains("NAME"));
    // The first line is still there: nothing has scrolled.
    let first = screen.text().lines().next().unwrap_or_default().to_owned();
    assert!(first.contains("0 of 0 running"), "{first:?}");
    screen.resize(20, 6);
    screen.press("j");
    screen.until("a small screen", |text| text.lines().next().is_some_and(|line| line.starts_with(&first[..10])));
    screen.press("\x03");
    screen.ends();
}

#[test]
fn top_without_a_name_is_the_screen_and_colours_can_be_refused() {
    let home = home!(plain).without(&["NO_COLOR"]);
    let mut command = home.hull(&["top"]);
    command.env("NO_COLOR", "1");
    let mut screen = Screen::start(command, 20, 10);
    screen.until("an empty list", |text| text.contains("no containers"));
    assert!(!screen.is_coloured());
    screen.press("q");
    screen.ends();
    let without = hull_testkit::finish(home.hull(&["top"]).stdin(std::process::Stdio::null()));
    assert!(without.code == 1 && without.stderr.contains("needs a terminal"), "{}", without.stderr);
}

#[test]
fn a_signal_restores_the_terminal() {
    let home = home!(plain).without(&["NO_COLOR"]);
    let mut screen = Screen::start(home.hull(&["ui"]), 80, 24);
    screen.until("an empty list", |text| text.contains("no containers"));
    rustix::process::kill_process(screen.terminal.pid(), rustix::process::Signal::TERM).expect("send SIGTERM");
    screen.ends();
}

#[test]
fn root_a_container_is_watched_looked_into_and_killed() {
    let Some(home) = home!() else { return };
    let id = home.detached(&["--name", "watched"], &["sleep", "600"]);
    let _ = home.detached(&["--name", "other"], &["sleep", "600"]);
    let mut screen = Screen::start(home.hull(&["ui"]), 120, 24);
    screen.until("two that run", |text| text.contains("2 of 2 running") && text.contains("watched"));
    screen.press("/watch\r");
    screen.until("one of them", |text| text.contains("watched") && !text.contains("other "));
    screen.press("p");
    screen.until("its process", |text| text.contains("/probe sleep 600"));
    screen.press("e");
    screen.until("what is said of it", |text| text.contains("Namespaces"));
    screen.press("l");
    screen.until("its log", |text| text.contains("(no output)"));
    screen.press("i");
    screen.until("no layers", |text| text.contains("runs on a directory"));
    screen.press("x");
    screen.until("a question", |text| text.contains("kill watched? y/n"));
    screen.press("n");
    screen.until("an answer", |text| text.contains("not killed"));
    screen.press("xy");
    screen.until("its end", |text| text.contains("Exited (137)"));
    assert_eq!(home.field(&id, "{{.State.Status}}"), "exited");
    screen.press("qq");
    screen.ends();
    home.run(&["rm", "-f", "watched", "other"]).ok();
    home.assert_clean();
}
