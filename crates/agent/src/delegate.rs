//! The shutdown interface of Krake, from the controller's side: for applications that bring a script which speaks it.
//!
//! The script listens, is asked to stop the application by an empty `PUT` ([`StopUrl`]), and reports by another `PUT` that
//! it is done (`callback`). Owns what goes over the wire in both directions. Decides nothing: what a report is worth, and
//! what follows from it, is the supervisor's business.

mod ask;
pub(crate) mod callback;

pub(crate) use ask::ask;
pub use ask::{ParseStopUrlError, StopUrl};
