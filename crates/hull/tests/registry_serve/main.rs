//! `hull registry serve`: every endpoint and status that the distribution specification names, and what it survives.

mod access;
mod client;
mod clients;
mod engine;
mod images;
mod protocol;
mod survival;
mod table;
mod tokens;
