//! A program on a pseudo-terminal of its own: keys go in, and what is written comes out.
//!
//! What a person would see of it is the business of a terminal emulator, such as the crate `vt100`.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// A program on a terminal, which is killed when this is dropped.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
    before: Termios,
    child: Child,
}

impl Terminal {
    /// Starts a program with a new terminal of this size for its three streams.
    ///
    /// # Errors
    /// When there is no terminal to have, or the program cannot be started.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
        set_size(&slave, columns, rows)?;
        let before = tcgetattr(&slave)?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?);
        let child = command.spawn()?;
        Ok(Self { master, slave, before, child })
    }

    /// The program's process ID.
    #[must_use]
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Gives the terminal another size; the program is told by a signal.
    ///
    /// # Errors
    /// As ioctl(2).
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        set_size(&self.slave, columns, rows)
    }

    /// Presses keys.
    ///
    /// # Errors
    /// As write(2).
    pub fn press(&self, keys: &str) -> io::Result<()> {
        std::fs::File::from(self.master.try_clone()?).write_all(keys.as_bytes())
    }

    /// What the program has written since the last time; empty if there is nothing within 50 ms.
    ///
    /// # Errors
    /// As poll(2) and read(2).
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut files = [PollFd::new(&self.master, PollFlags::IN)];
        let most = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut bytes = vec![0; 16 << 10];
        let length = if poll(&mut files, Some(&most))? > 0 { rustix::io::read(&self.master, &mut bytes)? } else { 0 };
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Waits for the program's end while `written` takes all that it writes; `None` when it has not ended by then.
    ///
    /// # Errors
    /// As [`Self::read`] and waitpid(2).
    pub fn end(&mut self, limit: Duration, mut written: impl FnMut(&[u8])) -> io::Result<Option<ExitStatus>> {
        let begin = Instant::now();
        loop {
            // Asked before reading: what was written by then is in the terminal.
            let ended = self.child.try_wait()?;
            let bytes = self.read()?;
            written(&bytes);
            match ended {
                Some(status) if bytes.is_empty() => return Ok(Some(status)),
                None if begin.elapsed() > limit => return Ok(None),
                _ => {}
            }
        }
    }

    /// Whether the terminal's modes are what they were before the program.
    ///
    /// # Errors
    /// As tcgetattr(3).
    pub fn is_as_before(&self) -> io::Result<bool> {
        let after = tcgetattr(&self.slave)?;
        let modes = |termios: &Termios| (termios.input_modes, termios.output_modes, termios.local_modes);
        Ok(modes(&after) == modes(&self.before))
    }
}

fn set_size(terminal: &OwnedFd, columns: u16, rows: u16) -> io::Result<()> {
    Ok(tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
