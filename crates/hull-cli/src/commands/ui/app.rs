//! What is on the screen, and what a key does to it.

use super::keys::Key;

/// One container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) image: String,
    pub(super) status: String,
    pub(super) running: bool,
    pub(super) paused: bool,
    /// It has ended with another exit code than 0.
    pub(super) failed: bool,
    pub(super) cpu: f64,
    pub(super) memory: u64,
    pub(super) memory_percent: f64,
    pub(super) network: String,
    pub(super) block: String,
    pub(super) pids: u64,
}

/// A side of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Logs,
    Processes,
    Explain,
    Layers,
}

impl Tab {
    pub(super) const ALL: [(Self, char, &'static str); 4] = [
        (Self::Logs, 'l', "logs"),
        (Self::Processes, 'p', "processes"),
        (Self::Explain, 'e', "explain"),
        (Self::Layers, 'i', "layers"),
    ];
}

/// What fills the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    List,
    /// One side of the container of this ID.
    Open(String, Tab),
    Help,
}

/// What is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    Filter,
    /// Whether to kill the container of this ID and name.
    Kill(String, String),
}

/// What the screen cannot do by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    /// There is something else to be shown.
    Load,
    Stop(String, String),
    Restart(String, String),
    Kill(String, String),
}

#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) rows: Vec<Row>,
    /// ID of the chosen container.
    pub(super) chosen: Option<String>,
    pub(super) view: View,
    pub(super) filter: String,
    pub(super) prompt: Option<Prompt>,
    pub(super) message: String,
    /// What an open container shows.
    pub(super) lines: Vec<String>,
    /// First line that is shown.
    pub(super) scroll: usize,
    /// The end stays in sight.
    follow: bool,
}

impl App {
    pub(super) fn new(filter: String) -> Self {
        Self {
            rows: Vec::new(),
            chosen: None,
            view: View::List,
            filter,
            prompt: None,
            message: String::new(),
            lines: Vec::new(),
            scroll: 0,
            follow: false,
        }
    }

    pub(super) fn say(&mut self, text: String) {
        self.message = text;
    }

    /// The containers that fit the filter.
    pub(super) fn visible(&self) -> Vec<&Row> {
        let fits = |row: &&Row| {
            self.filter.is_empty()
                || row.name.contains(&self.filter)
                || row.image.contains(&self.filter)
                || row.id.starts_with(&self.filter)
        };
        self.rows.iter().filter(fits).collect()
    }

    fn position(&self) -> usize {
        let chosen = self.chosen.as_deref();
        self.visible().iter().position(|row| Some(row.id.as_str()) == chosen).unwrap_or(0)
    }

    fn choose(&mut self, place: usize) {
        let visible = self.visible();
        let last = visible.len().saturating_sub(1);
        self.chosen = visible.get(place.min(last)).map(|row| row.id.clone());
    }

    /// New figures; the same container stays chosen.
    pub(super) fn take(&mut self, rows: Result<Vec<Row>, String>) {
        let place = self.position();
        match rows {
            Ok(rows) => self.rows = rows,
            Err(said) => self.message = said,
        }
        let there = self.chosen.as_ref().is_some_and(|id| self.visible().iter().any(|row| row.id == *id));
        if !there {
            self.choose(place);
        }
    }

    /// The container and the side of it that are shown.
    pub(super) fn open(&self) -> Option<(String, Tab)> {
        match &self.view {
            View::Open(id, tab) => Some((id.clone(), *tab)),
            View::List | View::Help => None,
        }
    }

    /// What an open container shows now.
    pub(super) fn fill(&mut self, lines: Vec<String>) {
        self.lines = lines;
        if self.follow {
            self.scroll = usize::MAX;
        }
    }

    /// The first line that is shown of those that fit.
    pub(super) fn first(&self, height: usize) -> usize {
        self.scroll.min(self.lines.len().saturating_sub(height))
    }

    /// The chosen container: in a list, or the open one.
    pub(super) fn current(&self) -> Option<&Row> {
        let id = match &self.view {
            View::Open(id, _) => Some(id),
            View::List | View::Help => self.chosen.as_ref(),
        };
        self.rows.iter().find(|row| Some(&row.id) == id)
    }

    fn show(&mut self, tab: Tab) -> Action {
        let Some(id) = self.current().map(|row| row.id.clone()) else { return Action::None };
        self.view = View::Open(id, tab);
        self.lines = vec!["reading ...".to_owned()];
        (self.scroll, self.follow) = (0, tab == Tab::Logs);
        Action::Load
    }

    fn scroll(&mut self, by: isize, page: usize) {
        let first = self.first(page);
        self.scroll = first.saturating_add_signed(by).min(self.lines.len().saturating_sub(page));
        self.follow = matches!(self.view, View::Open(_, Tab::Logs)) && self.scroll + page >= self.lines.len();
    }

    /// Moves by so many lines.
    fn step(&mut self, by: isize, page: usize) {
        match self.view {
            View::List => self.choose(self.position().saturating_add_signed(by)),
            View::Open(..) => self.scroll(by, page),
            View::Help => {}
        }
    }

    fn typed(&mut self, prompt: Prompt, key: Key) -> Action {
        match (prompt, key) {
            (Prompt::Kill(id, name), Key::Char('y' | 'Y')) => {
                self.prompt = None;
                return Action::Kill(id, name);
            }
            (Prompt::Kill(..), _) => {
                self.prompt = None;
                self.message = "not killed".to_owned();
            }
            (Prompt::Filter, Key::Enter) => self.prompt = None,
            (Prompt::Filter, Key::Escape) => {
                self.prompt = None;
                self.filter.clear();
            }
            (Prompt::Filter, Key::Backspace) => drop(self.filter.pop()),
            (Prompt::Filter, Key::Char(letter)) if self.filter.len() < 128 => self.filter.push(letter),
            (Prompt::Filter, _) => {}
        }
        if self.prompt == Some(Prompt::Filter) || self.prompt.is_none() {
            self.choose(self.position());
        }
        Action::None
    }

    /// What a key does on a screen of so many rows.
    pub(super) fn key(&mut self, key: Key, rows: usize) -> Action {
        if key == Key::Interrupt {
            return Action::Quit;
        }
        self.message.clear();
        if let Some(prompt) = self.prompt.clone() {
            return self.typed(prompt, key);
        }
        let page = page(rows);
        let whole = isize::try_from(page).unwrap_or(1).max(1);
        match key {
            Key::Char('q') | Key::Escape if self.view != View::List => self.view = View::List,
            Key::Char('q') => return Action::Quit,
            Key::Escape => self.filter.clear(),
            Key::Char('?') => self.view = if self.view == View::Help { View::List } else { View::Help },
            Key::Char('j') | Key::Down => self.step(1, page),
            Key::Char('k') | Key::Up => self.step(-1, page),
            Key::PageDown | Key::Char(' ') => self.step(whole, page),
            Key::PageUp => self.step(-whole, page),
            Key::Char('g') | Key::Home => self.step(isize::MIN / 2, page),
            Key::Char('G') | Key::End => self.step(isize::MAX / 2, page),
            Key::Char('/') => (self.view, self.prompt) = (View::List, Some(Prompt::Filter)),
            Key::Enter if self.view == View::List => return self.show(Tab::Logs),
            Key::Char(letter) => return self.letter(letter),
            Key::Enter | Key::Backspace | Key::Interrupt => {}
        }
        Action::None
    }

    fn letter(&mut self, letter: char) -> Action {
        if let Some((tab, ..)) = Tab::ALL.iter().find(|(_, key, _)| *key == letter) {
            return self.show(*tab);
        }
        let Some((id, name)) = self.current().map(|row| (row.id.clone(), row.name.clone())) else {
            return Action::None;
        };
        match letter {
            's' => return Action::Stop(id, name),
            'r' => return Action::Restart(id, name),
            'x' => self.prompt = Some(Prompt::Kill(id, name)),
            _ => {}
        }
        Action::None
    }
}

/// Lines beside a text: the title, a heading, and the last line.
const FRAME: usize = 3;

/// Lines of text on a screen of so many rows.
pub(super) fn page(rows: usize) -> usize {
    rows.saturating_sub(FRAME).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(names: &[&str]) -> App {
        let mut app = App::new(String::new());
        app.take(Ok(rows(names)));
        app
    }

    fn rows(names: &[&str]) -> Vec<Row> {
        let row =
            |name: &&str| Row { id: format!("id-{name}"), name: (*name).to_owned(), running: true, ..Row::default() };
        names.iter().map(row).collect()
    }

    fn chosen(app: &App) -> &str {
        app.current().map_or("", |row| row.name.as_str())
    }

    #[test]
    fn the_choice_moves_and_stays_with_its_container() {
        let mut app = app(&["a", "b", "c"]);
        app.key(Key::Char('k'), 24);
        assert_eq!(chosen(&app), "a");
        app.key(Key::Down, 24);
        assert_eq!(chosen(&app), "b");
        app.take(Ok(rows(&["new", "a", "b", "c"])));
        assert_eq!(chosen(&app), "b");
        app.take(Ok(rows(&["new", "a", "c"])));
        assert_eq!(chosen(&app), "c");
        app.key(Key::Char('G'), 24);
        app.key(Key::Char('g'), 24);
        assert_eq!(chosen(&app), "new");
        app.take(Ok(Vec::new()));
        assert_eq!(chosen(&app), "");
        assert_eq!(app.key(Key::Char('l'), 24), Action::None);
        assert_eq!(app.key(Key::Char('s'), 24), Action::None);
    }

    #[test]
    fn killing_asks_first() {
        let mut app = app(&["a"]);
        assert_eq!(app.key(Key::Char('x'), 24), Action::None);
        assert_eq!(app.key(Key::Char('n'), 24), Action::None);
        assert_eq!(app.message, "not killed");
        app.key(Key::Char('x'), 24);
        assert_eq!(app.key(Key::Char('y'), 24), Action::Kill("id-a".to_owned(), "a".to_owned()));
        assert_eq!(app.key(Key::Char('s'), 24), Action::Stop("id-a".to_owned(), "a".to_owned()));
    }

    #[test]
    fn a_filter_is_typed_and_given_up() {
        let mut app = app(&["web", "db"]);
        for key in [Key::Char('/'), Key::Char('d'), Key::Char('q'), Key::Backspace] {
            assert_eq!(app.key(key, 24), Action::None);
        }
        assert_eq!((app.visible().len(), chosen(&app)), (1, "db"));
        app.key(Key::Escape, 24);
        assert_eq!(app.visible().len(), 2);
        assert_eq!(app.key(Key::Char('q'), 24), Action::Quit);
    }

    #[test]
    fn the_end_of_a_log_stays_in_sight_until_somebody_scrolls_up() {
        let mut app = app(&["web"]);
        assert_eq!(app.key(Key::Enter, 24), Action::Load);
        let page = page(24);
        let lines = |count: usize| (0..count).map(|line| line.to_string()).collect::<Vec<_>>();
        app.fill(lines(100));
        assert_eq!(app.first(page), 100 - page);
        app.key(Key::Up, 24);
        app.fill(lines(200));
        assert_eq!(app.first(page), 99 - page);
        app.key(Key::Char('G'), 24);
        app.fill(lines(300));
        assert_eq!(app.first(page), 300 - page);
        app.key(Key::Char('q'), 24);
        assert_eq!(app.view, View::List);
    }
}
