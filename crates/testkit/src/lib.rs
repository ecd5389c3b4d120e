//! What tests share: bounded waits, scripted hooks, networks that misbehave on demand, processes, ports, directories,
//! certificates, tables of wrong requests, the inputs kept from fuzzing,
//! examples in `--help`.
//!
//! Only ever a dev-dependency. Everything here panics rather than return errors, so that a test shows the line that
//! failed, and cleans up after itself when dropped, panic or not. Nothing sleeps to let time pass: a test waits for a
//! condition, at most so long.

pub mod certificates;
pub mod corpus;
pub mod directory;
pub mod examples;
pub mod hook;
pub mod hostile;
pub mod input;
pub mod namespace;
pub mod port;
pub mod process;
pub mod proxy;
pub mod wait;

pub use wait::eventually;
