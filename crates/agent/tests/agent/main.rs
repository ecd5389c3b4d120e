//! The agent as a process, with real applications and a scheduler of straw: dialling in, listening, crashes, exit codes.

#![expect(clippy::unwrap_used, reason = "tests panic where they fail")]

mod in_tls;
mod lives;
mod scheduler;
mod stage;
