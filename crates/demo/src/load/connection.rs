//! A client's connection to a ledger: questions out, answers in, every wait bounded.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{error::Elapsed, timeout};

use crate::ledger::book::Entry;
use crate::ledger::protocol::{Answer, LineError, Request, read_line};

/// A ledger on loopback answers in well under a millisecond; one that takes this long is gone or hung.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Questions sent ahead of their answers. So few fit into the socket buffers of both sides, so neither can block.
const PIPELINE: usize = 64;

/// A question without a usable answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection, or it broke.
    #[error("the connection to the ledger failed")]
    Connection(#[from] io::Error),
    /// No answer in time.
    #[error("the ledger did not answer within {} s", ANSWER_TIME_MAX.as_secs())]
    Timeout(#[from] Elapsed),
    /// The ledger hung up.
    #[error("the ledger closed the connection")]
    Closed,
    /// What came is not a line.
    #[error("the ledger's answer is not usable")]
    Line(#[from] LineError),
    /// What came is a line, but not an answer, or not one to this question.
    #[error("unexpected answer {line:?}")]
    Odd {
        /// The line.
        line: String,
    },
}

/// One connection; answers come in the order of the questions.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a ledger.
    pub async fn open(address: SocketAddr) -> Result<Self, AskError> {
        let stream = timeout(ANSWER_TIME_MAX, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks one question. After an error the connection is of no use any more.
    pub async fn ask(&mut self, request: Request<'_>) -> Result<Answer, AskError> {
        self.send(&format!("{request}\n")).await?;
        self.receive().await
    }

    /// The entries under these keys, as far as there are any.
    pub async fn entries<'a>(
        &mut self,
        keys: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, Entry>, AskError> {
        let keys: Vec<&str> = keys.into_iter().collect();
        let mut entries = BTreeMap::new();
        for keys in keys.chunks(PIPELINE) {
            let questions: String = keys.iter().map(|key| format!("{}\n", Request::Get { key })).collect();
            self.send(&questions).await?;
            for key in keys {
                match self.receive().await? {
                    Answer::Value(entry) => {
                        entries.insert((*key).to_owned(), entry);
                    }
                    Answer::None => {}
                    odd => return Err(AskError::Odd { line: odd.to_string() }),
                }
            }
        }
        Ok(entries)
    }

    async fn send(&mut self, lines: &str) -> Result<(), AskError> {
        Ok(timeout(ANSWER_TIME_MAX, self.stream.write_all(lines.as_bytes())).await??)
    }

    async fn receive(&mut self) -> Result<Answer, AskError> {
        let line = timeout(ANSWER_TIME_MAX, read_line(&mut self.stream)).await??.ok_or(AskError::Closed)?;
        Answer::parse(&line).ok_or(AskError::Odd { line })
    }
}
