//! What a service does with requests that are wrong: a table with a row for every field of every request, and the run
//! through it.
//!
//! A table is made of [`rpc`]s, each a request with nothing wrong with it and one [`Row`] per field: what values are
//! wrong ([`required`], [`optional`], with the forms of [`form`]), or why none is ([`flag`], [`ignored`], [`free`]).
//! [`Table::run`] walks the descriptors of the contract first, so that an RPC or a field without a row fails, today's and
//! tomorrow's; then it makes every call over a real connection and checks code, reason, domain, named fields, the size of
//! the error, that everything wrong is said at once, and that nothing has changed.
//!
//! To add a field: add its row to the table of its service. A message that stands in several requests has a function
//! that returns its rows under a path.

mod answer;
pub mod form;
mod request;
mod run;

use serde_json::Value as Json;
use tonic::Code;

pub use form::Given;

/// What is known of one field of a request.
#[derive(Debug, Clone)]
pub struct Row {
    path: String,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    /// Some values are wrong.
    Checked(Vec<Wrong>),
    /// A bool has no wrong value.
    Flag,
    /// Whatever it holds, it and everything below is answered as if it were not there.
    Ignored,
    /// Every value means something else, none is wrong; not tried.
    Free,
}

/// A wrong value, and what is to be said to it.
#[derive(Debug, Clone)]
struct Wrong {
    what: String,
    given: Given,
    answer: Answer,
}

#[derive(Debug, Clone)]
enum Answer {
    /// INVALID_ARGUMENT with this reason, and a violation of each of these fields (or of something below it).
    Invalid { reason: &'static str, fields: Vec<String> },
    /// The form is right, what it says is not.
    Refused { code: Code, reason: &'static str },
}

/// A field that has to be set, in the given form.
pub fn required(path: impl Into<String>, form: Vec<(String, Given)>) -> Row {
    optional(path, std::iter::once(("missing".to_owned(), Given::Missing)).chain(form).collect())
}

/// A field that may be left out, else has the given form.
pub fn optional(path: impl Into<String>, form: Vec<(String, Given)>) -> Row {
    let path = path.into();
    let wrong = form.into_iter().map(|(what, given)| Wrong {
        what,
        given,
        answer: Answer::Invalid { reason: "INVALID_FIELD", fields: vec![path.clone()] },
    });
    Row { rule: Rule::Checked(wrong.collect()), path }
}

/// A message that has to be there: without it these fields below it are said to be missing.
pub fn present(path: impl Into<String>, fields: &[&str]) -> Row {
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    let answer = Answer::Invalid { reason: "INVALID_FIELD", fields };
    let wrong = Wrong { what: "missing".to_owned(), given: Given::Missing, answer };
    Row { path: path.into(), rule: Rule::Checked(vec![wrong]) }
}

/// A bool: both values are fine.
pub fn flag(path: impl Into<String>) -> Row {
    Row { path: path.into(), rule: Rule::Flag }
}

/// A field, with everything below it, that has no say: whatever it holds, the answer is the same. `_why` says so to the
/// reader of the table.
pub fn ignored(path: impl Into<String>, _why: &str) -> Row {
    Row { path: path.into(), rule: Rule::Ignored }
}

/// A field of which every value is fine and means something else. `_why` says so to the reader of the table.
pub fn free(path: impl Into<String>, _why: &str) -> Row {
    Row { path: path.into(), rule: Rule::Free }
}

impl Row {
    /// The reason of ErrorInfo for the wrong values so far, when it is not INVALID_FIELD.
    #[must_use]
    pub fn reason(mut self, name: &'static str) -> Self {
        if let Rule::Checked(wrong) = &mut self.rule {
            for one in wrong {
                if let Answer::Invalid { reason, .. } = &mut one.answer {
                    *reason = name;
                }
            }
        }
        self
    }

    /// A value of the right form that is refused for what it says: a foreign name, an old etag.
    #[must_use]
    pub fn but(mut self, given: impl Into<Given>, code: Code, reason: &'static str) -> Self {
        let given = given.into();
        let wrong = Wrong { what: format!("{given:?}"), given, answer: Answer::Refused { code, reason } };
        match &mut self.rule {
            Rule::Checked(all) => all.push(wrong),
            Rule::Flag | Rule::Ignored | Rule::Free => self.rule = Rule::Checked(vec![wrong]),
        }
        self
    }
}

/// One RPC: a request with nothing wrong with it, and the rows of its fields.
#[derive(Debug)]
pub struct Rpc {
    name: &'static str,
    request: Json,
    rows: Vec<Row>,
}

/// The table of the RPC `name`. `request`, in the JSON mapping, is what the rows change one field of; it has the right
/// form, and answering it changes nothing.
pub fn rpc(name: &'static str, request: Json) -> Rpc {
    Rpc { name, request, rows: Vec::new() }
}

impl Rpc {
    /// Adds rows.
    #[must_use]
    pub fn rows(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.rows.extend(rows);
        self
    }
}

/// The tables of all RPCs of one service.
#[derive(Debug)]
pub struct Table {
    service: &'static str,
    rpcs: Vec<Rpc>,
}

impl Table {
    /// The table of `service`, a full name such as `quiesce.v1.Scheduler`.
    pub fn of(service: &'static str, rpcs: impl IntoIterator<Item = Rpc>) -> Self {
        Self { service, rpcs: rpcs.into_iter().collect() }
    }
}
