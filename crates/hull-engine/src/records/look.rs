//! Finding and listing containers.

use std::fs;
use std::sync::Arc;

use super::{Container, Engine, State, alive, is_id, read};
use crate::error::Error;

impl Engine {
    /// A container by ID.
    ///
    /// # Errors
    /// [`Error::NoContainer`], or when its record is damaged.
    pub fn container(&self, id: &str) -> Result<Container, Error> {
        self.record(id).map(Arc::unwrap_or_clone)
    }

    fn record(&self, id: &str) -> Result<Arc<Container>, Error> {
        let path = self.directory(id).join("container.json");
        let record = match &self.kept {
            Some(kept) => kept.container(id, &path),
            None => read(&path).map(Arc::new),
        };
        match record {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NoContainer(id.to_owned()))
            }
            other => other,
        }
    }

    /// Finds a container by ID, name or unique prefix of its ID.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::Ambiguous`].
    pub fn find(&self, text: &str) -> Result<Container, Error> {
        self.find_shared(text).map(Arc::unwrap_or_clone)
    }

    /// [`Self::find`], for those who only look.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_shared(&self, text: &str) -> Result<Arc<Container>, Error> {
        let none = || Error::NoContainer(text.to_owned());
        if text.is_empty() || text.contains('/') || text.starts_with('.') {
            return Err(none());
        }
        if is_id(text) {
            return self.record(text);
        }
        if let Ok(id) = fs::read_link(self.root.join("names").join(text)) {
            match self.record(&id.to_string_lossy()) {
                Err(Error::NoContainer(_)) => {}
                other => return other,
            }
        }
        let mut found = self.ids()?.into_iter().filter(|id| id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(id), None) => self.record(&id),
            (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned())),
            _ => Err(none()),
        }
    }

    pub(super) fn ids(&self) -> Result<Vec<String>, Error> {
        match fs::read_dir(self.containers()) {
            Ok(entries) => Ok(entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| is_id(name))
                .collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io("read", self.containers())(error)),
        }
    }

    /// [`Self::state`], for who has just had repaired what is to be repaired and only looks.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn state_seen(&self, id: &str) -> Result<State, Error> {
        let seen = self.seen.take();
        self.state_by(id, |pid, start| seen.binary_search(&(pid, start)).is_ok() || alive(pid, start))
    }

    /// All containers, newest first. One that disappears meanwhile, or whose record is damaged, is left out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<(Container, State)>, Error> {
        let list = self.list_shared()?;
        Ok(list.into_iter().map(|(container, state)| (Arc::unwrap_or_clone(container), state)).collect())
    }

    /// [`Self::list`], for those who only look.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn list_shared(&self) -> Result<Vec<(Arc<Container>, State)>, Error> {
        let seen = self.seen.take();
        let lives = |pid, start| seen.binary_search(&(pid, start)).is_ok() || alive(pid, start);
        let ids = self.ids()?;
        if let Some(kept) = &self.kept {
            let all: std::collections::HashSet<&str> = ids.iter().map(String::as_str).collect();
            kept.retain(|id| all.contains(id));
        }
        let one = |id: String| Some((self.record(&id).ok()?, self.state_by(&id, lives).ok()?));
        let mut list: Vec<_> = ids.into_iter().filter_map(one).collect();
        list.sort_by(|a, b| b.0.created.cmp(&a.0.created).then_with(|| a.0.id.cmp(&b.0.id)));
        Ok(list)
    }
}
