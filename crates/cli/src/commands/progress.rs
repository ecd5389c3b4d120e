//! Following with something to see: a live view, lines, or JSON; until the end, the timeout, or Ctrl-C.
//!
//! Owns what a follower prints and how following ends. That the operation goes on without us is said every time.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use quiesce_protocol::v1::{Operation, OperationEvent};
use quiesce_runtime::duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Ending, Session, get, note};
use crate::args::Format;
use crate::client::Client;
use crate::error::Error;
use crate::follow::{Follow, NEWS_BUFFER, News, Target};
use crate::live::{Model, log, verdict, view};
use crate::name;
use crate::output::json::{self, Document};
use crate::output::words;
use crate::terminal::{self, Screen};

/// Countdowns show whole seconds; twice as often keeps them from skipping one.
const REDRAW_INTERVAL: Duration = Duration::from_millis(500);

/// What is followed, and on whose behalf.
#[derive(Debug)]
pub(super) enum Watched {
    /// The operation a request of ours has led to: with json, its end is the result.
    Request(Box<Operation>),
    /// An operation by its full name: with json, its events are the result.
    One(String),
    /// All that match.
    All { filter: String },
}

/// Why following stopped.
enum Stop {
    Ended,
    TimedOut,
    Interrupted,
}

/// Follows, prints, and says how it ended.
pub(super) async fn follow(
    session: &Session,
    client: Client,
    watched: Watched,
    since: Option<String>,
    timeout: Option<Duration>,
) -> Result<Ending, Error> {
    let mut presenter = Presenter::new(session, &watched);
    let target = match &watched {
        Watched::Request(operation) => Target::One(operation.name.clone()),
        Watched::One(name) => Target::One(name.clone()),
        Watched::All { filter } => Target::All { filter: filter.clone() },
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, mut news) = mpsc::channel(NEWS_BUFFER);
    let mut following = pin!(Follow::new(client.clone(), target.clone(), since).run(sender));
    let mut outcome = None;
    let mut redraw = tokio::time::interval(REDRAW_INTERVAL);
    let mut limit = pin!(async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    });
    let stop = loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => break Stop::Interrupted,
            () = &mut limit => break Stop::TimedOut,
            item = news.recv() => match item {
                Some(News::Event(event)) => presenter.event(&event)?,
                Some(News::Notice(text)) => presenter.notice(&text)?,
                // What is shown is the operation of each event.
                Some(News::Anew) => {}
                // The follower has ended and everything it said has been printed.
                None => break Stop::Ended,
            },
            result = &mut following, if outcome.is_none() => outcome = Some(result),
            _ = redraw.tick() => presenter.redraw()?,
        }
    };
    if let Some(Err(error)) = outcome {
        return Err(error);
    }
    match (&target, stop) {
        (Target::One(name), Stop::Ended) => {
            let operation = final_state(&client, name, &presenter).await;
            presenter.finish(&operation)?;
            Ok(if verdict::is_success(&operation) { Ending::Done } else { Ending::AnotherWay })
        }
        (Target::One(name), stop) => {
            if let (Watched::Request(_), Format::Json | Format::Yaml) = (&watched, session.format) {
                // The caller asked for one document, and learns from it that the end has not come.
                let operation = get::operation(&client, name).await?;
                json::write(&mut io::stdout().lock(), session.format, &Document::of(&operation))?;
            }
            leave(name, &stop, timeout, presenter.model.as_ref());
            Ok(Ending::WaitedTooLong)
        }
        (Target::All { .. }, stop) => {
            if !presenter.token.is_empty() {
                note(format!("to go on from here: quiesce watch --since {}", presenter.token));
            }
            Ok(if matches!(stop, Stop::TimedOut) { Ending::WaitedTooLong } else { Ending::Done })
        }
    }
}

/// The operation as it ended, with its instances. What the events said stands if it cannot be read once more, or if
/// somebody has set a degraded one going again in the meantime.
async fn final_state(client: &Client, name: &str, presenter: &Presenter<'_>) -> Operation {
    let seen = presenter.model.as_ref().map(|model| &model.operation).filter(|seen| verdict::is_settled(seen));
    match (get::operation(client, name).await, seen) {
        (Ok(read), _) if verdict::is_settled(&read) => read,
        (_, Some(seen)) => seen.clone(),
        (Ok(read), None) => read,
        (Err(_), None) => presenter.model.as_ref().map(|model| model.operation.clone()).unwrap_or_default(),
    }
}

fn leave(name: &str, stop: &Stop, timeout: Option<Duration>, model: Option<&Model>) {
    let id = name::short(name);
    let state = model
        .map(|model| words::operation_state(model.operation.state))
        .map(|state| format!(", now {state},"))
        .unwrap_or_default();
    match (stop, timeout) {
        (Stop::TimedOut, Some(timeout)) => {
            note(format!("waited {}; {id}{state} goes on", duration::format(timeout)));
        }
        (Stop::TimedOut | Stop::Interrupted | Stop::Ended, _) => note(format!("detached; {id}{state} goes on")),
    }
    note(format!("  watch it:     quiesce watch {id}"));
    note(format!("  take it back: quiesce cancel {id}"));
}

/// How news are shown.
#[derive(Debug)]
enum Manner {
    Live(Screen),
    Lines,
    Events,
    Silent,
}

#[derive(Debug)]
struct Presenter<'a> {
    session: &'a Session,
    manner: Manner,
    model: Option<Model>,
    /// The last resume token, to go on from here another time.
    token: String,
    asked_to_confirm: bool,
}

impl<'a> Presenter<'a> {
    fn new(session: &'a Session, watched: &Watched) -> Self {
        let manner = match (session.format, watched) {
            (Format::Table, Watched::Request(_) | Watched::One(_)) if session.live => {
                Manner::Live(Screen::new(session.color))
            }
            (Format::Table, _) => Manner::Lines,
            (Format::Json | Format::Yaml, Watched::Request(_)) => Manner::Silent,
            (Format::Json | Format::Yaml, Watched::One(_) | Watched::All { .. }) => Manner::Events,
        };
        let model = match watched {
            Watched::Request(operation) => Some(Model::new((**operation).clone())),
            Watched::One(_) => Some(Model::default()),
            Watched::All { .. } => None,
        };
        Self { session, manner, model, token: String::new(), asked_to_confirm: false }
    }

    fn event(&mut self, event: &OperationEvent) -> Result<(), Error> {
        if !event.resume_token.is_empty() {
            self.token.clone_from(&event.resume_token);
        }
        if let Some(model) = &mut self.model {
            model.apply(event, Instant::now());
        }
        match &mut self.manner {
            Manner::Live(_) => self.redraw()?,
            Manner::Lines => {
                let width = self.session.width().unwrap_or(usize::MAX);
                let line = log::line(event).map(|line| line.fit(width));
                self.session.print(line.as_slice())?;
            }
            Manner::Events => {
                json::write_next(&mut io::stdout().lock(), self.session.format, &Document::of(event))?;
            }
            Manner::Silent => {}
        }
        self.ask_to_confirm(event);
        Ok(())
    }

    /// Waiting for a person must not look like a hang. The live view says it by itself.
    fn ask_to_confirm(&mut self, event: &OperationEvent) {
        let waits = event.operation.as_ref().filter(|operation| operation.awaiting_confirmation);
        if let (Some(operation), Manner::Lines | Manner::Silent, false) = (waits, &self.manner, self.asked_to_confirm) {
            self.asked_to_confirm = true;
            let id = name::short(&operation.name);
            note(format!("{id} waits: every instance has ended; do your part, then: quiesce confirm {id}"));
        }
    }

    fn notice(&mut self, text: &str) -> Result<(), Error> {
        if let Manner::Live(screen) = &mut self.manner {
            screen.clear()?;
        }
        note(text);
        self.redraw()
    }

    fn redraw(&mut self) -> Result<(), Error> {
        if let (Manner::Live(screen), Some(model)) = (&mut self.manner, &self.model) {
            // Before the first event there is nothing worth a frame.
            if !model.operation.name.is_empty() {
                let size = terminal::size().or(self.session.terminal).unwrap_or((80, 24));
                screen.draw(&view::render(model, Instant::now(), size))?;
            }
        }
        Ok(())
    }

    /// The last words.
    fn finish(&mut self, operation: &Operation) -> Result<(), Error> {
        if let Some(model) = &mut self.model {
            model.operation = operation.clone();
        }
        self.redraw()?;
        let lines = verdict::verdict(operation);
        match &self.manner {
            Manner::Live(_) | Manner::Lines => self.session.print(&lines)?,
            Manner::Silent => {
                json::write(&mut io::stdout().lock(), self.session.format, &Document::of(operation))?;
                if !verdict::is_success(operation) {
                    lines.iter().for_each(|line| note(line.plain()));
                }
            }
            Manner::Events => {
                if !verdict::is_success(operation) {
                    lines.iter().for_each(|line| note(line.plain()));
                }
            }
        }
        Ok(())
    }
}
