//! The pure core of `jwks-cache`: plain data in, decisions out.
//!
//! Nothing here knows a clock, dice, a socket, an async runtime or a log: every function takes the
//! moment and the chance it decides by, so that a test or a simulation replays it exactly.

pub mod address;
pub mod admission;
mod algorithm;
pub mod allow;
pub mod discovery;
pub mod forms;
pub mod freshness;
pub mod ids;
pub mod key;
pub mod keyset;
pub mod lifecycle;
pub mod missing;
pub mod pin;
pub mod policy;
pub mod published;
pub mod select;
pub mod served;
pub mod snapshot;
mod time;
pub mod token;

pub use algorithm::{Algorithm, AlgorithmSet, UnknownAlgorithm};
pub use time::{Dice, Moment};
