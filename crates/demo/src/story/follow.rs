//! Following one operation of the scheduler as anybody can: `WatchOperation`, resumed whenever the stream breaks.
//!
//! Owns how events read as lines. What happens is printed as it happens; between the events a living line counts down.

use std::collections::BTreeMap;
use std::time::Duration;

use prost_types::Timestamp;
use quiesce_protocol::v1::{
    GetOperationRequest, InstanceShutdown, InstanceStart, Operation, OperationEvent, OperationKind, StartPhase,
    WatchOperationRequest, WatchOperationResponse, operation, operation_event, stop_result,
};
use quiesce_runtime::clock::wall_now;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

use super::StoryError;
use super::show::{Show, Style, wrap};
use super::stage::{Stage, within};

/// The application reports four times a second; a line for each would drown the rest.
const REPORT_LINES_EVERY: Duration = Duration::from_millis(900);

/// Width of the column that says who speaks or what happened; `DEADLINE_EXTENDED` is the longest.
const WHO_COLUMNS: usize = 18;

/// How often the living line is drawn anew.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// Pause before a broken stream is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(100);

/// How long opening may take; a scheduler that is away refuses at once.
const OPEN_TIME_MAX: Duration = Duration::from_secs(2);

/// One operation, followed.
#[derive(Debug)]
pub(super) struct Follower {
    name: String,
    token: String,
    stream: Option<Streaming<WatchOperationResponse>>,
    /// When the following began.
    begin: Instant,
    state: operation::State,
    stopping: Option<InstanceShutdown>,
    starting: Option<InstanceStart>,
    /// What each instance had last said before it was told to stop: no news of the stop.
    before: BTreeMap<String, String>,
    /// What the last line of a report said, and when it was printed.
    reported: Option<(String, Instant)>,
    /// Events that moved a deadline.
    extended: usize,
    /// Whether its end was heard.
    over: bool,
    lost: bool,
    /// Both agents have to live as long as the operation runs; a deletion lets them go.
    agents_stay: bool,
}

impl Follower {
    pub(super) fn new(operation: &Operation) -> Self {
        Self {
            name: operation.name.clone(),
            token: String::new(),
            stream: None,
            begin: Instant::now(),
            state: operation::State::Unspecified,
            stopping: None,
            starting: None,
            before: BTreeMap::new(),
            reported: None,
            extended: 0,
            over: false,
            lost: false,
            agents_stay: operation.kind() == OperationKind::Migrate,
        }
    }

    /// How often a deadline was moved so far.
    pub(super) fn extended(&self) -> usize {
        self.extended
    }

    /// Follows until `enough` says so of an event, or to the end of the operation. Cut off by the limit of the scene.
    pub(super) async fn until(
        &mut self,
        stage: &Stage,
        show: &mut Show,
        enough: impl Fn(&OperationEvent) -> bool,
    ) -> Result<(), StoryError> {
        while !self.over {
            let event = self.next(stage, show).await?;
            self.take(show, &event);
            if enough(&event) {
                break;
            }
        }
        show.clear();
        Ok(())
    }

    /// Follows to the end, and returns the operation as it stands then.
    pub(super) async fn follow_out(mut self, stage: &Stage, show: &mut Show) -> Result<Operation, StoryError> {
        self.until(stage, show, |_| false).await?;
        let answer = within(stage.api().get_operation(GetOperationRequest { name: self.name })).await?;
        answer.operation.ok_or(StoryError::Empty)
    }

    /// Prints something that happens beside the operation, among its events.
    pub(super) fn aside(&self, show: &mut Show, who: &str, text: &str) {
        self.print(show, who, Style::Warning, text, "");
    }

    async fn next(&mut self, stage: &Stage, show: &mut Show) -> Result<OperationEvent, StoryError> {
        loop {
            if self.agents_stay {
                stage.expect_agents()?;
            }
            let Some(stream) = &mut self.stream else {
                self.open(stage, show).await?;
                continue;
            };
            match timeout(REDRAW_EVERY, stream.message()).await {
                Err(_) => self.draw(show),
                Ok(Ok(Some(WatchOperationResponse { event: Some(event) }))) => return Ok(event),
                // An empty response is an event this build knows nothing of.
                Ok(Ok(Some(WatchOperationResponse { event: None }))) => {}
                // Whether it ended well or badly: the end of the operation was not heard yet.
                Ok(Ok(None) | Err(_)) => {
                    self.stream = None;
                    self.lost = true;
                }
            }
        }
    }

    async fn open(&mut self, stage: &Stage, show: &mut Show) -> Result<(), StoryError> {
        let request = WatchOperationRequest {
            name: self.name.clone(),
            resume_token: self.token.clone(),
            end_on_degraded: true,
            bookmark_interval: None,
        };
        let mut api = stage.api();
        match timeout(OPEN_TIME_MAX, api.watch_operation(request)).await {
            Ok(Ok(answer)) => {
                if std::mem::take(&mut self.lost) {
                    self.print(show, "watch", Style::Dim, "resumed behind the last event that was seen", "");
                }
                self.stream = Some(answer.into_inner());
            }
            Ok(Err(status)) if status.code() != tonic::Code::Unavailable => return Err(status.into()),
            Ok(Err(_)) | Err(_) => {
                self.lost = true;
                self.draw(show);
                sleep(REOPEN_AFTER).await;
            }
        }
        Ok(())
    }

    /// Learns from an event, and prints what is new in it.
    fn take(&mut self, show: &mut Show, event: &OperationEvent) {
        use operation_event::Type;
        if !event.resume_token.is_empty() {
            self.token.clone_from(&event.resume_token);
        }
        let Some(operation) = &event.operation else { return };
        self.over = operation.done || operation.state() == operation::State::Degraded;
        if operation.state() != self.state {
            self.state = operation.state();
            self.print(show, state_word(self.state), Style::Bold, meaning(operation), "");
        }
        if let Some(instance) = event.instance.as_ref().or(operation.instances.first()) {
            self.stopping = Some(instance.clone());
            if let Some(status) = &instance.status {
                self.before.entry(instance.instance.clone()).or_insert_with(|| status.message.clone());
            }
        }
        // A snapshot has the starts that are planned as well; only one that was ordered is news.
        let planned = operation.starts.iter().rfind(|start| start.order_time.is_some());
        if let Some(start) = event.start.as_ref().or(planned) {
            self.starting = Some(start.clone());
        }
        match event.r#type() {
            Type::Snapshot | Type::Progress | Type::InstanceStarting | Type::InstanceReady => self.report(show),
            Type::InstanceStopped => self.report_end(show),
            Type::DeadlineExtended => {
                self.extended += 1;
                let extension = self.stopping.as_ref().and_then(|instance| instance.extension);
                let extension = extension.and_then(|it| Duration::try_from(it).ok()).unwrap_or_default();
                let text = format!("by {:.0} s in all, as the ledger asked", extension.as_secs_f64());
                self.print(show, "DEADLINE_EXTENDED", Style::Good, &text, &self.left_text());
            }
            Type::ExtensionDenied | Type::Timeout | Type::AttemptFailed | Type::Override => {
                let failure = event.failure.as_ref().map_or(&event.message, |failure| &failure.message);
                let word = event.r#type().as_str_name().trim_start_matches("TYPE_");
                self.print(show, word, Style::Warning, failure, "");
            }
            Type::Unspecified | Type::Created | Type::StateChanged | Type::Bookmark => {}
        }
    }

    /// What the application says of itself, unless that was printed a moment ago.
    fn report(&mut self, show: &mut Show) {
        let Some((who, text)) = self.says() else { return };
        // Only the numbers differ from the last one: the same report, further on.
        let kind: String = format!("{who} {text}").chars().filter(|c| !c.is_ascii_digit()).collect();
        let now = Instant::now();
        let is_news = |(said, at): &(String, Instant)| *said != kind || now - *at >= REPORT_LINES_EVERY;
        if self.reported.as_ref().is_none_or(is_news) {
            self.print(show, &who, Style::Dim, &text, &self.left_text());
            self.reported = Some((kind, now));
        }
    }

    fn report_end(&mut self, show: &mut Show) {
        let Some(instance) = &self.stopping else { return };
        let Some(result) = instance.status.as_ref().and_then(|status| status.result.as_ref()) else { return };
        let evidence = result.evidence().as_str_name().trim_start_matches("EVIDENCE_");
        let exit = result.exit_code.map_or_else(String::new, |code| format!(", exit {code}"));
        let what = if result.outcome() == stop_result::Outcome::NotRunning { "did not run" } else { "has ended" };
        let text = format!("{what}{exit}; evidence {evidence}");
        self.print(show, leaf(&instance.instance), Style::Good, &text, "");
    }

    /// Who speaks, and what.
    fn says(&self) -> Option<(String, String)> {
        if let Some(start) = &self.starting {
            let epoch = start.epoch;
            let status = start.status.as_ref();
            let said = status.map(|status| status.message.as_str()).filter(|said| !said.is_empty());
            let text = match (status.map(|status| status.phase()), said) {
                (Some(StartPhase::Ready), said) => said.unwrap_or("ready").to_owned(),
                (Some(_), Some(said)) if said != "starting" => said.to_owned(),
                (_, _) => format!("is started with epoch {epoch}"),
            };
            return Some((leaf(&start.instance).to_owned(), text));
        }
        let instance = self.stopping.as_ref()?;
        let status = instance.status.as_ref()?;
        let news = self.before.get(&instance.instance) != Some(&status.message);
        let speaks = news && status.result.is_none() && !status.message.is_empty();
        speaks.then(|| (leaf(&instance.instance).to_owned(), status.message.clone()))
    }

    /// "  1.4 s left", or nothing.
    fn left_text(&self) -> String {
        self.left().map(|left| format!("  {:.1} s left", left.as_secs_f64())).unwrap_or_default()
    }

    fn left(&self) -> Option<Duration> {
        let deadline = match (&self.starting, &self.stopping) {
            (Some(start), _) if !start.ready && start.failure.is_none() => start.deadline_time.as_ref(),
            (None, Some(stop)) if !stop.verified => stop.deadline_time.as_ref(),
            _ => None,
        }?;
        until(deadline)
    }

    fn draw(&self, show: &mut Show) {
        let at = self.stamp();
        let (who, text) = match (self.lost, self.says()) {
            (true, _) => ("scheduler".to_owned(), "is away".to_owned()),
            (false, says) => says.unwrap_or_default(),
        };
        show.live(&[
            (&at, Style::Dim),
            (&format!("{:<WHO_COLUMNS$}", if who.is_empty() { state_word(self.state) } else { &who }), Style::Plain),
            (&text, Style::Plain),
            (&self.left_text(), Style::Warning),
        ]);
    }

    fn print(&self, show: &mut Show, who: &str, style: Style, text: &str, left: &str) {
        let stamp = self.stamp();
        let who = format!("{who:<WHO_COLUMNS$}");
        let indent = stamp.chars().count() + WHO_COLUMNS;
        for (number, line) in wrap(text, indent + left.len()).iter().enumerate() {
            match number {
                0 => show.line(&[(&stamp, Style::Dim), (&who, style), (line, Style::Plain), (left, Style::Warning)]),
                _ => show.line(&[(&" ".repeat(indent), Style::Plain), (line, Style::Plain)]),
            }
        }
    }

    fn stamp(&self) -> String {
        format!("  {:>5.2}s ", self.begin.elapsed().as_secs_f64())
    }
}

/// What a state means, for somebody who sees it for the first time.
fn meaning(operation: &Operation) -> &str {
    use operation::State;
    match operation.state() {
        State::Pending => "accepted and stored: no crash can lose it now",
        State::Preparing => "the agents are asked, nothing is told to stop yet",
        State::Stopping => "the ledger is told to stop",
        State::Stopped => "its end is verified; held: nothing can start it",
        State::Starting => "the other copy is started, with a higher epoch",
        State::Finalizing => "the registry is brought up to date",
        State::RollingBack => "the target is stopped, the source starts again",
        State::RolledBack => "the source runs again, under a higher epoch",
        State::Succeeded => "done",
        State::BackingOff
        | State::Forcing
        | State::Cancelling
        | State::Degraded
        | State::Cancelled
        | State::Abandoned
        | State::Unspecified => &operation.message,
    }
}

fn state_word(state: operation::State) -> &'static str {
    state.as_str_name().trim_start_matches("STATE_")
}

fn leaf(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, leaf)| leaf)
}

/// From now to a time of the scheduler's clock, which is this machine's.
fn until(time: &Timestamp) -> Option<Duration> {
    let time = std::time::SystemTime::try_from(*time).ok()?;
    time.duration_since(wall_now()).ok()
}
