//! The Docker Engine API over Hull: wire types and server.
//!
//! [`serve`] listens, and ends by itself when nobody has asked for anything for a while. It keeps nothing: every answer
//! comes from the store and the records, containers belong to their monitors, and programs that clients start in
//! containers belong to processes of their own ([`step`]), so that killing the server changes nothing for any of them.
//!
//! * `server`: sockets, TLS, connections, the end; `http`: requests, bodies and answers, as blocking code sees them.
//! * `api`: what answers are made from, and `seen`: what of it a socket sees; `options`: how the server is run.
//! * `router`: which endpoint a path is, each a `route`; `query`: parameters and filters; `refusal`: statuses and texts;
//!   `guard`, `rule`: who may what.
//! * `step`: what needs a process with a single thread, asked of another process of the same binary; `perform`: what that
//!   process does.
//! * `system`, `containers`, `exec`, `images`, `commit`, `distribution`, `networks`, `volumes`, `swarm`: the endpoints;
//!   `build`, `buildkit`: builds, which are `hull build` processes; `wire`: their documents; `lines`: answers that are lines of JSON; `registry`: who a client is to a registry.
//!
//! An endpoint is a function `fn(&Arc<Api>, &mut Request) -> Result<Reply, Refusal>` and a line in its file's `ROUTES`,
//! which `router::TABLES` lists. It runs on a thread that may block. Parameters of the path come from
//! [`Request::param`], of the query from `request.query`, a JSON body from [`Request::json`], any other body from
//! [`Request::body`], which is a reader. It answers with [`Reply::json`], [`Reply::empty`] and the like; with
//! [`Reply::stream`], whose function writes to the client as long as it likes (each flush is a frame on the wire, and
//! [`Stream::is_gone`] says that nobody listens); or with [`Reply::hijack`], whose function gets the connection itself.
//! Nothing in this process may clone: what starts something in a container is a step.

mod api;
mod build;
mod buildkit;
mod commit;
mod containers;
mod distribution;
mod error;
mod events;
mod exec;
mod guard;
mod http;
mod images;
mod lines;
mod networks;
mod options;
mod perform;
mod query;
mod refusal;
mod registry;
mod route;
mod router;
mod rule;
mod seen;
mod server;
mod step;
mod swarm;
mod system;
mod usage;
mod version;
mod volumes;
mod wire;

pub use api::Api;
pub use error::Error;
pub use http::{Body, Hijacked, Reply, Request, Stream};
pub use options::{Listen, Options, Tls};
pub use perform::step;
pub use query::Query;
pub use refusal::Refusal;
pub use route::Route;
pub use router::understand;
pub use rule::Rule;
pub use server::serve;
pub use step::COMMAND;
pub use system::info;
pub use version::{API_VERSION, ENGINE_VERSION, MIN_API_VERSION, Version};
