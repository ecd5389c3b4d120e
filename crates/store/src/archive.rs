//! A backup as a file: every entry of one moment, in the order of keys, with a checksum over all of it.
//!
//! Owns the format, which is no engine's: a backup is read by every later program, whatever engine that one has. It does
//! not know what values mean, where the file is, or how it gets there whole.
//!
//! Layout: [`MAGIC`], then frames (a length in four bytes, big-endian, and so many bytes of CBOR): the [`Header`], each
//! entry as `[key, revision, value]`, an empty frame, and the number of entries. The last 32 bytes are the SHA-256 of
//! everything before them. A reader believes nothing before it has seen them: see [`Reader`].

use std::io::{self, Read, Write};

use bytes::Bytes;
use minicbor::bytes::{ByteSlice, ByteVec};
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{Entry, KEY_BYTES_MAX, Key, Revision, VALUE_BYTES_MAX, record};

/// The layout this program writes. A newer one is refused.
pub const ARCHIVE_VERSION: u32 = 1;

/// How every backup begins.
const MAGIC: &[u8; 16] = b"quiesce backup\r\n";

/// Longest frame: the largest key with the largest value, and what CBOR needs around them.
const FRAME_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 64;

/// What a backup says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    #[n(0)]
    version: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    life: [u8; 16],
    #[n(2)]
    revision: u64,
    #[n(3)]
    taken_ms: u64,
    #[n(4)]
    program: String,
}

impl Header {
    /// Of a store that calls itself `life` and has come to `revision`, at `taken_ms` milliseconds since 1970, by the
    /// version `program`.
    pub fn new(life: Uuid, revision: Revision, taken_ms: u64, program: impl Into<String>) -> Self {
        Self {
            version: ARCHIVE_VERSION,
            life: life.into_bytes(),
            revision: revision.as_u64(),
            taken_ms,
            program: program.into(),
        }
    }

    /// The life of the store it was taken of.
    pub fn life(&self) -> Uuid {
        Uuid::from_bytes(self.life)
    }

    /// The last revision in it.
    pub fn revision(&self) -> Revision {
        Revision::new(self.revision)
    }

    /// When it was taken, in milliseconds since 1970.
    pub fn taken_ms(&self) -> u64 {
        self.taken_ms
    }

    /// The version of the program that took it.
    pub fn program(&self) -> &str {
        &self.program
    }
}

/// Why a file cannot be read as a backup.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It begins otherwise.
    #[error("it is not a backup of a store")]
    NotABackup,
    /// A newer program wrote it.
    #[error("it has format {found}, this program knows formats up to {ARCHIVE_VERSION}; use the version that took it")]
    Newer {
        /// The format found.
        found: u32,
    },
    /// It ends too early: the copy was cut off.
    #[error("it is cut off; copy it again, or use an older one")]
    CutOff,
    /// It is not what was written.
    #[error("it is damaged: {what}; copy it again, or use an older one")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// It cannot be read.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::CutOff } else { Self::Io(error) }
    }
}

/// Writes a backup.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    hash: Sha256,
    entries: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with what the backup says about itself.
    pub fn begin(out: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { out, hash: Sha256::new(), entries: 0 };
        writer.write(MAGIC)?;
        writer.frame(&record::to_cbor(header))?;
        Ok(writer)
    }

    /// Adds an entry. They come in the order of their keys.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let (key, value) = (<&ByteSlice>::from(entry.key.as_bytes()), <&ByteSlice>::from(&entry.value[..]));
        self.entries += 1;
        self.frame(&record::to_cbor(&(key, entry.revision.as_u64(), value)))
    }

    /// Ends it, and returns what it was written to and the number of entries.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.frame(&[])?;
        let entries = self.entries;
        self.frame(&record::to_cbor(&entries))?;
        let digest = self.hash.finalize();
        self.out.write_all(&digest)?;
        self.out.flush()?;
        Ok((self.out, entries))
    }

    fn frame(&mut self, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        self.write(&length.to_be_bytes())?;
        self.write(content)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Reads a backup, entry by entry. Only once [`Reader::next`] has returned `None` is it known to be whole and as it was
/// written; whoever acts on entries before that acts on hearsay.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    hash: Sha256,
    header: Header,
    last: Option<Key>,
    entries: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Begins: knows what the backup says about itself.
    pub fn begin(input: R) -> Result<Self, ArchiveError> {
        let header = Header::new(Uuid::nil(), Revision::ZERO, 0, "");
        let mut reader = Self { input, hash: Sha256::new(), header, last: None, entries: 0, ended: false };
        let mut magic = [0; MAGIC.len()];
        match reader.read(&mut magic) {
            Err(ArchiveError::CutOff) => return Err(ArchiveError::NotABackup),
            other => other?,
        }
        if magic != *MAGIC {
            return Err(ArchiveError::NotABackup);
        }
        let frame = reader.frame()?;
        // The version is read first: a later header need not look like ours.
        let mut decoder = minicbor::Decoder::new(&frame);
        let version = decoder.array().and_then(|_| decoder.u32());
        let found = version.map_err(|_| ArchiveError::Damaged { what: "its header cannot be read" })?;
        if found > ARCHIVE_VERSION {
            return Err(ArchiveError::Newer { found });
        }
        reader.header =
            record::from_cbor(&frame).map_err(|_| ArchiveError::Damaged { what: "its header cannot be read" })?;
        Ok(reader)
    }

    /// What it says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next entry; `None` at the end of a sound backup.
    #[expect(clippy::should_implement_trait, reason = "an iterator would hide that an error is the end")]
    pub fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        let frame = self.frame()?;
        if frame.is_empty() {
            self.ended = true;
            return self.check_end().map(|()| None);
        }
        let damaged = |what| ArchiveError::Damaged { what };
        let (key, revision, value): (ByteVec, u64, ByteVec) =
            record::from_cbor(&frame).map_err(|_| damaged("an entry cannot be read"))?;
        let key = Key::from_bytes(Bytes::from(Vec::from(key))).ok_or(damaged("a key that no space makes"))?;
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(damaged("its entries are not in order"));
        }
        if revision > self.header.revision {
            return Err(damaged("an entry is newer than the backup"));
        }
        self.last = Some(key.clone());
        self.entries += 1;
        Ok(Some(Entry { key, value: Bytes::from(Vec::from(value)), revision: Revision::new(revision) }))
    }

    fn check_end(&mut self) -> Result<(), ArchiveError> {
        let frame = self.frame()?;
        let counted: u64 =
            record::from_cbor(&frame).map_err(|_| ArchiveError::Damaged { what: "its end cannot be read" })?;
        let expected = self.hash.clone().finalize();
        let mut found = [0; 32];
        self.input.read_exact(&mut found)?;
        if found != expected[..] {
            return Err(ArchiveError::Damaged { what: "its checksum does not fit" });
        }
        if counted != self.entries {
            return Err(ArchiveError::Damaged { what: "entries are missing" });
        }
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(ArchiveError::Damaged { what: "there is something behind its end" }),
        }
    }

    fn frame(&mut self) -> Result<Vec<u8>, ArchiveError> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(ArchiveError::Damaged { what: "an entry is longer than any can be" });
        }
        let mut frame = vec![0; length];
        self.read(&mut frame)?;
        Ok(frame)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        self.input.read_exact(buffer)?;
        self.hash.update(&*buffer);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
