//! The control plane over real sockets.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod access;
mod certificates;
mod commands;
#[path = "../folder/mod.rs"]
mod folder;
mod kill;
mod routes;
mod stage;
