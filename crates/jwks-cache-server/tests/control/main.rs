//! The control plane over real sockets.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod access;
mod commands;
mod kill;
mod routes;
mod stage;
