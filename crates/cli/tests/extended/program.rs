//! The application that misbehaves on demand, `application.py`, and what it wrote down; what others write down by
//! `locked.sh`.

use std::path::{Path, PathBuf};

use quiesce_testkit::eventually;

use crate::stack::{SOON, Stack};

/// One application: what all its instances and copies have in common.
#[derive(Debug)]
pub(crate) struct Program {
    journal: PathBuf,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) event: String,
    pub(crate) pid: u32,
    pub(crate) epoch: i64,
    pub(crate) instance: String,
}

impl Program {
    pub(crate) fn new(stack: &Stack) -> Self {
        Self { journal: stack.path("journal") }
    }

    /// The command line, with flags of `application.py`.
    pub(crate) fn command(&self, flags: &[&str]) -> Vec<String> {
        let fixed = ["python3".to_owned(), script("application.py"), self.journal.display().to_string()];
        fixed.into_iter().chain(flags.iter().map(|flag| (*flag).to_owned())).collect()
    }

    /// The command line of an application that is not ours, under the same lock and with its starts in the same journal.
    pub(crate) fn locked(&self, command: &[String]) -> Vec<String> {
        let fixed = ["sh".to_owned(), script("locked.sh"), self.journal.display().to_string()];
        fixed.into_iter().chain(command.iter().cloned()).collect()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        let journal = std::fs::read_to_string(&self.journal).unwrap_or_default();
        journal.lines().map(parse).collect()
    }

    pub(crate) fn of(&self, event: &str) -> Vec<Entry> {
        self.entries().into_iter().filter(|entry| entry.event == event).collect()
    }

    /// Waits until so many events of this kind happened.
    pub(crate) async fn reaches(&self, event: &str, count: usize) -> Vec<Entry> {
        eventually(format!("{count} times {event:?} in the application's journal"), SOON, || async {
            let found = self.of(event);
            if found.len() >= count { Ok(found) } else { Err(format!("{:?}", self.entries())) }
        })
        .await
    }

    /// That there never were two copies, and that each start had a higher epoch than the one before.
    #[track_caller]
    pub(crate) fn never_twice(&self) {
        let entries = self.entries();
        assert!(entries.iter().all(|entry| entry.event != "double"), "two copies were alive: {entries:#?}");
        let epochs: Vec<_> = self.of("start").iter().map(|entry| entry.epoch).collect();
        assert!(epochs.is_sorted_by(|one, next| one < next), "epochs do not rise: {entries:#?}");
    }

    /// That it was told to stop exactly so often.
    #[track_caller]
    pub(crate) fn told(&self, times: usize) {
        assert_eq!(self.of("term").len(), times, "{:#?}", self.entries());
    }
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/extended").join(name).display().to_string()
}

fn parse(line: &str) -> Entry {
    let words: Vec<_> = line.split(' ').collect();
    let [event, pid, epoch, instance] = words[..] else { panic!("not an entry: {line}") };
    Entry {
        event: event.to_owned(),
        pid: pid.parse().expect("a pid"),
        epoch: epoch.parse().unwrap_or(-1),
        instance: instance.to_owned(),
    }
}
