//! A restart of the program in the middle: the application lives on, the hook comes back.

use std::sync::{Arc, Mutex};
use std::{fs, io};

use futures::future::BoxFuture;
use quiesce_agent::application::Application;
use quiesce_agent::hook::{Drain, Records, Shelf};
use quiesce_agent::serve::Access;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{self, ShutdownPhase};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::scripted::{Manner, Scripted};
use crate::world::{PLENTY, TOKEN, World, outcome, reason, request};

// R13
#[tokio::test]
async fn a_shutdown_is_joined_after_a_restart_and_nobody_is_told_twice() {
    let directory = tempfile::tempdir().unwrap();
    let app = Scripted::running(Manner::Waits);
    let world = World::in_directory(app.clone(), directory.path()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    let seen = reports.until_phase(ShutdownPhase::Stopping).await.sequence;
    app.is_told(1).await;
    drop(reports);
    world.crash().await;

    let world = World::in_directory(app.clone(), directory.path()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    let joined = reports.next().await.unwrap().unwrap();
    assert!(joined.sequence > seen && joined.phase() == ShutdownPhase::Stopping, "{joined:?}");
    app.exit(0);
    let last = reports.last().await;
    assert_eq!((outcome(&last), last.completion_token.as_str(), app.stops()), (Outcome::Stopped, TOKEN, 1));
}

/// A disk that can be full, or hang.
#[derive(Default)]
struct Disk {
    content: Mutex<Option<Vec<u8>>>,
    full: watch::Sender<bool>,
    refused: watch::Sender<u32>,
    hangs: watch::Sender<bool>,
    hanging: watch::Sender<u32>,
}

impl Shelf for Disk {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.content.lock().unwrap().clone())
    }

    fn save(&self, _: u64, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            if *self.hangs.borrow() {
                self.hanging.send_modify(|hanging| *hanging += 1);
                let mut hangs = self.hangs.subscribe();
                hangs.wait_for(|hangs| !hangs).await.expect("the disk is here");
            }
            if *self.full.borrow() {
                self.refused.send_modify(|refused| *refused += 1);
                return Err(io::ErrorKind::StorageFull.into());
            }
            *self.content.lock().unwrap() = Some(content);
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_shutdown_that_cannot_be_taken_up_at_once_is_not_forgotten() {
    let disk = Arc::new(Disk::default());
    let app = Scripted::running(Manner::Waits);
    let world = World::open(app.clone(), Records::on(disk.clone()), None, Access::connected()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    let seen = reports.until_phase(ShutdownPhase::Stopping).await.sequence;
    app.is_told(1).await;
    drop(reports);
    world.crash().await;

    disk.full.send_replace(true);
    let world = World::open(app.clone(), Records::on(disk.clone()), None, Access::connected()).await;
    let mut refused = disk.refused.subscribe();
    timeout(PLENTY, refused.wait_for(|refused| *refused >= 2)).await.expect("it is tried again").unwrap();
    disk.full.send_replace(false);
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    let joined = reports.next().await.unwrap().unwrap();
    assert!(joined.sequence > seen && joined.phase() == ShutdownPhase::Stopping, "{joined:?}");
    app.exit(0);
    assert_eq!((outcome(&reports.last().await), app.stops()), (Outcome::Stopped, 1));
}

#[tokio::test]
async fn a_refused_shutdown_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let files = || {
        let read = |file: io::Result<fs::DirEntry>| fs::read(file.unwrap().path()).unwrap();
        fs::read_dir(directory.path()).unwrap().map(read).collect::<Vec<_>>()
    };
    let app = Scripted::running(Manner::Waits);
    app.run_under(5);
    let world = World::in_directory(app.clone(), directory.path()).await;
    let elsewhere = || v1::ShutdownRequest {
        instance: "applications/shop/instances/shop-1".to_owned(),
        epoch: 9,
        ..request("elsewhere")
    };
    let stale = || v1::ShutdownRequest { epoch: 4, ..request("stale") };
    let malformed = || v1::ShutdownRequest { operation: "nonsense".to_owned(), epoch: 9, ..request("malformed") };
    for (refused, why) in [(elsewhere(), "WRONG_INSTANCE"), (stale(), "EPOCH_STALE"), (malformed(), "INVALID_FIELD")] {
        let id = refused.shutdown_id.clone();
        assert_eq!(reason(&world.refusal(refused).await).1, why);
        assert_eq!(unknown(&world, &id).await, "SHUTDOWN_NOT_FOUND");
    }
    assert_eq!((files(), app.told().len(), world.hook.view().borrow().epoch), (vec![], 0, 5));

    // While another one goes on that does not yield.
    let current = || v1::ShutdownRequest { epoch: 6, ..request("current") };
    world.shutdown(current()).await.unwrap().until_phase(ShutdownPhase::Stopping).await;
    app.is_told(1).await;
    let (before, told) = (files(), app.told());
    let other = v1::ShutdownRequest { operation: "operations/op-2".to_owned(), epoch: 6, ..request("other") };
    assert_eq!(reason(&world.refusal(other).await).1, "SHUTDOWN_IN_PROGRESS");
    assert_eq!(unknown(&world, "other").await, "SHUTDOWN_NOT_FOUND");
    assert_eq!((files(), app.told()), (before, told.clone()));
    world.crash().await;

    // The next program takes up the one that was accepted, and none else.
    let world = World::in_directory(app.clone(), directory.path()).await;
    for id in ["elsewhere", "stale", "malformed", "other"] {
        assert_eq!(unknown(&world, id).await, "SHUTDOWN_NOT_FOUND");
    }
    let mut reports = world.shutdown(current()).await.unwrap();
    assert_eq!(reports.next().await.unwrap().unwrap().phase(), ShutdownPhase::Stopping);
    app.exit(0);
    assert_eq!(outcome(&reports.last().await), Outcome::Stopped);
    assert_eq!(app.stops(), 1);
}

/// Why the hook tells nothing of a shutdown.
async fn unknown(world: &World, shutdown_id: &str) -> String {
    let get = v1::GetShutdownRequest { shutdown_id: shutdown_id.to_owned() };
    reason(&world.client.clone().get_shutdown(get).await.unwrap_err()).1
}

// H5
#[tokio::test]
async fn a_phase_is_said_only_once_it_is_written_down() {
    let disk = Arc::new(Disk::default());
    let app = Scripted::running(Manner::Waits);
    let drain: Drain = {
        let disk = Arc::clone(&disk);
        // The last thing before the point of no return is written down.
        Arc::new(move |_| {
            disk.hangs.send_replace(true);
            Box::pin(async { Ok(()) })
        })
    };
    let world = World::open(app.clone(), Records::on(disk.clone()), Some(drain), Access::connected()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    let mut hanging = disk.hanging.subscribe();
    timeout(PLENTY, hanging.wait_for(|hanging| *hanging > 0)).await.expect("it is to be written down").unwrap();
    app.say("still saving");
    let said = reports.until(|status| status.message.contains("still saving")).await;
    assert_eq!((said.phase(), app.stops()), (ShutdownPhase::Draining, 0));
    drop(reports);
    world.crash().await;

    disk.hangs.send_replace(false);
    let drain: Drain = Arc::new(|_| Box::pin(async { Ok(()) }));
    let world = World::open(app.clone(), Records::on(disk), Some(drain), Access::connected()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    let joined = reports.next().await.unwrap().unwrap();
    assert!(joined.sequence > said.sequence && joined.phase >= said.phase, "{joined:?} after {said:?}");
    app.is_told(1).await;
    app.exit(0);
    assert_eq!(outcome(&reports.last().await), Outcome::Stopped);
}

#[tokio::test]
async fn a_shutdown_goes_on_after_a_restart_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let app = Scripted::running(Manner::Waits);
    let world = World::in_directory(app.clone(), directory.path()).await;
    world.shutdown(request("s1")).await.unwrap().until_phase(ShutdownPhase::Stopping).await;
    world.crash().await;
    app.exit(0);

    let world = World::in_directory(app.clone(), directory.path()).await;
    world.hook.view().wait_for(|view| !view.stopping).await.unwrap();
    assert_eq!(outcome(&world.stop(request("s1")).await), Outcome::Stopped);
}

// R14
#[tokio::test]
async fn the_final_report_survives_and_the_token_is_not_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let app = Scripted::running(Manner::Quick);
    let world = World::in_directory(app.clone(), directory.path()).await;
    let last = world.stop(request("s1")).await;
    world.crash().await;
    for entry in fs::read_dir(directory.path()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains(TOKEN), "{text}");
    }

    let world = World::in_directory(app.clone(), directory.path()).await;
    let get = v1::GetShutdownRequest { shutdown_id: "s1".to_owned() };
    let status = world.client.clone().get_shutdown(get).await.unwrap().into_inner().status.unwrap();
    assert!(status.completion_token.is_empty(), "nobody has brought the token yet");
    assert_eq!(world.stop(request("s1")).await, last);
    assert_eq!(app.stops(), 1);
}

#[tokio::test]
async fn a_token_that_is_not_the_one_is_not_sent_back() {
    let directory = tempfile::tempdir().unwrap();
    let app = Scripted::running(Manner::Quick);
    let world = World::in_directory(app.clone(), directory.path()).await;
    world.stop(request("s1")).await;
    world.crash().await;

    let world = World::in_directory(app, directory.path()).await;
    let wrong = v1::ShutdownRequest { completion_token: "qct1.wrong".to_owned(), ..request("s1") };
    let mut stream = world.client.clone().shutdown(wrong).await.unwrap().into_inner();
    let status = stream.message().await.unwrap().unwrap().status.unwrap();
    assert!(status.result.is_some() && status.completion_token.is_empty());
}

#[tokio::test]
async fn an_epoch_used_up_stays_used_up() {
    let directory = tempfile::tempdir().unwrap();
    let app = Scripted::stopped();
    let world = World::in_directory(app.clone(), directory.path()).await;
    world.stop(v1::ShutdownRequest { epoch: 6, ..request("s1") }).await;
    world.crash().await;

    let world = World::in_directory(app.clone(), directory.path()).await;
    assert_eq!(app.status().borrow().epoch, 0);
    let info = world.client.clone().get_hook_info(v1::GetHookInfoRequest {}).await.unwrap().into_inner().info.unwrap();
    assert_eq!(info.epoch, 6);
    let start = v1::StartApplicationRequest { epoch: 6, ..Default::default() };
    assert!(world.client.clone().start_application(start).await.is_err());
}
