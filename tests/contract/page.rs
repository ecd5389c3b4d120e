//! `docs/protocol.md` says what the contract says.
//!
//! The page explains; the protos specify. Whatever the page lists of them is held against them here, so that neither changes
//! alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use prost_reflect::prost_types::method_options::IdempotencyLevel;

use crate::reading::{PACKAGE, files, first_word, pool, reasons, services};
use crate::{CLEARED_TOKEN, OPEN_TOKENS};

#[test]
fn every_reason_stands_on_the_page_under_its_code() {
    let mut listed = BTreeMap::new();
    for [code, reasons, ..] in table("Errors") {
        for reason in reasons.split(", ").filter(|reason| reason.chars().all(|c| c.is_ascii_uppercase() || c == '_')) {
            assert_eq!(listed.insert(reason.to_owned(), code.clone()), None, "{reason} stands there twice");
        }
    }
    let specified: BTreeMap<_, _> =
        reasons(&pool()).into_iter().map(|(reason, comment)| (reason, first_word(&comment).to_owned())).collect();
    assert_eq!(listed, specified, "the table of errors (left) and errors.proto (right)");
}

#[test]
fn every_file_stands_on_the_page_with_its_rules() {
    let rows: BTreeMap<String, String> = table("").map(|[file, what, ..]| (file.replace('`', ""), what)).collect();
    let pool = pool();
    let mut found = BTreeSet::new();
    for file in files(&pool) {
        let name = file.name().rsplit('/').next().unwrap_or_default().to_owned();
        let what = rows.get(&name).unwrap_or_else(|| panic!("{name} is not on the page"));
        for service in file.services() {
            assert!(what.contains(&format!("`{}`", service.name())), "{name}: {} is not named", service.name());
        }
        let text = fs::read_to_string(root().join("proto").join(file.name())).expect("a proto that was compiled");
        for (letter, last) in rules(&text) {
            let range = format!("{letter}1-{letter}{last}");
            assert!(what.contains(&range), "{name} has the rules {range}, the page says: {what}");
        }
        found.insert(name);
    }
    assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), found);
}

/// The last number of the rules with each letter, such as `H17`, which begin a line of a comment.
fn rules(text: &str) -> BTreeMap<char, u32> {
    let mut last = BTreeMap::new();
    for line in text.lines() {
        let Some(word) = line.trim().strip_prefix("//").and_then(|line| line.split_whitespace().next()) else {
            continue;
        };
        let (Some(letter), Some(Ok(number))) = (word.chars().next(), word.get(1..).map(str::parse::<u32>)) else {
            continue;
        };
        if "HAW".contains(letter) {
            last.entry(letter).and_modify(|last: &mut u32| *last = number.max(*last)).or_insert(number);
        }
    }
    last
}

#[test]
fn the_service_config_repeats_what_may_be_repeated_and_nothing_else() {
    let page = page();
    let json = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a service config");
    let config: serde_json::Value = serde_json::from_str(json).expect("the service config is JSON");
    let mut retried = BTreeSet::new();
    let mut known = BTreeSet::new();
    for entry in config["methodConfig"].as_array().expect("methodConfig") {
        for name in entry["name"].as_array().expect("name") {
            let service = name["service"].as_str().expect("service");
            let methods: Vec<String> = match name.get("method").and_then(|method| method.as_str()) {
                Some(method) => vec![method.to_owned()],
                None => methods(service).into_keys().collect(),
            };
            for method in methods {
                let name = format!("{service}/{method}");
                assert!(known.insert(name.clone()), "{name} stands there twice");
                if entry.get("retryPolicy").is_some() {
                    retried.insert(name);
                }
            }
        }
    }
    let mut repeatable = BTreeSet::new();
    for service in services(&pool()).iter().filter(|service| service.name() != "ShutdownHook") {
        for (method, (level, streams)) in methods(service.full_name()) {
            if level != IdempotencyLevel::IdempotencyUnknown && !streams {
                repeatable.insert(format!("{}/{method}", service.full_name()));
            }
        }
    }
    assert_eq!(retried, repeatable, "what the service config repeats (left), and what the protos allow (right)");
}

/// What may be done with each method of a service, and whether it streams.
fn methods(service: &str) -> BTreeMap<String, (IdempotencyLevel, bool)> {
    let pool = pool();
    let service = pool.get_service_by_name(service).unwrap_or_else(|| panic!("there is no service {service}"));
    let level = |method: &prost_reflect::MethodDescriptor| {
        let options = method.method_descriptor_proto().options.clone().unwrap_or_default();
        (options.idempotency_level(), method.is_server_streaming())
    };
    service.methods().map(|method| (method.name().to_owned(), level(&method))).collect()
}

#[test]
fn every_secret_stands_on_the_page() {
    let listed: BTreeSet<String> = table("Tokens").map(|[token, ..]| token.trim_matches('`').to_owned()).collect();
    let mut secrets = BTreeSet::new();
    for message in pool().all_messages().filter(|message| message.package_name() == PACKAGE) {
        for field in message.fields() {
            if field.name().ends_with("_token") && !OPEN_TOKENS.contains(&field.name()) {
                secrets.insert(field.name().to_owned());
            }
        }
    }
    assert!(CLEARED_TOKEN.ends_with("completion_token") && secrets.contains("completion_token"));
    assert_eq!(listed, secrets, "the tokens on the page (left) and in the protos (right)");
}

/// The rows of the table below a heading of the page; the table before the first heading has none.
fn table(heading: &str) -> impl Iterator<Item = [String; 3]> + use<> {
    let page = page();
    let text = match heading {
        "" => page.split("\n## ").next(),
        heading => page.split("\n## ").find(|section| section.lines().next() == Some(heading)),
    };
    let text = text.unwrap_or_else(|| panic!("the page has no section {heading}")).to_owned();
    let rows: Vec<[String; 3]> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |").map(str::to_owned))
        .skip(1)
        .map(|line| {
            let mut cells = line.split(" | ").map(|cell| cell.trim().to_owned());
            std::array::from_fn(|_| cells.next().unwrap_or_default())
        })
        .collect();
    assert!(!rows.is_empty(), "section {heading:?} has no table");
    rows.into_iter()
}

fn page() -> String {
    fs::read_to_string(root().join("docs/protocol.md")).expect("docs/protocol.md is checked in")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
