//! Containers.

mod wait;

use crate::router::Route;

pub(crate) use wait::Waiting;

pub(crate) const ROUTES: &[Route] = &[];
