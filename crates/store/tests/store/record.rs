//! The envelope: old records are read, newer ones refused, damaged ones are errors and never a panic.

use std::error::Error;
use std::path::PathBuf;

use minicbor::{Decode, Encode};
use quiesce_store::record::{DecodeError, Record, Upgrade, UpgradeError, decode, encode, from_cbor, to_cbor};

/// The newest version: minutes became seconds.
#[derive(Debug, PartialEq, Encode, Decode)]
struct Note {
    #[n(0)]
    title: String,
    #[n(1)]
    lines: Vec<String>,
    #[n(2)]
    seconds: u64,
}

impl Record for Note {
    const KIND: &'static str = "note";
    const VERSION: u16 = 3;
    const UPGRADES: &'static [Upgrade] = &[split_text, count_seconds];
}

fn split_text(content: &[u8]) -> Result<Vec<u8>, UpgradeError> {
    let old: NoteV1 = from_cbor(content).map_err(|source| UpgradeError::Malformed { source })?;
    let lines = old.text.lines().map(str::to_owned).collect();
    Ok(to_cbor(&NoteV2 { title: old.title, lines, minutes: 0 }))
}

fn count_seconds(content: &[u8]) -> Result<Vec<u8>, UpgradeError> {
    let old: NoteV2 = from_cbor(content).map_err(|source| UpgradeError::Malformed { source })?;
    let seconds = old.minutes.checked_mul(60).ok_or(UpgradeError::Inexpressible { reason: "too many minutes" })?;
    Ok(to_cbor(&Note { title: old.title, lines: old.lines, seconds }))
}

/// What the first program wrote.
#[derive(Debug, Encode, Decode)]
struct NoteV1 {
    #[n(0)]
    title: String,
    #[n(1)]
    text: String,
}

impl Record for NoteV1 {
    const KIND: &'static str = "note";
    const VERSION: u16 = 1;
    const UPGRADES: &'static [Upgrade] = &[];
}

/// What the second program wrote: the text by lines, and a duration.
#[derive(Debug, Encode, Decode)]
struct NoteV2 {
    #[n(0)]
    title: String,
    #[n(1)]
    lines: Vec<String>,
    #[n(2)]
    minutes: u64,
}

impl Record for NoteV2 {
    const KIND: &'static str = "note";
    const VERSION: u16 = 2;
    const UPGRADES: &'static [Upgrade] = &[split_text];
}

#[derive(Debug, Encode, Decode)]
struct Letter;

impl Record for Letter {
    const KIND: &'static str = "letter";
    const VERSION: u16 = 1;
    const UPGRADES: &'static [Upgrade] = &[];
}

fn note() -> Note {
    Note { title: "shopping".into(), lines: vec!["bread".into(), "salt".into()], seconds: 120 }
}

/// The checked-in bytes of `name`; with `UPDATE_GOLDEN=1` they become `current` first.
fn golden(name: &str, current: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, current).unwrap();
    }
    std::fs::read(&path).unwrap()
}

#[test]
fn what_was_encoded_is_decoded() {
    assert_eq!(decode::<Note>(&encode(&note())).unwrap(), note());
}

#[test]
fn the_bytes_of_a_version_never_change() {
    let first = NoteV1 { title: "shopping".into(), text: "bread\nsalt".into() };
    let second = NoteV2 { title: "shopping".into(), lines: vec!["bread".into(), "salt".into()], minutes: 2 };
    for (name, bytes) in
        [("note-v1.bin", encode(&first)), ("note-v2.bin", encode(&second)), ("note-v3.bin", encode(&note()))]
    {
        assert_eq!(golden(name, &bytes), bytes, "{name}");
    }
}

#[test]
fn a_record_of_the_first_version_goes_through_every_upgrade() {
    let upgraded: Note = decode(include_bytes!("../golden/note-v1.bin")).unwrap();
    assert_eq!(upgraded, Note { seconds: 0, ..note() });
}

#[test]
fn a_record_of_the_second_version_goes_through_the_rest() {
    assert_eq!(decode::<Note>(include_bytes!("../golden/note-v2.bin")).unwrap(), note());
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let error = decode::<NoteV2>(&encode(&note())).unwrap_err();
    assert!(matches!(error, DecodeError::Newer { kind: "note", found: 3, supported: 2 }), "{error:?}");
    assert_eq!(error.to_string(), "stored note has version 3, this program knows versions up to 2");
}

#[test]
fn another_kind_is_refused_by_name() {
    let error = decode::<Note>(&encode(&Letter)).unwrap_err();
    assert!(matches!(&error, DecodeError::WrongKind { expected: "note", found } if found == "letter"), "{error:?}");
}

#[test]
fn an_unknown_envelope_is_refused() {
    let mut bytes = encode(&note()).to_vec();
    bytes[0] = 9;
    assert!(matches!(decode::<Note>(&bytes), Err(DecodeError::UnknownEnvelope { found: 9, supported: 1, .. })));
    assert!(matches!(decode::<Note>(b""), Err(DecodeError::Empty { expected: "note" })));
}

#[test]
fn an_upgrade_that_has_no_answer_says_why() {
    let old = NoteV2 { title: String::new(), lines: Vec::new(), minutes: u64::MAX };
    let error = decode::<Note>(&encode(&old)).unwrap_err();
    assert!(matches!(error, DecodeError::Upgrade { kind: "note", from: 2, .. }), "{error:?}");
    assert!(error.source().unwrap().to_string().contains("too many minutes"));
}

#[test]
fn cut_or_lengthened_records_are_errors() {
    for bytes in [encode(&note()).to_vec(), include_bytes!("../golden/note-v1.bin").to_vec()] {
        for end in 0..bytes.len() {
            assert!(decode::<Note>(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(decode::<Note>(&[&bytes[..], b"\0"].concat()).is_err());
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64), cut in 0_usize..34) {
        // Some error or other, or by chance a record; anything but a panic.
        let _any = decode::<Note>(&bytes);
        let mut start = encode(&note())[..cut].to_vec();
        start.append(&mut bytes);
        let _any = decode::<Note>(&start);
    }
}
