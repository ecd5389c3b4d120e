//! The agent as a program of its own: small, since one stands beside every instance.

fn main() {}
