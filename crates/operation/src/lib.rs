//! The life of one operation, a migration or a deletion, as a pure state machine.
//!
//! Nothing here knows of sockets, disks, clocks, tasks or chance. [`Operation::handle`] takes what happened and returns
//! a [`Step`]: what to store, what to tell, what to do. [`Operation::next_deadline`] says when
//! [`Operation::handle_deadline`] wants to be called. The same inputs at the same moments give the same steps, so every
//! awkward moment can be tested in microseconds.
//!
//! Where a change belongs:
//!
//! - [`operation`]: the states and how one follows another; its children hold one part of that life each.
//! - [`member`]: one instance being stopped; [`start`]: one instance being started.
//! - [`step`]: inputs, effects, events: the grammar between machine and driver.
//! - [`policy`], [`request`], [`report`], [`failure`], [`id`], [`moment`]: the words.
//!
//! Storage: all types that make up an [`Operation`] carry numbered CBOR fields, the stored form. A number is never given
//! a second meaning; a new field is optional and takes a new number.

#![warn(clippy::wildcard_enum_match_arm, reason = "a new state, input or effect must break the build where it matters")]

pub mod failure;
pub mod id;
pub mod member;
pub mod moment;
pub mod operation;
mod pace;
pub mod policy;
pub mod report;
pub mod request;
pub mod start;
pub mod step;

pub use failure::{Failure, Override, OverrideKind, Reason};
pub use id::{ApplicationId, ClusterId, InstanceId, NameError, OperationId};
pub use moment::Moment;
pub use operation::{Closing, Operation, RestoreError, StateName};
pub use policy::{FailureStrategy, Policy, PolicyOverrides};
pub use request::{Caller, Kind, Placement, Registered, Request, Trace};
pub use step::{Disposition, Effect, Event, EventKind, Input, Refusal, Step};
