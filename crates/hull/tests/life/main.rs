//! A container's life: run, start, stop, how far it is apart, and what it leaves to look at.

mod checkpoint;
mod commands;
mod explain;
mod health;
mod home;
mod isolation;
mod listing;
mod logs;
mod neighbours;
mod run;
mod shapes;
mod userns;
