//! What every process of Quiesce needs from its surroundings: machine, clock, signals, drain, tasks, backoff,
//! telemetry, TLS, and durations as people write them.
//!
//! This crate is where time, the network, chance, the terminal and the operating system's signals enter; everything
//! above takes them as values, from a [`machine::Machine`] or behind [`clock::Clock`]. It knows nothing of operations, agents or the protocol, and depends on none of
//! our crates.

pub mod backoff;
pub mod clock;
pub mod drain;
pub mod durable;
pub mod duration;
pub mod machine;
pub mod secret_file;
pub mod signals;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod trace_context;
