//! The screen in a real pseudo-terminal.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hull_testkit::home;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// A program on a terminal of its own.
struct Screen {
    master: OwnedFd,
    slave: OwnedFd,
    before: Termios,
    child: Child,
    /// Everything that it wrote.
    text: String,
}

impl Screen {
    fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("open a terminal");
        grantpt(&master).expect("grant");
        unlockpt(&master).expect("unlock");
        let name = ptsname(&master, Vec::new()).expect("name of the terminal");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).expect("open its other end");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).expect("set its size");
        let before = tcgetattr(&slave).expect("its modes");
        let end = || slave.try_clone().expect("duplicate");
        command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm");
        let child = command.spawn().expect("start hull");
        Self { master, slave, before, child, text: String::new() }
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.slave, size).expect("set its size");
    }

    fn press(&mut self, keys: &str) {
        let mut file = std::fs::File::from(self.master.try_clone().expect("duplicate"));
        file.write_all(keys.as_bytes()).expect("press keys");
    }

    fn read(&mut self) {
        let mut files = [PollFd::new(&self.master, PollFlags::IN)];
        let most = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        if poll(&mut files, Some(&most)).expect("poll") > 0 {
            let mut bytes = [0; 16 << 10];
            let length = rustix::io::read(&self.master, &mut bytes).unwrap_or(0);
            self.text.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    }

    /// The last whole frame.
    fn frame(&self) -> &str {
        let end = self.text.rfind("\x1b[J").unwrap_or(0);
        let start = self.text[..end].rfind("\x1b[H").unwrap_or(0);
        &self.text[start..end]
    }

    #[track_caller]
    fn until(&mut self, what: &str, shown: impl Fn(&str) -> bool) {
        let begin = Instant::now();
        while !shown(self.frame()) {
            assert!(begin.elapsed() < Duration::from_secs(30), "never: {what}; the screen: {:?}", self.frame());
            self.read();
        }
    }

    /// Waits for its end, which leaves the terminal as it was.
    #[track_caller]
    fn ends(mut self) -> String {
        let begin = Instant::now();
        let status = loop {
            self.read();
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "it does not end");
        };
        self.read();
        assert!(status.success(), "{status}");
        assert!(self.text.ends_with("\x1b[?1049l"), "the other screen stays: {:?}", self.frame());
        let after = tcgetattr(&self.slave).expect("its modes");
        assert_eq!(format!("{:?}", after.local_modes), format!("{:?}", self.before.local_modes));
        assert_eq!(format!("{:?}", after.output_modes), format!("{:?}", self.before.output_modes));
        std::mem::take(&mut self.text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn keys_lead_through_the_screen_and_ctrl_c_restores_the_terminal() {
    let home = home!(plain).without(&["NO_COLOR"]);
    let mut screen = Screen::start(home.hull(&["ui"]), 80, 24);
    screen.until("an empty list", |frame| frame.contains("no containers"));
    screen.press("?");
    screen.until("help", |frame| frame.contains("explain: where it stands"));
    screen.press("q");
    screen.until("the list", |frame| frame.contains("NAME"));
    // A line feed for each row but the last: nothing scrolls.
    assert_eq!(screen.frame().matches("\r\n").count(), 23);
    screen.resize(20, 6);
    screen.press("j");
    screen.until("a small screen", |frame| frame.matches("\r\n").count() == 5);
    screen.press("\x03");
    screen.ends();
}

#[test]
fn top_without_a_name_is_the_screen_and_colours_can_be_refused() {
    let home = home!(plain).without(&["NO_COLOR"]);
    let mut command = home.hull(&["top"]);
    command.env("NO_COLOR", "1");
    let mut screen = Screen::start(command, 20, 10);
    screen.until("an empty list", |frame| frame.contains("no containers"));
    screen.press("q");
    let text = screen.ends();
    assert!(!text.contains("\x1b[3"), "{text:?}");
    let without = hull_testkit::finish(home.hull(&["top"]).stdin(std::process::Stdio::null()));
    assert!(without.code == 1 && without.stderr.contains("needs a terminal"), "{}", without.stderr);
}

#[test]
fn a_signal_restores_the_terminal() {
    let home = home!(plain).without(&["NO_COLOR"]);
    let mut screen = Screen::start(home.hull(&["ui"]), 80, 24);
    screen.until("an empty list", |frame| frame.contains("no containers"));
    let pid = rustix::process::Pid::from_child(&screen.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("send SIGTERM");
    screen.ends();
}

#[test]
fn root_a_container_is_watched_looked_into_and_killed() {
    let Some(home) = home!() else { return };
    let id = home.detached(&["--name", "watched"], &["sleep", "600"]);
    let _ = home.detached(&["--name", "other"], &["sleep", "600"]);
    let mut screen = Screen::start(home.hull(&["ui"]), 120, 24);
    screen.until("two that run", |frame| frame.contains("2 of 2 running") && frame.contains("watched"));
    screen.press("/watch\r");
    screen.until("one of them", |frame| frame.contains("watched") && !frame.contains("other "));
    screen.press("p");
    screen.until("its process", |frame| frame.contains("/probe sleep 600"));
    screen.press("e");
    screen.until("what is said of it", |frame| frame.contains("Namespaces"));
    screen.press("l");
    screen.until("its log", |frame| frame.contains("(no output)"));
    screen.press("i");
    screen.until("no layers", |frame| frame.contains("runs on a directory"));
    screen.press("x");
    screen.until("a question", |frame| frame.contains("kill watched? y/n"));
    screen.press("n");
    screen.until("an answer", |frame| frame.contains("not killed"));
    screen.press("xy");
    screen.until("its end", |frame| frame.contains("Exited (137)"));
    assert_eq!(home.field(&id, "{{.State.Status}}"), "exited");
    screen.press("qq");
    screen.ends();
    home.run(&["rm", "-f", "watched", "other"]).ok();
    home.assert_clean();
}
