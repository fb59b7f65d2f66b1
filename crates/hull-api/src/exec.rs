//! Programs that clients start in containers.

use crate::router::Route;

pub(crate) const ROUTES: &[Route] = &[];
