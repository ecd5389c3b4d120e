//! The demonstration: a small stateful application, an S3 server on loopback, a migration under load.
//!
//! - [`s3`]: a real S3 server over a directory, on a free port of 127.0.0.1
//! - [`bucket`]: the application's S3 client, three conditional calls and no more
//! - [`ledger`]: the application: takes writes over TCP, saves itself to the bucket when told to stop, comes back from it
//! - [`load`]: a client that writes without pause and proves afterwards that nothing acknowledged was lost
//! - [`story`]: `quiesce demo`, which plays all of it with a real scheduler and real agents, and checks the outcome
//!
//! The ledger is also this project's example of a well-behaved application, so it must know nothing of Quiesce but
//! what any application may know: `SIGTERM`, `NOTIFY_SOCKET` and `QUIESCE_EPOCH`. Only the story knows Quiesce, and only
//! from outside: it starts scheduler and agents as processes and asks through the public contract. Nothing here belongs
//! into a production image.

pub mod bucket;
pub mod ledger;
pub mod load;
pub mod s3;
pub mod story;

pub use story::run;
