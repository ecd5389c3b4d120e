//! The life of an operation as a pure state machine: no IO, no clock, no randomness
