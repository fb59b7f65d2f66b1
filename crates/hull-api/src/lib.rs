//! The Docker Engine API over Hull.
