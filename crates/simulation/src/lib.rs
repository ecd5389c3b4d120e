//! The world in a seed: the production code under faults that replay. Only ever for tests.
//!
//! [`machine`] is a host that production agents live on, without processes, disks or seconds of the real one. [`stack`]
//! runs whole schedulers, agents and clients on simulated hosts, over a simulated network, in virtual time.

pub mod machine;
pub mod stack;
