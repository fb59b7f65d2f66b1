//! How layers come and go: bars with bytes and speed on a terminal, a line for each step elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hull_image::registry::{Event, Progress};
use hull_oci::Digest;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::pace::{Amount, Teller};
use crate::output::print;

/// Shows every event.
#[derive(Debug)]
pub(super) struct Shown {
    way: Way,
    /// Which side has what is there already.
    pushing: bool,
}

#[derive(Debug)]
enum Way {
    /// `--quiet`.
    Not,
    Lines(Mutex<Lines>),
    Bars(Mutex<(MultiProgress, BTreeMap<Digest, ProgressBar>)>),
}

#[derive(Debug)]
struct Lines {
    /// The last line of each layer, so that none is printed twice.
    last: BTreeMap<Digest, String>,
    /// What has come of each, of how much.
    bytes: BTreeMap<Digest, (u64, u64)>,
    teller: Teller,
}

impl Shown {
    pub(super) fn pull(quiet: bool) -> Self {
        Self::new(quiet, false)
    }

    pub(super) fn push(quiet: bool) -> Self {
        Self::new(quiet, true)
    }

    fn new(quiet: bool, pushing: bool) -> Self {
        let way = if quiet {
            Way::Not
        } else if std::io::stdout().is_terminal() {
            Way::Bars(Mutex::new((drawing(), BTreeMap::new())))
        } else {
            Way::Lines(Mutex::new(Lines {
                last: BTreeMap::new(),
                bytes: BTreeMap::new(),
                teller: Teller::patient(false),
            }))
        };
        Self { way, pushing }
    }

    /// Leaves what is drawn as it is, and goes on below it.
    pub(super) fn end(&self) {
        let Way::Bars(drawn) = &self.way else { return };
        let mut drawn = lock(drawn);
        if !drawn.1.is_empty() {
            drawn.1.values().for_each(ProgressBar::abandon);
            *drawn = (drawing(), BTreeMap::new());
            print("\n");
        }
    }
}

fn drawing() -> MultiProgress {
    MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::stdout())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands after the layer's digits, in Docker's words; `None` for what only a bar shows.
fn words(event: &Event, pushing: bool) -> Option<String> {
    Some(match event {
        Event::Waiting => "Pulling fs layer".to_owned(),
        Event::Preparing => "Preparing".to_owned(),
        Event::Exists if pushing => "Layer already exists".to_owned(),
        Event::Exists => "Already exists".to_owned(),
        Event::Downloading(done, all) if done == all => "Download complete".to_owned(),
        Event::Downloading(..) | Event::Pushing(..) => return None,
        Event::Retrying(reason) => format!("Retrying: {}", hull_oci::spec::one_line(reason)),
        Event::PullComplete => "Pull complete".to_owned(),
        Event::Compressing => "Compressing".to_owned(),
        Event::Mounted(from) => format!("Mounted from {}", hull_oci::spec::one_line(from)),
        Event::Pushed => "Pushed".to_owned(),
    })
}

impl Progress for Shown {
    fn layer(&self, layer: &Digest, event: Event) {
        match &self.way {
            Way::Not => {}
            Way::Lines(lines) => {
                let mut lines = lock(lines);
                if let Event::Downloading(done, all) | Event::Pushing(done, all) = event {
                    lines.bytes.insert(layer.clone(), (done, all));
                    let sum =
                        |part: fn(&(u64, u64)) -> u64| lines.bytes.values().map(part).fold(0, u64::saturating_add);
                    let amount = Amount::Bytes(sum(|one| one.0), Some(sum(|one| one.1)));
                    lines.teller.say(if self.pushing { "Pushing" } else { "Downloading" }, amount);
                }
                // Docker has no word for this one.
                if event == Event::Compressing {
                    return;
                }
                let Some(words) = words(&event, self.pushing) else { return };
                if lines.last.insert(layer.clone(), words.clone()).as_ref() != Some(&words) {
                    print(format_args!("{}: {words}\n", layer.short()));
                }
            }
            Way::Bars(drawn) => {
                let mut drawn = lock(drawn);
                let (all, bars) = &mut *drawn;
                let bar = bars.entry(layer.clone()).or_insert_with(|| {
                    let bar = all.add(ProgressBar::new(0).with_prefix(layer.short().to_owned()));
                    bar.set_style(plain());
                    bar
                });
                show(bar, &event, self.pushing);
            }
        }
    }
}

fn show(bar: &ProgressBar, event: &Event, pushing: bool) {
    let (word, numbers) = match event {
        Event::Downloading(done, all) if done < all => ("Downloading", Some((done, all))),
        Event::Pushing(done, all) => ("Pushing", Some((done, all))),
        _ => ("", None),
    };
    if let Some((done, all)) = numbers {
        if bar.message() != word {
            bar.set_style(moving());
            bar.set_length(*all);
        }
        bar.set_message(word);
        bar.set_position(*done);
        return;
    }
    bar.set_style(plain());
    bar.set_message(words(event, pushing).unwrap_or_default());
    if !matches!(
        event,
        Event::Waiting | Event::Preparing | Event::Retrying(_) | Event::Compressing | Event::Downloading(..)
    ) {
        bar.abandon();
    }
}

fn plain() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn moving() -> ProgressStyle {
    let template = "{prefix}: {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}
