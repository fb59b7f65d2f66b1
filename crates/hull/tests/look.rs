//! Looking at containers as a user does: `ps`, `inspect`, `top`, `stats`, `port`, `update`, `explain`.

#[path = "look/explain.rs"]
mod explain;
#[path = "look/home.rs"]
mod home;
#[path = "look/listing.rs"]
mod listing;
#[path = "look/shapes.rs"]
mod shapes;
