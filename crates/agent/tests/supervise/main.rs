//! The supervisor with real processes: shell scripts that behave and misbehave as real programs do.

mod crash;
mod ending;
mod ground;
mod speaking;
mod starting;
mod stopping;
