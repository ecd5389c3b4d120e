//! The binary against a scripted scheduler: what it prints, what it asks for, and how it exits.

mod fake;
mod follow;
mod resources;
mod run;
