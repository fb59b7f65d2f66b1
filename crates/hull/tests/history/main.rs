//! Attacks of the security history.

mod cve;
mod races;
