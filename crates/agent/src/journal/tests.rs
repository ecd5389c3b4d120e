//! What a journal keeps over restarts, and what it refuses to open.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

async fn open(directory: &Path) -> Result<Journal, OpenError> {
    Journal::open(&Host::linux(), directory).await
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let directory = directory();
    let journal = open(directory.path()).await.unwrap();
    let id = journal.contents().agent_id;
    journal.update(|contents| contents.epoch = 4).await.unwrap();
    let written = journal.contents();
    drop(journal);

    let again = open(directory.path()).await.unwrap().contents();
    assert_eq!(again, written);
    assert_eq!(again.agent_id, id);
}

#[tokio::test]
async fn a_second_agent_on_the_same_directory_is_refused() {
    let directory = directory();
    let first = open(directory.path()).await.unwrap();
    let error = open(directory.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Locked(_)));
    assert!(error.to_string().contains("--state-dir"));
    drop(first);
    open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_journal_is_never_begun_anew() {
    let directory = directory();
    drop(open(directory.path()).await.unwrap());
    let path = directory.path().join("journal.json");
    let whole = fs::read(&path).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len() - 3] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = open(directory.path()).await.unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{length} bytes: {error}");
        assert!(error.to_string().contains("journal.json"));
        assert_eq!(fs::read(&path).unwrap(), &whole[..length], "it is left as it is");
    }
}

#[tokio::test]
async fn a_write_that_was_interrupted_leaves_the_old_journal() {
    let directory = directory();
    let id = open(directory.path()).await.unwrap().contents().agent_id;
    fs::write(directory.path().join("journal.new"), b"{\"form").unwrap();
    assert_eq!(open(directory.path()).await.unwrap().contents().agent_id, id);
}

#[tokio::test]
async fn a_newer_journal_is_left_to_the_newer_agent() {
    let directory = directory();
    drop(open(directory.path()).await.unwrap());
    fs::write(directory.path().join("journal.json"), br#"{"format": 7, "other": true}"#).unwrap();
    let error = open(directory.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 7, .. }), "{error}");
}

#[tokio::test]
async fn an_open_directory_such_as_a_volume_in_a_pod_can_be_used() {
    let directory = directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn files_are_for_the_owner_alone() {
    let directory = directory();
    let _journal = open(directory.path()).await.unwrap();
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn a_failed_write_changes_nothing() {
    let directory = directory();
    let journal = open(directory.path()).await.unwrap();
    fs::create_dir(directory.path().join("journal.new")).unwrap();
    assert!(journal.update(|contents| contents.epoch = 9).await.is_err());
    assert_eq!(journal.contents().epoch, 0);
}

#[test]
fn no_step_of_the_ladder_comes_before_the_report_of_the_script() {
    let told = |script, rest| Told { shutdown_id: "s-1".to_owned(), rung: 0, rest, script };
    for (script, next, owes) in [
        (None, Some(1), true),
        (Some(Script::Asked), None, false),
        (Some(Script::Reported), Some(0), false),
        (Some(Script::Signalled), Some(1), true),
    ] {
        let now = told(script, false);
        assert_eq!((now.next_rung(), now.owes_the_rest()), (next, owes), "{now:?}");
        assert!(!told(script, true).owes_the_rest());
    }
}

#[test]
fn what_an_older_agent_wrote_knows_no_script() {
    let told: Told = serde_json::from_str(r#"{"shutdown_id": "s-1", "rung": 0, "rest": false}"#).unwrap();
    assert_eq!(told.script, None);
    assert!(!serde_json::to_string(&told).unwrap().contains("script"), "and reads what we write of signals");
}
