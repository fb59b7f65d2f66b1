//! What is known of each build while it is asked for: the request, what it says, how it ended. Clients ask for the parts
//! in calls of their own, by the build's name, in any order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::grpc::{Failure, code};
use super::pb;
use super::result::Kept;

/// How long a call waits for another one of the same build.
const PATIENCE: Duration = Duration::from_secs(30);

/// What has ended is forgotten after so long.
const KEPT: Duration = Duration::from_secs(60);

/// More builds at once are refused.
const MOST: usize = 1000;

/// More changes of one build are not kept for clients that have not heard them.
const MOST_SAID: usize = 500_000;

/// What a build made: the answer of the exporters.
pub(crate) type Made = BTreeMap<String, String>;

/// How a client's frontend ended: by the reference that it returned, if any.
pub(crate) type Returned = Result<Option<String>, Failure>;

#[derive(Debug, Default)]
pub(crate) struct State {
    /// What is to become of the result.
    pub(crate) request: Option<Arc<pb::SolveRequest>>,
    pub(crate) began: Option<SystemTime>,
    /// What will be remembered of it, once its frontend has been asked for.
    pub(crate) record: Option<pb::HistoryRecord>,
    /// Everything that was said.
    pub(crate) said: Vec<Arc<pb::StatusResponse>>,
    /// By reference.
    pub(crate) made: BTreeMap<String, Made>,
    /// What results are made from again, by reference; until the build ends.
    pub(crate) kept: BTreeMap<String, Arc<Kept>>,
    pub(crate) returned: Option<Returned>,
    pub(crate) ended: Option<Instant>,
}

/// One build.
#[derive(Debug)]
pub(crate) struct Build {
    state: watch::Sender<State>,
}

/// All builds, by the names that clients gave them.
#[derive(Debug, Default)]
pub(crate) struct Builds(Mutex<BTreeMap<String, Arc<Build>>>);

impl Builds {
    /// A build, which is known from now on.
    pub(crate) fn of(&self, name: &str) -> Result<Arc<Build>, Failure> {
        if name.is_empty() || name.len() > 256 {
            return Err(Failure::new(code::INVALID_ARGUMENT, "the build has no name"));
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, build| build.state.borrow().ended.is_none_or(|ended| ended.elapsed() < KEPT));
        if let Some(build) = all.get(name) {
            return Ok(Arc::clone(build));
        }
        if all.len() >= MOST {
            return Err(Failure::new(code::UNAVAILABLE, "too many builds at once"));
        }
        let build = Arc::new(Build { state: watch::Sender::new(State::default()) });
        all.insert(name.to_owned(), Arc::clone(&build));
        Ok(build)
    }
}

impl Builds {
    /// Records of builds that run.
    pub(super) fn active(&self) -> Vec<pb::HistoryRecord> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = all.values().filter(|build| build.state.borrow().ended.is_none());
        running.filter_map(|build| build.state.borrow().record.clone()).collect()
    }

    /// What a result of a build that lives is made from.
    pub(super) fn kept(&self, reference: &str) -> Option<Arc<Kept>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().find_map(|build| build.state.borrow().kept.get(reference).cloned())
    }
}

impl Build {
    /// Changes what is known.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// Looks at what is known.
    pub(super) fn look<T>(&self, of: impl FnOnce(&State) -> T) -> T {
        of(&self.state.borrow())
    }

    /// Says something to everybody who follows.
    pub(crate) fn say(&self, message: pb::StatusResponse) {
        self.change(|state| {
            if state.said.len() < MOST_SAID {
                state.said.push(Arc::new(message));
            }
        });
    }

    /// Waits until something is known.
    pub(crate) async fn wait<T>(&self, of: impl Fn(&State) -> Option<T>) -> Result<T, Failure> {
        let mut watched = self.state.subscribe();
        loop {
            if let Some(found) = of(&watched.borrow_and_update()) {
                return Ok(found);
            }
            if watched.changed().await.is_err() {
                return Err(Failure::new(code::CANCELED, "the build was given up"));
            }
        }
    }

    /// Waits for the request of a build, which another call brings.
    pub(crate) async fn request(&self) -> Result<Arc<pb::SolveRequest>, Failure> {
        let late = |_| Failure::new(code::NOT_FOUND, "no such job: nobody asked for this build");
        tokio::time::timeout(PATIENCE, self.wait(|state| state.request.clone())).await.map_err(late)?
    }

    /// What is said after the first `heard` changes; nothing once the build has ended.
    pub(crate) async fn next(&self, heard: usize) -> Option<Vec<Arc<pb::StatusResponse>>> {
        let more = |state: &State| {
            if state.said.len() > heard {
                return Some(Some(state.said[heard..].to_vec()));
            }
            state.ended.map(|_| None)
        };
        self.wait(more).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_one_build_find_each_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let builds = Builds::default();
            assert!(builds.of("").is_err());
            let build = builds.of("a").expect("a build");
            let same = builds.of("a").expect("a build");
            let asks = tokio::spawn(async move { same.request().await.map(|request| request.session.clone()) });
            let request = pb::SolveRequest { session: "s".to_owned(), ..pb::SolveRequest::default() };
            build.change(|state| state.request = Some(Arc::new(request)));
            assert_eq!(asks.await.expect("a task"), Ok("s".to_owned()));
            build.say(pb::StatusResponse::default());
            build.change(|state| state.ended = Some(Instant::now()));
            assert_eq!(build.next(0).await.map(|said| said.len()), Some(1));
            assert!(build.next(1).await.is_none());
        });
    }
}
