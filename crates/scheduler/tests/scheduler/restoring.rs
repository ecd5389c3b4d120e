//! A store that was put back from a backup: what the lost life has done since must not be repeated, contradicted or
//! believed.

use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use prost_types::FieldMask;
use quiesce_protocol::v1;
use quiesce_scheduler::upkeep::{self, Restored};
use quiesce_scheduler::{Config, StoreChoice};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::{Code, Status};
use v1::operation::State;

use crate::hook::{Hook, Stop};
use crate::world::{LIMIT, World, application, bad_fields, expect_error};

const ONE: &str = "applications/shop/instances/one";

/// A data directory and a backup of it.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    async fn scheduler(&self) -> World {
        World::with(Config { store: StoreChoice::Embedded { directory: self.data() }, ..Config::ephemeral() }).await
    }

    fn back_up(&self, name: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        let saved = upkeep::backup(&self.data(), &file).unwrap();
        assert!(saved.checked.is_sound(), "{:?}", saved.checked);
        file
    }

    fn restore(&self, file: &Path) -> Restored {
        let restored = upkeep::restore(file, &self.data(), true, "ann").unwrap();
        let checked = upkeep::check(&self.data()).unwrap();
        assert!(checked.is_sound(), "{checked:?}");
        assert_eq!(checked.life, Some(restored.life));
        restored
    }
}

fn confirmation(paths: &[&str]) -> v1::UpdateApplicationRequest {
    v1::UpdateApplicationRequest {
        application: Some(application("applications/shop", "a")),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    }
}

async fn readmit(world: &mut World) -> v1::Application {
    let answer = world.scheduler.update_application(confirmation(&["restore_time"])).await.unwrap();
    let after = answer.into_inner().application.unwrap();
    assert_eq!(after.restore_time, None);
    after
}

async fn first_token(world: &mut World) -> String {
    let mut stream =
        world.scheduler.watch_operations(v1::WatchOperationsRequest::default()).await.unwrap().into_inner();
    loop {
        let event = timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().event.unwrap();
        if event.r#type() == v1::operation_event::Type::Bookmark {
            return event.resume_token;
        }
    }
}

async fn resume(world: &mut World, resume_token: &str) -> Result<(), Status> {
    let request = v1::WatchOperationsRequest { resume_token: resume_token.to_owned(), ..Default::default() };
    world.scheduler.watch_operations(request).await.map(drop)
}

#[tokio::test]
async fn what_was_open_in_the_backup_is_closed_and_its_hook_is_not_called_again() {
    let place = Place::new();
    let mut world = place.scheduler().await;
    let hook = world.populated("shop", Stop::Hang).await;
    let operation = world.migrate("shop", "b", "before").await.unwrap();
    world.operation_is(&operation.name, State::Stopping).await;
    world.stop().await;
    let file = place.back_up("backup");

    // The lost life goes on: the operation comes to its end.
    let world = place.scheduler().await;
    hook.play(|script| script.stop = Stop::AtOnce);
    world.operation_is(&operation.name, State::Succeeded).await;
    world.stop().await;
    let told = hook.shutdowns();

    let restored = place.restore(&file);
    assert_eq!(restored.closed, [operation.name.trim_start_matches("operations/")]);
    let mut world = place.scheduler().await;
    let found = world.operation(&operation.name).await;
    assert_eq!(found.state(), State::Abandoned);
    assert!(found.message.contains("ann") && found.message.contains("backup taken at"), "{}", found.message);
    assert!(world.application("shop").await.unwrap().active_operation.is_empty());
    // The request that led to it is remembered, and leads to it, not to another one.
    assert_eq!(world.migrate("shop", "b", "before").await.unwrap().name, operation.name);

    // The application reports late, with the token of that very shutdown: it is not believed for anything that is.
    for shutdown in &told {
        let request = v1::CompleteShutdownRequest {
            shutdown_id: shutdown.shutdown_id.clone(),
            completion_token: shutdown.completion_token.clone(),
            result: Some(v1::StopResult::default()),
        };
        let refused = world.gateway.complete_shutdown(request).await;
        expect_error(refused, Code::FailedPrecondition, "COMPLETION_TOKEN_STALE");
    }

    // And a new operation uses no id of the old one.
    world.register(ONE, "a", &hook).await.unwrap();
    readmit(&mut world).await;
    hook.play(|script| script.app = v1::hook_info::AppState::Running);
    let next = world.migrate("shop", "c", "after").await.unwrap();
    world.operation_is(&next.name, State::Succeeded).await;
    let all = hook.shutdowns();
    assert!(all.len() > told.len());
    for shutdown in &all[told.len()..] {
        assert_eq!(shutdown.operation, next.name);
        assert!(told.iter().all(|old| old.shutdown_id != shutdown.shutdown_id));
        assert!(told.iter().all(|old| old.epoch < shutdown.epoch), "a command of the new life is not an old one");
    }
    world.stop().await;
}

#[tokio::test]
async fn nothing_is_moved_or_deleted_before_a_person_has_confirmed_where_it_runs() {
    let place = Place::new();
    let mut world = place.scheduler().await;
    let hook = world.populated("shop", Stop::AtOnce).await;
    world.stop().await;
    let file = place.back_up("backup");
    let restored = place.restore(&file);
    assert_eq!(restored.unconfirmed, ["shop"]);

    let mut world = place.scheduler().await;
    assert!(world.application("shop").await.unwrap().restore_time.is_some());
    for force in [false, true] {
        let refused = world.delete("shop", force).await;
        let metadata = expect_error(refused, Code::FailedPrecondition, "RESTORE_UNCONFIRMED");
        assert_eq!(metadata["application"], "applications/shop");
    }
    expect_error(world.migrate("shop", "b", "").await, Code::FailedPrecondition, "RESTORE_UNCONFIRMED");
    // Not said in passing: neither by a client that writes everything it has, nor by one that names no field.
    world.scheduler.update_application(confirmation(&["*"])).await.unwrap();
    let request = v1::UpdateApplicationRequest { update_mask: None, ..confirmation(&[]) };
    world.scheduler.update_application(request).await.unwrap();
    let mut made_up = confirmation(&["restore_time"]);
    made_up.application.as_mut().unwrap().restore_time = Some(prost_types::Timestamp::default());
    let refused = world.scheduler.update_application(made_up).await;
    assert_eq!(bad_fields(refused), ["application.restore_time"]);
    assert!(world.application("shop").await.unwrap().restore_time.is_some());

    readmit(&mut world).await;
    world.instance_is(ONE, v1::instance::State::Ready).await;
    let operation = world.migrate("shop", "b", "").await.unwrap();
    world.operation_is(&operation.name, State::Succeeded).await;
    assert_eq!(hook.calls("Shutdown"), 1);
    world.stop().await;
}

#[tokio::test]
async fn tokens_and_etags_of_the_lost_life_are_told_plainly_that_it_is_gone() {
    let place = Place::new();
    let mut world = place.scheduler().await;
    world.create("applications/shop", "a").await;
    let before = first_token(&mut world).await;
    world.stop().await;
    let file = place.back_up("backup");
    let mut world = place.scheduler().await;
    let request = |name: &str| v1::UpdateApplicationRequest {
        application: Some(v1::Application { display_name: name.to_owned(), ..application("applications/shop", "a") }),
        ..Default::default()
    };
    let mut etags = Vec::new();
    for name in ["one", "two", "three"] {
        let answer = world.scheduler.update_application(request(name)).await.unwrap().into_inner();
        etags.push(answer.application.unwrap().etag);
    }
    let lost = first_token(&mut world).await;
    resume(&mut world, &before).await.unwrap();
    world.stop().await;

    place.restore(&file);
    let mut world = place.scheduler().await;
    for token in [before, lost] {
        expect_error(resume(&mut world, &token).await, Code::OutOfRange, "RESUME_TOKEN_EXPIRED");
    }
    // As many changes as there were in the lost life: no number is given out again.
    for name in ["four", "five", "six"] {
        let answer = world.scheduler.update_application(request(name)).await.unwrap().into_inner();
        let etag = answer.application.unwrap().etag;
        for old in &etags {
            assert_ne!(*old, etag);
            let mut stale = request("seven");
            stale.application.as_mut().unwrap().etag.clone_from(old);
            let refused = world.scheduler.update_application(stale).await;
            expect_error(refused, Code::Aborted, "ETAG_MISMATCH");
        }
    }
    let token = first_token(&mut world).await;
    resume(&mut world, &token).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_scheduler_that_runs_hands_out_what_it_has_at_one_moment_to_one_after_the_other() {
    let place = Place::new();
    let mut world = place.scheduler().await;
    world.create("applications/shop", "a").await;
    let backups = (0..3).map(|n| {
        let (data, file) = (place.data(), place.directory.path().join(format!("backup-{n}")));
        tokio::task::spawn_blocking(move || upkeep::backup(&data, &file))
    });
    for saved in futures::future::join_all(backups).await {
        let saved = saved.unwrap().unwrap();
        assert!(saved.online && saved.checked.is_sound(), "{saved:?}");
        assert_eq!(saved.checked.counts.applications, 1);
    }
    world.create("applications/other", "a").await;
    world.stop().await;
    let offline = place.back_up("offline");
    assert_eq!(upkeep::check_backup(&offline).unwrap().counts.applications, 2);
    // Nothing is left of the drafts, and nothing is overwritten.
    let left = std::fs::read_dir(place.directory.path()).unwrap().count();
    assert_eq!(left, 5, "the data directory and four backups");
    let again = upkeep::backup(&place.data(), &offline);
    assert!(matches!(again, Err(upkeep::BackupError::Exists { .. })), "{again:?}");
}

fn dial_in(name: &str, agent: &str) -> v1::RegisterInstanceRequest {
    let instance = v1::Instance {
        name: name.to_owned(),
        connect_mode: v1::instance::ConnectMode::DialIn.into(),
        agent_id: agent.to_owned(),
        ..Default::default()
    };
    v1::RegisterInstanceRequest {
        instance: Some(instance),
        default_application: Some(application("", "a")),
        ..Default::default()
    }
}

fn admit(instance: &str, agent: &str, start: &str) -> v1::AdmitStartRequest {
    v1::AdmitStartRequest {
        instance: instance.to_owned(),
        agent_id: agent.to_owned(),
        start_id: start.to_owned(),
        ..Default::default()
    }
}

async fn admitted(world: &mut World, agent: &str, start: &str) -> i64 {
    world.gateway.admit_start(admit(ONE, agent, start)).await.unwrap().into_inner().epoch
}

#[tokio::test]
async fn epochs_never_go_back_however_often_a_backup_is_restored() {
    let place = Place::new();
    let mut world = place.scheduler().await;
    world.gateway.register_instance(dial_in(ONE, "x")).await.unwrap();
    let mut highest = admitted(&mut world, "x", "first").await;
    world.stop().await;
    let file = place.back_up("backup");
    let mut world = place.scheduler().await;
    for start in ["second", "third", "fourth"] {
        highest = admitted(&mut world, "x", start).await;
    }
    world.stop().await;

    for _ in 0..2 {
        place.restore(&file);
        let mut world = place.scheduler().await;
        // Asked before, answered by the lost life, asked again, asked anew: all of it waits for a person.
        for start in ["first", "fourth", "fifth"] {
            let refused = world.gateway.admit_start(admit(ONE, "x", start)).await;
            expect_error(refused, Code::FailedPrecondition, "RESTORE_UNCONFIRMED");
        }
        readmit(&mut world).await;
        // Without a word from the agent about what it has seen: the permission of the lost life is not given out again.
        for start in ["fourth", "fifth"] {
            let epoch = admitted(&mut world, "x", start).await;
            assert!(epoch > highest, "{epoch} after {highest}");
            highest = epoch;
        }
        assert_eq!(world.application("shop").await.unwrap().epoch, highest);
        world.stop().await;
    }
}

#[tokio::test]
async fn the_end_of_a_run_that_the_backup_does_not_know_frees_the_name() {
    let place = Place::new();
    let mut world = place.scheduler().await;
    world.gateway.register_instance(dial_in(ONE, "x")).await.unwrap();
    let first = admitted(&mut world, "x", "first").await;
    let ended = |epoch| v1::ReportEndRequest {
        instance: ONE.to_owned(),
        agent_id: "x".to_owned(),
        epoch,
        result: Some(v1::StopResult {
            outcome: v1::stop_result::Outcome::Stopped.into(),
            evidence: v1::Evidence::GroupEmpty.into(),
            ..Default::default()
        }),
    };
    world.gateway.report_end(ended(first)).await.unwrap();
    world.stop().await;
    let file = place.back_up("backup");
    let mut world = place.scheduler().await;
    let second = admitted(&mut world, "x", "second").await;
    world.stop().await;

    place.restore(&file);
    let mut world = place.scheduler().await;
    readmit(&mut world).await;
    world.gateway.register_instance(dial_in(ONE, "y")).await.unwrap();
    // What had ended when the backup was taken has begun again since.
    let refused = world.gateway.admit_start(admit(ONE, "y", "theirs")).await;
    expect_error(refused, Code::FailedPrecondition, "INSTANCE_IN_USE");
    world.gateway.report_end(ended(second)).await.unwrap();
    assert!(admitted(&mut world, "y", "theirs").await > second);
    world.stop().await;
}

#[tokio::test]
async fn an_application_that_the_backup_does_not_know_may_be_an_old_one() {
    let place = Place::new();
    let mut world = place.scheduler().await;
    world.create("applications/other", "a").await;
    world.stop().await;
    let file = place.back_up("backup");
    let mut world = place.scheduler().await;
    world.gateway.register_instance(dial_in(ONE, "x")).await.unwrap();
    let lost = admitted(&mut world, "x", "first").await;
    world.stop().await;

    place.restore(&file);
    let mut world = place.scheduler().await;
    world.gateway.register_instance(dial_in(ONE, "x")).await.unwrap();
    let refused = world.gateway.admit_start(admit(ONE, "x", "second")).await;
    expect_error(refused, Code::FailedPrecondition, "RESTORE_UNCONFIRMED");
    readmit(&mut world).await;
    assert!(admitted(&mut world, "x", "second").await > lost);
    world.stop().await;
}

#[tokio::test]
async fn what_a_hook_has_seen_is_not_handed_out_again_even_by_a_store_that_knows_nothing() {
    let mut world = World::start().await;
    let hook = Hook::start(Stop::AtOnce).await;
    hook.play(|script| script.epoch = 41);
    world.create("applications/shop", "a").await;
    world.register(ONE, "a", &hook).await.unwrap();
    world.instance_is(ONE, v1::instance::State::Ready).await;
    assert_eq!(admitted(&mut world, &format!("agent of {ONE}"), "first").await, 42);
    // Made up, to use all numbers up.
    hook.play(|script| script.epoch = i64::MAX);
    world.register(ONE, "a", &hook).await.unwrap();
    world.instance_is(ONE, v1::instance::State::Ready).await;
    assert_eq!(admitted(&mut world, &format!("agent of {ONE}"), "second").await, 43);
    world.stop().await;
}
