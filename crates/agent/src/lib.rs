//! The agent beside an application: stops it, proves that it stopped, keeps it stopped.
//!
//! From below: [`supervise`] runs an application as a child and knows processes, no schedulers. [`application`] is the
//! seam. [`hook`] speaks `quiesce.v1.ShutdownHook` over it and knows schedulers' rules, no processes; [`serve`] puts it on
//! sockets. [`gateway`] and [`attach`] are the way to a scheduler. [`life`] puts all of it in order,
//! and [`run()`] makes it the program `quiesce-agent`; [`journal`] and the hook's record are what it must not forget.
//! Everything they ask of the operating system goes through a [`host`]: Linux, where ends are verified with pidfds and
//! `/proc`.
//!
//! # Serving the hook from your own program
//!
//! A Rust program that knows best how to stop itself, or the thing it manages, implements [`Application`] and serves the
//! hook in-process: no agent, no child. Two methods are enough; everything else is offered only when
//! [`capabilities`](application::Application::capabilities) says so.
//!
//! ```
//! use std::sync::Arc;
//!
//! use futures::future::BoxFuture;
//! use quiesce_agent::application::{
//!     AppState, AppStatus, Application, End, Evidence, StopError, StopOrder,
//! };
//! use quiesce_agent::hook::{Hook, HookOptions, Records};
//! use quiesce_agent::identity::Identity;
//! use quiesce_agent::serve::{self, Access};
//! use quiesce_runtime::{drain, tasks::Tasks};
//! use tokio::sync::watch;
//! use tokio_stream::wrappers::TcpListenerStream;
//!
//! struct Ledger {
//!     status: watch::Sender<AppStatus>,
//! }
//!
//! impl Application for Ledger {
//!     fn status(&self) -> watch::Receiver<AppStatus> {
//!         self.status.subscribe()
//!     }
//!
//!     fn stop(&self, _: StopOrder) -> BoxFuture<'_, Result<(), StopError>> {
//!         Box::pin(async {
//!             // Begin to stop and return; what happens then is told through `status`.
//!             self.status.send_modify(|status| {
//!                 status.state = AppState::Stopped;
//!                 status.end = Some(End {
//!                     exit_code: None,
//!                     exit_signal: None,
//!                     // A program can only claim of itself that it has stopped.
//!                     evidence: Evidence::Claimed,
//!                     clean: Some(true),
//!                     killed: false,
//!                     message: "all books are closed".to_owned(),
//!                 });
//!             });
//!             Ok(())
//!         })
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let running = AppStatus { state: AppState::Running, ..AppStatus::default() };
//! let ledger = Arc::new(Ledger { status: watch::Sender::new(running) });
//! let identity = Identity::new("ledger", "ledger-0", "edge-1")?;
//! let tasks = Tasks::new();
//! let hook = Hook::open(ledger, HookOptions::new(identity), Records::volatile(), &tasks)?;
//!
//! // Only who knows the token may call: the one that `AgentGateway.RegisterInstance` returned.
//! let (token, access) = Access::bearer();
//! token.set("the hook_token of the registration");
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:7080").await?;
//! let (_stop_serving, draining) = drain::channel();
//! serve::serve(hook, access, TcpListenerStream::new(listener), draining).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Application`]: application::Application

pub mod application;
pub mod args;
pub mod attach;
mod connection;
pub mod credential;
pub mod delegate;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gate;
pub mod gateway;
pub mod hold;
pub mod hook;
pub mod host;
mod id;
pub mod identity;
pub mod journal;
pub mod life;
mod link;
mod listen;
pub mod notify;
pub mod process;
pub mod readiness;
mod run;
pub mod serve;
pub mod supervise;
mod token;

pub use gate::StartMode;
pub use process::launcher::take_part;
pub use run::{live, run};
