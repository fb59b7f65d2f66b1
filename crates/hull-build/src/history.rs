//! What was built: a record of each build, and what its steps printed.
//!
//! A record is written when a build ends, so that one is either whole or not there; what was printed is
//! `ROOT/build/logs/ID`, written before. The oldest go when there are more than [`KEPT`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hull_image::Store;
use hull_oci::Digest;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::observer::{Event, Observer, StepId, Warning};
use crate::record::Inputs;
use crate::record::lock::Step;
use crate::request::{BuildRequest, Context, DockerfileSource};
use crate::{Built, Error, Failure};

/// So many builds are remembered.
const KEPT: u32 = 200;

/// So many bytes of what steps print.
const MAX_LOG: usize = 4 << 20;

/// A build that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Record {
    /// Its own.
    pub id: String,
    /// What it is called: the first tag, or the context.
    pub name: String,
    /// `completed`, `error` or `canceled`.
    pub status: String,
    /// Milliseconds since 1970.
    pub started: i64,
    /// Milliseconds since 1970.
    pub finished: i64,
    /// The context, as far as it is a place.
    pub context: String,
    /// The Dockerfile.
    pub dockerfile: String,
    /// The stage, if one was asked for.
    pub target: String,
    /// Names that were asked for.
    pub tags: Vec<String>,
    /// Arguments.
    pub build_args: BTreeMap<String, String>,
    /// IDs of what was made.
    pub images: Vec<String>,
    /// Steps of the graph.
    pub steps: usize,
    /// Those that were in the cache.
    pub cached: usize,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// What came into it from outside.
    pub inputs: Inputs,
    /// What steps added, as far as that was looked at, and what of their layers was normalised.
    pub made: Vec<Step>,
}

/// The builds of a store.
#[derive(Clone, Debug)]
pub struct History(Store);

impl History {
    /// They.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self(store.clone())
    }

    fn log_path(&self, id: &str) -> PathBuf {
        self.0.root().join("build/logs").join(id)
    }

    /// All builds, the last one first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self) -> Result<Vec<Record>, Error> {
        let read = |connection: &rusqlite::Connection| -> Result<Vec<String>, hull_image::Error> {
            let mut statement = connection.prepare("SELECT record FROM builds ORDER BY started DESC, id")?;
            Ok(statement.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?)
        };
        let texts = self.0.database().read(read)?;
        // A record of another version is not shown rather than in the way of all others.
        Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
    }

    /// A build by its ID or the beginning of one; the last one by none.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn find(&self, id: Option<&str>) -> Result<Record, Error> {
        let list = self.list()?;
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return list.into_iter().next().ok_or_else(|| Error::Request("nothing was built yet".to_owned()));
        };
        let mut fitting = list.into_iter().filter(|record| record.id.starts_with(id));
        match (fitting.next(), fitting.next()) {
            (Some(record), None) => Ok(record),
            (Some(_), Some(_)) => Err(Error::Request(format!("several builds begin with {id:?}: give more of the ID"))),
            (None, _) => Err(Error::Request(format!("no build {id:?}: 'hull builder ls' lists them"))),
        }
    }

    /// What the steps of a build printed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self, record: &Record) -> Result<Vec<u8>, Error> {
        let path = self.log_path(&record.id);
        let mut text = Vec::new();
        match std::fs::File::open(&path) {
            Ok(file) => drop(file.take(MAX_LOG as u64).read_to_end(&mut text).map_err(Error::io("read", &path))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("open", &path)(error)),
        }
        Ok(text)
    }

    /// Forgets builds.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove(&self, ids: &[String]) -> Result<(), Error> {
        let delete = |transaction: &rusqlite::Transaction<'_>| -> Result<(), hull_image::Error> {
            for id in ids {
                transaction.execute("DELETE FROM builds WHERE id = ?1", [id])?;
            }
            Ok(())
        };
        self.0.database().write(hull_db::Sync::Normal, delete)?;
        for id in ids {
            // It may have had none.
            let _ = std::fs::remove_file(self.log_path(id));
        }
        Ok(())
    }

    fn add(&self, record: &Record, log: &[u8]) -> Result<(), Error> {
        if !log.is_empty() {
            let path = self.log_path(&record.id);
            let directory = path.parent().unwrap_or(&path);
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(directory).map_err(Error::io("create directory", directory))?;
            hull_fs::atomic::write_path(&path, log, 0o600)?;
        }
        let text = serde_json::to_string(record).unwrap_or_default();
        let insert = |transaction: &rusqlite::Transaction<'_>| -> Result<Vec<String>, hull_image::Error> {
            transaction.execute(
                "INSERT OR REPLACE INTO builds (id, name, status, started, finished, record)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![record.id, record.name, record.status, record.started, record.finished, text],
            )?;
            let mut statement =
                transaction.prepare_cached("SELECT id FROM builds ORDER BY started DESC LIMIT -1 OFFSET ?1")?;
            Ok(statement.query_map([KEPT], |row| row.get(0))?.collect::<Result<_, _>>()?)
        };
        let old = self.0.database().write(hull_db::Sync::Normal, insert)?;
        if old.is_empty() { Ok(()) } else { self.remove(&old) }
    }
}

/// Notes what is told of a build, on the way to whoever shows it.
pub(crate) struct Recorder<'a> {
    inner: &'a dyn Observer,
    started: SystemTime,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    steps: BTreeSet<StepId>,
    cached: usize,
    warnings: Vec<String>,
    log: Vec<u8>,
    /// Which step printed last, so that the log says when that changes.
    last: Option<StepId>,
    names: BTreeMap<StepId, String>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(inner: &'a dyn Observer) -> Self {
        Self { inner, started: SystemTime::now(), noted: Mutex::default() }
    }

    /// When the build began.
    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    /// Writes the record, and says whether anything was done that was not in the cache. A build that went well did so even
    /// if it cannot be noted.
    pub(crate) fn finish(
        self,
        store: &Store,
        request: &BuildRequest,
        result: &Result<Built, Failure>,
        canceled: bool,
    ) -> bool {
        let noted = self.noted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let milliseconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        };
        let context = place(&request.context);
        let dockerfile = match &request.dockerfile {
            DockerfileSource::Default => "Dockerfile".to_owned(),
            DockerfileSource::Path(path) => path.display().to_string(),
            DockerfileSource::Text(_) => "-".to_owned(),
        };
        let seed = format!("{:?} {} {context}", self.started, std::process::id());
        let tags: Vec<String> = request.tags.iter().map(hull_oci::Reference::familiar).collect();
        let record = Record {
            id: Digest::of(seed.as_bytes()).hex().chars().take(25).collect(),
            name: tags.first().cloned().unwrap_or_else(|| context.clone()),
            status: match result {
                Ok(_) => "completed",
                Err(_) if canceled => "canceled",
                Err(_) => "error",
            }
            .to_owned(),
            started: milliseconds(self.started),
            finished: milliseconds(SystemTime::now()),
            context,
            dockerfile,
            target: request.target.clone().unwrap_or_default(),
            tags,
            build_args: request.build_args.clone(),
            images: result.iter().flat_map(|built| &built.images).map(|image| image.id.to_string()).collect(),
            steps: noted.steps.len(),
            cached: noted.cached,
            warnings: noted.warnings,
            error: result.as_ref().err().map(ToString::to_string),
            inputs: result.as_ref().map(|built| built.inputs.clone()).unwrap_or_default(),
            made: result.as_ref().map(|built| built.steps.clone()).unwrap_or_default(),
        };
        let _ = History::new(store).add(&record, &noted.log);
        record.cached < record.steps
    }
}

fn place(context: &Context) -> String {
    match context {
        Context::Empty => "-".to_owned(),
        Context::Directory(path) => path.display().to_string(),
        Context::Archive(_) => "- (archive)".to_owned(),
        Context::Git(repository) if repository.reference.is_empty() => repository.url.clone(),
        Context::Git(repository) => format!("{}#{}", repository.url, repository.reference),
        Context::Url(url) => url.clone(),
        Context::Image(reference) => format!("docker-image://{reference}"),
        Context::OciLayout { path, .. } => format!("oci-layout://{}", path.display()),
        Context::Target(stage) => format!("target:{stage}"),
    }
}

impl Observer for Recorder<'_> {
    fn step(&self, step: StepId, event: Event<'_>) {
        {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            match &event {
                Event::Started { name } | Event::Cached { name } if !name.is_empty() => {
                    // Contexts are looked at by every build.
                    let counts = matches!(step, StepId::Node(_)) && !name.starts_with("[internal]");
                    if counts && noted.steps.insert(step) {
                        noted.cached += usize::from(matches!(event, Event::Cached { .. }));
                    }
                    noted.names.entry(step).or_insert_with(|| (*name).to_owned());
                }
                Event::Log { data, .. } if noted.log.len() < MAX_LOG => {
                    if noted.last != Some(step) {
                        let name = noted.names.get(&step).cloned().unwrap_or_default();
                        noted.log.extend(format!("=> {name}\n").as_bytes());
                        noted.last = Some(step);
                    }
                    noted.log.extend_from_slice(data);
                }
                _ => {}
            }
        }
        self.inner.step(step, event);
    }

    fn warning(&self, warning: &Warning) {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).warnings.push(warning.message.clone());
        self.inner.warning(warning);
    }
}
