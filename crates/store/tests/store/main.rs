//! The store from outside: both engines against the contract, against each other, and against crashes.

#![allow(clippy::unwrap_used, reason = "tests panic, so that the failing line is shown")]

mod conformance;
mod crash;
mod embedded;
mod fault;
mod model;
mod put_back;
mod record;
