//! Progress as a picture of all steps, drawn again while it changes.
//!
//! A thread draws ten times a second and ends with the build. What is drawn is never more than the terminal has rows;
//! at the end all steps are left as lines.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hull_build::observer::{Event, Observer, StepId, Warning};

use super::plain;
use super::progress::{Lines, Shown, cut, size};

/// Between two pictures.
const PERIOD: Duration = Duration::from_millis(100);

/// Last lines of a running step in the picture.
const SHOWN: usize = 6;

/// Last lines of a failed step.
const LAST: usize = 50;

/// How a reason of `--explain` begins, and how many are left in the picture.
const REASON: &str = "not cached: ";
const REASONS: usize = 21;

#[derive(Debug)]
pub(super) struct Terminal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    began: Instant,
    steps: Vec<Step>,
    numbers: BTreeMap<StepId, usize>,
    warnings: Vec<Warning>,
    /// Rows of the last picture.
    rows: usize,
    ended: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            steps: Vec::new(),
            numbers: BTreeMap::new(),
            warnings: Vec::new(),
            rows: 0,
            ended: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Running,
    Done,
    Cached,
    Failed,
    Canceled,
}

#[derive(Debug)]
struct Step {
    name: String,
    began: Instant,
    took: Duration,
    outcome: Outcome,
    lines: Lines,
    last: VecDeque<String>,
    /// What `--explain` says of it, before anything that it prints itself.
    reasons: Vec<String>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: String,
    bytes: String,
    began: Instant,
    took: Option<Duration>,
}

impl Terminal {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let drawn = Arc::clone(&shared);
        // Without the thread there is only the last picture.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || draw_on(&drawn)).ok();
        Self { shared, thread: Mutex::new(thread) }
    }
}

fn draw_on(shared: &Shared) {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    while !state.ended {
        state.draw();
        let waited = shared.ended.wait_timeout(state, PERIOD);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

impl Step {
    fn took(&self) -> Duration {
        if self.outcome == Outcome::Running { self.began.elapsed() } else { self.took }
    }

    fn rows(&self, width: usize, whole: bool) -> Vec<String> {
        let mark = match self.outcome {
            Outcome::Running | Outcome::Done => "",
            Outcome::Cached => "CACHED ",
            Outcome::Failed => "ERROR ",
            Outcome::Canceled => "CANCELED ",
        };
        let mut rows = vec![row(&format!(" => {mark}{}", self.name), &seconds(self.took()), width)];
        rows.extend(self.reasons.iter().map(|reason| cut(&format!(" => => {reason}"), width)));
        for part in &self.parts {
            let took = part.took.unwrap_or_else(|| part.began.elapsed());
            rows.push(row(&format!(" => => {}{}", part.name, part.bytes), &seconds(took), width));
        }
        if self.outcome == Outcome::Running && !whole {
            let skip = self.last.len().saturating_sub(SHOWN);
            rows.extend(self.last.iter().skip(skip).map(|line| cut(&format!(" => => # {line}"), width)));
        }
        rows
    }
}

/// A text on the left and a time on the right.
fn row(text: &str, time: &str, width: usize) -> String {
    let room = width.saturating_sub(time.len() + 1);
    let text = cut(text, room);
    format!("{text:room$} {time}")
}

impl State {
    fn draw(&mut self) {
        let (width, height) = extent();
        let ended = self.steps.iter().filter(|step| step.outcome != Outcome::Running).count();
        let title = format!("[+] Building {} ({ended}/{})", seconds(self.began.elapsed()), self.steps.len());
        let title = if self.ended && ended == self.steps.len() { format!("{title} FINISHED") } else { title };
        let mut rows = vec![cut(&title, width)];
        let pictures: Vec<(bool, Vec<String>)> =
            self.steps.iter().map(|step| (step.outcome == Outcome::Running, step.rows(width, self.ended))).collect();
        let all: usize = pictures.iter().map(|(_, rows)| rows.len()).sum();
        let mut too_many = if self.ended { 0 } else { (all + 2).saturating_sub(height) };
        for (running, picture) in pictures {
            // What has ended goes first where there is no room.
            if !running && too_many > 0 {
                too_many = too_many.saturating_sub(picture.len());
                continue;
            }
            rows.extend(picture);
        }
        if !self.ended {
            rows.truncate(height.saturating_sub(1).max(1));
        }
        let mut text = String::new();
        if self.rows > 0 {
            text.push_str(&format!("\x1b[{}A", self.rows));
        }
        for row in &rows {
            text.push_str("\r\x1b[2K");
            text.push_str(row);
            text.push('\n');
        }
        text.push_str("\x1b[J");
        self.rows = rows.len();
        // Only whoever closed the terminal could be told.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn begin(&mut self, id: StepId, name: &str) {
        if name.is_empty() || self.numbers.contains_key(&id) {
            return;
        }
        self.numbers.insert(id, self.steps.len());
        self.steps.push(Step {
            name: name.to_owned(),
            began: Instant::now(),
            took: Duration::ZERO,
            outcome: Outcome::Running,
            lines: Lines::default(),
            last: VecDeque::new(),
            reasons: Vec::new(),
            parts: Vec::new(),
        });
    }

    fn of(&mut self, id: StepId) -> Option<&mut Step> {
        let number = self.numbers.get(&id)?;
        self.steps.get_mut(*number)
    }

    fn end(&mut self, id: StepId, outcome: Outcome) {
        let Some(step) = self.of(id) else { return };
        step.took = step.began.elapsed();
        step.outcome = outcome;
        if let Some(line) = step.lines.end() {
            keep(step, line);
        }
    }
}

fn keep(step: &mut Step, line: String) {
    if step.last.is_empty() && line.starts_with(REASON) && step.reasons.len() < REASONS {
        step.reasons.push(line);
        return;
    }
    if step.last.len() == LAST {
        step.last.pop_front();
    }
    step.last.push_back(format!("{:.3} {line}", step.began.elapsed().as_secs_f64()));
}

/// Columns and rows of the terminal.
fn extent() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(size) if size.ws_col > 10 && size.ws_row > 3 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

impl Observer for Terminal {
    fn step(&self, id: StepId, event: Event<'_>) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { name } => state.begin(id, name),
            Event::Cached { name } => {
                state.begin(id, name);
                state.end(id, Outcome::Cached);
            }
            Event::Log { data, .. } => {
                let Some(step) = state.of(id) else { return };
                for line in step.lines.take(data) {
                    keep(step, line);
                }
            }
            Event::Status { id: name, current, total, done } => {
                let Some(step) = state.of(id) else { return };
                let bytes = match (current, total) {
                    (0, 0) => String::new(),
                    (current, 0) => format!(" {}", size(current)),
                    (current, total) => format!(" {} / {}", size(current), size(total)),
                };
                let at = match step.parts.iter().position(|part| part.name == name) {
                    Some(at) => at,
                    None => {
                        let began = Instant::now();
                        step.parts.push(Part { name: name.to_owned(), bytes: String::new(), began, took: None });
                        step.parts.len() - 1
                    }
                };
                let Some(part) = step.parts.get_mut(at) else { return };
                if !bytes.is_empty() {
                    part.bytes = bytes;
                }
                if done {
                    part.took.get_or_insert(part.began.elapsed());
                }
            }
            Event::Done => state.end(id, Outcome::Done),
            Event::Failed { .. } => state.end(id, Outcome::Failed),
            Event::Canceled => state.end(id, Outcome::Canceled),
        }
    }

    fn warning(&self, warning: &Warning) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.warnings.push(warning.clone());
    }
}

impl Shown for Terminal {
    fn finish(&self, _: bool) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.shared.ended.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // What it could say, it has drawn.
        let _ = thread.map(JoinHandle::join);
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.draw();
        let mut text = String::new();
        for step in state.steps.iter().filter(|step| step.outcome == Outcome::Failed) {
            text.push_str(&plain::failure(&step.name, step.last.iter().map(String::as_str)));
        }
        text.push_str(&plain::warnings(&state.warnings));
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
