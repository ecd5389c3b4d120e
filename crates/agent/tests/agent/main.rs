//! The agent as a process, with real applications and a scheduler of straw: dialling in, listening, crashes, exit codes.

mod lives;
mod scheduler;
mod stage;
