//! The scheduler: requests in, operations driven to their end, progress out.
//!
//! [`Scheduler::bind`] opens the store and reserves the sockets, [`Bound::run`] serves until told to stop. [`args`] is
//! the same for a process: flags, environment, file, signals, exit code.
//!
//! Where a change belongs:
//!
//! - what an operation does next: not here, but in `quiesce-operation`; [`driver`] carries it out, [`hooks`] and
//!   [`attach`] hold the connections, [`secrets`] the tokens.
//! - what callers may ask for: [`service`] (one file per resource), [`admission`] (migrate and delete), [`registry`]
//!   (applications, instances, clusters), [`watch`] (streams).
//! - who may ask for it: [`access`], with the one table of what every request needs.
//! - what is told of it: [`watch`] to callers, [`metrics`] in numbers, [`chronicle`] in the log, [`traces`] to a collector.
//! - words: [`convert`] is the only bridge between wire and domain, [`status`] the only one from errors to gRPC,
//!   [`records`] the only one to the disk.

pub mod access;
mod admin;
mod admission;
pub mod args;
pub mod attach;
mod chronicle;
pub mod config;
mod convert;
pub mod driver;
mod endpoint;
mod filter;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod history;
pub mod hooks;
mod idempotency;
mod identity;
mod mask;
mod metrics;
mod overview;
mod page;
mod records;
mod registry;
mod retention;
mod rpc;
pub mod secrets;
pub mod server;
mod service;
mod status;
mod steady;
mod store_watch;
pub mod stored;
mod token;
mod traces;
pub mod upkeep;
mod validate;
mod watch;

pub use server::{
    BindError, Bound, Config, ConnectInfo, Opened, Origin, RunError, Running, Scheduler, StoreChoice, Tls,
};
pub use traces::{OpenError as TracesError, TraceSettings};
