//! What reaches this crate from strangers or from disk, as functions of bytes: the targets of `fuzz/`.
//!
//! Each function panics when an input breaks a promise, and says whether the input was taken at all. The same functions
//! are called by libFuzzer and, with every input that was kept, by `cargo test`. They live here and not in `fuzz/`
//! because what they look at is private; all that crosses the border of the crate is bytes. Only `fuzz/` switches the
//! feature on.
//!
//! What must not happen here: leniency. A promise that does not hold is mended where it is made.

mod answer;
mod files;
mod notify;

pub use answer::answer;
pub use files::{hold, hook_record, journal};
pub use notify::notify;

#[cfg(test)]
mod tests;
