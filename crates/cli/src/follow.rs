//! Following operations: the watch stream, restored whenever it breaks.
//!
//! Owns resume tokens, the detection of silence, and how long to try again. It prints nothing: news go into a channel.

use std::error::Error as _;
use std::time::{Duration, Instant};

use quiesce_protocol::v1::{
    GetOperationRequest, OperationEvent, WatchOperationRequest, WatchOperationResponse, WatchOperationsRequest,
    WatchOperationsResponse, operation_event,
};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::client::{Api, Client};
use crate::error::Error;
use crate::live::verdict;
use crate::name;

/// How often the scheduler shall say that nothing happened: a person before a live view that has frozen learns it within
/// ten seconds, and a bookmark is a few bytes.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(3);
/// After three intervals without a word the connection is lost (rule W5), whatever TCP thinks.
const SILENT_INTERVALS: u32 = 3;
/// How long opening a stream may take: the initial metadata comes at once (rule W7).
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// A scheduler that restarts is found again within this time after it is back.
const LONGEST_DELAY: Duration = Duration::from_secs(3);
/// A watcher that has heard nothing for this long should be told rather than kept.
const RECONNECT_LIMIT: Duration = Duration::from_secs(5 * 60);
/// News that wait to be printed. When full the stream is not read; the scheduler's buffers decide then (rule W8).
pub(crate) const NEWS_BUFFER: usize = 64;

/// What to follow.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// One operation until it is done or DEGRADED. Full name.
    One(String),
    /// All that match, without end.
    All { filter: String },
}

/// What there is to tell.
#[derive(Debug)]
pub(crate) enum News {
    Event(Box<OperationEvent>),
    /// Something about the watch itself, for people.
    Notice(String),
    /// The stream is there, and how things stand comes next: what is not in it is over.
    Anew,
}

/// A watch of the scheduler.
#[derive(Debug)]
pub(crate) struct Follow {
    client: Client,
    target: Target,
    token: String,
    /// The token is the caller's own: when it is refused, the caller is told instead of beginning anew.
    token_is_given: bool,
    bookmark_interval: Duration,
    /// How long to try to get it back.
    limit: Option<Duration>,
}

/// Why a stream is over.
enum End {
    /// As it should be, or nobody listens any more.
    Complete,
    /// Open it again behind the last event.
    Resume(String),
    /// Open it again from the start: the history is gone.
    Restart(String),
    /// Trying again would not help.
    Refused(Status),
}

impl Follow {
    /// A watch of `target`, behind the event with the token `since` if there is one.
    pub(crate) fn new(client: Client, target: Target, since: Option<String>) -> Self {
        let token_is_given = since.is_some();
        Self {
            client,
            target,
            token: since.unwrap_or_default(),
            token_is_given,
            bookmark_interval: BOOKMARK_INTERVAL,
            limit: Some(RECONNECT_LIMIT),
        }
    }

    /// Tries to get the stream back for as long as somebody listens.
    pub(crate) fn patient(self) -> Self {
        Self { limit: None, ..self }
    }

    /// Sends news until the operation is done or DEGRADED, or the receiver is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Rpc`] when the scheduler refuses, [`Error::WatchLost`] when it stays away.
    pub(crate) async fn run(mut self, news: mpsc::Sender<News>) -> Result<(), Error> {
        let mut delay = FIRST_DELAY;
        let mut lost_since: Option<Instant> = None;
        loop {
            let heard = self.token.clone();
            let end = self.stream(&news, lost_since.is_some()).await;
            if self.token != heard {
                (delay, lost_since) = (FIRST_DELAY, None);
            }
            let why = match end {
                End::Complete => return Ok(()),
                End::Refused(status) => return Err(Error::rpc(format!("watch {}", self.subject()), status)),
                End::Restart(why) => {
                    self.token.clear();
                    why
                }
                End::Resume(why) => why,
            };
            let since = *lost_since.get_or_insert_with(Instant::now);
            if self.limit.is_some_and(|limit| since.elapsed() > limit) {
                return Err(Error::WatchLost { what: self.subject(), why, resume: self.resume_command() });
            }
            if delay == FIRST_DELAY {
                // The receiver being gone shows in the next round as well.
                drop(news.send(News::Notice(format!("watch interrupted ({why}); reconnecting"))).await);
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    /// One stream from opening to its end.
    async fn stream(&mut self, news: &mpsc::Sender<News>, reconnecting: bool) -> End {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.open()).await;
        let mut events = match opened {
            Ok(Ok(events)) => events,
            Ok(Err(status)) => return self.classify(status),
            Err(_) => return End::Resume("no answer".to_owned()),
        };
        if self.token.is_empty() && news.send(News::Anew).await.is_err() {
            return End::Complete;
        }
        if reconnecting && news.send(News::Notice("watching again".to_owned())).await.is_err() {
            return End::Complete;
        }
        let mut settled = false;
        loop {
            let event = match tokio::time::timeout(self.bookmark_interval * SILENT_INTERVALS, events.next()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) if settled => return End::Complete,
                Ok(Ok(None)) if self.is_over().await => return End::Complete,
                Ok(Ok(None)) => return End::Resume("the stream ended early".to_owned()),
                // The last event has been read; how the connection went down after it does not matter.
                Ok(Err(_)) if settled => return End::Complete,
                Ok(Err(status)) => return self.classify(status),
                Err(_) => return End::Resume("no sign of life from the scheduler".to_owned()),
            };
            if !event.resume_token.is_empty() {
                self.token.clone_from(&event.resume_token);
                self.token_is_given = false;
            }
            if event.r#type() != operation_event::Type::Bookmark {
                settled = self.is_last(&event);
            }
            if news.send(News::Event(Box::new(event))).await.is_err() {
                return End::Complete;
            }
        }
    }

    async fn open(&self) -> Result<Events, Status> {
        let mut api: Api = self.client.api();
        let bookmark_interval = prost_types::Duration::try_from(self.bookmark_interval).ok();
        match &self.target {
            Target::One(name) => {
                let request = WatchOperationRequest {
                    name: name.clone(),
                    resume_token: self.token.clone(),
                    end_on_degraded: true,
                    bookmark_interval,
                };
                api.watch_operation(request).await.map(|response| Events::One(response.into_inner()))
            }
            Target::All { filter } => {
                let request = WatchOperationsRequest {
                    filter: filter.clone(),
                    resume_token: self.token.clone(),
                    skip_snapshot: false,
                    include_done: false,
                    bookmark_interval,
                };
                api.watch_operations(request).await.map(|response| Events::All(response.into_inner()))
            }
        }
    }

    fn is_last(&self, event: &OperationEvent) -> bool {
        let Target::One(_) = self.target else { return false };
        event.operation.as_ref().is_some_and(verdict::is_settled)
    }

    /// Whether a stream may end without having told the end: it was resumed behind it.
    async fn is_over(&self) -> bool {
        let Target::One(name) = &self.target else { return false };
        let answer = self.client.api().get_operation(GetOperationRequest { name: name.clone() }).await;
        // A failure here only means that the stream is opened once more.
        answer.is_ok_and(|response| response.into_inner().operation.is_some_and(|it| verdict::is_settled(&it)))
    }

    fn classify(&self, status: Status) -> End {
        let why = crate::output::text::clean(status.message());
        // A status with a source was made on this side, from a broken connection.
        let broken = status.source().is_some();
        match status.code() {
            Code::OutOfRange | Code::InvalidArgument if !self.token.is_empty() && !self.token_is_given => {
                End::Restart(format!("{why}; events may be missing"))
            }
            _ if broken => End::Resume("the connection was lost".to_owned()),
            Code::Unavailable | Code::ResourceExhausted => End::Resume(why),
            _ => End::Refused(status),
        }
    }

    fn subject(&self) -> String {
        match &self.target {
            Target::One(name) => name::short(name),
            Target::All { .. } => "operations".to_owned(),
        }
    }

    fn resume_command(&self) -> String {
        match &self.target {
            Target::One(name) => format!("quiesce watch {}", name::short(name)),
            Target::All { .. } if self.token.is_empty() => "quiesce watch".to_owned(),
            Target::All { .. } => format!("quiesce watch --since {}", self.token),
        }
    }
}

/// The two streams of the contract, which differ in their wrapping only.
enum Events {
    One(Streaming<WatchOperationResponse>),
    All(Streaming<WatchOperationsResponse>),
}

impl Events {
    async fn next(&mut self) -> Result<Option<OperationEvent>, Status> {
        let event = match self {
            Self::One(stream) => stream.message().await?.map(|response| response.event),
            Self::All(stream) => stream.message().await?.map(|response| response.event),
        };
        // An empty response is an event this build knows nothing of.
        Ok(event.map(Option::unwrap_or_default))
    }
}
