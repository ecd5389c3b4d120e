//! The rules of `ShutdownHook`, checked through a real client on a real socket against an application that does what a
//! test tells it. The ids in the comments are those of the conformance suite.

#![expect(clippy::unwrap_used, reason = "tests panic where they fail")]

mod input;
mod scripted;
mod starting;
mod stopping;
mod surviving;
mod transport;
mod world;
