//! What all actions of a copy share, and where they may spool.

use super::error::Error;

/// What all actions of a copy share.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    /// Time of what has no time of its own.
    pub time: i64,
    /// Files of this machine get that, too.
    pub fixed: bool,
    /// Where archives are decompressed to.
    pub spool: &'a dyn Spool,
}

/// A place for temporary files.
pub(super) trait Spool: std::fmt::Debug + Sync {
    /// A new empty file that nobody else has.
    ///
    /// # Errors
    /// When it cannot be made.
    fn file(&self) -> Result<std::fs::File, Error>;
}
