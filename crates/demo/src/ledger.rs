//! The ledger: a small stateful application that can be stopped, moved and started again without losing a write.
//!
//! It keeps its entries in memory and serves them over TCP ([`protocol`]). What makes it well behaved:
//! - it starts only with the newest permission ([`fence`]) and says `READY=1` when it really serves;
//! - at `SIGTERM` it first stops acknowledging, then saves, then ends: nothing acknowledged is missing from the save;
//! - a save that takes long asks for more time, and says how far it is;
//! - a save that fails is tried again and the process stays: its memory is the only copy. It does not ask for more time
//!   then, so whoever waits is told in time that this stop does not work.
//!
//! It must not know Quiesce: no other crate of the project is linked here.

pub mod book;
pub mod fence;
mod notify;
mod options;
mod program;
pub mod protocol;
mod serve;

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::options::{LedgerOptions, OptionsError, Scene, vars};
pub use self::program::program;

use self::book::Epoch;
use self::fence::{Claim, FenceError, Saved};
use self::notify::Notifier;
use self::serve::Desk;
use crate::bucket::{Bucket, BucketError};

/// How often a slow save says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// What a slow save asks for, from each progress report on: many reports long, so that a lost one does no harm.
const EXTENSION: Duration = Duration::from_secs(5);

/// First and longest pause between two tries to save. There is no last try: giving up would destroy what only this
/// process has. It ends by success, by a newer writer, or by a kill that is somebody else's decision.
const SAVE_RETRY_MIN: Duration = Duration::from_millis(200);
const SAVE_RETRY_MAX: Duration = Duration::from_secs(5);

/// What the log says for every signal, with the epoch.
pub const TOLD_TO_STOP: &str = "told to stop";

/// Connections the kernel keeps for us while all our places are taken.
const BACKLOG: u32 = 64;

/// Why the ledger did not start, or ended without a save.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The scene says so.
    #[error("refused to start: {} exists", path.display())]
    Refused {
        /// The file of [`Scene::refuse_start_while`].
        path: PathBuf,
    },
    /// The address to serve on is not to be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No signal handlers: the ledger would die of the first `SIGTERM` with everything it knows.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// `NOTIFY_SOCKET` is set to something that cannot be a socket's name.
    #[error("cannot use the notification socket")]
    Notify(#[source] io::Error),
    /// The bucket's address is wrong.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The state could not be claimed, loaded or saved.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The state could not be put into words.
    #[error("cannot serialize the state")]
    Serialize(#[source] serde_json::Error),
}

impl LedgerError {
    /// The code the process should end with, after sysexits: 77 fenced, 69 refused to start, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Fence(FenceError::Fenced(_)) => 77,
            Self::Refused { .. } => 69,
            Self::Listen { .. }
            | Self::Signals(_)
            | Self::Notify(_)
            | Self::Bucket(_)
            | Self::Fence(_)
            | Self::Serialize(_) => 1,
        }
    }
}

/// How a ledger came to its end when all went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It served, and this is what it saved.
    Saved(Saved),
    /// It was told to stop before it had begun to serve; there was nothing to save.
    BeforeServing,
}

/// Runs a ledger until `SIGTERM` or `SIGINT`. A signal during the save changes nothing but the log, where every signal
/// is counted: whoever must tell it once can be held to that.
pub async fn run(options: LedgerOptions) -> Result<Ended, LedgerError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(LedgerError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(LedgerError::Signals)?;
    let epoch = options.epoch;
    let told = CancellationToken::new();
    let ledger = run_until(options, told.clone().cancelled_owned());
    tokio::pin!(ledger);
    let mut times = 0_u64;
    loop {
        tokio::select! {
            ended = &mut ledger => return ended,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        times += 1;
        info!(%epoch, times, "{TOLD_TO_STOP}");
        told.cancel();
    }
}

/// Runs a ledger until `stop` is ready; [`run`] without the signals.
pub async fn run_until(options: LedgerOptions, stop: impl Future<Output = ()>) -> Result<Ended, LedgerError> {
    let notifier = Notifier::new(options.notify_socket.as_deref()).map_err(LedgerError::Notify)?;
    if let Some(path) = options.scene.refuse_start_while.as_ref().filter(|path| path.exists()) {
        notifier.status("refusing to start");
        return Err(LedgerError::Refused { path: path.clone() });
    }
    // The address is reserved before anything is claimed: a predecessor that still sits on it ends this start early.
    let listen_failed = |source| LedgerError::Listen { address: options.listen, source };
    let socket = reserve(options.listen).map_err(listen_failed)?;
    let bucket = Bucket::new(&options.bucket)?;

    tokio::pin!(stop);
    let (claim, desk) = tokio::select! {
        loaded = load(bucket, options.epoch, &notifier) => loaded?,
        () = &mut stop => return Ok(Ended::BeforeServing),
    };

    let listener = socket.listen(BACKLOG).map_err(listen_failed)?;
    let address = listener.local_addr().map_err(listen_failed)?;
    info!(%address, epoch = %claim.epoch(), writer = %claim.writer(), entries = desk.count(), "serving");
    notifier.ready(&format!("serving {} entries on {address}, epoch {}", desk.count(), claim.epoch()));

    // One future over both phases: it goes on answering, reads with values and writes with `ERR stopping`.
    let serving = serve::serve(listener, Arc::clone(&desk));
    tokio::pin!(serving);
    tokio::select! {
        never = &mut serving => match never {},
        () = &mut stop => {}
    }
    tokio::select! {
        never = &mut serving => match never {},
        saved = save(&claim, &desk, options.scene.save_takes(), &notifier) => saved.map(Ended::Saved),
    }
}

/// Binds without listening: clients are refused until the ledger really serves.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of a predecessor that are still winding down must not keep us out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn load(bucket: Bucket, epoch: Epoch, notifier: &Notifier) -> Result<(Claim, Arc<Desk>), LedgerError> {
    notifier.status(&format!("claiming the bucket for epoch {epoch}"));
    let claim = Claim::take(bucket, epoch).await?;
    let entries = claim.saved().map_or(0, |saved| saved.entries);
    notifier.status(&format!("loading {entries} entries"));
    let desk = Desk::new(claim.load().await?, epoch, claim.writer().clone());
    Ok((claim, Arc::new(desk)))
}

async fn save(claim: &Claim, desk: &Desk, save_for: Duration, notifier: &Notifier) -> Result<Saved, LedgerError> {
    let (json, entries) = desk.close().map_err(LedgerError::Serialize)?;
    let json = Bytes::from(json);
    let saving = |percent: u128| format!("saving {entries} entries to the bucket {percent} %");
    info!(entries, "stopping");
    notifier.stopping(&saving(0));

    let begin = Instant::now();
    while begin.elapsed() < save_for {
        let percent = begin.elapsed().as_millis() * 100 / save_for.as_millis().max(1);
        notifier.extend(EXTENSION, &saving(percent));
        let left = save_for.saturating_sub(begin.elapsed());
        tokio::time::sleep(left.min(PROGRESS_INTERVAL)).await;
    }

    let mut pause = SAVE_RETRY_MIN;
    let saved = loop {
        match claim.save(json.clone(), entries).await {
            Ok(saved) => break saved,
            Err(error @ FenceError::Fenced(_)) => {
                notifier.status(&error.to_string());
                return Err(error.into());
            }
            Err(error) => {
                let reason = chain(&error);
                warn!(reason, "cannot save, trying again");
                notifier.status(&format!("cannot save {entries} entries, trying again: {reason}"));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SAVE_RETRY_MAX);
    };
    info!(entries, "saved");
    notifier.status(&saving(100));
    Ok(saved)
}

/// An error and everything that led to it, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
