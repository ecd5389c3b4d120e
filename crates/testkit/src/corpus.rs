//! Inputs that fuzzing found worth keeping, given again to the function they were found with.
//!
//! Owns where they lie: `fuzz/corpus/TARGET` for what is known to reach something, `fuzz/regressions/TARGET` for what once
//! broke something. What an input has to hold is the business of the target.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Set to write the seeds anew; the same variable as for golden files, since they are reviewed the same way.
const UPDATE: &str = "UPDATE_GOLDEN";

/// Gives every kept input of `target` to `body`, which panics where an input breaks a promise. Fails with the names of all
/// of those files, and also when there is no input at all: then nothing would be tested.
pub fn replay(target: &str, body: fn(&[u8]) -> bool) {
    replay_from(&root(), target, body);
}

/// Checks that every seed (name, bytes) lies in the corpus of `target` as it is, and that `body` takes it for what it is:
/// a target that refuses even what the project itself writes checks nothing.
pub fn check_seeds(target: &str, seeds: &[(String, Vec<u8>)], body: fn(&[u8]) -> bool) {
    check_seeds_in(&root(), target, seeds, body, std::env::var_os(UPDATE).is_some());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn replay_from(root: &Path, target: &str, body: fn(&[u8]) -> bool) {
    let corpus = inputs(&root.join("corpus").join(target));
    assert!(!corpus.is_empty(), "fuzz/corpus/{target} holds no input");
    let regressions = inputs(&root.join("regressions").join(target));
    let broken: Vec<String> = corpus
        .iter()
        .chain(&regressions)
        .filter(|(_, bytes)| catch_unwind(AssertUnwindSafe(|| body(bytes))).is_err())
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(broken.is_empty(), "{target} breaks on {}", broken.join(", "));
}

fn check_seeds_in(root: &Path, target: &str, seeds: &[(String, Vec<u8>)], body: fn(&[u8]) -> bool, update: bool) {
    assert!(!seeds.is_empty(), "{target} has no seed");
    let directory = root.join("corpus").join(target);
    for (name, bytes) in seeds {
        let path = directory.join(format!("seed-{name}"));
        if update {
            fs::create_dir_all(&directory).expect("the corpus can be made");
            fs::write(&path, bytes).expect("a seed can be written");
        }
        let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; {UPDATE}=1 writes it", path.display()));
        assert!(kept == *bytes, "{} is not what is written today; {UPDATE}=1 writes it anew", path.display());
        assert!(body(bytes), "{target} does not take {}", path.display());
    }
}

/// Every file of a directory, which need not exist, in the order of names.
fn inputs(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => panic!("{}: {error}", directory.display()),
    };
    entries
        .map(|entry| {
            let path = entry.expect("a directory entry can be read").path();
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, bytes)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        root
    }

    fn is_even(bytes: &[u8]) -> bool {
        assert!(bytes.len().is_multiple_of(2));
        !bytes.is_empty()
    }

    #[test]
    fn every_input_that_breaks_is_named() {
        let root = corpus(&[
            ("corpus/even/good", b"ab"),
            ("corpus/even/first-bad", b"a"),
            ("regressions/even/second-bad", b"abc"),
            ("corpus/other/bad", b"a"),
        ]);
        let panic = catch_unwind(|| replay_from(root.path(), "even", is_even)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("first-bad") && message.contains("second-bad"), "{message}");
        assert!(!message.contains("good") && !message.contains("other"), "{message}");
    }

    #[test]
    fn a_target_without_inputs_is_a_failure() {
        let root = corpus(&[("corpus/other/good", b"ab"), ("regressions/even/good", b"ab")]);
        assert!(catch_unwind(|| replay_from(root.path(), "even", is_even)).is_err());
    }

    #[test]
    fn a_seed_has_to_be_there_as_it_is_and_be_taken() {
        let root = corpus(&[("corpus/even/seed-two", b"ab"), ("corpus/even/seed-none", b"")]);
        let check = |name: &str, bytes: &[u8]| {
            let seeds = [(name.to_owned(), bytes.to_vec())];
            catch_unwind(|| check_seeds_in(root.path(), "even", &seeds, is_even, false)).is_ok()
        };
        assert!(check("two", b"ab"));
        assert!(!check("two", b"cd"), "another content");
        assert!(!check("four", b"abcd"), "not there");
        assert!(!check("none", b""), "not taken");
    }
}
