//! `docs/protocol.md` against the contract, so that the two cannot disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use prost_reflect::prost_types::method_options::IdempotencyLevel;

use super::{Comments, GRPC_CODES, METHOD, SERVICE, files, first_word, pool, reasons, services};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    fs::read_to_string(path).expect("docs/protocol.md is checked in")
}

/// The words of a cell, without the marks of code.
fn words(cell: &str) -> BTreeSet<String> {
    cell.split([',', ' ', '`']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
fn the_page_names_every_reason_under_its_code_and_no_other() {
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (reason, comment) in reasons(&pool()) {
        expected.entry(first_word(&comment).to_owned()).or_default().insert(reason);
    }
    let page = page();
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let code = cells.next().filter(|code| GRPC_CODES.contains(code))?;
        Some((code.to_owned(), words(cells.next()?.trim_end_matches('|'))))
    });
    let mut named: BTreeMap<_, _> = rows.collect();
    // A bug has an id and no reason.
    assert!(named.remove("INTERNAL").is_some_and(|words| words.contains("none;")), "INTERNAL has no reason");
    assert_eq!(named, expected, "(the page, errors.proto)");
}

#[test]
fn the_page_names_every_file() {
    let page = page();
    let expected: BTreeSet<_> = files(&pool())
        .iter()
        .map(|file| file.name().rsplit('/').next().expect("a name is not empty").to_owned())
        .collect();
    let named = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let named: BTreeSet<_> = named.map(|(name, _)| name.to_owned()).filter(|name| name.ends_with(".proto")).collect();
    assert_eq!(named, expected, "(the page, proto/quiesce/v1)");
}

#[test]
fn the_page_repeats_what_may_be_repeated_and_nothing_else() {
    let page = page();
    let (_, config) = page.split_once("```json").expect("the page has a service config");
    let (config, _) = config.split_once("```").expect("the block ends");
    let named: BTreeSet<_> = config
        .split("{\"service\":\"")
        .skip(1)
        .map(|entry| {
            let entry = entry.split('}').next().expect("split yields something");
            entry.trim_end_matches('"').replace("\",\"method\":\"", "/")
        })
        .collect();
    // Of the scheduler only what can be repeated as it is, or resumed; of the gateway all, since agents live by repeating.
    let mut expected = BTreeSet::from(["quiesce.v1.AgentGateway".to_owned()]);
    for service in services(&pool()) {
        for method in service.methods() {
            let options = method.method_descriptor_proto().options.clone().unwrap_or_default();
            let repeatable = options.idempotency_level() != IdempotencyLevel::IdempotencyUnknown;
            match service.full_name() {
                "quiesce.v1.AgentGateway" => assert!(repeatable, "{} may not be repeated", method.full_name()),
                "quiesce.v1.Scheduler" if repeatable => {
                    expected.insert(format!("{}/{}", service.full_name(), method.name()));
                }
                _ => {}
            }
        }
    }
    assert_eq!(named, expected, "(the page, idempotency_level)");
}

#[test]
fn the_page_counts_the_rules_right() {
    let pool = pool();
    let page = page();
    // The letter of the rules, the file they stand in, and the element whose comment has them.
    let rules = [
        ("H", "shutdown_hook.proto", vec![SERVICE, 0]),
        ("W", "scheduler.proto", watching(&pool)),
        ("A", "agent_gateway.proto", vec![SERVICE, 0]),
    ];
    for (letter, file, element) in rules {
        let found = files(&pool).into_iter().find(|known| known.name().ends_with(file)).expect("the contract has it");
        let comments = Comments::of(&found);
        let numbers = comments
            .leading(&element)
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix(letter)?.split(' ').next()?.parse::<u32>().ok());
        let last = numbers.max().expect("there are rules");
        let range = format!("{letter}1-{letter}{last}");
        let row = page.lines().find(|line| line.starts_with(&format!("| `{file}`"))).expect("the page names the file");
        assert!(row.contains(&range), "{file} has the rules {range}, the page says: {row}");
    }
}

fn watching(pool: &prost_reflect::DescriptorPool) -> Vec<i32> {
    let scheduler = pool.get_service_by_name("quiesce.v1.Scheduler").expect("the contract has it");
    let index = scheduler.methods().position(|method| method.name() == "WatchOperations").expect("the contract has it");
    vec![SERVICE, 0, METHOD, i32::try_from(index).expect("there are fewer")]
}
