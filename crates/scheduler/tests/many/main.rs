//! Many at once: applications with many instances, and many operations beside agents that misbehave.
//!
//! A real scheduler with the embedded store, in a runtime of its own so that it can be made to die; real sockets for
//! everything; hooks that do as scripted. How many operations the crowd has is said by [`crowd::SIZE_VARIABLE`].

#![allow(clippy::unwrap_used, reason = "tests panic where they fail; clippy exempts only functions marked as tests")]

mod agents;
mod crowd;
mod fifty;
mod misbehaving;
mod pests;
mod stage;
mod watchers;
