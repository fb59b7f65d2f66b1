//! How many descriptors a process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's limit of descriptors to what it may be at most, and returns what holds then; `None` when there
/// is no limit. For servers, whose connections need some each.
#[must_use]
pub fn descriptors() -> Option<usize> {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    let holds = if setrlimit(Resource::Nofile, raised).is_ok() { limits.maximum } else { limits.current };
    holds.and_then(|most| usize::try_from(most).ok())
}
