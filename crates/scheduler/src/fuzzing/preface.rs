//! The first line of whoever dials in: nobody gets in without the very token, nobody twice, and not a byte behind the line
//! is touched.

use std::io::Cursor;
use std::sync::Arc;

use futures::FutureExt as _;
use quiesce_operation::{ApplicationId, InstanceId, Moment};
use quiesce_runtime::clock::ManualClock;
use quiesce_runtime::drain;
use quiesce_runtime::machine::Machine;
use quiesce_runtime::tasks::Tasks;
use quiesce_store::memory::MemoryStore;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::attach::{Attachments, Refusal};
use crate::hooks::{Dialler, Hooks};
use crate::secrets::{Entropy, Rotation, Secrets};

/// Longest preface line, its end included; of the contract.
const LINE_BYTES_MAX: usize = 512;

/// What an agent sends, from its first byte on; then it is silent.
#[must_use]
pub fn preface(bytes: &[u8]) -> bool {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime without IO");
    }
    RUNTIME.with(|runtime| runtime.block_on(dial_in(bytes)))
}

async fn dial_in(bytes: &[u8]) -> bool {
    let attachments = attachments();
    let application = ApplicationId::parse("shop").expect("it is a name");
    let instance = InstanceId::parse("a").expect("it is a name");
    let token = attachments.issue(&application, &instance).expect("these random bytes do not fail");

    let line = format!("QUIESCE/1 ATTACH {}\r\n", token.reveal());
    let belongs = bytes.starts_with(line.as_bytes());
    let end = bytes.windows(2).position(|two| two == b"\r\n").map(|at| at + 2).filter(|end| *end <= LINE_BYTES_MAX);

    let (admitted, read, said) = knock(&attachments, bytes).await;
    assert_eq!(read, end.unwrap_or(bytes.len().min(LINE_BYTES_MAX)), "what follows the line belongs to HTTP/2");
    match admitted {
        Ok(name) => {
            assert!(belongs, "admitted without the token");
            assert_eq!((name, said.as_slice()), ((application, instance), &b"QUIESCE/1 OK\r\n"[..]));
        }
        Err(refusal) => {
            assert!(!belongs, "sent away with the token: {refusal}");
            assert!(said.is_empty(), "whoever is sent away is told by the caller");
            assert!(refusal.line().is_none_or(|line| line.starts_with("QUIESCE/1 ERROR ") && line.ends_with("\r\n")));
            assert!(end.is_none() || !matches!(refusal, Refusal::Broken(_)), "a whole line is judged");
        }
    }
    assert!(knock(&attachments, bytes).await.0.is_err(), "a token is good once");
    belongs
}

/// What came of it, how many bytes were read, and what was answered.
async fn knock(attachments: &Attachments, bytes: &[u8]) -> (Result<crate::hooks::Name, Refusal>, usize, Vec<u8>) {
    let mut socket = tokio::io::join(Cursor::new(bytes.to_vec()), Vec::new());
    let admitted = attachments.admit(&mut socket).await;
    let (reader, said) = socket.into_inner();
    (admitted, usize::try_from(reader.position()).expect("an input fits into memory"), said)
}

fn attachments() -> Attachments {
    // The same token for every input, so that one can be in a seed.
    let mut entropy: Entropy = Box::new(|buffer| {
        buffer.fill(7);
        Ok(())
    });
    let store = MemoryStore::new(Uuid::nil());
    let secrets = Secrets::load(&store, &mut entropy, Moment::from_millis(0), Rotation::WhenDue)
        .now_or_never()
        .expect("memory does not wait");
    let secrets = Arc::new(secrets.expect("memory does not fail"));
    let (_signal, draining) = drain::channel();
    let dialler = Dialler::load(None, None, true, &Machine::local()).expect("there are no files to load");
    let (clock, dial) = (Arc::new(ManualClock::default()), Arc::new(dialler));
    let hooks = Hooks::new(Arc::clone(&secrets), clock, dial, Tasks::new(), draining);
    Attachments::new(hooks, secrets, entropy)
}
