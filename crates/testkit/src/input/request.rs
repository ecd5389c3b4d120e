//! Requests made from tables: the fields they have by the descriptors of the contract, and setting one by its path.

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value,
};

use super::form::Given;
use super::{Row, Rule};

/// The contract.
pub(super) fn pool() -> DescriptorPool {
    DescriptorPool::decode(quiesce_protocol::FILE_DESCRIPTOR_SET).expect("the build has checked it")
}

/// Every field without fields of its own below `message`, with its path. Maps, lists and messages of other packages
/// (durations, times, masks) are values as a whole.
fn leaves(message: &MessageDescriptor, above: &str, found: &mut Vec<(String, FieldDescriptor)>) {
    for field in message.fields() {
        let path = format!("{above}{}", field.name());
        match field.kind() {
            Kind::Message(inner) if has_leaves(&field, &inner) => leaves(&inner, &format!("{path}."), found),
            _ => found.push((path, field)),
        }
    }
}

fn has_leaves(field: &FieldDescriptor, inner: &MessageDescriptor) -> bool {
    !field.is_map() && !field.is_list() && inner.package_name() == "quiesce.v1" && inner.fields().len() > 0
}

/// What is missing in `rows`, or too much, for them to cover every field of `message`.
pub(super) fn gaps(message: &MessageDescriptor, rows: &[Row]) -> Vec<String> {
    let mut fields = Vec::new();
    leaves(message, "", &mut fields);
    let mut problems = Vec::new();
    for (path, field) in &fields {
        let covering: Vec<_> = rows.iter().filter(|row| covers(row, path)).collect();
        match covering[..] {
            [] => problems.push(format!(
                "{path} has no row: say what values are wrong (required, optional), or why none is (flag, ignored, free)"
            )),
            [row] if matches!(row.rule, Rule::Flag) && field.kind() != Kind::Bool => {
                problems.push(format!("{path} is no bool, so flag is not enough"));
            }
            [_] => {}
            [..] => problems.push(format!("{path} has {} rows", covering.len())),
        }
    }
    for row in rows {
        if find(message, &row.path).is_none() {
            problems.push(format!("{} is no field any more: remove its row", row.path));
        }
    }
    problems
}

fn covers(row: &Row, path: &str) -> bool {
    let whole = matches!(row.rule, Rule::Ignored | Rule::Free);
    row.path == path || whole && path.strip_prefix(row.path.as_str()).is_some_and(|rest| rest.starts_with('.'))
}

/// The field at `path`.
fn find(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    match path.split_once('.') {
        None => message.get_field_by_name(path),
        Some((first, rest)) => find(message.get_field_by_name(first)?.kind().as_message()?, rest),
    }
}

/// `message` with another value at `path`.
pub(super) fn with(message: &DynamicMessage, path: &str, given: &Given) -> DynamicMessage {
    let mut changed = message.clone();
    edit(&mut changed, path, |message, field| match given {
        Given::Missing => message.clear_field(field),
        given => message.set_field(field, value(field, given)),
    });
    changed
}

/// `message` with the wildest values at `path` and below.
pub(super) fn wild(message: &DynamicMessage, path: &str) -> DynamicMessage {
    let mut changed = message.clone();
    edit(&mut changed, path, |message, field| message.set_field(field, wild_value(field)));
    changed
}

fn edit(message: &mut DynamicMessage, path: &str, change: impl FnOnce(&mut DynamicMessage, &FieldDescriptor)) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let field = message.descriptor().get_field_by_name(first).expect("rows name fields");
    match rest {
        None => change(message, &field),
        Some(rest) => {
            let inner = message.get_field_mut(&field).as_message_mut().expect("paths go through messages");
            edit(inner, rest, change);
        }
    }
}

fn value(field: &FieldDescriptor, given: &Given) -> Value {
    match (given, field.kind()) {
        (Given::Text(text), _) => Value::String(text.clone()),
        (Given::Number(number), Kind::Int64) => Value::I64(*number),
        (Given::Number(number), kind) => {
            let number = i32::try_from(*number).expect("rows of 32 bits have numbers of 32 bits");
            if kind.as_enum().is_some() { Value::EnumNumber(number) } else { Value::I32(number) }
        }
        (Given::Double(number), _) => Value::F64(*number),
        (Given::Duration(seconds, nanos), Kind::Message(message)) => point(message, *seconds, *nanos),
        (Given::Paths(paths), Kind::Message(message)) => {
            let mut mask = DynamicMessage::new(message);
            mask.set_field_by_name("paths", Value::List(paths.iter().cloned().map(Value::String).collect()));
            Value::Message(mask)
        }
        (Given::Map(entries), _) => {
            let entries =
                entries.iter().map(|(key, value)| (MapKey::String(key.clone()), Value::String(value.clone())));
            Value::Map(entries.collect())
        }
        (given, kind) => panic!("{}: {given:?} is nothing for a field of {kind:?}", field.full_name()),
    }
}

/// A duration or a time, whatever their rules.
fn point(message: MessageDescriptor, seconds: i64, nanos: i32) -> Value {
    let mut point = DynamicMessage::new(message);
    point.set_field_by_name("seconds", Value::I64(seconds));
    point.set_field_by_name("nanos", Value::I32(nanos));
    Value::Message(point)
}

fn wild_value(field: &FieldDescriptor) -> Value {
    let one = match field.kind() {
        Kind::String => Value::String(format!("\0\n\x1b[2J{}", "wild/".repeat(2000))),
        Kind::Bool => Value::Bool(true),
        Kind::Int32 => Value::I32(i32::MIN),
        Kind::Int64 => Value::I64(i64::MIN),
        Kind::Double => Value::F64(f64::NAN),
        Kind::Enum(_) => Value::EnumNumber(99),
        Kind::Message(message) if message.package_name() == "google.protobuf" => point(message, i64::MIN, -1),
        Kind::Message(message) => {
            let mut wild = DynamicMessage::new(message.clone());
            for field in message.fields() {
                wild.set_field(&field, wild_value(&field));
            }
            Value::Message(wild)
        }
        kind => panic!("{}: nobody has thought of a wild {kind:?} yet", field.full_name()),
    };
    if field.is_list() { Value::List(vec![one]) } else { one }
}

#[cfg(test)]
mod tests {
    use super::super::{flag, free, ignored, optional};
    use super::*;
    use crate::input::form;

    fn gaps_of(rows: &[Row]) -> Vec<String> {
        gaps(&pool().get_message_by_name("quiesce.v1.RetryOperationRequest").unwrap(), rows)
    }

    fn some_rows() -> Vec<Row> {
        vec![
            optional("name", form::operation()),
            flag("force"),
            ignored("policy", "for this test"),
            free("request_id", "for this test"),
        ]
    }

    #[test]
    fn a_field_without_a_row_is_a_gap_and_so_is_a_row_without_a_field() {
        let mut rows = some_rows();
        let gaps = gaps_of(&rows);
        assert!(gaps.len() == 1 && gaps[0].starts_with("reason has no row"), "{gaps:?}");
        rows.push(optional("reason", form::text(1)));
        assert!(gaps_of(&rows).is_empty());
        rows.push(optional("colour", form::text(1)));
        assert_eq!(gaps_of(&rows), ["colour is no field any more: remove its row"]);
    }

    #[test]
    fn a_row_of_a_message_with_wrong_values_does_not_cover_what_is_below() {
        let mut rows = some_rows();
        rows[2] = optional("policy", Vec::new());
        assert!(gaps_of(&rows).len() > 10);
        rows[2] = flag("policy.grace_period");
        assert!(gaps_of(&rows).contains(&"policy.grace_period is no bool, so flag is not enough".to_owned()));
    }
}
