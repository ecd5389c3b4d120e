//! Filters of listings: a wrong one says where, a right one means the same when it is written out and read again.

use std::collections::HashMap;

use quiesce_protocol::v1;

use crate::filter::{FILTER_MAX, Filter, Filterable};
use crate::status::Problem;

/// The text of a filter, for every kind of resource.
#[must_use]
pub fn filter(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let labels = HashMap::from([("team".to_owned(), "data base".to_owned()), ("a*".to_owned(), "*".to_owned())]);
    let time = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 1 });
    let application = v1::Application {
        name: "applications/shop".to_owned(),
        cluster: "north".to_owned(),
        labels: labels.clone(),
        create_time: time,
        ..Default::default()
    };
    let instance = v1::Instance {
        name: "applications/shop/instances/a".to_owned(),
        cluster: "north".to_owned(),
        labels: labels.clone(),
        ..Default::default()
    };
    let cluster = v1::Cluster {
        name: "clusters/north".to_owned(),
        labels: labels.clone(),
        create_time: time,
        ..Default::default()
    };
    let operation = v1::Operation {
        name: "operations/op-1".to_owned(),
        application: application.name.clone(),
        done: true,
        labels,
        create_time: time,
        ..Default::default()
    };
    // None of them may keep the others from being looked at.
    [holds(text, &application), holds(text, &instance), holds(text, &cluster), holds(text, &operation)].contains(&true)
}

fn holds<T: Filterable + Default>(text: &str, resource: &T) -> bool {
    let filter = match Filter::parse::<T>(text, &[]) {
        Ok(filter) => filter,
        Err(Problem::InvalidFilter { position, .. }) => {
            assert!(text.is_char_boundary(position), "wrong at {position}, which is not a place in {text:?}");
            return false;
        }
        Err(other) => panic!("a filter can only be wrong as a filter: {other:?}"),
    };
    let printed = filter.to_string();
    // Quotes make it longer, and what nobody may send cannot be read again.
    if printed.len() > FILTER_MAX {
        return true;
    }
    match Filter::parse::<T>(&printed, &[]) {
        Ok(again) => assert_eq!(again, filter, "{text:?} is written out as {printed:?}"),
        Err(problem) => panic!("{text:?} is written out as {printed:?}, which is refused: {problem:?}"),
    }
    // Evaluation cannot fail, and leaves no third way.
    let (one, other) = (filter.matches(resource), filter.matches(&T::default()));
    assert!(!filter.is_empty() || (one && other), "no restriction, and yet something does not match");
    true
}
