//! The command line itself: parity, completion, settings, the terminal screen, bad surroundings.

mod completion;
mod everywhere;
mod others;
mod parity;
mod settings;
mod surroundings;
mod threads;
mod ui;
