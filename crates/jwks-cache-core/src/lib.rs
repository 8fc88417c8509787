//! The pure core of `jwks-cache`: plain data in, decisions out.
//!
//! Nothing here knows a clock, dice, a socket, an async runtime or a log: every function takes the
//! moment and the chance it decides by, so that a test or a simulation replays it exactly.

mod algorithm;
pub mod key;
pub mod keyset;
pub mod select;
mod time;

pub use algorithm::{Algorithm, AlgorithmSet, UnknownAlgorithm};
pub use time::{Dice, Moment};
