//! Images: the commands on them, archives that lie, damage, other tools, and a store that many share.

#[path = "../../../hull-image/tests/support/mod.rs"]
mod support;

mod bad_input;
mod cli;
mod damage;
mod explore;
mod full_disk;
mod roundtrip;
mod squash;
mod store;
