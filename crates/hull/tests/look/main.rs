//! Looking at containers as a user does: `ps`, `inspect`, `top`, `stats`, `port`, `update`, `explain`.

mod explain;
mod listing;
mod shapes;

use hull_testkit::Home;

fn home() -> Option<Home> {
    Home::new(env!("CARGO_BIN_EXE_hull"))
}
