//! The binary against a scripted scheduler: what it prints, what it asks for, and how it exits.

mod access;
mod doctor;
mod encrypted;
mod fake;
mod follow;
mod hooks_in_tls;
mod input;
mod manual;
mod pki;
mod resources;
mod run;
