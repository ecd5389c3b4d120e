//! Keeps the pages about our promises honest: what they name as evidence has to be there.
//!
//! A name in a link, such as ``[`a_test`][suite]``, has to be a test, a law or a mutant of the file that the label at the end of
//! the page points to; a path in a code span has to exist. So whoever renames a test is told which promise loses its proof.
//! That a test shows what the page says of it is for readers to judge, not for this file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Pages that name tests.
const PAGES: [&str; 2] = [RELIABILITY, "docs/security.md"];
const RELIABILITY: &str = "docs/reliability.md";
/// That page is about so many traps, numbered from 1.
const TRAPS: usize = 33;
/// What paths in code spans begin with; anything else between backticks is a word of the protocol or of a shell.
const PLACES: &[&str] = &["clients/", "crates/", "deploy/", "docs/", "fuzz/", "proto/", "tests/", ".ci/"];

#[test]
fn every_test_on_a_page_exists() {
    for name in PAGES {
        every_test_exists(name, &page(name));
    }
}

fn every_test_exists(name: &str, page: &str) {
    let files = labels(page);
    let evidence = evidence(page);
    assert!(!evidence.is_empty(), "{name} names no test at all");
    let mut problems = Vec::new();
    for (test, label) in &evidence {
        let Some(file) = files.get(label.as_str()) else {
            problems.push(format!("`{test}`: no line at the end of the page says which file [{label}] is"));
            continue;
        };
        let found = fs::read_to_string(root().join("docs").join(file)).is_ok_and(|text| is_in(&text, test));
        if !found {
            problems.push(format!(
                "`{test}` is not in {file} ([{label}]): name what shows it now, or say that nothing does"
            ));
        }
    }
    let used: BTreeSet<&str> = evidence.iter().map(|(_, label)| label.as_str()).collect();
    problems.extend(
        files.keys().filter(|label| !used.contains(*label)).map(|label| format!("nothing refers to [{label}]")),
    );
    assert!(problems.is_empty(), "{name}:\n  {}", problems.join("\n  "));
}

#[test]
fn every_path_on_a_page_exists() {
    for name in PAGES {
        every_path_exists(name, &page(name));
    }
}

fn every_path_exists(name: &str, page: &str) {
    let spans =
        page.lines().filter(|line| !line.starts_with("    ")).flat_map(|line| line.split('`').skip(1).step_by(2));
    let in_spans =
        spans.filter(|span| PLACES.iter().any(|place| span.starts_with(place))).map(|span| root().join(span));
    let links = page.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let linked = links.filter(|(target, _)| !target.starts_with('#') && !target.contains("://"));
    let linked = linked.map(|(target, _)| root().join("docs").join(target.split('#').next().unwrap_or(target)));
    let missing: Vec<String> =
        in_spans.chain(linked).filter(|path| !path.exists()).map(|path| relative(&path)).collect();
    assert!(missing.is_empty(), "{name} names what does not exist:\n  {}", missing.join("\n  "));
}

#[test]
fn every_trap_has_a_row_that_names_its_evidence_or_says_that_there_is_none() {
    let page = page(RELIABILITY);
    let rows: BTreeMap<usize, &str> = page.lines().filter_map(trap).collect();
    let mut problems = Vec::new();
    for number in 1..=TRAPS {
        match rows.get(&number) {
            None => problems.push(format!("trap {number} has no row")),
            Some(row) if evidence(row).is_empty() && !row.contains("**Not covered") => {
                problems.push(format!("trap {number} names no test, and does not say **Not covered**"));
            }
            Some(_) => {}
        }
    }
    problems.extend(
        rows.keys().filter(|number| !(1..=TRAPS).contains(*number)).map(|number| format!("there is no trap {number}")),
    );
    assert!(problems.is_empty(), "{RELIABILITY}:\n  {}", problems.join("\n  "));
}

#[test]
fn a_name_that_is_mentioned_is_no_evidence() {
    let test = "/// Calls `gone()`.\n#[tokio::test(start_paused = true)]\n#[cfg(unix)]\nasync fn there() {\n    gone();\n}\n\nfn gone() {}\n";
    assert!(is_in(test, "there"));
    for name in ["gone", "ther", "here", "test"] {
        assert!(!is_in(test, name), "{name} is no test");
    }
    let law = "pub enum Law {\n    /// As `Other` is not.\n    OneCopy,\n}\n";
    assert!(is_in(law, "Law::OneCopy"));
    for name in ["Law::Other", "Law::Copy", "Mutant::OneCopy", "OneCopy"] {
        assert!(!is_in(law, name), "{name} is no law");
    }
    assert_eq!(evidence("[`a_b`][c/d], [no code][c], `alone`"), [("a_b".to_owned(), "c/d".to_owned())]);
}

/// All names in links by label: ``[`name`][label]``.
fn evidence(text: &str) -> Vec<(String, String)> {
    let links =
        text.split("[`").skip(1).filter_map(|rest| rest.split_once("`][")).filter(|(name, _)| !name.contains('`'));
    links.filter_map(|(name, rest)| Some((name.to_owned(), rest.split_once(']')?.0.to_owned()))).collect()
}

/// What the labels stand for: lines such as `[label]: ../file`.
fn labels(page: &str) -> BTreeMap<&str, &str> {
    page.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect()
}

/// The number of the trap whose row this line is.
fn trap(line: &str) -> Option<(usize, &str)> {
    let (number, _) = line.strip_prefix("| ")?.split_once(' ')?;
    Some((number.parse().ok()?, line))
}

/// Whether `text` has a test of this name, or a variant of an enum if it is called `Enum::Variant`.
fn is_in(text: &str, name: &str) -> bool {
    if let Some((kind, variant)) = name.split_once("::") {
        let body = text.split_once(&format!("enum {kind} {{")).and_then(|(_, rest)| rest.split_once("\n}"));
        return body.is_some_and(|(body, _)| body.lines().any(|line| line.trim() == format!("{variant},")));
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = |line: &&str| line.strip_prefix("async ").unwrap_or(line).starts_with(&format!("fn {name}("));
    let place = lines.iter().position(declared);
    place.is_some_and(|place| {
        let attributes =
            lines[..place].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("///"));
        attributes.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}
