//! The scheduler as its callers see it: a real server on a free port, real clients, scripted hooks.

mod errors;
mod gateway;
mod hook;
mod lists;
mod operations;
mod resources;
mod restart;
mod transport;
mod watches;
mod world;
