//! Documents of the API. What clients send may be `null`, absent or more than is known everywhere.

pub(crate) mod create;
