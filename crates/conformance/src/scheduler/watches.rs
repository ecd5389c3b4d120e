//! W: watching and resuming.

use std::time::Duration;

use futures::StreamExt as _;
use quiesce_protocol::v1;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::operation_event::Type;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use super::fake::{Act, Script, deaf, stopped, stopping, stops, thought, waits};
use super::stage::{PLENTY, Stage, count, labels, millis, ok, once, patient, quick};
use super::{Check, Need, rules};
use crate::check::{Stop, Verdict, expect, refused, tell};

pub(super) const CHECKS: &[Check] = checks! {
    W01 Must "first snapshots, then a bookmark, then what happens",
        rules::W1, "Take the snapshot and the place in the history in one step.", [], in_order;
    W02 Must "skip_snapshot: first the bookmark",
        rules::W1, "Send the bookmark at once.", [], skips;
    W03 Must "WatchOperation: ends with OK at the end, at once when done; with end_on_degraded when DEGRADED",
        rules::WATCH, "End the stream behind the event that makes it done.", [], one;
    W04 Must "resumed from every token of a run: exactly the rest",
        rules::W2, "A token names the event it came with; go on behind it.", [], resumes;
    W06 Must "revisions rise strictly",
        rules::W3, "Number events where they are stored.", [], revisions;
    W07 Must "no state change is missing: 40 operations, 5 watchers",
        rules::W4, "Deliver from the history, not from memory.", [], complete;
    W08 Must "a reader that does not read: WATCH_TOO_SLOW or back-pressure; resumed, nothing is missing",
        rules::W8, "Bound what waits for a reader; let it come again with its token.", [], slow;
    W09 Must "garbage, and a token of another watch: INVALID_RESUME_TOKEN",
        rules::WATCH_FILTER, "Put a digest of the filter into the token.", [], garbage;
    W10 Must "bookmarks after bookmark_interval without an event, each with a token",
        rules::W5, "Run a timer from event to event.", [], bookmarks;
    W11 Must "initial metadata comes before the first event",
        rules::W7, "Answer the call at once; events come later.", [], metadata;
    W12 Must "a filter: what matches, and nothing else; a token goes with its filter",
        rules::WATCH_FILTER, "Filter what is sent, not what is stored.", [], filtered;
    W13 Must "merged progress keeps the last report",
        rules::W4, "Replace what waits by what is newer, not the other way round.", [], merged;
    W05 Must "resumed over another connection, and after a restart",
        rules::W8, "Make tokens good for every connection, and for the next life.", [Need::Restart], elsewhere;
};

type Events = Streaming<v1::WatchOperationsResponse>;

async fn watch(stage: &Stage, request: v1::WatchOperationsRequest) -> Result<Events, Status> {
    Ok(stage.calls().scheduler.watch_operations(request).await?.into_inner())
}

fn of_label(label: &str) -> v1::WatchOperationsRequest {
    v1::WatchOperationsRequest { filter: format!("labels.run = \"{label}\""), ..Default::default() }
}

fn fine<T>(what: &str, answer: Result<T, Status>) -> Result<T, Stop> {
    answer.map_err(|status| Stop::failed(format!("{what}: OK"), tell(&status)))
}

async fn next(events: &mut Events) -> Result<v1::OperationEvent, Stop> {
    match timeout(PLENTY, events.next()).await {
        Ok(Some(Ok(answer))) => Ok(answer.event.unwrap_or_default()),
        Ok(Some(Err(status))) => Err(Stop::failed("another event", tell(&status))),
        Ok(None) => Err(Stop::failed("another event", "the end of the stream")),
        Err(_elapsed) => Err(Stop::failed(format!("another event within {PLENTY:?}"), "nothing")),
    }
}

/// Events up to the one that makes the operation done.
async fn to_the_end(events: &mut Events, operation: &str) -> Result<Vec<v1::OperationEvent>, Stop> {
    let mut seen = Vec::new();
    loop {
        let event = next(events).await?;
        let over = event.operation.as_ref().is_some_and(|found| found.name == operation && found.done);
        let snapshot = event.r#type() == Type::Snapshot;
        seen.push(event);
        if over && !snapshot {
            return Ok(seen);
        }
    }
}

async fn labelled(stage: &Stage, application: &str, label: &str) -> Result<String, Stop> {
    let request = v1::MigrateApplicationRequest { labels: labels([("run", label)]), ..stage.migration(application) };
    Ok(fine("MigrateApplication", stage.try_migrate(request).await)?.name)
}

/// What is told of an operation that is done.
async fn told_afterwards(stage: &Stage, operation: &str) -> Result<Vec<v1::OperationEvent>, Stop> {
    let request = v1::WatchOperationRequest { name: operation.to_owned(), ..Default::default() };
    let stream = ok("WatchOperation", stage.calls().scheduler.watch_operation(request).await)?;
    super::stage::rest(stream).await
}

/// A run of one operation under a watch: the label, the bookmark it began with, its events.
async fn recorded(stage: &Stage) -> Result<(String, Vec<v1::OperationEvent>), Stop> {
    let label = stage.word();
    let still = Act::Result(v1::stop_result::Outcome::StillRunning, v1::Evidence::Unspecified);
    let acts = [[stopping(), vec![still]].concat(), stops()];
    let staged = stage.staged(quick(), Script::of(acts)).await?;
    let mut events = fine("WatchOperations", watch(stage, of_label(&label)).await)?;
    let mut seen = vec![next(&mut events).await?];
    let operation = labelled(stage, &staged.name, &label).await?;
    seen.extend(to_the_end(&mut events, &operation).await?);
    Ok((label, seen))
}

async fn in_order(stage: &Stage) -> Verdict {
    let label = stage.word();
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = labelled(stage, &staged.name, &label).await?;
    stage.until_state(&operation, State::Stopping).await?;
    let mut events = fine("WatchOperations", watch(stage, of_label(&label)).await)?;
    let first = next(&mut events).await?;
    let named = first.operation.as_ref().is_some_and(|found| found.name == operation);
    expect(first.r#type() == Type::Snapshot && named, "TYPE_SNAPSHOT of the open operation", format!("{first:?}"))?;
    expect(first.resume_token.is_empty(), "no resume_token in a snapshot", "one")?;
    let second = next(&mut events).await?;
    let fits = second.r#type() == Type::Bookmark && !second.resume_token.is_empty() && second.operation.is_none();
    expect(fits, "TYPE_BOOKMARK with a token", format!("{second:?}"))?;
    staged.hook.release();
    let live = to_the_end(&mut events, &operation).await?;
    let changed = count(&live, Type::StateChanged) > 0 && count(&live, Type::Snapshot) == 0;
    expect(changed, "what happens, and no more snapshots", format!("{} events", live.len()))
}

async fn skips(stage: &Stage) -> Verdict {
    let label = stage.word();
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    labelled(stage, &staged.name, &label).await?;
    let request = v1::WatchOperationsRequest { skip_snapshot: true, ..of_label(&label) };
    let mut events = fine("WatchOperations", watch(stage, request).await)?;
    let first = next(&mut events).await?;
    expect(first.r#type() == Type::Bookmark, "TYPE_BOOKMARK", first.r#type().as_str_name())
}

async fn one(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let request = v1::WatchOperationRequest { name: operation.clone(), ..Default::default() };
    let stream = ok("WatchOperation", stage.calls().scheduler.watch_operation(request).await)?;
    staged.hook.release();
    let events = super::stage::rest(stream).await?;
    let first = events.first().map(v1::OperationEvent::r#type);
    expect(first == Some(Type::Snapshot), "TYPE_SNAPSHOT first", format!("{first:?}"))?;
    let instances = events.first().and_then(|event| event.operation.as_ref()).map_or(0, |found| found.instances.len());
    expect(instances == 1, "all instances in the snapshot", instances)?;
    let last = events.last().and_then(|event| event.operation.as_ref());
    expect(last.is_some_and(|found| found.done), "the event that makes it done last", format!("{last:?}"))?;
    let events = told_afterwards(stage, &operation).await?;
    expect(events.len() == 1, "one snapshot of what is done", events.len())?;
    let staged = stage.staged(once(), Script::of([deaf()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let events = super::stage::rest(stage.watch(&operation).await?).await?;
    let last = events.last().and_then(|event| event.operation.as_ref()).map(v1::Operation::state);
    expect(last == Some(State::Degraded), "DEGRADED last, with end_on_degraded", format!("{last:?}"))
}

fn shown(event: &v1::OperationEvent) -> (i64, Type) {
    (event.revision, event.r#type())
}

async fn resumes(stage: &Stage) -> Verdict {
    let (label, seen) = recorded(stage).await?;
    resumed(stage, &label, &seen).await
}

/// Behind every token of a run comes exactly the rest of it.
async fn resumed(stage: &Stage, label: &str, seen: &[v1::OperationEvent]) -> Verdict {
    for (place, event) in seen.iter().enumerate() {
        if event.r#type() == Type::Snapshot {
            continue;
        }
        let wanted: Vec<_> = seen[place + 1..].iter().filter(|event| event.r#type() != Type::Bookmark).collect();
        let request = v1::WatchOperationsRequest { resume_token: event.resume_token.clone(), ..of_label(label) };
        let mut events = fine("a watch that is resumed", watch(stage, request).await)?;
        for wanted in wanted {
            let found = next_change(&mut events).await?;
            let same = shown(&found) == shown(wanted);
            expect(same, format!("behind {:?}: {:?}", shown(event), shown(wanted)), format!("{:?}", shown(&found)))?;
        }
    }
    Ok(())
}

/// The next event that is no bookmark.
async fn next_change(events: &mut Events) -> Result<v1::OperationEvent, Stop> {
    loop {
        let event = next(events).await?;
        if event.r#type() != Type::Bookmark {
            return Ok(event);
        }
    }
}

async fn revisions(stage: &Stage) -> Verdict {
    let (_, seen) = recorded(stage).await?;
    let numbers: Vec<_> =
        seen.iter().filter(|event| event.r#type() != Type::Bookmark).map(|event| event.revision).collect();
    let rise = numbers.windows(2).all(|pair| pair[0] < pair[1]);
    expect(rise && numbers.len() > 4, "revisions that rise from event to event", format!("{numbers:?}"))
}

/// Operations of W07, and who looks at them.
const OPERATIONS: usize = 40;
const WATCHERS: usize = 5;

/// Operations under one label, to their ends; in the order in which they were begun.
async fn many(stage: &Stage, label: &str) -> Result<Vec<String>, Stop> {
    let hook = stage.fake(Script::of([stops()]));
    let mut names = Vec::new();
    for _ in 0..OPERATIONS {
        let application = stage.create(stage.unmade(patient())).await?.name;
        let instance = stage.listening(&application, "one", &hook).await?;
        stage.register(instance).await?;
        names.push(labelled(stage, &application, label).await?);
    }
    Ok(names)
}

/// What one reader has seen of each operation.
type Seen = std::collections::BTreeMap<String, Vec<State>>;

fn expect_complete(names: &[String], mut seen: Seen) -> Verdict {
    let whole = [State::Preparing, State::Stopping, State::Stopped, State::Finalizing, State::Succeeded];
    for name in names {
        let states = seen.remove(name).unwrap_or_default();
        expect(states == whole, format!("{name}: {whole:?}"), format!("{states:?}"))?;
    }
    Ok(())
}

async fn complete(stage: &Stage) -> Verdict {
    let label = stage.word();
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let mut events = fine("WatchOperations", watch(stage, of_label(&label)).await)?;
        next(&mut events).await?;
        watchers.push(events);
    }
    let names = many(stage, &label).await?;
    for events in &mut watchers {
        let (mut seen, mut done) = (Seen::new(), 0);
        while done < OPERATIONS {
            let event = next(events).await?;
            if event.r#type() == Type::StateChanged {
                let found = event.operation.unwrap_or_default();
                done += usize::from(found.done);
                seen.entry(found.name.clone()).or_default().push(found.state());
            }
        }
        expect_complete(&names, seen)?;
    }
    Ok(())
}

async fn slow(stage: &Stage) -> Verdict {
    let label = stage.word();
    let mut events = fine("WatchOperations", watch(stage, of_label(&label)).await)?;
    let mut token = next(&mut events).await?.resume_token;
    let names = many(stage, &label).await?;
    if let Some(last) = names.last() {
        stage.until_state(last, State::Succeeded).await?;
    }
    let (mut seen, mut done) = (Seen::new(), 0);
    while done < OPERATIONS {
        let answer = timeout(PLENTY, events.next()).await;
        match answer.map_err(|_elapsed| Stop::failed(format!("another event within {PLENTY:?}"), "nothing"))? {
            Some(Ok(answer)) => {
                let event = answer.event.unwrap_or_default();
                token.clone_from(&event.resume_token);
                if event.r#type() == Type::StateChanged {
                    let found = event.operation.unwrap_or_default();
                    done += usize::from(found.done);
                    seen.entry(found.name.clone()).or_default().push(found.state());
                }
            }
            Some(Err(status)) => {
                refused::<()>(Err(status), &[Code::ResourceExhausted, Code::Unavailable], "")?;
                let request = v1::WatchOperationsRequest { resume_token: token.clone(), ..of_label(&label) };
                events = fine("a watch that is resumed", watch(stage, request).await)?;
            }
            None => return Err(Stop::failed("another event, or an error", "the end of the stream")),
        }
    }
    expect_complete(&names, seen)
}

/// Reports of W13, and the last of them.
const REPORTS: u32 = 300;

async fn merged(stage: &Stage) -> Verdict {
    let acts = [stopping(), vec![Act::Chatter(REPORTS), Act::UntilReleased, stopped()]].concat();
    let staged = stage.staged(patient(), Script::of([acts])).await?;
    let followed = stage.follow(&staged.name).await?;
    let operation = stage.migrate(&staged.name).await?;
    let last = thought(REPORTS);
    let told = |found: &v1::Operation| {
        let mut status = found.instances.iter().filter_map(|instance| instance.status.as_ref());
        status.any(|status| status.message == last)
    };
    stage.until(&operation, "the last report", told).await?;
    staged.hook.release();
    let events = followed.read_to_end().await?;
    let progress = events.iter().filter(|event| event.r#type() == Type::Progress);
    let mut messages = progress.filter_map(|event| Some(event.instance.as_ref()?.status.as_ref()?.message.as_str()));
    expect(messages.clone().any(|message| message == last), last, messages.next_back().unwrap_or("no progress"))
}

async fn garbage(stage: &Stage) -> Verdict {
    let (label, seen) = recorded(stage).await?;
    let token = &seen[0].resume_token;
    let bent = &token[..token.len() / 2];
    for wrong in ["garbage", bent] {
        let request = v1::WatchOperationsRequest { resume_token: wrong.to_owned(), ..of_label(&label) };
        refused(watch(stage, request).await, &[Code::InvalidArgument], "INVALID_RESUME_TOKEN")?;
    }
    let request = v1::WatchOperationsRequest { resume_token: token.clone(), ..of_label("other") };
    refused(watch(stage, request).await, &[Code::InvalidArgument], "INVALID_RESUME_TOKEN")
}

async fn bookmarks(stage: &Stage) -> Verdict {
    let request = v1::WatchOperationsRequest { bookmark_interval: millis(1_000), ..of_label(&stage.word()) };
    let mut events = fine("WatchOperations", watch(stage, request).await)?;
    for number in 1..=3 {
        let event = timeout(Duration::from_secs(5), next(&mut events)).await;
        let event = event.map_err(|_elapsed| Stop::failed(format!("bookmark {number} within 5 s"), "nothing"))??;
        let fits = event.r#type() == Type::Bookmark && !event.resume_token.is_empty();
        expect(fits, "TYPE_BOOKMARK with a token", format!("{event:?}"))?;
    }
    Ok(())
}

async fn metadata(stage: &Stage) -> Verdict {
    let label = stage.word();
    // Resumed behind the last event there is nothing to send.
    let mut events = fine("WatchOperations", watch(stage, of_label(&label)).await)?;
    let token = next(&mut events).await?.resume_token;
    let request = v1::WatchOperationsRequest { resume_token: token, ..of_label(&label) };
    let answer = timeout(Duration::from_secs(5), watch(stage, request)).await;
    let answer = answer.map_err(|_elapsed| Stop::failed("initial metadata within 5 s", "nothing"))?;
    fine("WatchOperations", answer).map(drop)
}

async fn filtered(stage: &Stage) -> Verdict {
    let (mine, others) = (stage.word(), stage.word());
    let one = stage.staged(patient(), Script::of([stops()])).await?;
    let two = stage.staged(patient(), Script::of([[stopping(), vec![stopped()]].concat()])).await?;
    let mut events = fine("WatchOperations", watch(stage, of_label(&mine)).await)?;
    let token = next(&mut events).await?.resume_token;
    let foreign = labelled(stage, &two.name, &others).await?;
    stage.until_state(&foreign, State::Succeeded).await?;
    let operation = labelled(stage, &one.name, &mine).await?;
    let seen = to_the_end(&mut events, &operation).await?;
    let foreign = seen.iter().filter_map(|event| event.operation.as_ref()).any(|found| found.name != operation);
    expect(!foreign, "operations that match, and no others", "another one")?;
    let request = v1::WatchOperationsRequest { resume_token: token, ..of_label(&others) };
    refused(watch(stage, request).await, &[Code::InvalidArgument], "INVALID_RESUME_TOKEN")?;
    let request = v1::WatchOperationsRequest { filter: "state = STOPPING".to_owned(), ..Default::default() };
    refused(watch(stage, request).await, &[Code::InvalidArgument], "INVALID_FILTER")
}

async fn elsewhere(stage: &Stage) -> Verdict {
    let (label, seen) = recorded(stage).await?;
    stage.reconnect().await?;
    resumed(stage, &label, &seen).await?;
    stage.restart().await?;
    resumed(stage, &label, &seen).await
}
