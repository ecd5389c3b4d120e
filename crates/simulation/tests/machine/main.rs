//! Production agents on a simulated machine: whole lives in virtual time, with crashes wherever one can be.

mod crashes;
mod kernel;
mod lives;
mod story;
mod straw;
