//! What reaches this crate from strangers, from disk or from a person's file, as functions of bytes: the targets of
//! `fuzz/`.
//!
//! Each function panics when an input breaks a promise, and says whether the input was taken at all. The same functions
//! are called by libFuzzer and, with every input that was kept, by `cargo test`. They live here and not in `fuzz/`
//! because what they look at is private; all that crosses the border of the crate is bytes. Only `fuzz/` switches the
//! feature on.
//!
//! What must not happen here: leniency. A promise that does not hold is mended where it is made.

mod choices;
mod config;
mod filter;
mod life;
mod preface;
mod record;
mod token;

pub use config::config;
pub use filter::filter;
pub use life::operation;
pub use preface::preface;
pub use record::record;
pub use token::{page_token, resume_token};

#[cfg(test)]
mod tests;
