//! No message shows its secrets, and none is forgotten.

use std::collections::BTreeMap;
use std::fmt::Debug;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::FILE_DESCRIPTOR_SET;
use crate::v1::*;

/// What every text of a message is set to that may be shown.
const OPEN: &str = "may-be-shown";
/// What every text is set to that may not.
const SECRET: &str = "may-not-be-shown";

/// Tokens that are positions in a history or a listing.
const POSITIONS: &[&str] = &["resume_token", "page_token", "next_page_token"];

/// How a message is read and shown.
type Show = fn(&[u8]) -> String;

fn show<M: prost::Message + Default + Debug>(bytes: &[u8]) -> String {
    format!("{:?}", M::decode(bytes).expect("it was written as this message"))
}

/// The messages that hold a secret, at any depth.
fn shown() -> BTreeMap<&'static str, Show> {
    [
        ("CompleteShutdownRequest", show::<CompleteShutdownRequest> as Show),
        ("CreateTokenResponse", show::<CreateTokenResponse>),
        ("ExtendDeadlineRequest", show::<ExtendDeadlineRequest>),
        ("KillApplicationRequest", show::<KillApplicationRequest>),
        ("RegisterInstanceResponse", show::<RegisterInstanceResponse>),
        ("ShutdownRequest", show::<ShutdownRequest>),
        ("ShutdownStatus", show::<ShutdownStatus>),
    ]
    .into()
}

fn is_secret(field: &FieldDescriptor) -> bool {
    let text = matches!(field.kind(), Kind::String | Kind::Bytes);
    text && field.name().split('_').any(|word| ["token", "secret", "password", "key"].contains(&word))
        && !POSITIONS.contains(&field.name())
}

/// Whether other languages are told not to print it.
fn is_redacted(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").is_some_and(|value| value.as_bool() == Some(true))
}

#[test]
fn secrets_are_marked_as_such_for_every_language() {
    let fields: Vec<_> = messages().iter().flat_map(|message| message.fields().collect::<Vec<_>>()).collect();
    let wrong = fields.iter().filter(|field| is_secret(field) != is_redacted(field));
    let wrong: Vec<_> = wrong.map(|field| field.full_name().to_owned()).collect();
    assert_eq!(wrong, [""; 0], "`[debug_redact = true]` belongs to secrets, and to nothing else");
    assert!(fields.iter().any(is_redacted), "the option is not in the descriptor set any more");
}

fn messages() -> Vec<MessageDescriptor> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build has checked it");
    pool.all_messages().filter(|message| message.package_name() == "quiesce.v1" && !message.is_map_entry()).collect()
}

/// One with every text set.
fn filled(message: &MessageDescriptor) -> DynamicMessage {
    let mut made = DynamicMessage::new(message.clone());
    for field in message.fields().filter(|field| matches!(field.kind(), Kind::String)) {
        let text = Value::String(if is_secret(&field) { SECRET } else { OPEN }.to_owned());
        let value = if field.is_list() { Value::List(vec![text]) } else { text };
        made.set_field(&field, value);
    }
    made
}

#[test]
fn every_message_with_a_secret_is_in_the_list_and_shows_everything_else() {
    let shown = shown();
    let mut secretive = messages();
    secretive.retain(|message| message.fields().any(|field| is_secret(&field)));
    secretive.sort_by(|one, other| one.name().cmp(other.name()));
    let names: Vec<_> = secretive.iter().map(|message| message.name().to_owned()).collect();
    assert!(names.iter().map(String::as_str).eq(shown.keys().copied()), "the list is to be {names:#?}");
    for message in &secretive {
        let text = shown[message.name()](&filled(message).encode_to_vec());
        assert!(!text.contains(SECRET), "{text}");
        for field in message.fields() {
            let hidden = is_secret(&field);
            let expected = match field.kind() {
                Kind::String if hidden => format!("{}: (secret)", field.name()),
                Kind::String if !field.is_list() => format!("{}: {OPEN:?}", field.name()),
                _ => format!("{}: ", field.name()),
            };
            assert!(text.contains(&expected), "{expected} is not in {text}");
        }
    }
}

#[test]
fn a_secret_that_is_not_set_is_told_from_one_that_is() {
    let text = format!("{:?}", ShutdownRequest::default());
    assert!(text.contains(r#"completion_token: "","#) || text.contains(r#"completion_token: "" }"#), "{text}");
}

#[test]
fn a_message_that_holds_one_with_a_secret_does_not_show_it_either() {
    let status = ShutdownStatus { completion_token: SECRET.to_owned(), ..Default::default() };
    let response = ShutdownResponse { status: Some(status) };
    let text = format!("{response:?} {response:#?}");
    assert!(text.contains("(secret)") && !text.contains(SECRET), "{text}");
}
