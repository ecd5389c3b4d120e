//! The supervisor with real processes: shell scripts that behave and misbehave as real programs do.

#![allow(clippy::unwrap_used, reason = "tests panic, so that the failing line is shown")]

mod crash;
mod ending;
mod ground;
mod script;
mod speaking;
mod starting;
mod stopping;
