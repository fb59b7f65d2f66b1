//! Progress as lines, in the form of BuildKit's plain output: scripts and people's eyes know it.
//!
//! ```text
//! #5 [2/3] RUN make
//! #5 0.123 text
//! #5 DONE 0.2s
//! ```
//!
//! Steps that run at the same time are shown one after the other as long as the one on show is busy.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hull_build::observer::{Event, Observer, StepId, Warning};

use super::progress::{Lines, Shown, cut, size};

/// A step that has said nothing for so long gives way to another.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two lines of a part that goes on.
const EVERY: Duration = Duration::from_secs(5);

/// Characters of a step's name.
const WIDTH: usize = 1000;

/// So many last lines of a failed step are shown again.
const LAST: usize = 50;

#[derive(Debug)]
pub(super) struct Plain(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    steps: BTreeMap<StepId, Step>,
    next: usize,
    /// The step on show, and when it last said something.
    current: Option<(StepId, Instant)>,
    /// Something was shown.
    begun: bool,
    failed: Vec<StepId>,
    warnings: Vec<Warning>,
}

#[derive(Debug)]
struct Step {
    number: usize,
    name: String,
    began: Instant,
    lines: Lines,
    /// Not shown yet.
    waiting: Vec<String>,
    ended: bool,
    /// When its parts began, and were told of last.
    parts: BTreeMap<String, (Instant, Instant)>,
    last: std::collections::VecDeque<String>,
}

impl Plain {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }
}

impl State {
    fn begin(&mut self, id: StepId, name: &str) {
        if name.is_empty() || self.steps.contains_key(&id) {
            return;
        }
        self.next += 1;
        let step = Step {
            number: self.next,
            name: name.to_owned(),
            began: Instant::now(),
            lines: Lines::default(),
            waiting: Vec::new(),
            ended: false,
            parts: BTreeMap::new(),
            last: std::collections::VecDeque::new(),
        };
        self.steps.insert(id, step);
    }

    /// Shows what a step has to say, if it is its turn.
    fn show(&mut self, id: StepId) {
        let now = Instant::now();
        match self.current {
            Some((current, _)) if current == id => {}
            Some((current, since)) => {
                let busy = self.steps.get(&current).is_some_and(|step| !step.ended);
                if busy && now.duration_since(since) < PATIENCE {
                    return;
                }
                if busy && let Some(step) = self.steps.get(&current) {
                    write(&format!("#{} ...\n", step.number));
                }
                self.header(id);
            }
            None => self.header(id),
        }
        self.current = Some((id, now));
        let Some(step) = self.steps.get_mut(&id) else { return };
        let text: String = std::mem::take(&mut step.waiting).into_iter().map(|line| line + "\n").collect();
        write(&text);
        if step.ended {
            self.current = None;
            // Whoever has waited is next: first what has ended.
            let waiting = |step: &Step| !step.waiting.is_empty();
            let next = self
                .steps
                .iter()
                .filter(|(_, step)| waiting(step))
                .max_by_key(|(_, step)| (step.ended, usize::MAX - step.number));
            if let Some(next) = next.map(|(id, _)| *id) {
                self.show(next);
            }
        }
    }

    fn header(&mut self, id: StepId) {
        let Some(step) = self.steps.get(&id) else { return };
        let blank = if std::mem::replace(&mut self.begun, true) { "\n" } else { "" };
        write(&format!("{blank}#{} {}\n", step.number, cut(&step.name, WIDTH)));
    }

    fn end(&mut self, id: StepId, words: &str) {
        let Some(step) = self.steps.get_mut(&id) else { return };
        if let Some(line) = step.lines.end() {
            log(step, &line);
        }
        step.waiting.push(format!("#{} {words}", step.number));
        step.ended = true;
        self.show(id);
    }
}

fn log(step: &mut Step, line: &str) {
    let line = format!("{:.3} {line}", step.began.elapsed().as_secs_f64());
    step.waiting.push(format!("#{} {line}", step.number));
    if step.last.len() == LAST {
        step.last.pop_front();
    }
    step.last.push_back(line);
}

impl Observer for Plain {
    fn step(&self, id: StepId, event: Event<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { name } => {
                state.begin(id, name);
                state.show(id);
            }
            Event::Cached { name } => {
                state.begin(id, name);
                state.end(id, "CACHED");
            }
            Event::Log { data, .. } => {
                let Some(step) = state.steps.get_mut(&id) else { return };
                for line in step.lines.take(data) {
                    log(step, &line);
                }
                state.show(id);
            }
            Event::Status { id: part, current, total, done } => {
                let Some(step) = state.steps.get_mut(&id) else { return };
                let now = Instant::now();
                let (began, told) = step.parts.entry(part.to_owned()).or_insert((now, now));
                // Bars are for terminals; here it is said from time to time that it goes on.
                if !done && now.duration_since(*told) < EVERY {
                    return;
                }
                *told = now;
                let bytes = match (current, total) {
                    (0, 0) => String::new(),
                    (current, 0) => format!(" {}", size(current)),
                    (current, total) => format!(" {} / {}", size(current), size(total)),
                };
                let took = began.elapsed().as_secs_f64();
                let took = if took < 0.01 { String::new() } else { format!(" {took:.1}s") };
                let done = if done { " done" } else { "" };
                step.waiting.push(format!("#{} {part}{bytes}{took}{done}", step.number));
                state.show(id);
            }
            Event::Done => {
                let took = state.steps.get(&id).map(|step| step.began.elapsed().as_secs_f64()).unwrap_or_default();
                state.end(id, &format!("DONE {took:.1}s"));
            }
            Event::Failed { reason } => {
                state.failed.push(id);
                state.end(id, &format!("ERROR: {}", hull_oci::spec::one_line(reason)));
            }
            Event::Canceled => state.end(id, "CANCELED"),
        }
    }

    fn warning(&self, warning: &Warning) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.warnings.push(warning.clone());
    }
}

impl Shown for Plain {
    fn finish(&self, _: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest: Vec<StepId> =
            state.steps.iter().filter(|(_, step)| !step.waiting.is_empty()).map(|(id, _)| *id).collect();
        for id in rest {
            if let Some((current, _)) = &mut state.current
                && *current != id
            {
                state.current = None;
            }
            state.show(id);
        }
        for id in &state.failed {
            if let Some(step) = state.steps.get(id) {
                write(&failure(&step.name, step.last.iter().map(String::as_str)));
            }
        }
        write(&warnings(&state.warnings));
    }
}

/// The last lines of a failed step.
pub(super) fn failure<'l>(name: &str, lines: impl Iterator<Item = &'l str>) -> String {
    let mut text = format!("------\n > {name}:\n");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text + "------\n"
}

/// Everything that should be said at the end.
pub(super) fn warnings(warnings: &[Warning]) -> String {
    if warnings.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<&Warning> = warnings.iter().collect();
    sorted.sort_by_key(|warning| warning.lines.map(|lines| lines.start));
    let plural = if sorted.len() == 1 { "" } else { "s" };
    let mut text = format!("\n {} warning{plural} found (use --check to see them all explained):\n", sorted.len());
    for warning in sorted {
        text.push_str(&format!(" - {}\n", hull_oci::spec::one_line(&warning.message)));
    }
    text
}

fn write(text: &str) {
    // Only whoever closed standard error could be told.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
