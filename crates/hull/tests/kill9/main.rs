//! kill -9 of everything, anywhere.

mod images;
mod life;
mod run;
mod runtime;
