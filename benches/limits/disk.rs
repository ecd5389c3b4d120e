//! What the disk can do: bytes at the end of a file, made durable by one sync for all that wait.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

/// As in the store: queue and group hold as many as can wait.
const QUEUE_MAX: usize = 1024;

struct Append {
    bytes: Vec<u8>,
    durable: oneshot::Sender<()>,
}

/// An append-only file with natural group commit: block for the first, take what waits, one sync for all. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    appends: mpsc::Sender<Append>,
}

impl Log {
    /// The thread behind it ends with the last clone.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::create(path)?;
        let (appends, mut queue) = mpsc::channel::<Append>(QUEUE_MAX);
        std::thread::spawn(move || -> std::io::Result<()> {
            while let Some(first) = queue.blocking_recv() {
                let mut group = vec![first];
                while group.len() < QUEUE_MAX {
                    let Ok(next) = queue.try_recv() else { break };
                    group.push(next);
                }
                let bytes: Vec<u8> = group.iter().flat_map(|append| &append.bytes).copied().collect();
                file.write_all(&bytes)?;
                file.sync_data()?;
                for append in group {
                    // A writer whose time is up does not wait.
                    let _unheard = append.durable.send(());
                }
            }
            Ok(())
        });
        Ok(Self { appends })
    }

    pub(crate) async fn append(&self, bytes: Vec<u8>) -> anyhow::Result<()> {
        let (sender, durable) = oneshot::channel();
        self.appends.send(Append { bytes, durable: sender }).await.ok().context("the log is gone")?;
        durable.await.context("the log is gone")
    }
}

/// A file to which single records are appended and synced.
pub(crate) struct Single(File);

impl Single {
    /// About what a transition writes, in whole pages.
    const BYTES: usize = 4096;

    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(File::create(path)?))
    }

    /// How long it takes to append and sync one record.
    pub(crate) fn sync(&mut self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        self.0.write_all(&[7; Self::BYTES])?;
        self.0.sync_data()?;
        Ok(begin.elapsed())
    }
}
