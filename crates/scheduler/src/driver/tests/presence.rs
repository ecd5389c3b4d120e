//! What is known of hooks follows what they say.

use std::io;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use quiesce_protocol::v1::shutdown_hook_server::ShutdownHookServer;
use quiesce_testkit::eventually;
use quiesce_testkit::hook::{Script, ScriptedHook};
use quiesce_testkit::hostile;
use quiesce_testkit::proxy::{Mode, TcpProxy};
use tokio::io::{copy, duplex, split};
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Server;

use super::world::{LIMIT, SOURCE, World, application, hook, instance};
use crate::hooks::{HookState, Presence};
use crate::records::Connect;

impl World {
    fn presence(&self) -> Presence {
        self.hooks.presence(&application(), &instance("a"))
    }

    async fn presence_becomes(&self, state: HookState) -> Presence {
        eventually(format!("the hook to be {state:?}"), LIMIT, async || {
            let presence = self.presence();
            if presence.state == state { Ok(presence) } else { Err(format!("{:?}", presence.state)) }
        })
        .await
    }
}

#[tokio::test]
async fn a_registered_hook_is_asked_at_once_and_its_answer_kept() {
    let world = World::new().await;
    assert_eq!(world.presence(), Presence::default());
    let mut script = Script::default();
    script.info.ready = Some(false);
    script.info.not_ready_reason = "no such process".to_owned();
    let (_hook, listening) = hook(script).await;
    world.register("a", SOURCE, &listening).await;
    let presence = world.presence_becomes(HookState::NotReady).await;
    assert!(presence.connected && presence.last_seen.is_some());
    assert_eq!(presence.info.unwrap().not_ready_reason, "no such process");
}

#[tokio::test]
async fn a_hook_that_is_asked_before_it_has_its_token_is_asked_again_soon() {
    let world = World::new().await;
    // What a hook says that does not know yet by what to recognise the scheduler.
    let (hook, listening) = hook(Script { info_error: Some(Code::Unavailable), ..Script::default() }).await;
    world.register("a", SOURCE, &listening).await;
    world.presence_becomes(HookState::Unreachable).await;
    hook.change(|script| script.info_error = None);
    // A hook that is gone for good would be asked only after this.
    eventually("the hook to be ready", LIMIT / 2, async || world.presence().state == HookState::Ready).await;
}

#[tokio::test]
async fn a_broken_connection_is_noticed_and_what_was_known_is_kept() {
    let world = World::new().await;
    let (_hook, listening) = hook(Script::default()).await;
    let proxy = TcpProxy::start(listening.address).await;
    world.register_at("a", SOURCE, Connect::Listen { endpoint: proxy.address().to_string() }).await;
    world.presence_becomes(HookState::Ready).await;
    proxy.set_mode(Mode::Cut);
    let presence = world.presence_becomes(HookState::Unreachable).await;
    assert!(!presence.connected && presence.info.is_some());
    proxy.set_mode(Mode::Pass);
    world.register_at("a", SOURCE, Connect::Listen { endpoint: proxy.address().to_string() }).await;
    world.presence_becomes(HookState::Ready).await;
}

#[tokio::test]
async fn a_registration_elsewhere_leads_elsewhere() {
    let world = World::new().await;
    let (old, old_at) = hook(Script::default()).await;
    world.register("a", SOURCE, &old_at).await;
    old.told(|calls| !calls.is_empty()).await;
    let (new, new_at) = hook(Script::default()).await;
    world.register("a", SOURCE, &new_at).await;
    new.told(|calls| !calls.is_empty()).await;
    world.hooks.forgotten(&application(), &instance("a"));
    assert_eq!(world.presence(), Presence::default());
}

#[tokio::test]
async fn a_unix_socket_is_a_place_too() {
    let world = World::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hook");
    let (hook, listening) = hook(Script::default()).await;
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let address = listening.address;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(address).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    world.register_at("a", SOURCE, Connect::Listen { endpoint: format!("unix:{}", path.display()) }).await;
    world.presence_becomes(HookState::Ready).await;
    assert!(!hook.calls().is_empty());
}

#[tokio::test]
async fn whoever_comes_is_heard_soon_however_many_do_not_answer() {
    // Each would hold a place for as long as an answer may take, which is half a minute for all of them.
    const DEAF: usize = 400;
    let world = World::new().await;
    let deaf = hostile::deaf().await;
    for number in 0..DEAF {
        let endpoint = deaf.address.to_string();
        world.register_at(&format!("deaf-{number}"), SOURCE, Connect::Listen { endpoint }).await;
    }
    let (_hook, listening) = hook(Script::default()).await;
    world.register("a", SOURCE, &listening).await;
    eventually("the hook to be ready", LIMIT / 2, async || world.presence().state == HookState::Ready).await;
}

#[tokio::test(start_paused = true)]
async fn an_attached_agent_that_is_not_heard_any_more_has_to_dial_in_anew() {
    let world = World::new().await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let ((ours, far), (near, theirs)) = (duplex(1 << 16), duplex(1 << 16));
    let ((mut from_us, mut to_us), (mut from_agent, mut to_agent)) = (split(far), split(near));
    let towards_agent = tokio::spawn(async move { copy(&mut from_us, &mut to_agent).await });
    let towards_us = tokio::spawn(async move { copy(&mut from_agent, &mut to_us).await });
    let server = Server::builder().add_service(ShutdownHookServer::new(ScriptedHook::new(Script::default())));
    tokio::spawn(server.serve_with_incoming(stream::iter([io::Result::Ok(theirs)]).chain(stream::pending())));
    world.hooks.attach(&(application(), instance("a")), ours).await.unwrap();
    assert_eq!(world.presence().state, HookState::Ready);

    towards_us.abort();
    let hung_up = timeout(Duration::from_secs(60), towards_agent).await;
    hung_up.expect("the scheduler hangs up on whom it does not hear").unwrap().unwrap();
    world.presence_becomes(HookState::Unreachable).await;
}
