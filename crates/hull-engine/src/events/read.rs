//! Reading events: those that were, and those to come.
//!
//! There are two files, `log.1` and `log`; the second becomes the first when it is full. A reader goes on with the file it
//! has open to its end before it looks for another one of that name, so nothing is missed in between.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Event, directory};
use crate::changes::Watch;
use crate::error::Error;
use crate::records::{Engine, create_private, now};

/// The filters that there are.
pub const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// An event is never longer.
const MAX_LINE: u64 = 8 << 20;

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// From this moment on, in nanoseconds since 1970; absent begins with what comes, or with the first there is if
    /// `until` is given.
    pub since: Option<u64>,
    /// To this moment; absent goes on.
    pub until: Option<u64>,
    /// Values by filter: values of one are alternatives, but for labels.
    pub filters: BTreeMap<String, Vec<String>>,
}

impl Query {
    fn values(&self, filter: &str) -> Option<&[String]> {
        self.filters.get(filter).map(Vec::as_slice).filter(|values| !values.is_empty())
    }

    fn exact(&self, filter: &str, texts: &[&str]) -> bool {
        self.values(filter).is_none_or(|values| values.iter().any(|value| texts.contains(&value.as_str())))
    }

    /// Docker's rules.
    fn fits(&self, event: &Event) -> bool {
        let attributes = &event.actor.attributes;
        let name = attributes.get("name").map_or("", String::as_str);
        let id = event.actor.id.as_str();
        let action = event.action.as_str();
        // What is said after a colon need not be asked for.
        let verb = action.split(':').next().unwrap_or_default();
        let of = |kind: &str| {
            self.values(kind).is_none_or(|values| {
                values.iter().any(|value| id.starts_with(value.as_str()) || name.starts_with(value.as_str()))
            })
        };
        let image = if event.kind == "image" { name } else { attributes.get("image").map_or("", String::as_str) };
        let has = |text: &String| match text.split_once('=') {
            None => attributes.contains_key(text),
            Some((key, value)) => attributes.get(key).is_some_and(|found| found == value),
        };
        self.exact("event", &[action, verb])
            && self.exact("type", &[&event.kind])
            && self.exact("scope", &[&event.scope])
            && ["container", "daemon", "plugin", "volume", "network", "node", "service", "secret", "config"]
                .into_iter()
                .all(of)
            && self.exact("image", &[id, image, without_tag(id), without_tag(image)])
            && self.values("label").is_none_or(|labels| labels.iter().all(has))
    }
}

/// `repository:tag` without the tag.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// One of the files, and how far it was read.
struct Lines {
    reader: BufReader<File>,
    begun: Vec<u8>,
    inode: u64,
}

fn open(path: &Path) -> Result<Option<Lines>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let inode = file.metadata().map_err(Error::io("read", path))?.ino();
    Ok(Some(Lines { reader: BufReader::new(file), begun: Vec::new(), inode }))
}

impl Lines {
    /// Gives what there is; `false` when nothing more is wanted.
    fn drain(&mut self, query: &Query, each: &mut dyn FnMut(&Event) -> bool) -> std::io::Result<bool> {
        loop {
            (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut self.begun)?;
            if self.begun.last() != Some(&b'\n') && (self.begun.len() as u64) < MAX_LINE {
                return Ok(true);
            }
            let event = serde_json::from_slice::<Event>(&self.begun);
            self.begun.clear();
            let Ok(event) = event else { continue };
            if query.since.is_some_and(|since| event.time_nano < since) {
                continue;
            }
            if query.until.is_some_and(|until| event.time_nano > until) {
                return Ok(false);
            }
            if query.fits(&event) && !each(&event) {
                return Ok(false);
            }
        }
    }
}

/// Calls `each` with the events that are wanted, in their order, until it returns `false` or the time is over.
///
/// # Errors
/// When they cannot be read.
pub fn read(engine: &Engine, query: &Query, each: &mut dyn FnMut(&Event) -> bool) -> Result<(), Error> {
    follow(engine, query, each, &mut || true)
}

/// As [`read`], and also ends when `going` says so, which is asked about once a second.
///
/// # Errors
/// As [`read`].
pub fn follow(
    engine: &Engine,
    query: &Query,
    each: &mut dyn FnMut(&Event) -> bool,
    going: &mut dyn FnMut() -> bool,
) -> Result<(), Error> {
    let directory = directory(engine);
    let (path, before) = (directory.join("log"), directory.join("log.1"));
    let fail = || Error::io("read", &path);
    let past = query.since.is_some() || query.until.is_some();
    let ended = query.until.is_some_and(|until| until <= now());
    if !ended {
        create_private(&directory)?;
    }
    // Before anything is read: what comes meanwhile is noticed.
    let watch = (!ended).then(|| Watch::new(&directory));
    // Newest first: a file that is renamed in between is met twice and not missed.
    let mut current = open(&path)?;
    let mut older = if past { open(&before)? } else { None };
    if older.as_ref().map(|lines| lines.inode) == current.as_ref().map(|lines| lines.inode) {
        older = None;
    }
    if let Some(lines) = current.as_mut().filter(|_| !past) {
        lines.reader.seek(SeekFrom::End(0)).map_err(fail())?;
    }
    for lines in [&mut older, &mut current].into_iter().flatten() {
        if !lines.drain(query, each).map_err(fail())? {
            return Ok(());
        }
    }
    let Some(watch) = watch else { return Ok(()) };
    while going() {
        let left = query.until.map(|until| Duration::from_nanos(until.saturating_sub(now())));
        watch.wait(left.map(|left| Instant::now() + left));
        let inode = std::fs::metadata(&path).map(|meta| meta.ino()).ok();
        // Read after the question: if it was renamed, this is all of it.
        if let Some(lines) = &mut current
            && !lines.drain(query, each).map_err(fail())?
        {
            return Ok(());
        }
        let known = current.as_ref().map(|lines| lines.inode);
        if inode.is_some() && inode != known {
            let next = open(&path)?;
            // Twice renamed: one more lies in between.
            let between = open(&before)?.filter(|lines| {
                known.is_some() && Some(lines.inode) != known && Some(lines.inode) != next.as_ref().map(|one| one.inode)
            });
            for mut lines in [between, next].into_iter().flatten() {
                if !lines.drain(query, each).map_err(fail())? {
                    return Ok(());
                }
                current = Some(lines);
            }
        }
        if left == Some(Duration::ZERO) {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Actor, emit_of};
    use super::*;

    fn engine() -> (tempfile::TempDir, Engine) {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::new(dir.path().join("root"), dir.path().join("state"));
        (dir, engine)
    }

    fn emit(engine: &Engine, kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        emit_of(engine, kind, action, Actor { id: id.to_owned(), attributes });
    }

    fn found(engine: &Engine, filters: &[(&str, &str)]) -> Vec<String> {
        let mut query = Query { since: Some(0), until: Some(now()), ..Query::default() };
        for (name, value) in filters {
            query.filters.entry((*name).to_owned()).or_default().push((*value).to_owned());
        }
        let mut list = Vec::new();
        read(engine, &query, &mut |event| {
            list.push(event.action.clone());
            true
        })
        .unwrap();
        list
    }

    #[test]
    fn filters_are_docker_s() {
        let (_dir, engine) = engine();
        assert!(found(&engine, &[]).is_empty());
        let web = [("name", "web"), ("image", "alpine:3"), ("tier", "front")];
        emit(&engine, "container", "start", "abc123", &web);
        emit(&engine, "container", "exec_create: ls", "abc123", &web);
        emit(&engine, "container", "health_status: healthy", "abc123", &web);
        emit(&engine, "image", "pull", "alpine:3", &[("name", "alpine")]);
        emit(&engine, "volume", "create", "data", &[("driver", "local")]);
        let all = ["start", "exec_create: ls", "health_status: healthy", "pull", "create"];
        assert_eq!(found(&engine, &[]), all);
        assert_eq!(found(&engine, &[("container", "web")]), all[..3]);
        assert_eq!(found(&engine, &[("container", "abc")]), all[..3]);
        assert_eq!(found(&engine, &[("event", "health_status")]), all[2..3]);
        assert_eq!(found(&engine, &[("event", "start"), ("event", "pull")]), ["start", "pull"]);
        assert_eq!(found(&engine, &[("type", "volume")]), ["create"]);
        assert_eq!(found(&engine, &[("image", "alpine"), ("type", "container")]), all[..3]);
        assert_eq!(found(&engine, &[("image", "alpine:3"), ("type", "image")]), ["pull"]);
        assert_eq!(found(&engine, &[("label", "tier=front"), ("label", "name")]), all[..3]);
        assert!(found(&engine, &[("label", "tier=back")]).is_empty());
        assert!(found(&engine, &[("scope", "swarm")]).is_empty());
        assert_eq!(found(&engine, &[("volume", "data")]), ["create"]);
    }

    #[test]
    fn nothing_is_missed_while_files_are_renamed() {
        let (_dir, engine) = engine();
        let writer = engine.clone();
        let padding = "x".repeat(64 << 10);
        let total = 200_usize;
        emit(&engine, "test", "before", "", &[]);
        let writing = std::thread::spawn(move || {
            for number in 0..total {
                emit(&writer, "test", "step", &number.to_string(), &[("padding", &padding)]);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut next = 0;
        read(&engine, &Query { since: Some(1), ..Query::default() }, &mut |event| {
            if event.action == "step" {
                assert_eq!(event.actor.id, next.to_string());
                next += 1;
            }
            next < total
        })
        .unwrap();
        writing.join().unwrap();
        assert!(directory(&engine).join("log.1").exists(), "nothing was renamed");
    }
}
