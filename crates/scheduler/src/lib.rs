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
//! - words: [`convert`] is the only bridge between wire and domain, [`status`] the only one from errors to gRPC,
//!   [`records`] the only one to the disk.

mod records;
