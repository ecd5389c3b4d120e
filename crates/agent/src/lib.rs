//! The agent beside an application: stops it, proves that it stopped, keeps it stopped.
//!
//! [`application`] is the seam: the hook server above it knows schedulers and no processes, the supervisor below it
//! knows processes and no schedulers. [`journal`] is what neither may forget. Linux only: ends are verified with pidfds
//! and `/proc`.

pub mod application;
pub mod args;
pub mod attach;
mod durable;
mod gate;
pub mod gateway;
pub mod hold;
pub mod hook;
pub mod identity;
pub mod journal;
mod link;
mod notify;
pub mod process;
pub mod readiness;
mod run;
pub mod serve;
pub mod supervise;

pub use gate::StartMode;
pub use run::run;
