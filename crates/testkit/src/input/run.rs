//! The run through a table: every call is made, and every answer judged.

use std::fmt::Write as _;

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, ReflectMessage as _, Value,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::request::{gaps, pool, wild, with};
use super::{Answer, Given, Row, Rpc, Rule, Table, Wrong, answer};

/// Five times the limit of a message.
const HUGE: usize = 5 << 20;
/// A field of no message: what is too large is refused before anybody looks into it.
const NO_FIELD: u32 = 10_000;
/// How much of what has gone wrong is shown; one cause often has many effects.
const PROBLEMS_SHOWN: usize = 60;

/// What the answer to a request was.
type Answered = Result<DynamicMessage, (Code, String)>;

impl Table {
    /// Makes every call of the table at `channel` and fails with everything that is not as it should be.
    ///
    /// `state` tells all that a request could have changed, a fact a line. Nothing may change from the first call to the
    /// last.
    pub async fn run(&self, channel: &Channel, state: impl AsyncFn() -> Vec<String>) {
        let pool = pool();
        let service = pool.get_service_by_name(self.service).expect("a service of the contract");
        let mut run = Run { channel, state, pool: &pool, before: Vec::new(), problems: Vec::new(), calls: 0 };
        run.before = (run.state)().await;
        for method in service.methods() {
            let tables: Vec<_> = self.rpcs.iter().filter(|rpc| rpc.name == method.name()).collect();
            match tables[..] {
                [rpc] => run.rpc(&method, rpc).await,
                [] => run.problems.push(format!("{} has no table: add rpc({:?}, ..)", method.name(), method.name())),
                [..] => run.problems.push(format!("{} has {} tables", method.name(), tables.len())),
            }
        }
        let served = |rpc: &&Rpc| !service.methods().any(|method| method.name() == rpc.name);
        run.problems.extend(self.rpcs.iter().filter(served).map(|rpc| format!("{} is no RPC any more", rpc.name)));
        let Run { problems, calls, .. } = run;
        let mut text = String::new();
        for problem in problems.iter().take(PROBLEMS_SHOWN) {
            writeln!(text, "  {problem}").expect("memory");
        }
        assert!(problems.is_empty(), "{} problems in {calls} calls:\n{text}", problems.len());
    }
}

struct Run<'a, S> {
    channel: &'a Channel,
    state: S,
    pool: &'a DescriptorPool,
    before: Vec<String>,
    problems: Vec<String>,
    calls: usize,
}

/// Where a call belongs, for messages.
struct Place<'a> {
    path: &'a str,
    rpc: &'a str,
    output: MessageDescriptor,
}

impl<S: AsyncFn() -> Vec<String>> Run<'_, S> {
    async fn rpc(&mut self, method: &MethodDescriptor, rpc: &Rpc) {
        let gaps = gaps(&method.input(), &rpc.rows);
        self.problems.extend(gaps.iter().map(|gap| format!("{}: {gap}", rpc.name)));
        if !gaps.is_empty() {
            return;
        }
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let place = Place { path: &path, rpc: rpc.name, output: method.output() };
        let good = DynamicMessage::deserialize(method.input(), &rpc.request).expect("the request of a table is JSON");
        let usual = self.ask(&place, "the request itself", good.encode_to_vec()).await;
        if let Err((Code::InvalidArgument, message)) = &usual {
            self.problems.push(format!("{}: the request itself is not of the right form: {message}", rpc.name));
            return;
        }
        for row in &rpc.rows {
            self.row(&place, &good, &usual, row).await;
        }
        self.everything_at_once(&place, &good, &rpc.rows).await;
        self.unreadable(&place, &good).await;
    }

    async fn row(&mut self, place: &Place<'_>, good: &DynamicMessage, usual: &Answered, row: &Row) {
        match &row.rule {
            Rule::Checked(wrong) => {
                for Wrong { what, given, answer } in wrong {
                    let what = format!("{}: {what}", row.path);
                    let request = with(good, &row.path, given).encode_to_vec();
                    self.expect(place, &what, request, answer).await;
                }
            }
            Rule::Ignored => {
                let what = format!("{}: wild values that are to be ignored", row.path);
                let answered = self.ask(place, &what, wild(good, &row.path).encode_to_vec()).await;
                if answered != *usual {
                    self.problems.push(format!("{}: {what}: {answered:?} instead of {usual:?}", place.rpc));
                }
            }
            Rule::Flag | Rule::Free => {}
        }
    }

    /// A request in which every field is wrong names every field.
    async fn everything_at_once(&mut self, place: &Place<'_>, good: &DynamicMessage, rows: &[Row]) {
        let mut request = good.clone();
        let (mut all, mut reasons) = (Vec::new(), Vec::new());
        for row in rows {
            let Rule::Checked(wrong) = &row.rule else { continue };
            let first = wrong.iter().find_map(|wrong| match (&wrong.given, &wrong.answer) {
                (Given::Missing, _) | (_, Answer::Refused { .. }) => None,
                (given, Answer::Invalid { reason, .. }) => Some((given, *reason)),
            });
            let Some((given, reason)) = first else { continue };
            request = with(&request, &row.path, given);
            all.push(row.path.clone());
            reasons.push(reason);
        }
        let reason = match reasons[..] {
            [] => return,
            [only] => only,
            [..] => "INVALID_FIELD",
        };
        let answer = Answer::Invalid { reason, fields: all };
        self.expect(place, "everything wrong at once", request.encode_to_vec(), &answer).await;
    }

    /// What is refused before it is a request at all.
    async fn unreadable(&mut self, place: &Place<'_>, good: &DynamicMessage) {
        let mut huge = good.encode_to_vec();
        prost::encoding::bytes::encode(NO_FIELD, &vec![0_u8; HUGE], &mut huge);
        let answer = Answer::Refused { code: Code::ResourceExhausted, reason: "MESSAGE_TOO_LARGE" };
        self.expect(place, "five times as large as a message may be", huge, &answer).await;
        let answer = Answer::Invalid { reason: "INVALID_FIELD", fields: vec![String::new()] };
        self.expect(place, "not protobuf", vec![0xff; 20], &answer).await;
        let text = good.descriptor().fields().find(|field| field.kind() == Kind::String && !field.is_map());
        if let Some(field) = text {
            let mut garbled = Vec::new();
            prost::encoding::bytes::encode(field.number(), &vec![0xff_u8; 4], &mut garbled);
            self.expect(place, "a string that is not UTF-8", garbled, &answer).await;
        }
    }

    async fn expect(&mut self, place: &Place<'_>, what: &str, request: Vec<u8>, expected: &Answer) {
        let answered = self.send(place, what, request).await;
        let mut problems = Vec::new();
        match &answered {
            Ok(answer) => problems.push(format!("OK: {answer:?}")),
            Err(status) => {
                let (reason, fields) = answer::read(status, self.pool, &mut problems);
                match expected {
                    Answer::Invalid { reason: wanted, fields: bad } => {
                        let below = |field: &str, path: &str| {
                            field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                        };
                        if (status.code(), reason.as_str()) != (Code::InvalidArgument, wanted) {
                            problems.push(format!("not INVALID_ARGUMENT / {wanted}"));
                        }
                        let unsaid = bad.iter().filter(|path| !fields.iter().any(|field| below(field, path)));
                        problems.extend(unsaid.map(|path| format!("{path} is not said to be wrong")));
                        let more = fields.iter().filter(|field| !bad.iter().any(|path| below(field, path)));
                        problems.extend(more.map(|field| format!("{field} is said to be wrong")));
                    }
                    Answer::Refused { code, reason: wanted } => {
                        if (status.code(), reason.as_str()) != (*code, *wanted) {
                            problems.push(format!("not {code:?} / {wanted}"));
                        }
                    }
                }
                if !problems.is_empty() {
                    problems.push(format!(
                        "it was {:?} / {reason} {fields:?}: {:.200}",
                        status.code(),
                        status.message()
                    ));
                }
            }
        }
        if !problems.is_empty() {
            self.problems.push(format!("{}: {what}: {:.1000}", place.rpc, problems.join("; ")));
        }
    }

    /// Asks and reads the answer, without the times in it, which differ from call to call.
    async fn ask(&mut self, place: &Place<'_>, what: &str, request: Vec<u8>) -> Answered {
        let answered = self.send(place, what, request).await;
        answered
            .map(|bytes| {
                let mut message =
                    DynamicMessage::decode(place.output.clone(), bytes).expect("answers are of the contract");
                forget_times(&mut message);
                message
            })
            .map_err(|status| {
                let mut problems = Vec::new();
                let (reason, _) = answer::read(&status, self.pool, &mut problems);
                self.problems.extend(problems.iter().map(|problem| format!("{}: {what}: {problem}", place.rpc)));
                (status.code(), format!("{reason}: {}", status.message()))
            })
    }

    /// Calls, and looks whether anything has changed.
    async fn send(&mut self, place: &Place<'_>, what: &str, request: Vec<u8>) -> Result<prost::bytes::Bytes, Status> {
        self.calls += 1;
        let answered = answer::call(self.channel, place.path, request).await;
        let after = (self.state)().await;
        if after != self.before {
            let gone = self.before.iter().filter(|line| !after.contains(line)).map(|line| format!("-{line}"));
            let new = after.iter().filter(|line| !self.before.contains(line)).map(|line| format!("+{line}"));
            let changes: Vec<_> = gone.chain(new).collect();
            self.problems.push(format!("{}: {what}: it has changed {:.1000}", place.rpc, changes.join(" ")));
            self.before = after;
        }
        answered
    }
}

fn forget_times(message: &mut DynamicMessage) {
    let times: Vec<_> = message.fields().filter(|(_, value)| is_time(value)).map(|(field, _)| field).collect();
    for field in times {
        message.clear_field(&field);
    }
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => forget_times(inner),
            Value::List(items) => items.iter_mut().filter_map(Value::as_message_mut).for_each(forget_times),
            _ => {}
        }
    }
}

fn is_time(value: &Value) -> bool {
    value.as_message().is_some_and(|message| message.descriptor().full_name() == "google.protobuf.Timestamp")
}
