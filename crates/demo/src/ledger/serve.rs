//! The ledger's connections: bounded in number, in line length and in idle time.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::book::{Book, Epoch};
use super::protocol::{Answer, LineError, Request, Writer, read_line};

/// The demonstration needs three or four; a connection costs a task and two small buffers.
const CONNECTIONS_MAX: usize = 64;

/// A client that sends nothing, or does not take its answers, for this long makes room for others.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// Pause after a failed accept, so that running out of descriptors does not become a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The book and who keeps it. The lock makes the order of things plain: a write is before the close or refused.
#[derive(Debug)]
pub(super) struct Desk {
    book: Mutex<Book>,
    epoch: Epoch,
    writer: Writer,
}

impl Desk {
    pub(super) fn new(book: Book, epoch: Epoch, writer: Writer) -> Self {
        Self { book: Mutex::new(book), epoch, writer }
    }

    pub(super) fn count(&self) -> u64 {
        self.book().count()
    }

    /// Ends all writing and returns what there is to save, with its number of entries.
    pub(super) fn close(&self) -> Result<(Vec<u8>, u64), serde_json::Error> {
        let mut book = self.book();
        book.close();
        Ok((book.to_json()?, book.count()))
    }

    fn answer(&self, line: &str) -> Answer {
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(reason) => return Answer::Error(reason.to_owned()),
        };
        let mut book = self.book();
        match request {
            Request::Put { key, value } => match book.write(key, value) {
                Ok(number) => Answer::Written { number, epoch: self.epoch, writer: self.writer.clone() },
                Err(refusal) => Answer::Error(refusal.to_string()),
            },
            Request::Get { key } => book.entry(key).cloned().map_or(Answer::None, Answer::Value),
            Request::Count => Answer::Count(book.count()),
            Request::Who => Answer::Who {
                epoch: self.epoch,
                writer: self.writer.clone(),
                pid: std::process::id(),
                stopping: book.is_closed(),
            },
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nothing panics while it holds the book")
    }
}

/// Serves until dropped, which ends every connection.
pub(super) async fn serve(listener: TcpListener, desk: Arc<Desk>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                let desk = Arc::clone(&desk);
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &desk).await {
                        debug!(%error, "a connection ended badly");
                    }
                });
            }
            Ok((stream, _)) => {
                // Best effort in one piece: the empty send buffer of a new connection takes it, or nobody gets it.
                if let Err(error) = stream.try_write(format!("{}\n", Answer::Error("busy".to_owned())).as_bytes()) {
                    debug!(%error, "turned a connection away without a word");
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, desk: &Desk) -> io::Result<()> {
    // Short answers that somebody waits for.
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = tokio::time::timeout(IDLE_TIME_MAX, read_line(&mut reader)).await?;
        let (answer, last) = match line {
            Ok(Some(line)) => (desk.answer(&line), false),
            Ok(None) => return Ok(()),
            Err(LineError::Read(error)) => return Err(error),
            Err(error @ (LineError::TooLong | LineError::NotText)) => (Answer::Error(error.to_string()), true),
        };
        tokio::time::timeout(IDLE_TIME_MAX, writer.write_all(format!("{answer}\n").as_bytes())).await??;
        if last {
            return Ok(());
        }
    }
}
