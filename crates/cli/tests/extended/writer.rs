//! A client of Redis that writes without pause, and remembers what was acknowledged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quiesce_testkit::eventually;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::stack::SOON;

/// What the writer does between two tries when no server accepts.
const PAUSE: Duration = Duration::from_millis(5);

/// Keys read back at once: enough to make a check of many thousand quick, few enough for one small message.
const KEYS_AT_ONCE: usize = 500;

/// A connection that speaks as much of RESP as is needed.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) async fn connect(port: u16) -> io::Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?)))
    }

    /// Sends a command and returns the answer without its type and length.
    pub(crate) async fn ask(&mut self, words: &[&str]) -> io::Result<String> {
        self.send(words).await?;
        self.answer().await
    }

    /// Those of the writes that the server does not have.
    pub(crate) async fn missing(&mut self, writes: &[Write]) -> Vec<Write> {
        let mut missing = Vec::new();
        for some in writes.chunks(KEYS_AT_ONCE) {
            let keys: Vec<_> = some.iter().map(Write::key).collect();
            let words: Vec<_> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
            self.send(&words).await.expect("the server takes questions");
            let length = self.answer().await.expect("the server answers");
            assert_eq!(length, some.len().to_string(), "an answer for each key");
            for write in some {
                if self.answer().await.expect("the server answers") != write.number.to_string() {
                    missing.push(*write);
                }
            }
        }
        missing
    }

    async fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.write_all(request.as_bytes()).await
    }

    /// One answer; of an array its length, and its elements are the next answers.
    async fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        match line.split_at(1) {
            ("$", "-1") => Ok("(none)".to_owned()),
            ("$", length) => {
                let mut bytes = vec![0; length.parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut bytes).await?;
                Ok(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned())
            }
            ("-", error) => Err(io::Error::other(error.to_owned())),
            (_, answer) => Ok(answer.to_owned()),
        }
    }
}

/// A write that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) number: u64,
    /// Of the server that acknowledged it.
    pub(crate) port: u16,
}

impl Write {
    fn key(&self) -> String {
        format!("key-{}", self.number)
    }
}

/// Writes ever new keys to whichever server answers, and remembers what was acknowledged.
pub(crate) struct Writer {
    over: Arc<AtomicBool>,
    acknowledged: watch::Receiver<Vec<Write>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Writes at once, with `pause` after each acknowledged write.
    pub(crate) fn start(ports: [u16; 2], pause: Duration) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (sender, acknowledged) = watch::channel(Vec::new());
        let task = tokio::spawn(write(ports, pause, Arc::clone(&over), sender));
        Self { over, acknowledged, task }
    }

    /// Waits until this server has acknowledged a write that was sent after now.
    pub(crate) async fn reaches(&self, port: u16) {
        // One may be on its way already.
        let wanted = self.by(port) + 2;
        eventually(format!("writes to port {port}"), SOON, || async { self.by(port) >= wanted }).await;
    }

    /// What was acknowledged so far.
    pub(crate) fn so_far(&self) -> Vec<Write> {
        self.acknowledged.borrow().clone()
    }

    fn by(&self, port: u16) -> usize {
        self.acknowledged.borrow().iter().filter(|write| write.port == port).count()
    }

    pub(crate) async fn end(self) -> Vec<Write> {
        self.over.store(true, Ordering::Release);
        timeout(SOON, self.task).await.expect("the writer ends").expect("it does not panic");
        self.acknowledged.borrow().clone()
    }
}

async fn write(ports: [u16; 2], pause: Duration, over: Arc<AtomicBool>, acknowledged: watch::Sender<Vec<Write>>) {
    let mut number = 0;
    while !over.load(Ordering::Acquire) {
        for port in ports {
            let Ok(mut client) = Client::connect(port).await else { continue };
            while !over.load(Ordering::Acquire) {
                let write = Write { number, port };
                number += 1;
                match client.ask(&["SET", &write.key(), &write.number.to_string()]).await {
                    Ok(answer) if answer == "OK" => acknowledged.send_modify(|writes| writes.push(write)),
                    // Refused while it loads or stops, or gone: nobody promised anything.
                    Ok(_) | Err(_) => break,
                }
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
        }
        sleep(PAUSE).await;
    }
}

pub(crate) async fn server_is_ready(port: u16) {
    eventually(format!("redis on port {port}"), SOON, || async move {
        let mut client = Client::connect(port).await?;
        client.ask(&["PING"]).await
    })
    .await;
}
