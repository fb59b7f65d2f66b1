//! The terminal: raw, on its other screen, and as it was before however this ends.

use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use super::keys::{Key, decode};

/// The other screen, no cursor, no wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    Keys(Vec<Key>),
    /// It has another size, or goes on after a stop.
    Resized,
    /// Nothing, for the time that was given.
    Tick,
    /// Somebody wants this to end, or the terminal is gone.
    Quit,
}

/// A terminal in this state; dropping it restores everything.
#[derive(Debug)]
pub(super) struct Terminal {
    before: Termios,
    signals: Option<OwnedFd>,
}

impl Terminal {
    pub(super) fn open() -> Result<Self, String> {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if dumb || !isatty(stdin()) || !isatty(stdout()) {
            return Err("this needs a terminal: see 'hull ps', 'hull stats' and 'hull top CONTAINER'".to_owned());
        }
        let fail = |errno: rustix::io::Errno| format!("prepare the terminal: {}", std::io::Error::from(errno));
        let before = tcgetattr(stdin()).map_err(fail)?;
        let signals = Some(hull_sys::signal::redirect().map_err(fail)?);
        let terminal = Self { before, signals };
        let mut raw = terminal.before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(fail)?;
        // A panic ends the program without dropping anything.
        let (hook, restored) = (std::panic::take_hook(), terminal.before.clone());
        std::panic::set_hook(Box::new(move |panic| {
            restore(&restored);
            hook(panic);
        }));
        let mut out = std::io::stdout();
        let _ = out.write_all(ENTER.as_bytes()).and_then(|()| out.flush());
        Ok(terminal)
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (u16, u16) {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
            _ => (80, 24),
        }
    }

    /// Draws; says whether anybody can see it.
    pub(super) fn show(&self, frame: &str) -> bool {
        let mut out = std::io::stdout();
        out.write_all(frame.as_bytes()).and_then(|()| out.flush()).is_ok()
    }

    /// Does something with signals as they are for every program.
    pub(super) fn with_signals<T>(&mut self, act: impl FnOnce() -> T) -> T {
        self.signals = None;
        // Neither fails for a reason that this could mend.
        let _ = hull_sys::signal::unblock_all();
        let result = act();
        self.signals = hull_sys::signal::redirect().ok();
        result
    }

    /// Waits for whatever comes first.
    pub(super) fn wait(&self, most: Duration) -> Result<Event, String> {
        let fail = |errno: rustix::io::Errno| format!("read the terminal: {}", std::io::Error::from(errno));
        let input = stdin();
        let mut files = vec![PollFd::new(&input, PollFlags::IN)];
        files.extend(self.signals.as_ref().map(|signals| PollFd::new(signals, PollFlags::IN)));
        let most = Timespec { tv_sec: most.as_secs().try_into().unwrap_or(1), tv_nsec: most.subsec_nanos().into() };
        match poll(&mut files, Some(&most)) {
            Ok(0) => return Ok(Event::Tick),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(fail(errno)),
        }
        if let Some(signals) = &self.signals {
            while let Some(received) = hull_sys::signal::next(signals.as_fd()).map_err(fail)? {
                use rustix::process::Signal;
                let is = |signal: Signal| received.signal == signal.as_raw();
                if is(Signal::TERM) || is(Signal::HUP) || is(Signal::INT) || is(Signal::QUIT) {
                    return Ok(Event::Quit);
                }
            }
        }
        if files[0].revents().is_empty() {
            return Ok(Event::Resized);
        }
        let mut bytes = [0; 256];
        match rustix::io::read(input, &mut bytes) {
            Ok(0) | Err(rustix::io::Errno::IO) => Ok(Event::Quit),
            Ok(length) => Ok(Event::Keys(decode(&bytes[..length]))),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(Event::Resized),
            Err(errno) => Err(fail(errno)),
        }
    }
}

fn restore(before: &Termios) {
    let mut out = std::io::stdout();
    let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore(&self.before);
        let _ = hull_sys::signal::unblock_all();
    }
}
