//! The machine as a whole, seen from outside: what it does in a world that goes wrong, its table of transitions, its stored
//! form. Single behaviours are tested beside the machine.

#![allow(clippy::unwrap_used, reason = "tests panic, so that the failing line is shown")]

mod contract;
mod hook;
mod properties;
mod scene;
mod stored_form;
mod transitions;
mod world;
