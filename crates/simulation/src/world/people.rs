//! Who asks for things: a caller that repeats what was not answered, and somebody who meddles.

use std::time::Duration;

use quiesce_operation::{Kind, Operation, StateName};
use quiesce_protocol::v1;
use quiesce_protocol::v1::scheduler_client::SchedulerClient;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use super::{APPLICATION, Settled, World};
use crate::laws::{Fact, Law};
use crate::wire::Channel;

/// How long a caller waits for one answer.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often it asks in all: as long as a storm lasts, and then some.
const TRIES: u32 = 60;

type Client = SchedulerClient<Channel>;

/// What came of a request.
pub(super) enum Answer<T> {
    /// Done.
    Yes(T),
    /// Refused, for good.
    No(Status),
    /// Nobody answered.
    Silence,
}

/// Asks until somebody answers.
async fn ask<T>(client: &Client, question: impl AsyncFn(Client) -> Result<T, Status>) -> Answer<T> {
    for _ in 0..TRIES {
        match timeout(PATIENCE, question(client.clone())).await {
            Ok(Ok(answer)) => return Answer::Yes(answer),
            Ok(Err(status)) if is_passing(&status) => {}
            Ok(Err(status)) => return Answer::No(status),
            Err(_elapsed) => {}
        }
        sleep(Duration::from_millis(700)).await;
    }
    Answer::Silence
}

/// Whether asking again may help: the retry rule of the contract.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::ResourceExhausted
    )
}

impl World {
    fn client(&self) -> Client {
        Client::new(self.caller_channel())
    }

    /// Asks for an operation; its name when it was accepted.
    pub(super) async fn request(&self, kind: Kind, target: &str, request_id: &str) -> Option<String> {
        let name = format!("applications/{APPLICATION}");
        let answer = ask(&self.client(), async |mut client| match kind {
            Kind::Migrate => {
                let request = v1::MigrateApplicationRequest {
                    name: name.clone(),
                    target_cluster: target.to_owned(),
                    request_id: request_id.to_owned(),
                    reason: "the simulation wants it".to_owned(),
                    ..Default::default()
                };
                let answer = client.migrate_application(request).await?.into_inner();
                Ok(answer.operation.unwrap_or_default().name)
            }
            Kind::Delete => {
                let request = v1::DeleteApplicationRequest {
                    name: name.clone(),
                    request_id: request_id.to_owned(),
                    reason: "the simulation wants it".to_owned(),
                    ..Default::default()
                };
                let answer = client.delete_application(request).await?.into_inner();
                Ok(answer.operation.unwrap_or_default().name)
            }
        })
        .await;
        match answer {
            Answer::Yes(name) => {
                self.story.tell("caller", || format!("{kind:?} accepted as {name}"));
                self.laws.accepted(&name);
                Some(name)
            }
            Answer::No(status) => {
                self.story.tell("caller", || format!("{kind:?} refused: {} {}", status.code(), status.message()));
                None
            }
            Answer::Silence => {
                self.story.tell("caller", || format!("{kind:?} was never answered"));
                None
            }
        }
    }

    /// Cancels, extends or retries at random moments.
    pub(super) async fn meddle(&self, operation: &str) -> std::convert::Infallible {
        loop {
            sleep(self.chance.millis(200..=20_000)).await;
            self.laws.fact(Fact::Person);
            match self.chance.within(0..=3) {
                0 => self.cancel(operation).await,
                1 => self.extend(operation).await,
                2 => self.retry(operation, false).await,
                _ => self.retry(operation, true).await,
            }
        }
    }

    pub(super) async fn cancel(&self, operation: &str) {
        let client = self.client();
        let answer = ask(&client, async |mut client| {
            let reason = "on second thoughts".to_owned();
            client.cancel_operation(v1::CancelOperationRequest { name: operation.to_owned(), reason }).await
        });
        self.told("cancel", answer.await);
    }

    async fn extend(&self, operation: &str) {
        let client = self.client();
        let answer = ask(&client, async |mut client| {
            client
                .extend_operation(v1::ExtendOperationRequest {
                    name: operation.to_owned(),
                    grace_period: Some(prost_types::Duration { seconds: 150, nanos: 0 }),
                    reason: "it needs longer".to_owned(),
                })
                .await
        });
        self.told("extend", answer.await);
    }

    pub(super) async fn retry(&self, operation: &str, force: bool) {
        let request_id = format!("retry-{}", self.chance.next());
        let client = self.client();
        let answer = ask(&client, async |mut client| {
            client
                .retry_operation(v1::RetryOperationRequest {
                    name: operation.to_owned(),
                    force,
                    request_id: request_id.clone(),
                    reason: "once more".to_owned(),
                    ..Default::default()
                })
                .await
        });
        self.told(if force { "retry by force" } else { "retry" }, answer.await);
    }

    fn told<T>(&self, what: &str, answer: Answer<T>) {
        self.story.tell("person", || match answer {
            Answer::Yes(_) => format!("{what}: done"),
            Answer::No(status) => format!("{what}: {} {}", status.code(), status.message()),
            Answer::Silence => format!("{what}: no answer"),
        });
    }

    /// Sees an operation through to its end once nothing goes wrong any more, as a person would.
    pub(super) async fn see_through(&self, name: &str) {
        for turn in 0..8 {
            match self.settled(name).await {
                Settled::Done(operation) => {
                    self.check_end(&operation);
                    return;
                }
                Settled::Degraded(operation) => {
                    self.check_reason(&operation);
                    if turn >= 3 {
                        // Somebody has looked after the applications meanwhile.
                        self.mend_applications();
                    }
                    self.laws.fact(Fact::Person);
                    match self.chance.within(0..=5) {
                        // What does not help once will not help for ever.
                        _ if turn >= 6 => self.cancel(name).await,
                        _ if turn >= 4 => self.retry(name, true).await,
                        0 => self.cancel(name).await,
                        1 | 2 => self.retry(name, false).await,
                        _ => self.retry(name, true).await,
                    }
                }
                Settled::Never(operation) => {
                    let state = operation.as_ref().map_or("not stored", |operation| operation.state().as_str());
                    self.laws.broken(Law::EndsOrRests, format!("{name} neither ends nor rests: it is {state}"));
                    return;
                }
            }
        }
        self.laws.broken(Law::EndsOrRests, format!("{name} does not end, whatever a person does"));
    }

    fn check_end(&self, operation: &Operation) {
        if self.scenario.is_fair() && operation.state() != StateName::Succeeded {
            let (id, state) = (operation.id(), operation.state().as_str());
            self.laws.broken(Law::EndsOrRests, format!("{id} ended as {state}, and nothing had gone wrong"));
        }
        let live = self.laws.live_clusters();
        if live.len() > 1 {
            self.laws.broken(Law::OneCopy, format!("{} is over, and copies live on {live:?}", operation.id()));
        }
    }

    /// I4: a reason that the run contained.
    fn check_reason(&self, operation: &Operation) {
        use quiesce_operation::Reason;
        let Some(failure) = operation.failure() else { return };
        let unfair = [Fact::Network, Fact::Agent, Fact::Scheduler];
        let own: &[Fact] = match failure.reason {
            Reason::HookUnreachable | Reason::AcceptTimeout | Reason::HeartbeatTimeout => &[Fact::BadEnd],
            // Each is what a hook says when it was asked something that its past forbids.
            Reason::HookRejected => &[Fact::BadEnd, Fact::Person, Fact::BadStart],
            Reason::ProtocolError => {
                self.laws.broken(
                    Law::EndsOrRests,
                    format!("{} rests: our own hook broke the rules: {}", operation.id(), failure.message),
                );
                return;
            }
            Reason::GraceTimeout | Reason::KillTimeout | Reason::StillRunning => {
                &[Fact::SlowStop, Fact::Unwilling, Fact::Offspring]
            }
            Reason::OverallTimeout => &[Fact::TightPolicy],
            Reason::Restarted => &[Fact::BadEnd],
            Reason::Unverified => &[Fact::SlowStop, Fact::Offspring, Fact::BadEnd],
            Reason::UncleanExit => &[Fact::BadEnd, Fact::Person, Fact::Offspring, Fact::SlowStop],
            Reason::CheckFailed => &[Fact::Unwilling, Fact::BadEnd, Fact::BadStart],
            Reason::StartFailed | Reason::StartTimeout => &[Fact::BadStart, Fact::BadEnd],
        };
        if !self.laws.contained(&unfair) && !self.laws.contained(own) {
            self.laws.broken(
                Law::EndsOrRests,
                format!(
                    "{} rests for {:?}, which nothing explains: {}",
                    operation.id(),
                    failure.reason,
                    failure.message
                ),
            );
        }
    }
}
