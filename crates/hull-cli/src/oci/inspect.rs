//! Commands that look: `state`, `list`, `ps`, `events`, `features`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Stdio;

use hull_oci::Status;
use hull_runtime::lifecycle::{self, Event, Events};
use hull_runtime::state::Record;
use serde::Serialize;

use super::args::Parsed;
use super::{CommandError, Globals, id, print, print_json, units};

/// What `state` and `list -f json` print; names are runc's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    oci_version: String,
    id: String,
    pid: i32,
    status: Status,
    bundle: String,
    rootfs: String,
    created: String,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: std::collections::BTreeMap<String, String>,
    owner: String,
}

impl Shown {
    fn new(globals: &Globals, record: Record) -> Self {
        let status = record.status(&globals.root);
        Self {
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status,
            owner: user_name(record.owner),
            oci_version: record.oci_version,
            id: record.id,
            bundle: record.bundle.to_string_lossy().into_owned(),
            rootfs: record.rootfs.to_string_lossy().into_owned(),
            created: record.created,
            annotations: record.annotations,
        }
    }
}

/// Name of a user of this machine, by the file: a static binary has no other source.
fn user_name(uid: u32) -> String {
    let name = |passwd: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
    };
    std::fs::read_to_string("/etc/passwd").ok().as_deref().and_then(name).unwrap_or_else(|| format!("#{uid}"))
}

/// Prints the state document.
pub(super) fn state(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let record = Record::load(&globals.root, id(parsed)?)?;
    print_json(&Shown::new(globals, record), true)
}

/// Lists containers.
pub(super) fn list(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let records = hull_runtime::state::list(&globals.root)?;
    if parsed.on("quiet") {
        return print(&records.iter().map(|record| format!("{}\n", record.id)).collect::<String>());
    }
    let json = json_asked(parsed.text("format")?)?;
    let shown: Vec<Shown> = records.into_iter().map(|record| Shown::new(globals, record)).collect();
    if json {
        return print_json(&shown, false);
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned).to_vec()];
    rows.extend(shown.into_iter().map(|one| {
        vec![one.id, one.pid.to_string(), one.status.as_str().to_owned(), one.bundle, one.created, one.owner]
    }));
    print(&table(&rows))
}

fn json_asked(format: Option<&str>) -> Result<bool, CommandError> {
    match format {
        None | Some("table") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(CommandError::new(format!("invalid format {other:?}: expected table or json"))),
    }
}

/// Columns three blanks apart, the last one ragged.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0) + 3).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Lists the processes of a container.
pub(super) fn ps(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let id = id(parsed)?;
    let (format, options) = ps_words(parsed)?;
    let json = json_asked(format)?;
    let pids = lifecycle::processes(&globals.root, id)?;
    if json {
        return print_json(&pids, false);
    }
    let pids: BTreeSet<i32> = pids.into_iter().collect();
    let options = if options.is_empty() { vec!["-ef"] } else { options };
    match std::process::Command::new("ps").args(&options).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => print(&filter_ps(&String::from_utf8_lossy(&output.stdout), &pids)?),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            Err(CommandError::new(format!("ps {}: {}", options.join(" "), reason.trim())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => print(&own_ps(&pids)),
        Err(error) => Err(CommandError::new(format!("run ps: {error}"))),
    }
}

/// Words after the ID go to `ps`; a `--format` among them is still ours.
fn ps_words(parsed: &Parsed) -> Result<(Option<&str>, Vec<&str>), CommandError> {
    let mut format = parsed.text("format")?;
    let mut options = Vec::new();
    let mut rest = parsed.words.iter().skip(1);
    while let Some(word) = rest.next() {
        let word = word.to_str().ok_or_else(|| CommandError::new(format!("{word:?} is not UTF-8")))?;
        if let Some(value) = word.strip_prefix("--format=") {
            format = Some(value);
        } else if word == "--format" {
            format = rest.next().and_then(|value| value.to_str());
        } else {
            options.push(word);
        }
    }
    Ok((format, options))
}

/// The header and the lines whose PID column is one of ours.
fn filter_ps(output: &str, pids: &BTreeSet<i32>) -> Result<String, CommandError> {
    let header = output.lines().next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| CommandError::new("ps printed no PID column"))?;
    let ours = |line: &&str| {
        line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok()).is_some_and(|pid: i32| pids.contains(&pid))
    };
    let lines = std::iter::once(header).chain(output.lines().skip(1).filter(ours));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

/// For machines without `ps`.
fn own_ps(pids: &BTreeSet<i32>) -> String {
    let mut rows = vec![["UID", "PID", "PPID", "STAT", "CMD"].map(str::to_owned).to_vec()];
    for pid in pids {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()).unwrap_or("?").to_owned()
        };
        let command = read("cmdline");
        let words: Vec<_> =
            command.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
        // Kernel threads and zombies have no command line.
        let command = if words.is_empty() { format!("[{}]", field("Name:")) } else { words.join(" ") };
        // What a process calls itself must not steer the terminal.
        let command = command.replace(char::is_control, "?");
        rows.push(vec![field("Uid:"), pid.to_string(), field("PPid:"), field("State:"), command]);
    }
    table(&rows)
}

/// One line of `events`.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a hull_cgroup::Stats>,
}

/// Prints statistics once, or statistics and out-of-memory events until the container ends.
pub(super) fn events(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let id = id(parsed)?;
    if parsed.on("stats") {
        let stats = lifecycle::stats(&globals.root, id)?;
        return print_json(&Line { kind: "stats", id, data: Some(&stats) }, false);
    }
    let interval = parsed.text("interval")?.unwrap_or("5s");
    let interval = units::duration(interval)
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| CommandError::new(format!("invalid interval {interval:?}: expected a duration such as 5s")))?;
    let mut events = Events::watch(&globals.root, id, interval)?;
    while let Some(event) = events.next_event()? {
        match event {
            Event::Stats(stats) => print_json(&Line { kind: "stats", id, data: Some(&stats) }, false),
            Event::Oom => print_json(&Line { kind: "oom", id, data: None }, false),
        }?;
    }
    Ok(0)
}

/// Prints what this runtime supports.
pub(super) fn features() -> Result<u8, CommandError> {
    let options = hull_runtime::rootfs::options::known();
    print_json(&lifecycle::features(&options), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ps_output_is_filtered_by_its_pid_column() {
        let output =
            "UID          PID    PPID  C CMD\nroot           1       0  0 init\nroot          17       1  0 a 1\n";
        let filtered = filter_ps(output, &BTreeSet::from([17])).unwrap();
        assert_eq!(filtered, "UID          PID    PPID  C CMD\nroot          17       1  0 a 1\n");
        assert!(filter_ps("CMD\ninit\n", &BTreeSet::new()).is_err());
    }

    #[test]
    fn own_listing_has_this_process() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let text = own_ps(&BTreeSet::from([pid]));
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(pid.to_string().as_str()));
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["ID".to_owned(), "PID".to_owned()], vec!["long".to_owned(), "1".to_owned()]];
        assert_eq!(table(&rows), "ID     PID\nlong   1\n");
    }

    #[test]
    fn names_of_users() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000_123), "#4000000123");
    }
}
