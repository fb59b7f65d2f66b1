//! Paths inside a root, verified procfs, atomic files, locks.
