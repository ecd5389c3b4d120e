//! The files of the state directory: what is read is written as the same again, what a newer agent wrote is left to it
//! whatever it looks like, and nothing that is read can make the agent stumble later.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::hold::{self, HoldFile};
use crate::hook::record::{self, RecordError};
use crate::host::Host;
use crate::journal::{self, OpenError};

/// The content of `hold.json`.
#[must_use]
pub fn hold(bytes: &[u8]) -> bool {
    let file = HoldFile::new(Host::linux().files, Path::new("/somewhere"));
    let found = match file.decode(bytes) {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(is_newer(bytes), matches!(error, hold::LoadError::Newer { .. }), "{error}");
            return false;
        }
    };
    assert!(!is_newer(bytes), "read what a newer agent wrote");
    let written = file.encode(&found).expect("a hold can be written");
    let again = file.decode(&written).unwrap_or_else(|error| panic!("a hold that was written: {error:?}"));
    assert_eq!(again, found);
    assert!(file.note(&found).contains(&found.since), "a person is not told since when");
    true
}

/// The content of `journal.json`.
#[must_use]
pub fn journal(bytes: &[u8]) -> bool {
    let path = Path::new("/somewhere/journal.json");
    let found = match journal::decode(path, bytes) {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(is_newer(bytes), matches!(error, OpenError::Newer { .. }), "{error}");
            return false;
        }
    };
    assert!(!is_newer(bytes), "read what a newer agent wrote");
    let again = journal::decode(path, &journal::encode(&found));
    assert_eq!(again.unwrap_or_else(|error| panic!("a journal that was written: {error:?}")), found);
    assert_eq!(found.has_standing_permission(), found.epoch > found.revoked);
    true
}

/// The content of `hook.json`.
#[must_use]
pub fn hook_record(bytes: &[u8]) -> bool {
    let path = Path::new("/somewhere/hook.json");
    let found = match record::decode(path, bytes) {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(is_newer(bytes), matches!(error, RecordError::Format { .. }), "{error}");
            return false;
        }
    };
    assert!(!is_newer(bytes), "read what a newer agent wrote");
    let written = record::encode(&found).expect("a record can be written");
    let again = record::decode(path, &written).unwrap_or_else(|error| panic!("a record that was written: {error:?}"));
    assert!(record::encode(&again).expect("a record can be written") == written, "it changes by being written");
    if let Some(shutdown) = &found.shutdown {
        let times = [Some(shutdown.heartbeat), shutdown.grace, shutdown.settle];
        assert!(times.into_iter().flatten().all(can_be_waited_for), "a wait that no clock can measure: {times:?}");
    }
    true
}

fn can_be_waited_for(time: Duration) -> bool {
    Instant::now().checked_add(time).is_some()
}

/// Whether it says of itself that it has a later format than all of these files have today.
fn is_newer(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    serde_json::from_slice(bytes).is_ok_and(|Head { format }| format > 1)
}
