//! Starting and concluding: by epoch, once; held when it does not come up.

use quiesce_agent::hook::Disposition;
use quiesce_protocol::v1::conclude_shutdown_request::Disposition as Wire;
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::start_result::{Outcome, Readiness};
use quiesce_protocol::v1::{self, ShutdownPhase, StartApplicationRequest, StartPhase, StartStatus};
use tonic::{Code, Status, Streaming};

use crate::scripted::{Manner, Scripted, Told};
use crate::world::{INSTANCE, World, reason, request};

struct Starts(Streaming<v1::StartApplicationResponse>);

impl Starts {
    async fn next(&mut self) -> Option<StartStatus> {
        self.0.message().await.unwrap().map(|response| response.status.unwrap())
    }

    async fn until_phase(&mut self, phase: StartPhase) -> StartStatus {
        self.until(|status| status.phase() == phase).await
    }

    async fn until(&mut self, fits: impl Fn(&StartStatus) -> bool) -> StartStatus {
        loop {
            let status = self.next().await.expect("a report before the end");
            if fits(&status) {
                return status;
            }
        }
    }
}

async fn start(world: &World, epoch: i64) -> Result<Starts, Status> {
    let request = StartApplicationRequest { epoch, instance: INSTANCE.to_owned(), ..Default::default() };
    world.client.clone().start_application(request).await.map(|response| Starts(response.into_inner()))
}

async fn start_refusal(world: &World, epoch: i64) -> (Code, String) {
    match start(world, epoch).await {
        Err(status) => reason(&status),
        Ok(mut starts) => loop {
            match starts.0.message().await {
                Err(status) => return reason(&status),
                Ok(response) => assert!(response.is_some(), "neither refused nor failed"),
            }
        },
    }
}

async fn conclude(world: &World, disposition: Wire, epoch: i64) -> Result<(), Status> {
    let request = v1::ConcludeShutdownRequest {
        operation: "operations/op-1".to_owned(),
        instance: INSTANCE.to_owned(),
        epoch,
        disposition: disposition.into(),
    };
    world.client.clone().conclude_shutdown(request).await.map(drop)
}

#[tokio::test]
async fn a_start_reports_until_it_is_ready() {
    let app = Scripted::stopped();
    let world = World::new(app.clone()).await;
    let mut starts = start(&world, 3).await.unwrap();
    starts.until_phase(StartPhase::Starting).await;
    app.become_ready();
    let last = starts.until_phase(StartPhase::Ready).await;
    let result = last.result.unwrap();
    assert_eq!((result.outcome(), result.readiness()), (Outcome::Ready, Readiness::Notified));
    assert!(starts.next().await.is_none());
}

#[tokio::test]
async fn a_repeated_start_joins() {
    let app = Scripted::stopped();
    let world = World::new(app.clone()).await;
    let mut first = start(&world, 3).await.unwrap();
    first.until_phase(StartPhase::Starting).await;
    let mut second = start(&world, 3).await.unwrap();
    app.become_ready();
    let last = first.until_phase(StartPhase::Ready).await;
    assert_eq!(second.until_phase(StartPhase::Ready).await, last);
    assert_eq!(start(&world, 3).await.unwrap().next().await.unwrap(), last);
    assert_eq!(app.told(), [Told::Start(3)]);
}

#[tokio::test]
async fn a_start_that_is_joined_after_a_restart_goes_on_counting_its_reports() {
    let directory = tempfile::tempdir().unwrap();
    let app = Scripted::stopped();
    let world = World::in_directory(app.clone(), directory.path()).await;
    let mut starts = start(&world, 3).await.unwrap();
    starts.until_phase(StartPhase::Starting).await;
    app.say("replaying");
    let seen = starts.until(|status| status.message == "replaying").await.sequence;
    drop(starts);
    world.crash().await;

    let world = World::in_directory(app.clone(), directory.path()).await;
    let mut starts = start(&world, 3).await.unwrap();
    let mut last = seen;
    for text in ["replaying", "listening"] {
        app.say(text);
        let status = starts.until(|status| status.message == text).await;
        assert!(status.sequence > last, "{status:?} after {last}");
        last = status.sequence;
    }
    app.become_ready();
    assert!(starts.until_phase(StartPhase::Ready).await.sequence > last);
}

// H15 H17
#[tokio::test]
async fn only_a_higher_epoch_starts_and_only_when_nothing_is_left() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    assert_eq!(start_refusal(&world, 0).await, (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
    assert_eq!(start_refusal(&world, 7).await, (Code::FailedPrecondition, "STILL_RUNNING".to_owned()));
    world.stop(v1::ShutdownRequest { epoch: 4, ..request("s1") }).await;
    // The shutdown has used up epoch 4, although the application never ran under it.
    for epoch in [1, 4] {
        assert_eq!(start_refusal(&world, epoch).await, (Code::FailedPrecondition, "EPOCH_STALE".to_owned()));
    }
    start(&world, 5).await.unwrap();
    assert_eq!(app.told().last(), Some(&Told::Start(5)));
}

#[tokio::test]
async fn a_start_that_could_not_be_recorded_is_tried_again_under_its_epoch() {
    let app = Scripted::stopped();
    let world = World::new(app.clone()).await;
    app.fill_disk(true);
    for _ in 0..2 {
        assert_eq!(start_refusal(&world, 3).await, (Code::Unavailable, "NOT_SERVING".to_owned()));
    }
    app.fill_disk(false);
    let mut starts = start(&world, 3).await.unwrap();
    starts.until_phase(StartPhase::Starting).await;
    app.become_ready();
    assert_eq!(starts.until_phase(StartPhase::Ready).await.result.unwrap().outcome(), Outcome::Ready);
    assert_eq!(app.told(), [Told::Start(3)]);
}

#[tokio::test]
async fn no_start_while_a_shutdown_runs() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    reports.until_phase(ShutdownPhase::Stopping).await;
    assert_eq!(start_refusal(&world, 7).await, (Code::Aborted, "SHUTDOWN_IN_PROGRESS".to_owned()));
}

#[tokio::test]
async fn what_does_not_come_up_is_held_before_that_is_said() {
    let app = Scripted::stopped();
    let world = World::new(app.clone()).await;
    let mut starts = start(&world, 3).await.unwrap();
    starts.until_phase(StartPhase::Starting).await;
    app.exit(3);
    let last = starts.until_phase(StartPhase::Failed).await;
    let result = last.result.unwrap();
    assert_eq!((result.outcome(), result.exit_code), (Outcome::Failed, Some(3)));
    assert!(matches!(app.told()[..], [Told::Start(3), Told::Hold(_)]));
    let info = world.client.clone().get_hook_info(v1::GetHookInfoRequest {}).await.unwrap().into_inner().info.unwrap();
    assert_eq!((info.app_state(), info.epoch), (AppState::Held, 3));
}

#[tokio::test]
async fn a_shutdown_of_what_is_starting_stops_it() {
    let app = Scripted::stopped();
    let world = World::new(app.clone()).await;
    let mut starts = start(&world, 3).await.unwrap();
    starts.until_phase(StartPhase::Starting).await;
    let last = world.stop(v1::ShutdownRequest { epoch: 3, ..request("s1") }).await;
    assert_eq!(last.result.unwrap().outcome(), v1::stop_result::Outcome::Stopped);
    assert_eq!(starts.until_phase(StartPhase::Failed).await.result.unwrap().outcome(), Outcome::Failed);
}

#[tokio::test]
async fn concluding_takes_a_stopped_application() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    let status = conclude(&world, Wire::Retired, 1).await.unwrap_err();
    assert_eq!(reason(&status), (Code::FailedPrecondition, "STILL_RUNNING".to_owned()));
    world.stop(request("s1")).await;
    conclude(&world, Wire::Standby, 1).await.unwrap();
    assert_eq!(world.hook.view().borrow().concluded, Some(Disposition::Standby));
    conclude(&world, Wire::Retired, 1).await.unwrap();
    conclude(&world, Wire::Retired, 1).await.unwrap();
    assert_eq!(world.hook.view().borrow().concluded, Some(Disposition::Retired));
    assert!(app.told().contains(&Told::Retire));
}

// I10
#[tokio::test]
async fn what_is_not_offered_is_not_implemented() {
    let world = World::new(Scripted::plain()).await;
    let mut client = world.client.clone();
    let unimplemented = (Code::Unimplemented, "NOT_IMPLEMENTED".to_owned());
    assert_eq!(start_refusal(&world, 5).await, unimplemented);
    assert_eq!(reason(&conclude(&world, Wire::Standby, 1).await.unwrap_err()), unimplemented);
    let status = client.check_shutdown(v1::CheckShutdownRequest::default()).await.unwrap_err();
    assert_eq!(reason(&status), unimplemented);
    let status = client.kill_application(v1::KillApplicationRequest::default()).await.unwrap_err();
    assert_eq!(reason(&status), unimplemented);
    let status = client.cancel_shutdown(v1::CancelShutdownRequest::default()).await.unwrap_err();
    assert_eq!(reason(&status), unimplemented);
    // What every hook has to do works all the same.
    assert!(!world.stop(request("s1")).await.result.unwrap().held);
}
