//! The command line of Quiesce.
fn main() {}
