//! The contract as a whole: its shape as a golden file, so that every change of it shows in review, and the rules that
//! neither the compiler nor `buf lint` knows.
//!
//! `UPDATE_GOLDEN=1 cargo test --test contract` rewrites `tests/golden/contract.txt`.

mod page;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use prost_reflect::{
    Cardinality, DescriptorPool, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};

use reading::{
    Comments, ENUM, FIELD, MESSAGE, METHOD, NESTED_ENUM, NESTED_MESSAGE, PACKAGE, SERVICE, VALUE, files, pool, reasons,
    services,
};

/// `*_token` fields that are no secrets: positions in a history or a listing.
const OPEN_TOKENS: &[&str] = &["resume_token", "page_token", "next_page_token"];
/// The one secret inside a message that is also shown; schedulers clear it before they show it.
const CLEARED_TOKEN: &str = "quiesce.v1.ShutdownStatus.completion_token";

#[test]
fn the_shape_of_the_contract_is_the_one_that_was_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/contract.txt");
    let rendered = render(&pool());
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&path, &rendered).expect("the golden file can be written");
        return;
    }
    let golden = fs::read_to_string(&path).expect("tests/golden/contract.txt is checked in");
    let changed: Vec<_> = rendered.lines().zip(golden.lines()).filter(|(new, old)| new != old).take(3).collect();
    assert!(
        rendered == golden,
        "the contract has changed, first at {changed:#?} (new, old); within v1 only additions are allowed. If it is \
         meant: UPDATE_GOLDEN=1 cargo test --test contract, and review the difference"
    );
}

#[test]
fn everything_in_the_contract_has_a_comment() {
    let mut bare = Vec::new();
    for file in files(&pool()) {
        let comments = Comments::of(&file);
        for (path, name) in elements(&file) {
            if comments.leading(&path).is_empty() {
                bare.push(name);
            }
        }
    }
    assert!(bare.is_empty(), "comments are the specification; without one: {bare:#?}");
}

#[test]
fn error_tables_name_known_reasons_with_their_code_and_retry_class() {
    let pool = pool();
    let reasons = reasons(&pool);
    let mut problems = Vec::new();
    let mut rows = 0;
    for file in files(&pool) {
        let comments = Comments::of(&file);
        for (path, name) in elements(&file).into_iter().filter(|(path, _)| path[0] == SERVICE) {
            for line in comments.leading(&path).lines() {
                let mut words = line.split_whitespace();
                let (Some(code), Some(reason)) = (words.next(), words.next()) else { continue };
                if !GRPC_CODES.contains(&code) || reason.starts_with('(') {
                    continue;
                }
                // A code may begin a sentence as well; a reason is never a plain word.
                if !reason.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                    continue;
                }
                rows += 1;
                let Some(specified) = reasons.get(reason) else {
                    problems.push(format!("{name}: {reason} is not in ErrorReason"));
                    continue;
                };
                let said = [code, words.next().unwrap_or_default()].map(bare);
                let expected: Vec<_> = specified.split_whitespace().take(2).map(bare).collect();
                if expected != said {
                    problems.push(format!("{name}: {reason} {said:?}, but errors.proto says {expected:?}"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(rows > 40, "only {rows} rows were found: the tables are not read any more");
}

/// A word without the punctuation behind it.
fn bare(word: &str) -> &str {
    word.trim_end_matches([',', '.', ':', ';'])
}

#[test]
fn every_reason_says_its_code_and_its_retry_class() {
    for (reason, comment) in reasons(&pool()) {
        let mut words = comment.split_whitespace().map(bare);
        let (code, class) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        assert!(GRPC_CODES.contains(&code), "{reason}: the comment begins with {code:?}, not with a code");
        assert!(["never", "state", "pause", "reopen"].contains(&class), "{reason}: {class:?} is no retry class");
    }
}

#[test]
fn what_can_be_read_holds_no_secret() {
    let mut secrets = BTreeSet::new();
    for service in services(&pool()) {
        for method in service.methods() {
            if ["Get", "List", "Watch"].iter().any(|verb| method.name().starts_with(verb)) {
                let mut seen = BTreeSet::new();
                collect_secrets(&method.output(), &mut seen, &mut secrets);
            }
        }
    }
    secrets.remove(CLEARED_TOKEN);
    assert!(secrets.is_empty(), "fields named *_token are secrets, and these are handed out: {secrets:?}");
}

#[test]
fn requests_and_responses_are_named_after_their_rpc() {
    for service in services(&pool()) {
        for method in service.methods() {
            assert_eq!(method.input().name(), format!("{}Request", method.name()));
            assert_eq!(method.output().name(), format!("{}Response", method.name()));
        }
    }
}

/// The whole contract without its comments, ordered by name and number.
fn render(pool: &DescriptorPool) -> String {
    let mut blocks = BTreeMap::new();
    for service in services(pool) {
        let mut block = String::new();
        for method in service.methods() {
            render_method(&mut block, &method);
        }
        blocks.insert((0, service.full_name().to_owned()), format!("service {}\n{block}", service.full_name()));
    }
    for message in pool.all_messages().filter(|it| it.package_name() == PACKAGE && !it.is_map_entry()) {
        let mut block = String::new();
        for field in message.fields() {
            writeln!(block, "  {:>2} {}: {}", field.number(), field.name(), field_type(&field)).expect("memory");
        }
        for range in message.reserved_ranges() {
            writeln!(block, "  reserved {} to {}", range.start, range.end - 1).expect("memory");
        }
        for name in message.reserved_names() {
            writeln!(block, "  reserved {name}").expect("memory");
        }
        blocks.insert((1, message.full_name().to_owned()), format!("message {}\n{block}", message.full_name()));
    }
    for values in pool.all_enums().filter(|it| it.package_name() == PACKAGE) {
        let mut block = String::new();
        for value in values.values() {
            writeln!(block, "  {:>2} {}", value.number(), value.name()).expect("memory");
        }
        blocks.insert((2, values.full_name().to_owned()), format!("enum {}\n{block}", values.full_name()));
    }
    blocks.into_values().collect::<Vec<_>>().join("\n")
}

fn render_method(block: &mut String, method: &MethodDescriptor) {
    let stream = |is: bool| if is { "stream " } else { "" };
    let level = method.method_descriptor_proto().options.as_ref().and_then(|options| options.idempotency_level);
    let level = match level {
        Some(1) => " [NO_SIDE_EFFECTS]",
        Some(2) => " [IDEMPOTENT]",
        Some(_) | None => "",
    };
    writeln!(
        block,
        "  rpc {}({}{}) returns ({}{}){level}",
        method.name(),
        stream(method.is_client_streaming()),
        method.input().name(),
        stream(method.is_server_streaming()),
        method.output().name(),
    )
    .expect("memory");
}

fn field_type(field: &FieldDescriptor) -> String {
    let name = |kind: Kind| match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        return format!("map<{}, {}>", name(key.kind()), name(value.kind()));
    }
    let mut text = name(field.kind());
    if field.cardinality() == Cardinality::Repeated {
        text = format!("repeated {text}");
    } else if field.field_descriptor_proto().proto3_optional() {
        text = format!("optional {text}");
    } else if let Some(oneof) = field.containing_oneof() {
        text = format!("{text} (oneof {})", oneof.name());
    }
    text
}

fn collect_secrets(message: &MessageDescriptor, seen: &mut BTreeSet<String>, secrets: &mut BTreeSet<String>) {
    if !seen.insert(message.full_name().to_owned()) {
        return;
    }
    for field in message.fields() {
        if field.name().ends_with("_token") && !OPEN_TOKENS.contains(&field.name()) {
            secrets.insert(field.full_name().to_owned());
        }
        if let Kind::Message(inner) = field.kind() {
            collect_secrets(&inner, seen, secrets);
        }
    }
}

/// Everything in a file that needs a comment, with its path and name.
fn elements(file: &FileDescriptor) -> Vec<(Vec<i32>, String)> {
    let proto = file.file_descriptor_proto();
    let mut found = Vec::new();
    for (index, service) in (0..).zip(&proto.service) {
        found.push((vec![SERVICE, index], service.name().to_owned()));
        for (number, method) in (0..).zip(&service.method) {
            found.push((vec![SERVICE, index, METHOD, number], format!("{}.{}", service.name(), method.name())));
        }
    }
    for (index, message) in (0..).zip(&proto.message_type) {
        message_elements(message, vec![MESSAGE, index], "", &mut found);
    }
    for (index, values) in (0..).zip(&proto.enum_type) {
        enum_elements(values, vec![ENUM, index], "", &mut found);
    }
    found
}

fn message_elements(
    message: &prost_types::DescriptorProto,
    path: Vec<i32>,
    scope: &str,
    found: &mut Vec<(Vec<i32>, String)>,
) {
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    let name = format!("{scope}{}", message.name());
    let below = |number, index| [path.as_slice(), &[number, index]].concat();
    for (index, field) in (0..).zip(&message.field) {
        found.push((below(FIELD, index), format!("{name}.{}", field.name())));
    }
    for (index, nested) in (0..).zip(&message.nested_type) {
        message_elements(nested, below(NESTED_MESSAGE, index), &format!("{name}."), found);
    }
    for (index, nested) in (0..).zip(&message.enum_type) {
        enum_elements(nested, below(NESTED_ENUM, index), &format!("{name}."), found);
    }
    found.push((path, name));
}

fn enum_elements(
    values: &prost_types::EnumDescriptorProto,
    path: Vec<i32>,
    scope: &str,
    found: &mut Vec<(Vec<i32>, String)>,
) {
    for (index, value) in (0..).zip(&values.value) {
        found.push(([path.as_slice(), &[VALUE, index]].concat(), format!("{scope}{}", value.name())));
    }
    found.push((path, format!("{scope}{}", values.name())));
}

const GRPC_CODES: &[&str] = &[
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "UNAUTHENTICATED",
    "DEADLINE_EXCEEDED",
];
