//! Production agents on a simulated machine: whole lives in virtual time, with crashes wherever one can be.

#![expect(clippy::unwrap_used, reason = "tests panic where they fail")]

mod crashes;
mod faithful;
mod kernel;
mod lives;
mod story;
mod straw;
