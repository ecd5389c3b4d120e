//! The driver against real hooks on loopback and a store that stops where the test wants it to.

mod attempts;
mod beside;
mod commands;
mod crashes;
mod dialling_in;
mod durability;
mod isolation;
mod presence;
mod recovering;
mod world;
