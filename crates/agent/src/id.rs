//! Names nobody has used before.

use quiesce_runtime::machine::Machine;
use uuid::{Builder, Uuid};

/// A name for one thing for ever: an agent, a run, a start, a stop. One that is not new would be taken for another.
pub(crate) fn fresh(machine: &Machine) -> Uuid {
    let mut random = [0; 16];
    machine.entropy.fill(&mut random).expect("the operating system always has random bytes");
    Builder::from_random_bytes(random).into_uuid()
}
