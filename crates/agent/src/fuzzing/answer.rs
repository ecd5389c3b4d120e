//! What a scheduler, or whatever stands there in its place, answers to an agent that dials in.

use std::io::Cursor;

use tokio::runtime::{Builder, Runtime};

use crate::attach::{AttachError, attach};

/// Longest answer, its end included; of the contract.
const LINE_MAX: usize = 512;

/// The bytes of the answer, and what follows them; then the other side is silent.
#[must_use]
pub fn answer(bytes: &[u8]) -> bool {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime without IO");
    }
    let mut connection = tokio::io::join(Cursor::new(bytes.to_vec()), Vec::new());
    let attached = RUNTIME.with(|runtime| runtime.block_on(attach(&mut connection, "t0k")));
    let (reader, said) = connection.into_inner();
    assert_eq!(said, b"QUIESCE/1 ATTACH t0k\r\n");

    let end = bytes.windows(2).position(|two| two == b"\r\n").map(|at| at + 2).filter(|end| *end <= LINE_MAX);
    let read = usize::try_from(reader.position()).expect("an input fits into memory");
    assert_eq!(read, end.unwrap_or(bytes.len().min(LINE_MAX)), "what follows the line belongs to HTTP/2");
    let line = &bytes[..end.unwrap_or(0)];
    match attached {
        Ok(()) => assert_eq!(line, b"QUIESCE/1 OK\r\n"),
        Err(AttachError::Refused { code, reason }) => {
            assert_eq!(line, format!("QUIESCE/1 ERROR {code} {reason}\r\n").as_bytes());
            // Both are shown in a log.
            assert!(code.chars().chain(reason.chars()).all(|c| c.is_ascii_graphic()));
        }
        Err(AttachError::Garbage) => {
            assert_ne!(line, b"QUIESCE/1 OK\r\n");
            return false;
        }
        Err(AttachError::Lost(_)) => {
            assert!(end.is_none(), "a whole line is judged");
            return false;
        }
        Err(other @ (AttachError::Connect { .. } | AttachError::Secure { .. } | AttachError::Silent)) => {
            panic!("nobody had to wait: {other}")
        }
    }
    true
}
