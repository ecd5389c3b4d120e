//! The world in a seed: the production code under faults that replay. Only ever for tests.
//!
//! Two depths. [`world`] runs schedulers and agents on simulated [`machine`]s over a [`wire`] that carries calls in
//! memory: thousands of whole lives a minute, every fault between two steps, the [`laws`] checked at every step.
//! [`stack`] runs the same programs with everything that belongs to their connections, on simulated hosts under
//! `turmoil`: fewer runs, and nothing left out but the kernel.

pub mod chance;
pub mod laws;
pub mod ledger;
pub mod machine;
pub mod scenario;
pub mod stack;
pub mod story;
pub mod wire;
pub mod world;
