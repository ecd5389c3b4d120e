//! What a backup keeps, and every way in which it may not be what was written.

use super::*;
use crate::Space;

fn entries() -> Vec<Entry> {
    let entry = |key: Key, revision, value: &'static [u8]| Entry {
        key,
        value: Bytes::from_static(value),
        revision: Revision::new(revision),
    };
    vec![
        entry(Space::Meta.key("clock"), 3, b""),
        entry(Space::Operations.key("op-1"), 9, b"an operation"),
        entry(Space::Events.log_key(Revision::new(8)), 8, &[0; 5000]),
    ]
}

fn written() -> Vec<u8> {
    let header = Header::new(Uuid::from_u128(7), Revision::new(9), 1_000, "1.0");
    let mut writer = Writer::begin(Vec::new(), &header).unwrap();
    for entry in entries() {
        writer.entry(&entry).unwrap();
    }
    writer.finish().unwrap().0
}

fn read(bytes: &[u8]) -> Result<(Header, Vec<Entry>), ArchiveError> {
    let mut reader = Reader::begin(bytes)?;
    let mut found = Vec::new();
    while let Some(entry) = reader.next()? {
        found.push(entry);
    }
    Ok((reader.header().clone(), found))
}

#[test]
fn what_was_written_is_read_back() {
    let (header, found) = read(&written()).unwrap();
    assert_eq!((header.life(), header.revision(), header.taken_ms()), (Uuid::from_u128(7), Revision::new(9), 1_000));
    assert_eq!(found, entries());
}

#[test]
fn every_changed_bit_and_every_cut_is_noticed() {
    let sound = written();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(read(&bytes).is_err(), "byte {at}");
    }
    for keep in 0..sound.len() {
        let error = read(&sound[..keep]).unwrap_err();
        assert!(matches!(error, ArchiveError::CutOff | ArchiveError::NotABackup), "{keep}: {error:?}");
    }
    let longer = [&sound[..], b"x"].concat();
    assert!(matches!(read(&longer), Err(ArchiveError::Damaged { .. })));
}

#[test]
fn a_later_format_is_refused_by_name_whatever_it_looks_like() {
    let mut bytes = MAGIC.to_vec();
    let header = record::to_cbor(&(ARCHIVE_VERSION + 1, "quite", "different"));
    bytes.extend((header.len() as u32).to_be_bytes());
    bytes.extend(header);
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error, ArchiveError::Newer { found } if found == ARCHIVE_VERSION + 1), "{error:?}");
    assert!(error.to_string().contains("format 2") && error.to_string().contains("up to 1"), "{error}");
}

#[test]
fn other_files_are_not_taken_for_a_backup() {
    for other in [&b""[..], b"redb\x1a\x0a\xa9\x0d\x0a and more of that", b"quiesce backup\n"] {
        assert!(matches!(read(other), Err(ArchiveError::NotABackup)), "{other:?}");
    }
}

#[test]
fn a_length_that_cannot_be_takes_no_memory() {
    let mut bytes = written();
    bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(read(&bytes), Err(ArchiveError::Damaged { .. })));
}
