//! The envelope around stored values: which kind of record, in which version, and how an old one becomes a new one.
//!
//! Owns the outermost bytes of every value. What is inside belongs to the crate that implements [`Record`]. It must not
//! know any concrete record.
//!
//! Layout: one byte with the version of the envelope itself, then a CBOR array `[kind, version, content]`, where
//! `content` is a byte string that holds the CBOR of the record.
//!
//! Adding an optional field to a record needs no new version: CBOR fields are numbered (`#[n(3)]`), unknown ones are
//! skipped and missing `Option`s are `None`. A new version is for changes that an older program would misread, or that
//! old records must be rewritten for.

use bytes::Bytes;
use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Decoder, Encode};

/// The version of the envelope. It would change if the kind and the version of a record had to be said differently.
const ENVELOPE: u8 = 1;

/// A value that can be stored.
pub trait Record: Encode<()> + for<'bytes> Decode<'bytes, ()> {
    /// What it is, in the singular: `operation`. Part of the disk format.
    const KIND: &'static str;

    /// The version this program writes. The first is 1.
    const VERSION: u16;

    /// `UPGRADES[i]` turns the content of version `i + 1` into that of version `i + 2`, so there is one less than
    /// versions; the compiler checks it.
    const UPGRADES: &'static [Upgrade];
}

/// One step from the content of a version to that of the next: CBOR in, CBOR out.
pub type Upgrade = fn(&[u8]) -> Result<Vec<u8>, UpgradeError>;

/// Why the content of an old version could not be upgraded.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The content is not what that version wrote.
    #[error("content is not of the version it claims")]
    Malformed {
        /// What the decoder said.
        #[source]
        source: minicbor::decode::Error,
    },
    /// The content is well-formed but has no meaning in the next version.
    #[error("content has no counterpart in the next version: {reason}")]
    Inexpressible {
        /// Why not.
        reason: &'static str,
    },
}

/// Why stored bytes are not the record asked for.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There are no bytes.
    #[error("stored {expected} is empty")]
    Empty {
        /// The kind asked for.
        expected: &'static str,
    },
    /// The envelope is of a kind this program does not know.
    #[error("stored {expected} has envelope version {found}, this program knows {supported}")]
    UnknownEnvelope {
        /// The kind asked for.
        expected: &'static str,
        /// The version found.
        found: u8,
        /// The version this program knows.
        supported: u8,
    },
    /// The envelope cannot be read.
    #[error("stored {expected} has a damaged envelope")]
    Envelope {
        /// The kind asked for.
        expected: &'static str,
        /// What the decoder said.
        #[source]
        source: minicbor::decode::Error,
    },
    /// It is another kind of record.
    #[error("stored record is a {found}, expected a {expected}")]
    WrongKind {
        /// The kind asked for.
        expected: &'static str,
        /// The kind found.
        found: String,
    },
    /// A newer program wrote it.
    #[error("stored {kind} has version {found}, this program knows versions up to {supported}")]
    Newer {
        /// The kind of record.
        kind: &'static str,
        /// The version found.
        found: u16,
        /// The newest version this program knows.
        supported: u16,
    },
    /// Versions begin at 1.
    #[error("stored {kind} has version 0, which never existed")]
    NoVersion {
        /// The kind of record.
        kind: &'static str,
    },
    /// The content cannot be read.
    #[error("stored {kind} of version {version} has damaged content")]
    Content {
        /// The kind of record.
        kind: &'static str,
        /// The version found.
        version: u16,
        /// What the decoder said.
        #[source]
        source: minicbor::decode::Error,
    },
    /// A step of the upgrade failed.
    #[error("stored {kind} cannot be upgraded from version {from}")]
    Upgrade {
        /// The kind of record.
        kind: &'static str,
        /// The version the failing step starts from.
        from: u16,
        /// Why.
        #[source]
        source: UpgradeError,
    },
}

/// The bytes to store for `record`.
pub fn encode<T: Record>(record: &T) -> Bytes {
    let content = to_cbor(record);
    let envelope = (T::KIND, T::VERSION, <&ByteSlice>::from(content.as_slice()));
    let mut bytes = vec![ENVELOPE];
    bytes.append(&mut to_cbor(&envelope));
    bytes.into()
}

/// The CBOR of a value, without an envelope: for encoding the result of an [`Upgrade`].
pub fn to_cbor<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("a vector takes every byte, and derived encoders have no errors of their own")
}

/// The record in stored `bytes`, upgraded from the version it was written in.
pub fn decode<T: Record>(bytes: &[u8]) -> Result<T, DecodeError> {
    const { assert!(T::UPGRADES.len() + 1 == T::VERSION as usize, "one upgrade between any two versions") };
    let (version, mut content) = open::<T>(bytes)?;
    for from in version..T::VERSION {
        let upgrade = T::UPGRADES[usize::from(from) - 1];
        content = upgrade(&content).map_err(|source| DecodeError::Upgrade { kind: T::KIND, from, source })?;
    }
    from_cbor(&content).map_err(|source| DecodeError::Content { kind: T::KIND, version, source })
}

/// The value in `bytes` without an envelope, and nothing behind it: for reading the content in an [`Upgrade`].
pub fn from_cbor<T: for<'bytes> Decode<'bytes, ()>>(bytes: &[u8]) -> Result<T, minicbor::decode::Error> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.decode()?;
    end(&decoder)?;
    Ok(value)
}

/// Takes the envelope off: the version and the content, if this program can read them.
fn open<T: Record>(bytes: &[u8]) -> Result<(u16, Vec<u8>), DecodeError> {
    let (envelope, rest) = bytes.split_first().ok_or(DecodeError::Empty { expected: T::KIND })?;
    if *envelope != ENVELOPE {
        return Err(DecodeError::UnknownEnvelope { expected: T::KIND, found: *envelope, supported: ENVELOPE });
    }
    let mut decoder = Decoder::new(rest);
    let (kind, version, content): (&str, u16, &ByteSlice) = decoder
        .decode()
        .and_then(|parts| end(&decoder).map(|()| parts))
        .map_err(|source| DecodeError::Envelope { expected: T::KIND, source })?;
    if kind != T::KIND {
        return Err(DecodeError::WrongKind { expected: T::KIND, found: kind.to_owned() });
    }
    match version {
        0 => Err(DecodeError::NoVersion { kind: T::KIND }),
        found if found > T::VERSION => Err(DecodeError::Newer { kind: T::KIND, found, supported: T::VERSION }),
        version => Ok((version, content.to_vec())),
    }
}

fn end(decoder: &Decoder<'_>) -> Result<(), minicbor::decode::Error> {
    if decoder.position() == decoder.input().len() {
        Ok(())
    } else {
        Err(minicbor::decode::Error::message("bytes behind the end"))
    }
}
