//! Filters of listings and watches: the subset of AIP-160 that the contract names (`ListApplicationsRequest.filter`).
//!
//! Restrictions joined by AND. What fields there are and what they hold is the business of whoever implements
//! [`Filterable`]; parsing checks every restriction against that, so that evaluation cannot fail.

#[cfg(any(test, feature = "fuzzing"))]
mod printed;

use std::collections::HashMap;
use std::time::SystemTime;

use crate::status::{Problem, shown};

/// Longest filter: far above what anybody types, far below what would be work to parse.
pub(crate) const FILTER_MAX: usize = 4096;
/// Most restrictions in one filter; each costs a comparison for every resource looked at.
const RESTRICTIONS_MAX: usize = 32;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FieldType {
    /// Any text. A resource name also matches by its last part.
    Text,
    /// One of some words, which the second part knows. They are compared without the prefix the wire gives them, such
    /// as `STATE_`.
    Enum(&'static str, fn(&str) -> bool),
    /// `true` or `false`.
    Bool,
    /// A point in time.
    Time,
}

/// What a resource has in a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// Of [`FieldType::Text`], and of [`FieldType::Enum`] with or without prefix.
    Text(&'a str),
    /// Of [`FieldType::Bool`].
    Bool(bool),
    /// Of [`FieldType::Time`]; unset never compares.
    Time(Option<SystemTime>),
}

/// Something that can be filtered.
pub(crate) trait Filterable {
    /// Every field but `labels`.
    const FIELDS: &'static [(&'static str, FieldType)];

    /// The value of one of [`Self::FIELDS`].
    fn value(&self, field: &str) -> Value<'_>;

    /// Its labels.
    fn labels(&self) -> &HashMap<String, String>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Text { op: Op, value: String, prefix: bool },
    Enum { op: Op, value: String, strip: &'static str },
    Bool { op: Op, value: bool },
    Time { op: Op, value: SystemTime },
    Label { key: String, op: Op, value: String, prefix: bool },
    HasLabel { key: String },
}

/// A filter that fits the resource it was parsed for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Filter {
    restrictions: Vec<(&'static str, Test)>,
}

impl Filter {
    /// Parses `text` for `T`, without the fields in `except`. Empty text matches everything.
    ///
    /// # Errors
    /// [`Problem::InvalidFilter`] with the position of what is wrong, in bytes.
    pub(crate) fn parse<T: Filterable>(text: &str, except: &[&str]) -> Result<Self, Problem> {
        if text.len() > FILTER_MAX {
            return Err(wrong(FILTER_MAX, &format!("longer than {FILTER_MAX} bytes")));
        }
        let fields: Vec<_> = T::FIELDS.iter().filter(|(name, _)| !except.contains(name)).copied().collect();
        let mut parser = Parser { text, position: 0, fields };
        let mut restrictions = Vec::new();
        parser.skip_space();
        while !parser.is_at_end() {
            if !restrictions.is_empty() {
                let at = parser.position;
                if parser.word() != "AND" {
                    return Err(wrong(
                        at,
                        "expected AND; OR, NOT and parentheses are not part of this filter language",
                    ));
                }
            }
            if restrictions.len() == RESTRICTIONS_MAX {
                return Err(wrong(parser.position, &format!("at most {RESTRICTIONS_MAX} restrictions")));
            }
            restrictions.push(parser.restriction()?);
            parser.skip_space();
        }
        Ok(Self { restrictions })
    }

    /// Whether `resource` meets every restriction.
    pub(crate) fn matches<T: Filterable>(&self, resource: &T) -> bool {
        self.restrictions.iter().all(|(field, test)| test.holds(resource, field))
    }
}

impl Test {
    fn holds<T: Filterable>(&self, resource: &T, field: &str) -> bool {
        match self {
            Self::Text { op, value, prefix } => match resource.value(field) {
                Value::Text(found) => text_holds(*op, found, value, *prefix),
                Value::Bool(_) | Value::Time(_) => false,
            },
            Self::Enum { op, value, strip } => match resource.value(field) {
                Value::Text(found) => op.holds(bare(found, strip).cmp(value.as_str())),
                Value::Bool(_) | Value::Time(_) => false,
            },
            Self::Bool { op, value } => match resource.value(field) {
                Value::Bool(found) => op.holds(found.cmp(value)),
                Value::Text(_) | Value::Time(_) => false,
            },
            Self::Time { op, value } => match resource.value(field) {
                Value::Time(Some(found)) => op.holds(found.cmp(value)),
                Value::Time(None) => *op == Op::Ne,
                Value::Text(_) | Value::Bool(_) => false,
            },
            Self::Label { key, op, value, prefix } => match resource.labels().get(key) {
                Some(found) => text_holds(*op, found, value, *prefix),
                None => *op == Op::Ne,
            },
            Self::HasLabel { key } => resource.labels().contains_key(key),
        }
    }
}

/// A full resource name matches by its last part, too: `name = shop` is what people type.
fn text_holds(op: Op, found: &str, value: &str, prefix: bool) -> bool {
    let last = found.rsplit('/').next().unwrap_or(found);
    let found = if value.contains('/') { found } else { last };
    if prefix {
        return found.starts_with(value) == (op == Op::Eq);
    }
    op.holds(found.cmp(value))
}

impl Op {
    fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Eq => ordering.is_eq(),
            Self::Ne => ordering.is_ne(),
            Self::Lt => ordering.is_lt(),
            Self::Le => ordering.is_le(),
            Self::Gt => ordering.is_gt(),
            Self::Ge => ordering.is_ge(),
        }
    }

    fn is_equality(self) -> bool {
        matches!(self, Self::Eq | Self::Ne)
    }
}

fn bare<'a>(word: &'a str, prefix: &str) -> &'a str {
    word.strip_prefix(prefix).unwrap_or(word)
}

fn wrong(position: usize, what: &str) -> Problem {
    Problem::InvalidFilter { position, what: what.to_owned() }
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
    fields: Vec<(&'static str, FieldType)>,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.position..]
    }

    fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    fn skip_space(&mut self) {
        self.position += self.rest().len() - self.rest().trim_start().len();
    }

    /// Characters up to the next space or operator; for values operators count as characters, since times hold colons.
    fn run(&mut self, ends: fn(char) -> bool) -> String {
        self.skip_space();
        let end = self.rest().find(ends).unwrap_or(self.rest().len());
        let word = self.rest()[..end].to_owned();
        self.position += end;
        word
    }

    fn word(&mut self) -> String {
        self.run(|c| c.is_whitespace() || "=!<>:\"()".contains(c))
    }

    fn restriction(&mut self) -> Result<(&'static str, Test), Problem> {
        self.skip_space();
        let at = self.position;
        let field = self.word();
        if field.is_empty() {
            return Err(wrong(at, "expected a field"));
        }
        self.skip_space();
        let op_at = self.position;
        if field == "labels" && self.rest().starts_with(':') {
            self.position += 1;
            let key_at = self.position;
            let (key, prefix) = self.value()?;
            return match (key.as_str(), prefix) {
                (_, true) => Err(wrong(key_at, "a label is named in full; a trailing * goes with = and != only")),
                ("", false) => Err(wrong(key_at, "expected a label")),
                (_, false) => Ok(("labels", Test::HasLabel { key })),
            };
        }
        let op = self.operator()?;
        self.skip_space();
        let value_at = self.position;
        if let Some(key) = field.strip_prefix("labels.") {
            if key.is_empty() {
                return Err(wrong(at, "expected the name of a label behind `labels.`"));
            }
            let (value, prefix) = self.value()?;
            let key = key.to_owned();
            check_prefix(prefix, op, op_at)?;
            return Ok(("labels", Test::Label { key, op, value, prefix }));
        }
        let Some((name, kind)) = self.fields.iter().copied().find(|(name, _)| *name == field) else {
            let known: Vec<&str> = self.fields.iter().map(|(name, _)| *name).collect();
            return Err(wrong(
                at,
                &format!("`{}` is not a field here; known: {}, labels.KEY", shown(&field), known.join(", ")),
            ));
        };
        let (value, prefix) = self.value()?;
        let test = match kind {
            FieldType::Text => {
                check_prefix(prefix, op, op_at)?;
                Test::Text { op, value, prefix }
            }
            FieldType::Enum(strip, is_known) => {
                if prefix || !op.is_equality() {
                    return Err(wrong(op_at, "this field knows = and != with a whole word"));
                }
                let word = value.to_ascii_uppercase();
                let word = bare(&word, strip);
                if !is_known(&format!("{strip}{word}")) {
                    return Err(wrong(value_at, &format!("`{}` is not a value of {name}", shown(&value))));
                }
                Test::Enum { op, value: word.to_owned(), strip }
            }
            FieldType::Bool => match (value.as_str(), op.is_equality()) {
                ("true", true) => Test::Bool { op, value: true },
                ("false", true) => Test::Bool { op, value: false },
                _ => return Err(wrong(value_at, "this field knows = and != with true or false")),
            },
            FieldType::Time => {
                let time =
                    value.parse::<prost_types::Timestamp>().ok().and_then(|time| SystemTime::try_from(time).ok());
                let value = time.ok_or_else(|| wrong(value_at, "expected a time such as 2026-01-31T12:00:00Z"))?;
                Test::Time { op, value }
            }
        };
        Ok((name, test))
    }

    fn operator(&mut self) -> Result<Op, Problem> {
        const OPERATORS: [(&str, Op); 6] =
            [("<=", Op::Le), (">=", Op::Ge), ("!=", Op::Ne), ("=", Op::Eq), ("<", Op::Lt), (">", Op::Gt)];
        for (text, op) in OPERATORS {
            if self.rest().starts_with(text) {
                self.position += text.len();
                return Ok(op);
            }
        }
        Err(wrong(self.position, "expected one of = != < <= > >= (and : for labels)"))
    }

    /// A value, and whether it ended with the `*` that means "begins with".
    fn value(&mut self) -> Result<(String, bool), Problem> {
        self.skip_space();
        let at = self.position;
        let mut value = if self.rest().starts_with('"') {
            self.quoted()?
        } else {
            self.run(|c| c.is_whitespace() || "\"()".contains(c))
        };
        if value.is_empty() && self.position == at {
            return Err(wrong(at, "expected a value"));
        }
        let prefix = value.ends_with('*');
        if prefix {
            value.pop();
        }
        Ok((value, prefix))
    }

    fn quoted(&mut self) -> Result<String, Problem> {
        let at = self.position;
        let mut value = String::new();
        let mut escaped = false;
        for (offset, c) in self.text[at + 1..].char_indices() {
            match c {
                _ if escaped => {
                    value.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.position = at + 1 + offset + 1;
                    return Ok(value);
                }
                _ => value.push(c),
            }
        }
        Err(wrong(at, "the quoted string does not end"))
    }
}

fn check_prefix(prefix: bool, op: Op, at: usize) -> Result<(), Problem> {
    if prefix && !op.is_equality() { Err(wrong(at, "a trailing * goes with = and != only")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    struct Thing {
        labels: HashMap<String, String>,
    }

    impl Filterable for Thing {
        const FIELDS: &'static [(&'static str, FieldType)] = &[
            ("name", FieldType::Text),
            ("state", FieldType::Enum("STATE_", |word| ["STATE_ACTIVE", "STATE_DEGRADED"].contains(&word))),
            ("done", FieldType::Bool),
            ("create_time", FieldType::Time),
            ("end_time", FieldType::Time),
        ];

        fn value(&self, field: &str) -> Value<'_> {
            match field {
                "name" => Value::Text("applications/shop"),
                "state" => Value::Text("STATE_DEGRADED"),
                "done" => Value::Bool(false),
                "create_time" => Value::Time(Some(UNIX_EPOCH + Duration::from_secs(3600))),
                _ => Value::Time(None),
            }
        }

        fn labels(&self) -> &HashMap<String, String> {
            &self.labels
        }
    }

    fn matches(text: &str) -> bool {
        let labels = HashMap::from([("team".to_owned(), "data base".to_owned()), ("tier".to_owned(), "1".to_owned())]);
        Filter::parse::<Thing>(text, &[]).unwrap().matches(&Thing { labels })
    }

    fn position(text: &str) -> usize {
        match Filter::parse::<Thing>(text, &["end_time"]) {
            Err(Problem::InvalidFilter { position, .. }) => position,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn restrictions_hold_or_not() {
        for yes in [
            "",
            "  ",
            "name = shop",
            "name=applications/shop",
            "name = \"shop\"",
            "name = sh*",
            "name = applications/s*",
            "name != other*",
            "state = DEGRADED",
            "state = STATE_DEGRADED AND done = false",
            "state != ACTIVE",
            "done != true",
            "create_time >= 1970-01-01T01:00:00Z",
            "create_time < 1970-01-01T02:00:00Z",
            "end_time != 1970-01-01T02:00:00Z",
            "labels.team = \"data base\" AND labels:tier",
            "labels.tier > 0",
            "labels.other != x",
            "name >= a AND name <= z",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in [
            "name = sho",
            "name != shop",
            "state = ACTIVE",
            "done = true",
            "create_time > 1970-01-01T01:00:00Z",
            "end_time < 2100-01-01T00:00:00Z",
            "labels:other",
            "labels.team = data",
            "labels.other = x",
            "name = shop AND done = true",
        ] {
            assert!(!matches(no), "{no}");
        }
    }

    #[test]
    fn a_bad_filter_says_where() {
        for (text, at) in [
            ("nome = x", 0),
            ("end_time < 2100-01-01T00:00:00Z", 0),
            ("state = DEGRADING", 8),
            ("done = false AND state != STATE_", 26),
            ("name", 4),
            ("name = ", 7),
            ("name = x OR name = y", 9),
            ("name = x name = y", 9),
            ("name = \"x", 7),
            ("done = maybe", 7),
            ("create_time > noon", 14),
            ("name < a*", 5),
            ("(name = x)", 0),
            ("name = x AND", 12),
            ("labels:", 7),
            ("labels:\"\"", 7),
            ("labels:te*", 7),
            ("done = false AND labels. = x", 17),
        ] {
            assert_eq!(position(text), at, "{text}");
        }
    }
}
