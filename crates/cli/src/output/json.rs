//! proto3 JSON and YAML of the contract's messages, both ways.
//!
//! Owns the mapping and nothing of its meaning. Fields at their default are left out, as the mapping has it.

use std::fmt;
use std::io::{self, Write};
use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _};
use quiesce_protocol::{FILE_DESCRIPTOR_SET, v1};
use quiesce_runtime::duration;
use serde::{Serialize, Serializer};

use crate::args::Format;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the descriptor set was made by the build from checked files")
});

/// A message of the contract that is printed or read as JSON.
pub(crate) trait Described: Message + Default {
    /// Its name in the contract.
    const NAME: &'static str;
}

macro_rules! described {
    ($($name:ident),* $(,)?) => {
        $(impl Described for v1::$name {
            const NAME: &'static str = concat!("quiesce.v1.", stringify!($name));
        })*
    };
}

described!(
    Application,
    Cluster,
    CreateTokenResponse,
    DeleteApplicationResponse,
    Instance,
    MigrateApplicationResponse,
    Operation,
    OperationEvent,
    Token,
);

/// The descriptor of a message.
pub(crate) fn descriptor<M: Described>() -> MessageDescriptor {
    POOL.get_message_by_name(M::NAME).expect("a test asks for every described message")
}

/// A message that serializes as proto3 JSON.
pub(crate) struct Document(DynamicMessage);

/// Which message, and nothing of what is in it: one of them is a token.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Document").field(&self.0.descriptor().full_name()).finish()
    }
}

impl Document {
    /// The document of a message.
    pub(crate) fn of<M: Described>(message: &M) -> Self {
        let mut dynamic = DynamicMessage::new(descriptor::<M>());
        dynamic.transcode_from(message).expect("types and descriptors were generated from the same files");
        Self(dynamic)
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Writes one document, or an array of them.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn write(out: &mut impl Write, format: Format, value: &impl Serialize) -> io::Result<()> {
    match format {
        Format::Yaml => {
            let text = serde_saphyr::to_string(value).map_err(io::Error::other)?;
            writeln!(out, "{}", text.trim_end())
        }
        Format::Json | Format::Table => {
            serde_json::to_writer_pretty(&mut *out, value)?;
            writeln!(out)
        }
    }
}

/// Writes one document of an endless sequence: a line of JSON, or a YAML document with its separator.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn write_next(out: &mut impl Write, format: Format, value: &Document) -> io::Result<()> {
    match format {
        Format::Yaml => {
            writeln!(out, "---")?;
            write(out, format, value)?;
        }
        Format::Json | Format::Table => {
            serde_json::to_writer(&mut *out, value)?;
            writeln!(out)?;
        }
    }
    out.flush()
}

/// Reads a message from its JSON value; unknown fields are refused, since they are typing mistakes.
///
/// # Errors
///
/// The path of the first field that does not fit, and why.
pub(crate) fn read<M: Described>(value: &serde_json::Value) -> Result<M, String> {
    let descriptor = descriptor::<M>();
    let mut value = value.clone();
    mend_durations(&descriptor, &mut value)?;
    let message = DynamicMessage::deserialize(descriptor.clone(), &value)
        .map_err(|error| locate(&descriptor, &value).unwrap_or_else(|| error.to_string()))?;
    message.transcode_to().map_err(|error| error.to_string())
}

/// Brings durations as people write them (`1m30s`) into the form of the mapping, which knows seconds only.
fn mend_durations(descriptor: &MessageDescriptor, value: &mut serde_json::Value) -> Result<(), String> {
    for (key, value) in value.as_object_mut().into_iter().flatten() {
        let Some(field) = field(descriptor, key) else { continue };
        match (field.kind().as_message(), value) {
            (Some(message), serde_json::Value::String(text)) if message.full_name() == "google.protobuf.Duration" => {
                let read = duration::parse(text).map_err(|error| format!("{key}: {text:?}: {error}"))?;
                *text = format!("{}.{:09}s", read.as_secs(), read.subsec_nanos());
            }
            (Some(message), value) if !field.is_map() && !field.is_list() => {
                mend_durations(message, value).map_err(|problem| format!("{key}.{problem}"))?;
            }
            (Some(_) | None, _) => {}
        }
    }
    Ok(())
}

/// The field a key of the mapping stands for, by either of its names.
pub(crate) fn field(descriptor: &MessageDescriptor, key: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_json_name(key).or_else(|| descriptor.get_field_by_name(key))
}

/// Finds the field an error belongs to by trying one at a time: the mapping's own errors do not name it.
fn locate(descriptor: &MessageDescriptor, value: &serde_json::Value) -> Option<String> {
    for (key, field) in value.as_object()? {
        let alone = serde_json::json!({ key: field });
        let Err(error) = DynamicMessage::deserialize(descriptor.clone(), &alone) else { continue };
        let Some(known) = self::field(descriptor, key) else {
            let names: Vec<_> = descriptor.fields().map(|field| field.json_name().to_owned()).collect();
            return Some(format!("{key}: no such field (there are {})", names.join(", ")));
        };
        let deeper = known.kind().as_message().filter(|_| !known.is_map() && !known.is_list()).cloned();
        return Some(match deeper.and_then(|inner| locate(&inner, field)) {
            Some(path) => format!("{key}.{path}"),
            None => format!("{key}: {error}"),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use quiesce_protocol::v1::{Operation, ShutdownPolicy, operation};

    fn operation() -> Operation {
        Operation {
            name: "operations/op-1".to_owned(),
            state: operation::State::Stopping.into(),
            policy: Some(ShutdownPolicy {
                grace_period: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
                allow_unverified: Some(false),
                ..ShutdownPolicy::default()
            }),
            create_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            revision: 9_007_199_254_740_993,
            ..Operation::default()
        }
    }

    fn text(format: Format) -> String {
        let mut out = Vec::new();
        write(&mut out, format, &Document::of(&operation())).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_document_of_a_token_does_not_show_it_when_it_is_printed_for_debugging() {
        let message = v1::CreateTokenResponse { bearer_token: "qbt1.t.x".to_owned(), ..Default::default() };
        assert_eq!(format!("{:?}", Document::of(&message)), r#"Document("quiesce.v1.CreateTokenResponse")"#);
    }

    #[test]
    fn json_is_the_proto3_mapping() {
        let value: serde_json::Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "name": "operations/op-1",
                "state": "STATE_STOPPING",
                "policy": {"gracePeriod": "90s", "allowUnverified": false},
                "createTime": "2023-11-14T22:13:20Z",
                "revision": "9007199254740993",
            })
        );
    }

    #[test]
    fn yaml_says_the_same_as_json() {
        let yaml: serde_json::Value = serde_saphyr::from_str(&text(Format::Yaml)).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(yaml, json);
    }

    #[test]
    fn every_described_message_is_in_the_contract_and_survives_the_way_there_and_back() {
        let value: serde_json::Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(read::<Operation>(&value).unwrap(), operation());
        descriptor::<v1::Application>();
        descriptor::<v1::Cluster>();
        descriptor::<v1::DeleteApplicationResponse>();
        descriptor::<v1::Instance>();
        descriptor::<v1::MigrateApplicationResponse>();
        descriptor::<v1::OperationEvent>();
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds, nanos) in [("90s", 90, 0), ("1.5s", 1, 500_000_000), ("1m30s", 90, 0), ("1h", 3600, 0)] {
            let value = serde_json::json!({"policy": {"gracePeriod": text, "retry": {"initial_backoff": text}}});
            let policy = read::<v1::Application>(&value).unwrap().policy.unwrap();
            let wanted = Some(prost_types::Duration { seconds, nanos });
            assert_eq!((policy.grace_period, policy.retry.unwrap().initial_backoff), (wanted, wanted), "{text}");
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let mut out = Vec::new();
        let event =
            v1::OperationEvent { resume_token: "t".to_owned(), message: "a\nb".to_owned(), ..Default::default() };
        write_next(&mut out, Format::Json, &Document::of(&event)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "{\"resumeToken\":\"t\",\"message\":\"a\\nb\"}\n");
    }

    #[test]
    fn a_mistake_is_named_by_its_path() {
        let error = |value| read::<v1::Application>(&value).unwrap_err();
        assert!(
            error(serde_json::json!({"policy": {"gracePeriodd": "9s"}})).starts_with("policy.gracePeriodd: no such")
        );
        assert!(error(serde_json::json!({"policy": {"gracePeriod": "9"}})).starts_with("policy.gracePeriod: \"9\": "));
        assert!(error(serde_json::json!({"policy": {"gracePeriod": "8d"}})).ends_with("longer than 7 days"));
        assert!(
            error(serde_json::json!({"policy": {"retry": {"max_backoff": 9}}}))
                .starts_with("policy.retry.max_backoff: ")
        );
        assert!(error(serde_json::json!({"labels": {"tier": 1}})).starts_with("labels: "));
        assert!(error(serde_json::json!({"name": 1})).starts_with("name: "));
    }
}
