//! The world in a seed: the production code under faults that replay. Only ever for tests.
//!
//! [`stack`] runs whole schedulers, agents and clients on simulated hosts, over a simulated network, in virtual time.

pub mod stack;
