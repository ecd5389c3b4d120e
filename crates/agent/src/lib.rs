//! The agent beside an application: stops it, proves that it stopped, keeps it stopped.
//!
//! [`application`] is the seam: the hook server above it knows schedulers and no processes, the supervisor below it
//! knows processes and no schedulers. [`journal`] is what neither may forget. Linux only: ends are verified with pidfds
//! and `/proc`.

pub mod application;
mod durable;
pub mod hold;
pub mod hook;
pub mod identity;
pub mod journal;
mod notify;
pub mod process;
pub mod readiness;
pub mod serve;
pub mod supervise;
