//! Keys: one byte for the space, one for the shape, then an id or a revision.
//!
//! Owns the byte layout of keys, which is part of the disk format: the bytes given out here are never used again for
//! something else. The shape byte keeps ids and log entries of one space apart, whatever the ids are.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::Revision;

/// Longest key. Ids are names and UUIDs, all far below; the bound keeps a B-tree page able to hold several keys.
pub const KEY_BYTES_MAX: usize = 1024;

/// Second byte of a log key. Smaller than [`SHAPE_ID`], so a scan of a whole space shows the log first.
const SHAPE_LOG: u8 = 0;
/// Second byte of a key made from an id.
const SHAPE_ID: u8 = 1;

/// A family of keys. Spaces never overlap: no scan, trim or prefix reaches from one into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Facts about the whole scheduler, one record each.
    Meta,
    /// Applications by name.
    Applications,
    /// Instances of applications.
    Instances,
    /// Clusters by name.
    Clusters,
    /// Operations by id.
    Operations,
    /// Request ids that were answered, so that a repeated request gets the same answer.
    Requests,
    /// The log of changes that watchers resume from.
    Events,
    /// What was deleted and must not come back.
    Tombstones,
    /// Digests of what callers prove themselves with.
    Tokens,
}

impl Space {
    /// Every space, in the order of its bytes.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Applications,
        Self::Instances,
        Self::Clusters,
        Self::Operations,
        Self::Requests,
        Self::Events,
        Self::Tombstones,
        Self::Tokens,
    ];

    /// The first byte of every key of this space. Part of the disk format: never changed, never used again.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Applications => 2,
            Self::Instances => 3,
            Self::Clusters => 4,
            Self::Operations => 5,
            Self::Requests => 6,
            Self::Events => 7,
            Self::Tombstones => 8,
            Self::Tokens => 9,
        }
    }

    /// The key of the record `id`. Any string will do; order is by bytes.
    pub fn key(self, id: &str) -> Key {
        let mut bytes = Vec::with_capacity(2 + id.len());
        bytes.extend_from_slice(&[self.byte(), SHAPE_ID]);
        bytes.extend_from_slice(id.as_bytes());
        Key(bytes.into())
    }

    /// The key of the log entry written at `revision`. Log keys are written by [`crate::Write::Append`] only; made here
    /// they serve as bounds of a scan.
    pub fn log_key(self, revision: Revision) -> Key {
        let mut bytes = Vec::with_capacity(2 + 8);
        bytes.extend_from_slice(&[self.byte(), SHAPE_LOG]);
        bytes.extend_from_slice(&revision.to_be_bytes());
        Key(bytes.into())
    }

    /// The bytes of all keys of this space.
    pub(crate) fn range(self) -> Range<Vec<u8>> {
        vec![self.byte()]..vec![self.byte() + 1]
    }

    /// The bytes of the keys of this space whose id starts with `prefix`.
    pub(crate) fn prefix_range(self, prefix: &str) -> Range<Vec<u8>> {
        let start = self.key(prefix).0.to_vec();
        // No byte of UTF-8 is 0xff, so the prefix with 0xff behind it is above every id that starts with the prefix.
        let mut end = start.clone();
        end.push(0xff);
        start..end
    }
}

/// Where an entry is stored. Made by [`Space::key`] and [`Space::log_key`] only; ordered by bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// The key with these stored bytes, if some space made them.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let key = Self(bytes);
        (key.find_space().is_some() && (key.id().is_some() || key.revision().is_some())).then_some(key)
    }

    /// The bytes, as they are stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The space this key belongs to.
    pub fn space(&self) -> Space {
        self.find_space().expect("keys are made by a space and checked when read back")
    }

    /// The id this key was made from, unless it is the key of a log entry.
    pub fn id(&self) -> Option<&str> {
        match self.0.get(1..)? {
            [SHAPE_ID, id @ ..] => std::str::from_utf8(id).ok(),
            _ => None,
        }
    }

    /// The revision in this key, if it is the key of a log entry.
    pub fn revision(&self) -> Option<Revision> {
        match self.0.get(1..)? {
            [SHAPE_LOG, revision @ ..] => revision.try_into().ok().map(Revision::from_be_bytes),
            _ => None,
        }
    }

    fn find_space(&self) -> Option<Space> {
        let byte = self.0.first()?;
        Space::ALL.into_iter().find(|space| space.byte() == *byte)
    }
}

/// Lets ordered maps of keys be searched by stored bytes; a key compares as its bytes do.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.id(), self.revision()) {
            (Some(id), _) => write!(f, "{:?}/{id}", self.space()),
            (None, Some(revision)) => write!(f, "{:?}@{revision}", self.space()),
            (None, None) => write!(f, "{:?}", self.0),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_bytes_are_the_disk_format() {
        assert_eq!(Space::ALL.map(Space::byte), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn ids_and_revisions_come_back_from_their_keys() {
        for space in Space::ALL {
            for id in ["", "db", "a/b", "\0\0\0\0\0\0\0\0", "\u{10ffff}"] {
                let key = space.key(id);
                assert_eq!((key.space(), key.id(), key.revision()), (space, Some(id), None));
                assert_eq!(Key::from_bytes(Bytes::copy_from_slice(key.as_bytes())), Some(key));
            }
            let key = space.log_key(Revision::new(258));
            assert_eq!((key.space(), key.id(), key.revision()), (space, None, Some(Revision::new(258))));
        }
    }

    #[test]
    fn bytes_that_no_space_made_are_no_key() {
        for bytes in [&b""[..], b"\x01", b"\x00\x01a", b"\x0a\x01a", b"\x01\x02a", b"\x01\x00short", b"\x01\x01\xff"] {
            assert_eq!(Key::from_bytes(Bytes::from_static(bytes)), None, "{bytes:?}");
        }
    }

    #[test]
    fn log_keys_are_ordered_by_revision() {
        let keys = [0, 1, 255, 256, u64::MAX].map(|number| Space::Events.log_key(Revision::new(number)));
        assert!(keys.is_sorted());
    }
}
