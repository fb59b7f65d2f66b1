//! Networks: their commands, and containers on them.

mod cli;
mod containers;
