//! Who is let in and what for: every RPC, every kind of caller, every kind of bad credential.

mod callers;
mod instances;
mod matrix;
mod records;
mod tokens;
