//! The scheduler as its callers see it: a real server on a free port, real clients, scripted hooks.

#![allow(clippy::unwrap_used, reason = "tests panic where they fail; clippy exempts only functions marked as tests")]

mod access;
mod encrypted;
mod errors;
mod gateway;
mod hook;
mod hooks_in_tls;
mod input;
mod lists;
mod operations;
mod overview;
mod replay;
mod resources;
mod restart;
mod restoring;
mod store_trouble;
mod transport;
mod watches;
mod web;
mod world;
