//! The processes of a container, as the machine sees them: whose they are is known from its control group, so nothing
//! is run in it.
//!
//! What `ps` of the machine prints of them is shown where there is one, as Docker does; where there is none, `-ef` is
//! read from `/proc` here.

use std::process::{Command, Stdio};

use hull_runtime::lifecycle;
use rustix::param::clock_ticks_per_second;

use crate::error::Error;
use crate::records::{Container, Engine, Phase, now};

/// A table of processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Columns.
    pub titles: Vec<String>,
    /// One row for each process; the last column holds the rest of the line.
    pub rows: Vec<Vec<String>>,
}

impl Engine {
    /// The processes of a running container, with the columns that the words of `ps` ask for.
    ///
    /// # Errors
    /// [`Error::Status`] unless it runs; [`Error::Flag`] for words that `ps` refuses or that leave out the PID.
    pub fn processes(&self, container: &Container, words: &[String]) -> Result<Processes, Error> {
        let state = self.state(&container.id)?;
        if state.phase != Phase::Running {
            let status = state.phase.as_str().to_owned();
            return Err(Error::Status { operation: "list processes of", id: container.id.clone(), status });
        }
        let pids = lifecycle::processes(&self.oci_root(), &container.id)?;
        let given = if words.is_empty() { vec!["-ef".to_owned()] } else { words.to_vec() };
        match run_ps(&given, &pids) {
            Some(output) => select(&output?, &pids),
            None if given == ["-ef"] => Ok(own(&pids)),
            None => Err(Error::flag("ps options", "this machine has no ps: leave them out")),
        }
    }
}

/// The output of the machine's `ps`; `None` when there is none.
fn run_ps(words: &[String], pids: &[i32]) -> Option<Result<String, Error>> {
    let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let run = |limited: bool| {
        let mut command = Command::new("ps");
        command.args(words).stdin(Stdio::null());
        if limited {
            command.arg("-q").arg(&list);
        }
        command.output()
    };
    // Not every ps has -q, and not with every other option.
    let output = match run(true) {
        Ok(output) if output.status.success() => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        _ => match run(false) {
            Ok(output) => output,
            Err(error) => return Some(Err(Error::io("run", "ps")(error))),
        },
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
        return Some(Err(Error::flag("ps options", reason.trim())));
    }
    Some(Ok(String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Splits a line into so many fields; the last takes the rest.
fn fields(line: &str, count: usize) -> Vec<String> {
    let mut rest = line.trim();
    let mut list = Vec::new();
    while list.len() + 1 < count && !rest.is_empty() {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        list.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    list.push(rest.to_owned());
    list
}

/// The rows of the container's processes.
fn select(output: &str, pids: &[i32]) -> Result<Processes, Error> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let place = titles.iter().position(|title| title == "PID");
    let place = place.ok_or_else(|| Error::flag("ps options", "couldn't find PID field in ps output"))?;
    let mut rows = Vec::new();
    let mut shown = false;
    for line in lines {
        let row = fields(line, titles.len());
        let pid = row.get(place).map(String::as_str).unwrap_or_default();
        // With `m` the threads of a process follow it and have a dash in place of the number.
        shown = if pid == "-" { shown } else { pid.parse().is_ok_and(|pid: i32| pids.contains(&pid)) };
        if shown {
            rows.push(row);
        }
    }
    Ok(Processes { titles, rows })
}

/// What `/proc` says of a process.
struct Stat {
    parent: String,
    terminal: i32,
    ticks: u64,
    started: u64,
    name: String,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = text.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let rest: Vec<&str> = after.split_whitespace().collect();
    let number = |index: usize| rest.get(index).and_then(|text| text.parse::<u64>().ok());
    Some(Stat {
        parent: (*rest.get(1)?).to_owned(),
        terminal: rest.get(4)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        started: number(19)?,
        name,
    })
}

/// `?` or `pts/3`.
fn terminal(number: i32) -> String {
    let device = u64::from(number.cast_unsigned());
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 if minor < 64 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

fn user(pid: i32, passwd: &str) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(uid) = std::fs::metadata(format!("/proc/{pid}")).map(|one| one.uid()) else { return "?".to_owned() };
    let id = uid.to_string();
    let name = passwd.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)? == id).then(|| name.to_owned())
    });
    name.unwrap_or(id)
}

fn own(pids: &[i32]) -> Processes {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ticks = clock_ticks_per_second().max(1);
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime: u64 = uptime.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let clock = now() / 1_000_000_000;
    let row = |pid: &i32| {
        let stat = stat(*pid)?;
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let command = match words.join(" ").trim_end() {
            "" => format!("[{}]", stat.name),
            line => line.to_owned(),
        };
        let age = uptime.saturating_sub(stat.started / ticks);
        let begun = clock.saturating_sub(age) % 86_400;
        let used = stat.ticks / ticks;
        let share = (used * 100).checked_div(age).unwrap_or(0);
        Some(vec![
            user(*pid, &passwd),
            pid.to_string(),
            stat.parent,
            share.min(99).to_string(),
            format!("{:02}:{:02}", begun / 3600, begun / 60 % 60),
            terminal(stat.terminal),
            format!("{:02}:{:02}:{:02}", used / 3600, used / 60 % 60, used % 60),
            command,
        ])
    };
    Processes {
        titles: ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned).to_vec(),
        rows: pids.iter().filter_map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_container_s_and_the_last_field_takes_the_rest() {
        let text = "  PID TTY  CMD\n    7 ?    sleep 1  2\n   70 ?    other\n    8 pts/0 sh\n    - -    thread\n";
        let found = select(text, &[7, 8]).unwrap();
        assert_eq!(found.titles, ["PID", "TTY", "CMD"]);
        assert_eq!(found.rows, [vec!["7", "?", "sleep 1  2"], vec!["8", "pts/0", "sh"], vec!["-", "-", "thread"]]);
        assert!(select("CMD\nsh\n", &[7]).unwrap_err().to_string().contains("couldn't find PID"));
    }

    #[test]
    fn this_process_is_read_without_ps() {
        let own = own(&[crate::records::own_pid()]);
        assert_eq!((own.rows.len(), own.rows[0].len()), (1, own.titles.len()));
        assert!(own.rows[0][7].contains("hull"), "{:?}", own.rows);
        assert_eq!((terminal(0), terminal(0x8803)), ("?".to_owned(), "pts/3".to_owned()));
    }
}
