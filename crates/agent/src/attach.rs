//! Dialling in: a connection the agent opens, on which it then is the server (rules A1 to A6).
//!
//! Owns the line that is said before HTTP/2 begins. The answer is read byte by byte, since what follows it belongs to
//! HTTP/2. Built on any byte stream, with or without TLS under it.

use std::io;
use std::time::Duration;

use quiesce_runtime::machine::{Network, Socket};
use quiesce_runtime::tls::{ConnectError, Connector};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::gateway::SILENCE_MAX;

/// Longest answer of the scheduler.
const LINE_MAX: usize = 512;

/// For the connection, and again for the exchange of lines.
const LIMIT: Duration = Duration::from_secs(5);

/// What is spoken then, for ALPN.
const PROTOCOL: &[u8] = b"quiesce-attach/1";

/// Why an attempt to attach failed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No connection.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// `host:port`.
        endpoint: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// No TLS.
    #[error("cannot make the connection to {endpoint} secure")]
    Secure {
        /// `host:port`.
        endpoint: String,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// The connection broke while the lines were exchanged.
    #[error("lost the connection while attaching")]
    Lost(#[source] io::Error),
    /// Nothing came in time.
    #[error("no answer within {} s", LIMIT.as_secs())]
    Silent,
    /// The scheduler said no; the token is used up.
    #[error("the scheduler refuses: {code} {reason}")]
    Refused {
        /// Name of the gRPC code.
        code: String,
        /// ErrorInfo reason.
        reason: String,
    },
    /// What answered is no scheduler of ours.
    #[error("not the answer of a quiesce scheduler")]
    Garbage,
}

/// Connects to `endpoint` (`host:port`) over `network`, in TLS if there is `tls`, and attaches with `token`, which is good
/// once.
pub async fn dial(
    network: &dyn Network,
    tls: Option<&Connector>,
    endpoint: &str,
    token: &str,
) -> Result<Box<dyn Socket>, AttachError> {
    let connect = |source| AttachError::Connect { endpoint: endpoint.to_owned(), source };
    let mut connection = timeout(LIMIT, network.connect(endpoint, Some(SILENCE_MAX)))
        .await
        .map_err(|_| connect(io::ErrorKind::TimedOut.into()))?
        .map_err(connect)?;
    if let Some(tls) = tls {
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
        let secured = Box::pin(tls.connect(connection, host, PROTOCOL)).await;
        connection = secured.map_err(|source| AttachError::Secure { endpoint: endpoint.to_owned(), source })?;
    }
    attach(&mut connection, token).await?;
    Ok(connection)
}

/// Says the line and reads the answer. After `Ok` the other side speaks HTTP/2, and is the client.
pub async fn attach<C>(connection: &mut C, token: &str) -> Result<(), AttachError>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let line = timeout(LIMIT, async {
        connection.write_all(format!("QUIESCE/1 ATTACH {token}\r\n").as_bytes()).await?;
        connection.flush().await?;
        read_line(connection).await
    })
    .await
    .map_err(|_| AttachError::Silent)?
    .map_err(AttachError::Lost)?
    .ok_or(AttachError::Garbage)?;
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["QUIESCE/1", "OK"] => Ok(()),
        ["QUIESCE/1", "ERROR", code, reason] => {
            Err(AttachError::Refused { code: code.to_owned(), reason: reason.to_owned() })
        }
        _ => Err(AttachError::Garbage),
    }
}

/// One line without its end; `None` if it is too long, not closed by CR LF, or no plain text.
async fn read_line(connection: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    while line.len() < LINE_MAX {
        line.push(connection.read_u8().await?);
        if line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
            let plain = line.iter().all(|byte| (b' '..=b'~').contains(byte));
            return Ok(plain.then(|| String::from_utf8_lossy(&line).into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &[u8]) -> (Result<(), AttachError>, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(answer).await.unwrap();
        let result = attach(&mut ours, "t0k").await;
        let mut rest = vec![0; 64];
        let read = timeout(Duration::from_millis(10), ours.read(&mut rest)).await.map_or(0, Result::unwrap);
        rest.truncate(read);
        let mut said = [0; 22];
        theirs.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"QUIESCE/1 ATTACH t0k\r\n");
        (result, rest)
    }

    #[tokio::test]
    async fn what_follows_the_answer_is_left_for_http2() {
        let (result, rest) = answered(b"QUIESCE/1 OK\r\nPRI * HTTP/2.0").await;
        result.unwrap();
        assert_eq!(rest, b"PRI * HTTP/2.0");
    }

    #[tokio::test]
    async fn a_refusal_is_told_from_garbage() {
        let (result, _) = answered(b"QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID\r\n").await;
        let Err(AttachError::Refused { code, reason }) = result else { panic!("{result:?}") };
        assert_eq!((code.as_str(), reason.as_str()), ("UNAUTHENTICATED", "CREDENTIALS_INVALID"));
        for garbage in
            [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"QUIESCE/2 OK\r\n", b"QUIESCE/1 OK\xff\r\n", &[b'x'; 600]]
        {
            let (result, _) = answered(garbage).await;
            assert!(matches!(result, Err(AttachError::Garbage)), "{result:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_not_waited_for_for_ever() {
        let (mut ours, _theirs) = tokio::io::duplex(64);
        assert!(matches!(attach(&mut ours, "t").await, Err(AttachError::Silent)));
    }
}
