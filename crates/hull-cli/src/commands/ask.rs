//! Questions to the person at the terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use super::Failure;
use crate::output::print;

/// Asks; anything but a yes is a no.
pub(super) fn confirmed(warning: &str) -> bool {
    print(format_args!("{warning}\nAre you sure you want to continue? [y/N] "));
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Asks on the terminal.
pub(super) fn ask(prompt: &str, echo: bool) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(
            "cannot perform an interactive login from a non TTY device: use --username and --password-stdin",
        ));
    }
    let failed = |error: std::io::Error| Failure::new(format!("read from the terminal: {error}"));
    eprint(prompt);
    let before = tcgetattr(&stdin).map_err(|errno| failed(errno.into()))?;
    if !echo {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &silent).map_err(|errno| failed(errno.into()))?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if !echo {
        tcsetattr(&stdin, OptionalActions::Now, &before).map_err(|errno| failed(errno.into()))?;
        eprint("\n");
    }
    read.map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn eprint(text: &str) {
    // A prompt that nobody sees changes nothing.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
