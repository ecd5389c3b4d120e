//! What a client was promised, and the check that the promises were kept. Pure: no sockets, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use crate::ledger::book::{Entry, Epoch};
use crate::ledger::protocol::Writer;

/// One acknowledged write, as the answer told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The key written.
    pub key: String,
    /// The value written.
    pub value: String,
    /// The number the ledger gave it.
    pub number: u64,
    /// The permission under which it was written.
    pub epoch: Epoch,
    /// The process that wrote it.
    pub writer: Writer,
    /// When the answer came, since the client began.
    pub at: Duration,
}

/// Everything a client was told, in the order in which the answers came.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The writes that count.
    pub acknowledged: Vec<Acknowledged>,
    /// Answers that a correct ledger never gives to this client, as far as there was room to keep them.
    pub odd_answers: Vec<String>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An acknowledged write is gone.
    #[error("{key} was acknowledged in epoch {epoch} and is missing")]
    Missing {
        /// Its key.
        key: String,
        /// Where it was acknowledged.
        epoch: Epoch,
    },
    /// An acknowledged write is there with another value or number.
    #[error("{key} was acknowledged as number {number} with {value:?} and is now number {} with {:?}", found.number, found.value)]
    Changed {
        /// Its key.
        key: String,
        /// The number acknowledged.
        number: u64,
        /// The value acknowledged.
        value: String,
        /// What is there.
        found: Entry,
    },
    /// Two writes were given one number: two ledgers counted side by side.
    #[error("{first} and {second} were both acknowledged as number {number}")]
    SharedNumber {
        /// The number.
        number: u64,
        /// The one that had it first.
        first: String,
        /// The one that was given it again.
        second: String,
    },
    /// A writer acknowledged after another had taken over: both were alive.
    #[error("two writers: {old} acknowledged {key} after {new} had taken over")]
    TwoWriters {
        /// The writer that should have been gone.
        old: WriterId,
        /// The writer that had taken over.
        new: WriterId,
        /// The first write that shows it.
        key: String,
    },
    /// The ledger answered something it should not.
    #[error("unexpected answer: {0}")]
    OddAnswer(String),
}

/// One life of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriterId {
    /// Its permission.
    pub epoch: Epoch,
    /// Its name.
    pub writer: Writer,
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {} ({})", self.epoch, self.writer)
    }
}

/// What a check without faults has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged writes, every one found as it was acknowledged.
    pub acknowledged: u64,
    /// The writers in the order of their reigns, with the number of writes each acknowledged.
    pub writers: Vec<(WriterId, u64)>,
}

impl Record {
    /// Compares the record with the entries that are there now. Entries nobody was promised may be there, too: a
    /// write whose answer was lost.
    pub fn check(&self, found: &BTreeMap<String, Entry>) -> Result<Verdict, Vec<Fault>> {
        let mut faults: Vec<Fault> = self.odd_answers.iter().cloned().map(Fault::OddAnswer).collect();
        self.check_entries(found, &mut faults);
        let writers = self.check_writers(&mut faults);
        if faults.is_empty() {
            Ok(Verdict { acknowledged: self.acknowledged.len() as u64, writers })
        } else {
            Err(faults)
        }
    }

    fn check_entries(&self, found: &BTreeMap<String, Entry>, faults: &mut Vec<Fault>) {
        let mut numbers: HashMap<u64, &str> = HashMap::new();
        for Acknowledged { key, value, number, epoch, .. } in &self.acknowledged {
            match found.get(key) {
                None => faults.push(Fault::Missing { key: key.clone(), epoch: *epoch }),
                Some(entry) if entry.number == *number && entry.value == *value => {}
                Some(entry) => faults.push(Fault::Changed {
                    key: key.clone(),
                    number: *number,
                    value: value.clone(),
                    found: entry.clone(),
                }),
            }
            match numbers.insert(*number, key) {
                Some(first) if first != key => {
                    let (first, second) = (first.to_owned(), key.clone());
                    faults.push(Fault::SharedNumber { number: *number, first, second });
                }
                Some(_) | None => {}
            }
        }
    }

    /// Reigns must follow each other: epochs never fall, and a writer that was succeeded never speaks again.
    fn check_writers(&self, faults: &mut Vec<Fault>) -> Vec<(WriterId, u64)> {
        let mut reigns: Vec<(WriterId, u64)> = Vec::new();
        let mut reported = BTreeSet::new();
        for Acknowledged { key, epoch, writer, .. } in &self.acknowledged {
            let id = WriterId { epoch: *epoch, writer: writer.clone() };
            let past = reigns.iter().any(|(past, _)| *past == id);
            match reigns.last_mut() {
                Some((current, count)) if *current == id => *count += 1,
                Some((current, _)) if past || id.epoch < current.epoch => {
                    // Once for each pair: two writers side by side would otherwise fill the report.
                    if reported.insert((id.clone(), current.clone())) {
                        faults.push(Fault::TwoWriters { old: id, new: current.clone(), key: key.clone() });
                    }
                }
                Some(_) | None => reigns.push((id, 1)),
            }
        }
        reigns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(key: &str, number: u64, epoch: u64, writer: &str) -> Acknowledged {
        Acknowledged {
            key: key.to_owned(),
            value: format!("value of {key}"),
            number,
            epoch: Epoch::new(epoch),
            writer: writer.to_owned(),
            at: Duration::from_millis(number),
        }
    }

    fn good() -> Record {
        let acknowledged = vec![
            acknowledged("a", 1, 1, "x"),
            acknowledged("b", 2, 1, "x"),
            acknowledged("c", 3, 1, "y"),
            acknowledged("d", 5, 4, "z"),
        ];
        Record { acknowledged, odd_answers: Vec::new() }
    }

    fn entries(record: &Record) -> BTreeMap<String, Entry> {
        let entry = |a: &Acknowledged| (a.key.clone(), Entry { number: a.number, value: a.value.clone() });
        record.acknowledged.iter().map(entry).collect()
    }

    #[test]
    fn a_kept_promise_passes_and_counts_the_reigns() {
        let record = good();
        let mut found = entries(&record);
        found.insert("unanswered".to_owned(), Entry { number: 4, value: "v".to_owned() });
        let verdict = record.check(&found).unwrap();
        assert_eq!(verdict.acknowledged, 4);
        assert_eq!(verdict.writers.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1, 1]);
    }

    #[test]
    fn a_missing_write_fails() {
        let record = good();
        let mut found = entries(&record);
        found.remove("b");
        assert_eq!(record.check(&found), Err(vec![Fault::Missing { key: "b".to_owned(), epoch: Epoch::new(1) }]));
    }

    #[test]
    fn a_changed_value_and_a_changed_number_fail() {
        for change in [|entry: &mut Entry| entry.value.push('!'), |entry: &mut Entry| entry.number = 9] {
            let record = good();
            let mut found = entries(&record);
            change(found.get_mut("c").unwrap());
            assert!(matches!(record.check(&found).unwrap_err()[..], [Fault::Changed { .. }]));
        }
    }

    #[test]
    fn an_older_epoch_after_a_newer_one_fails_whether_its_writer_was_seen_before_or_not() {
        for (epoch, writer) in [(1, "y"), (3, "unseen")] {
            let mut record = good();
            record.acknowledged.push(acknowledged("late", 6, epoch, writer));
            let faults = record.check(&entries(&record)).unwrap_err();
            assert!(matches!(&faults[..], [Fault::TwoWriters { key, .. }] if key == "late"), "{faults:?}");
        }
    }

    #[test]
    fn two_writers_in_one_epoch_fail_when_they_take_turns() {
        let mut record = good();
        record.acknowledged.insert(3, acknowledged("late", 6, 1, "x"));
        let faults = record.check(&entries(&record)).unwrap_err();
        assert!(matches!(&faults[..], [Fault::TwoWriters { key, .. }] if key == "late"), "{faults:?}");
    }

    #[test]
    fn one_number_for_two_writes_fails() {
        let mut record = good();
        record.acknowledged.push(acknowledged("e", 5, 4, "z"));
        let faults = record.check(&entries(&record)).unwrap_err();
        assert!(matches!(faults[..], [Fault::SharedNumber { number: 5, .. }]), "{faults:?}");
    }

    #[test]
    fn an_odd_answer_fails() {
        let mut record = good();
        record.odd_answers.push("ERR conflict".to_owned());
        assert!(matches!(record.check(&entries(&record)).unwrap_err()[..], [Fault::OddAnswer(_)]));
    }
}
