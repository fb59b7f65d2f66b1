//! What a command that takes long is doing, on standard error: one line that changes on a terminal, elsewhere a line at most
//! every few seconds. What a script reads on standard output stays as it is.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::output::units;

/// Between two lines of the same thing that are not on a terminal.
const EVERY: Duration = Duration::from_secs(5);

/// Between two pictures on a terminal.
const REDRAW: Duration = Duration::from_millis(100);

/// How often [`watched`] looks.
const LOOK: Duration = Duration::from_millis(200);

/// What is quicker than this says nothing, where Docker says nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much of it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// Nobody can say.
    Unknown,
    /// Bytes so far, and of how many.
    Bytes(u64, Option<u64>),
    /// Things so far, of how many.
    Things(usize, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Not,
    Lines,
    Terminal,
}

/// Says from time to time what is going on.
#[derive(Debug)]
pub(super) struct Teller {
    way: Way,
    /// What it is, and since when.
    what: String,
    began: Instant,
    /// When it was said last.
    said: Option<Instant>,
    /// Nothing is said before.
    not_before: Instant,
    drawn: bool,
}

impl Teller {
    /// Says at once what is done, unless it is to be quiet.
    pub(super) fn new(quiet: bool) -> Self {
        let able = || std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let way = if quiet {
            Way::Not
        } else if able() {
            Way::Terminal
        } else {
            Way::Lines
        };
        let now = Instant::now();
        Self { way, what: String::new(), began: now, said: None, not_before: now, drawn: false }
    }

    /// Says only what takes long: on a terminal soon, elsewhere after some seconds.
    pub(super) fn patient(quiet: bool) -> Self {
        let mut teller = Self::new(quiet);
        teller.not_before += if teller.way == Way::Lines { EVERY } else { PATIENCE };
        teller
    }

    /// What is going on now. May be called often.
    pub(super) fn say(&mut self, what: &str, amount: Amount) {
        let now = Instant::now();
        if self.what != what {
            what.clone_into(&mut self.what);
            self.began = now;
            self.said = None;
        }
        let pause = if self.way == Way::Terminal { REDRAW } else { EVERY };
        if self.way == Way::Not
            || now < self.not_before
            || self.said.is_some_and(|said| now.duration_since(said) < pause)
        {
            return;
        }
        self.said = Some(now);
        let text = line(what, amount, now.duration_since(self.began));
        // A terminal or a reader that went away is no reason to fail.
        if self.way == Way::Terminal {
            let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
            let columns = if columns == 0 { 80 } else { columns };
            let text: String = text.chars().take(columns.max(2) - 1).collect();
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
            self.drawn = true;
        } else {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Takes the line away again.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Works while another thread says how far it is; not for what clones a container from this process.
pub(super) fn watched<T>(quiet: bool, what: &str, amount: impl Fn() -> Amount + Sync, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (done, end) = channel::<()>();
        let amount = &amount;
        scope.spawn(move || {
            let mut teller = Teller::patient(quiet);
            teller.say(what, Amount::Unknown);
            while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                teller.say(what, amount());
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// `downloading packages: 12.3MB of 45.6MB, 3.1MB/s, 10 s left`
fn line(what: &str, amount: Amount, since: Duration) -> String {
    let seconds = since.as_secs();
    match amount {
        Amount::Unknown if seconds == 0 => what.to_owned(),
        Amount::Unknown => format!("{what}: {}", span(seconds)),
        Amount::Things(done, all) => format!("{what}: {done} of {all}"),
        Amount::Bytes(done, all) => {
            let mut text = format!("{what}: {}", units::size(done));
            if let Some(all) = all {
                text.push_str(&format!(" of {}", units::size(all)));
            }
            let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            let speed = done.saturating_mul(1000) / milliseconds.max(1);
            if milliseconds >= 500 && speed > 0 {
                text.push_str(&format!(", {}/s", units::size(speed)));
                if let Some(left) = all.map(|all| all.saturating_sub(done)).filter(|left| *left > 0) {
                    text.push_str(&format!(", {} left", span(left.div_ceil(speed))));
                }
            }
            text
        }
    }
}

/// `59 s`, `2 min 5 s`, `3 h 20 min`
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_much_how_fast_and_how_long() {
        let after = |milliseconds| Duration::from_millis(milliseconds);
        assert_eq!(line("reading lists", Amount::Unknown, after(10)), "reading lists");
        assert_eq!(line("removing images", Amount::Unknown, after(65_000)), "removing images: 1 min 5 s");
        assert_eq!(line("removing containers", Amount::Things(3, 10), after(9)), "removing containers: 3 of 10");
        assert_eq!(line("loading", Amount::Bytes(0, Some(10)), after(9)), "loading: 0B of 10B");
        let bytes = Amount::Bytes(12_300_000, Some(45_600_000));
        assert_eq!(line("loading", bytes, after(4_100)), "loading: 12.3MB of 45.6MB, 3MB/s, 12 s left");
        assert_eq!(line("loading", Amount::Bytes(1_000, None), after(1_000)), "loading: 1kB, 1kB/s");
        assert_eq!(line("loading", Amount::Bytes(u64::MAX, Some(0)), after(0)), "loading: 18.4EB of 0B");
        assert_eq!(span(12_000), "3 h 20 min");
    }
}
