//! What a container leaves to look at, and who looks after it: logs, events, health, restarts.

mod health;
mod home;
mod logs;
