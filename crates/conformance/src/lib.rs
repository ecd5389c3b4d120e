//! Does a hook keep the rules of `quiesce.v1.ShutdownHook`, and a scheduler its promises? Every check of them, for the
//! commands `hook-conformance` and `scheduler-conformance`, and for tests of hooks and schedulers that are written in Rust.
//!
//! Owns the checks and how they are run and told. It knows a hook by the contract alone: what is true of the application
//! is asked of the operating system ([`fixture::Fixture`]), never of the hook. It starts no hook and no application
//! itself. A scheduler it knows by the public services alone ([`scheduler`]); the hooks are then its own.
//!
//! ```no_run
//! use std::sync::Arc;
//! use quiesce_conformance::{config::Config, fixture::Commands, hook, reach::Endpoint, run::Selection, subject::Subject};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::parse(&std::fs::read_to_string("conformance.toml")?)?;
//! let endpoint = Endpoint::parse("127.0.0.1:7080", None)?;
//! let subject = Subject::listening(Arc::new(Commands::new(&config)), endpoint, config.subject_settings());
//! let report = hook::run(&subject, &Selection::default(), |_result| {}).await?;
//! assert!(report.is_passed(false), "{report}");
//! # Ok(())
//! # }
//! ```

pub mod args;
pub mod check;
pub mod choice;
pub mod config;
pub mod fixture;
pub mod gateway;
pub mod hook;
pub mod output;
mod raw;
pub mod reach;
mod reflection;
pub mod rules;
pub mod run;
pub mod scheduler;
pub mod subject;
mod tap;
