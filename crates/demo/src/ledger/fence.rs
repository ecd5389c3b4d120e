//! One writer at a time, by the bucket's word: the object `current` names the epoch that may write and the state to
//! start from, and it is only ever moved by a conditional put.
//!
//! A start *claims* `current` for its epoch; a save puts `state/<epoch>-<writer>` and then moves `current` under the
//! claim's own tag. So from the moment a newer writer has started, an older one can save nothing that anyone would read.
//! The claim carries a random name, because a tag stands for content: without it two claims of one epoch would have one
//! tag. The state carries it, too: what a process left behind that died in mid-save is never in its successor's way.
//!
//! A crash may be followed by a restart under the same epoch (the new process takes the claim over); a state that was
//! saved ends its epoch.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::book::{Book, Epoch, ReadError};
use super::protocol::Writer;
use crate::bucket::{Bucket, ETag, Object, PutError, RequestError};

const POINTER: &str = "current";

/// How often a start looks again after losing a race for `current`; each loss is another start that went ahead, and
/// there are never many.
const CLAIM_TRIES: usize = 5;

/// A newer writer has taken over, or this permission is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fenced: epoch {ours} may not write, {}", reason(*theirs, *saved))]
pub struct Fenced {
    /// The permission that was refused.
    pub ours: Epoch,
    /// The permission in the bucket.
    pub theirs: Epoch,
    /// Whether a state was saved under it already.
    pub saved: bool,
}

fn reason(theirs: Epoch, saved: bool) -> String {
    if saved {
        format!("the bucket holds the final state of epoch {theirs}")
    } else {
        format!("epoch {theirs} has taken over")
    }
}

/// Why the bucket's state could not be claimed, read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The permission is too old. Final.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The bucket gave no answer, or refused. Another try may succeed, and is safe.
    #[error("cannot use the bucket")]
    Bucket(#[from] RequestError),
    /// `current` is not what this program writes.
    #[error("the object {POINTER} in the bucket is not readable")]
    Pointer(#[source] serde_json::Error),
    /// The state that `current` names is not there.
    #[error("the object {key} is missing from the bucket")]
    Missing {
        /// The object that should be there.
        key: String,
    },
    /// The state that `current` names is not readable.
    #[error("the object {key} in the bucket cannot be used")]
    State {
        /// The object.
        key: String,
        /// What is wrong with it.
        #[source]
        source: ReadError,
    },
    /// Others kept moving `current`.
    #[error("lost the race for {POINTER} {CLAIM_TRIES} times")]
    Contended,
}

/// The content of `current`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    epoch: Epoch,
    writer: Writer,
    saved: Option<Saved>,
}

/// A complete state in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// The process that wrote it.
    pub writer: Writer,
    /// How many entries it has.
    pub entries: u64,
}

impl Saved {
    /// The object that holds the state.
    #[must_use]
    pub fn key(&self) -> String {
        format!("state/{}-{}", self.epoch, self.writer)
    }
}

impl Pointer {
    /// Whether a writer of this epoch may start.
    fn admits(&self, epoch: Epoch) -> Result<(), Fenced> {
        let saved = self.is_final();
        if epoch > self.epoch || (epoch == self.epoch && !saved) {
            return Ok(());
        }
        Err(Fenced { ours: epoch, theirs: self.epoch, saved })
    }

    /// Whether the epoch that has `current` has saved its state, and so has come to its end.
    fn is_final(&self) -> bool {
        self.saved.as_ref().is_some_and(|saved| saved.epoch == self.epoch)
    }

    fn to_body(&self) -> Result<Bytes, FenceError> {
        serde_json::to_vec(self).map(Bytes::from).map_err(FenceError::Pointer)
    }

    async fn read(bucket: &Bucket) -> Result<Option<(Self, ETag)>, FenceError> {
        let Some(Object { body, etag }) = bucket.get(POINTER).await? else { return Ok(None) };
        let pointer = serde_json::from_slice(&body).map_err(FenceError::Pointer)?;
        Ok(Some((pointer, etag)))
    }
}

/// The right of one process to write, as long as nobody newer comes.
#[derive(Debug)]
pub struct Claim {
    bucket: Bucket,
    pointer: Pointer,
    etag: ETag,
}

impl Claim {
    /// Takes `current` for this epoch, or says who has it.
    pub async fn take(bucket: Bucket, epoch: Epoch) -> Result<Self, FenceError> {
        // 64 of 128 random bits are enough to tell a handful of processes apart, and fit into an answer.
        let mut writer = Uuid::new_v4().simple().to_string();
        writer.truncate(16);
        for _ in 0..CLAIM_TRIES {
            let before = Pointer::read(&bucket).await?;
            if let Some((pointer, _)) = &before {
                pointer.admits(epoch)?;
            }
            let saved = before.as_ref().and_then(|(pointer, _)| pointer.saved.clone());
            let pointer = Pointer { epoch, writer: writer.clone(), saved };
            let body = pointer.to_body()?;
            let moved = match &before {
                Some((_, etag)) => bucket.put_if_match(POINTER, body, etag).await,
                None => bucket.put_if_absent(POINTER, body).await,
            };
            match moved {
                Ok(etag) => return Ok(Self { bucket, pointer, etag }),
                Err(PutError::Precondition { .. }) => {}
                Err(PutError::Request(error)) => return Err(error.into()),
            }
        }
        Err(FenceError::Contended)
    }

    /// The permission this claim stands for.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.pointer.epoch
    }

    /// The name of this process.
    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.pointer.writer
    }

    /// The state to start from, if there was one.
    #[must_use]
    pub fn saved(&self) -> Option<&Saved> {
        self.pointer.saved.as_ref()
    }

    /// The newest saved book; an empty one if there never was any.
    pub async fn load(&self) -> Result<Book, FenceError> {
        match self.saved() {
            Some(saved) => read_state(&self.bucket, saved).await,
            None => Ok(Book::default()),
        }
    }

    /// Makes this book the newest state, or says who is newer. May be repeated after [`FenceError::Bucket`], with the
    /// same book: whatever part of an earlier try took effect is recognised as our own.
    pub async fn save(&self, json: Bytes, entries: u64) -> Result<Saved, FenceError> {
        let saved = Saved { epoch: self.epoch(), writer: self.writer().clone(), entries };
        match self.bucket.put_if_absent(&saved.key(), json).await {
            // Nobody else uses this key: if it is there, an earlier try of ours had arrived.
            Ok(_) | Err(PutError::Precondition { .. }) => {}
            Err(PutError::Request(error)) => return Err(error.into()),
        }
        let pointer = Pointer { saved: Some(saved.clone()), ..self.pointer.clone() };
        match self.bucket.put_if_match(POINTER, pointer.to_body()?, &self.etag).await {
            Ok(_) => Ok(saved),
            Err(PutError::Request(error)) => Err(error.into()),
            Err(PutError::Precondition { .. }) => match Pointer::read(&self.bucket).await? {
                Some((current, _)) if current == pointer => Ok(saved),
                Some((current, _)) => {
                    Err(Fenced { ours: self.epoch(), theirs: current.epoch, saved: current.is_final() }.into())
                }
                None => Err(FenceError::Missing { key: POINTER.to_owned() }),
            },
        }
    }
}

/// The newest saved book, without any claim to it: for those who only want to look.
pub async fn newest(bucket: &Bucket) -> Result<Option<(Saved, Book)>, FenceError> {
    match Pointer::read(bucket).await?.and_then(|(pointer, _)| pointer.saved) {
        Some(saved) => {
            let book = read_state(bucket, &saved).await?;
            Ok(Some((saved, book)))
        }
        None => Ok(None),
    }
}

async fn read_state(bucket: &Bucket, saved: &Saved) -> Result<Book, FenceError> {
    let key = saved.key();
    match bucket.get(&key).await? {
        Some(object) => Book::from_json(&object.body).map_err(|source| FenceError::State { key, source }),
        None => Err(FenceError::Missing { key }),
    }
}
