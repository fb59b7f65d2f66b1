//! `hull ui`, and `hull top` without a name: a terminal screen of containers, driven by keys.
//!
//! [`app`] is what is shown and what a key does to it, without terminal or engine; [`draw`] makes text of it for a size;
//! [`data`] asks the engine; [`terminal`] is the terminal and [`keys`] what comes from it. The loop here has one thread:
//! it waits for a key, a signal or the next second. What takes time, such as stopping, is done by a command of its own.

mod app;
mod data;
mod draw;
mod keys;
mod terminal;

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_engine::Engine;

use self::app::{Action, App};
use self::data::Source;
use self::terminal::{Event, Terminal};
use super::{Done, Failure};

/// Between two looks at the containers.
const INTERVAL: Duration = Duration::from_secs(1);

/// Watch containers on a screen: use, logs, processes, layers
///
/// Keys: j and k move, enter opens, l logs, p processes, e explain, i layers, s stop, r restart, x kill, / filter,
/// ? help, q back and out. NO_COLOR is followed.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "Examples:\n  hull ui\n  hull top\n  hull ui web")]
pub(super) struct Args {
    /// Begin with the containers whose name has this in it
    #[arg(value_name = "CONTAINER")]
    filter: Option<String>,
}

/// A command that was started, and what to say when it has ended.
struct Running {
    child: Child,
    what: String,
}

impl Running {
    /// `hull WORD ID`, by this very program.
    fn start(engine: &Engine, words: &[&str], what: String) -> Result<Self, String> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--root").arg(engine.root()).arg("--state").arg(engine.state_root()).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| format!("{what}: {error}"))?;
        Ok(Self { child, what })
    }

    /// What it said, once it has ended.
    fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let mut said = String::new();
        if let Some(errors) = self.child.stderr.take() {
            // Whatever else it said is in its exit code.
            let _ = errors.take(4096).read_to_string(&mut said);
        }
        let said = said.lines().next().unwrap_or_default().trim_start_matches("hull: ").to_owned();
        Some(match (status.success(), said.is_empty()) {
            (true, _) => format!("{}: done", self.what),
            (false, true) => format!("{}: failed", self.what),
            (false, false) => said,
        })
    }
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let mut terminal = Terminal::open().map_err(Failure::new)?;
    let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut app = App::new(args.filter.clone().unwrap_or_default());
    let mut source = Source::default();
    let mut running: Vec<Running> = Vec::new();
    app.take(source.rows(engine));
    let mut next = Instant::now() + INTERVAL;
    loop {
        let size = terminal.size();
        if !terminal.show(&draw::frame(&app, size, color)) {
            return Ok(0);
        }
        let mut stale = false;
        match terminal.wait(next.saturating_duration_since(Instant::now())).map_err(Failure::new)? {
            Event::Quit => return Ok(0),
            Event::Resized => {}
            Event::Tick => stale = true,
            Event::Keys(keys) => {
                for key in keys {
                    let action = app.key(key, usize::from(size.1));
                    let (words, id, what) = match action {
                        Action::None => continue,
                        Action::Quit => return Ok(0),
                        Action::Load => {
                            stale = true;
                            continue;
                        }
                        Action::Stop(id, name) => ("stop", id, format!("stop {name}")),
                        Action::Restart(id, name) => ("restart", id, format!("restart {name}")),
                        Action::Kill(id, name) => ("kill", id, format!("kill {name}")),
                    };
                    app.say(format!("{what} ..."));
                    // The command must not inherit that this screen takes signals from a descriptor.
                    let started = terminal.with_signals(|| Running::start(engine, &[words, &id], what));
                    match started {
                        Ok(one) => running.push(one),
                        Err(said) => app.say(said),
                    }
                }
            }
        }
        running.retain_mut(|one| match one.ended() {
            Some(said) => {
                app.say(said);
                stale = true;
                false
            }
            None => true,
        });
        if Instant::now() >= next {
            stale = true;
            next = Instant::now() + INTERVAL;
        }
        if stale {
            app.take(source.rows(engine));
            if let Some((id, tab)) = app.open() {
                let lines = source.lines(engine, &id, tab);
                app.fill(lines);
            }
        }
    }
}
