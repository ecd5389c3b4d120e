//! Requests that are wrong: every RPC of Scheduler, AgentGateway and Access, every field of its request.
//!
//! A new field fails here until it has a row. [`quiesce_testkit::input`] says what a row is; what the fields of a
//! message that several requests hold is like stands in [`shared`], and [`ground`] tells what names there are to use.

mod access;
mod gateway;
mod ground;
mod scheduler;
mod shared;
