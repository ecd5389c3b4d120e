//! Who is let in and what for: every RPC, every kind of caller, every kind of bad credential.

pub(crate) mod callers;
mod instances;
mod matrix;
mod records;
mod tokens;
