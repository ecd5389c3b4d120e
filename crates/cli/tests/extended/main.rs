//! The extended suite: real processes, real applications, real crashes.
//!
//! Everything is driven through the public binary and the public gRPC interface, on loopback, with ports and
//! directories of its own. It needs more than Rust, so it hides behind the feature `extended`: `python3` for the
//! application that misbehaves on demand, Debian's `redis-server` and `mariadb-server`, unmodified, and clients of others.
//! See `docs/testing.md`.

#![expect(clippy::unwrap_used, reason = "a test that panics shows the line, in its own functions as well")]

mod browser;
mod census;
mod chaos;
mod collector;
mod disk;
mod external;
mod grpcio;
mod grpcurl;
mod instances;
mod kills;
mod krake;
mod logs;
mod mariadb;
mod marked;
mod misbehaving;
mod openssl;
mod page;
mod partitions;
mod program;
mod prometheus;
mod redis;
mod restoring;
mod resuming;
mod rotation;
mod screen;
mod secured;
mod stack;
mod targets;
mod tools;
mod tour;
mod traces;
mod unfenced;
mod writer;
