//! What a journal keeps over restarts, and what it refuses to open.

use super::*;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let directory = directory();
    let journal = Journal::open(directory.path()).unwrap();
    let id = journal.contents().agent_id;
    journal.update(|contents| contents.epoch = 4).await.unwrap();
    let written = journal.contents();
    drop(journal);

    let again = Journal::open(directory.path()).unwrap().contents();
    assert_eq!(again, written);
    assert_eq!(again.agent_id, id);
}

#[test]
fn a_second_agent_on_the_same_directory_is_refused() {
    let directory = directory();
    let first = Journal::open(directory.path()).unwrap();
    let error = Journal::open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Locked(_)));
    assert!(error.to_string().contains("--state-dir"));
    drop(first);
    Journal::open(directory.path()).unwrap();
}

#[test]
fn a_damaged_journal_is_never_begun_anew() {
    let directory = directory();
    drop(Journal::open(directory.path()).unwrap());
    let path = directory.path().join("journal.json");
    let whole = fs::read(&path).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len() - 3] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Journal::open(directory.path()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{length} bytes: {error}");
        assert!(error.to_string().contains("journal.json"));
        assert_eq!(fs::read(&path).unwrap(), &whole[..length], "it is left as it is");
    }
}

#[test]
fn a_write_that_was_interrupted_leaves_the_old_journal() {
    let directory = directory();
    let id = Journal::open(directory.path()).unwrap().contents().agent_id;
    fs::write(directory.path().join("journal.new"), b"{\"form").unwrap();
    assert_eq!(Journal::open(directory.path()).unwrap().contents().agent_id, id);
}

#[test]
fn a_newer_journal_is_left_to_the_newer_agent() {
    let directory = directory();
    drop(Journal::open(directory.path()).unwrap());
    fs::write(directory.path().join("journal.json"), br#"{"format": 7, "other": true}"#).unwrap();
    let error = Journal::open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 7, .. }), "{error}");
}

#[test]
fn an_open_directory_such_as_a_volume_in_a_pod_can_be_used() {
    let directory = directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    Journal::open(directory.path()).unwrap();
}

#[test]
fn files_are_for_the_owner_alone() {
    let directory = directory();
    let _journal = Journal::open(directory.path()).unwrap();
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn a_failed_write_changes_nothing() {
    let directory = directory();
    let journal = Journal::open(directory.path()).unwrap();
    fs::create_dir(directory.path().join("journal.new")).unwrap();
    assert!(journal.update(|contents| contents.epoch = 9).await.is_err());
    assert_eq!(journal.contents().epoch, 0);
}
