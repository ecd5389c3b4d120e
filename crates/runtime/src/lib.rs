//! What every process of Quiesce needs from its surroundings: telemetry, clock, signals, drain, tasks, backoff, and
//! durations as people write them.
//!
//! This crate is where time, the terminal and the operating system's signals enter; everything above takes them as
//! values or behind [`clock::Clock`]. It knows nothing of operations, agents or the protocol, and depends on none of
//! our crates.

pub mod backoff;
pub mod clock;
pub mod drain;
pub mod duration;
pub mod signals;
pub mod tasks;
pub mod telemetry;
