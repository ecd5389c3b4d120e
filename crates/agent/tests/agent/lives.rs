//! Lives of an agent.

use std::future::ready;

use quiesce_protocol::v1::conclude_shutdown_request::Disposition;
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::shutdown_hook_client::ShutdownHookClient;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{self, ShutdownPhase};
use quiesce_testkit::eventually;
use quiesce_testkit::proxy::TcpProxy;
use rustix::process::Signal;
use tonic::{Code, Request};

use crate::scheduler::{HOOK_TOKEN, Scheduler};
use crate::stage::{INSTANCE, LIMIT, Stage, info, until_phase};

/// Nobody listens there: reserved, and never handed out by the kernel.
const NOWHERE: &str = "127.0.0.1:1";

#[tokio::test]
async fn an_agent_dials_in_stops_its_application_and_holds_it() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let mut agent = stage.agent_at(&scheduler, &["--grace-period", "30s", "--label", "team=db"]);
    let mut hook = scheduler.hook_after(0).await;
    stage.until_lines("starts", 1).await;
    assert_eq!(stage.lines("starts"), ["1"]);
    let registered = scheduler.book().registrations[0].clone();
    let default = registered.default_application.unwrap();
    assert_eq!((default.cluster.as_str(), default.policy.unwrap().grace_period.unwrap().seconds), ("edge-1", 30));
    let instance = registered.instance.unwrap();
    assert_eq!((instance.name.as_str(), instance.labels["team"].as_str()), (INSTANCE, "db"));
    assert!(!instance.agent_id.is_empty() && !registered.held);

    stage.let_go();
    let last = until_phase(&mut hook, "s1", ShutdownPhase::Stopped).await;
    let result = last.result.unwrap();
    assert_eq!((result.outcome(), result.exit_code, result.held), (Outcome::Stopped, Some(3), true));
    assert_eq!(last.completion_token, "qct1.x");
    assert_eq!(info(&mut hook).await.app_state(), AppState::Held);
    assert_eq!(stage.lines("terms").len(), 1);

    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(LIMIT).await.code(), Some(0));
    assert!(scheduler.book().ends.is_empty(), "an end within an operation is not an end by itself");
    agent.wait_for_output_end(LIMIT).await;
    assert!(!agent.stderr().contains("qct1.x") && !agent.stderr().contains("attach-1"));
}

#[tokio::test]
async fn an_application_that_ends_by_itself_takes_the_agent_with_it() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let mut agent = stage.agent_of(&scheduler.address.to_string(), &[], "exit 7");
    assert_eq!(agent.wait(LIMIT).await.code(), Some(7));
    let end = scheduler.book().ends[0].clone();
    assert_eq!((end.epoch, end.result.unwrap().exit_code), (1, Some(7)));
    // The permission was given back, so the next life asks for a new one.
    let mut agent = stage.agent_of(&scheduler.address.to_string(), &[], "kill -9 $$");
    assert_eq!(agent.wait(LIMIT).await.code(), Some(137));
    assert_eq!(scheduler.book().ends[1].epoch, 2);
}

#[tokio::test]
async fn an_agent_that_is_asked_to_end_stops_its_application_first() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let mut agent = stage.agent_at(&scheduler, &[]);
    stage.until_lines("starts", 1).await;
    agent.signal(Signal::TERM);
    stage.until_lines("terms", 1).await;
    // Neither impatience nor a second signal kills it.
    agent.signal(Signal::INT);
    agent.wait_for_line("asked to end again", LIMIT).await;
    stage.let_go();
    assert_eq!(agent.wait(LIMIT).await.code(), Some(3));
    assert_eq!(stage.lines("terms").len(), 1);
    assert_eq!(scheduler.book().ends[0].result.as_ref().unwrap().exit_code, Some(3));
}

#[tokio::test]
async fn a_connection_to_the_scheduler_that_leads_nowhere_is_given_up() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    scheduler.book().permits = false;
    let proxy = TcpProxy::start(scheduler.address).await;
    let _agent = stage.agent(&proxy.address().to_string(), &[]);
    eventually("a question", LIMIT, || ready(!scheduler.book().admissions.is_empty())).await;
    // Nobody resets it, and the kernel gets every packet acknowledged.
    proxy.strand_connections();
    scheduler.book().permits = true;
    stage.until_lines("starts", 1).await;
}

#[tokio::test]
async fn nothing_starts_without_permission() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    scheduler.book().permits = false;
    let agent = stage.agent_at(&scheduler, &[]);
    agent.wait_for_line("START_NOT_PERMITTED", LIMIT).await;
    assert!(stage.lines("starts").is_empty());
    scheduler.book().permits = true;
    stage.until_lines("starts", 1).await;
    let admissions = scheduler.book().admissions.clone();
    assert!(admissions.iter().all(|admission| admission.start_id == admissions[0].start_id), "one start, one name");
}

#[tokio::test]
async fn an_agent_without_a_scheduler_waits_and_ends_when_asked() {
    let stage = Stage::new();
    let mut agent = stage.agent(NOWHERE, &[]);
    agent.wait_for_line("waiting for permission", LIMIT).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(LIMIT).await.code(), Some(0));
    assert!(stage.lines("starts").is_empty());
}

#[tokio::test]
async fn a_restarted_agent_takes_its_application_over_without_a_scheduler() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let mut first = stage.agent_at(&scheduler, &[]);
    stage.until_lines("starts", 1).await;
    first.kill_9().await;
    let mut second = stage.agent(NOWHERE, &[]);
    second.wait_for_line("taking it over", LIMIT).await;
    stage.let_go();
    second.signal(Signal::TERM);
    second.wait(LIMIT).await;
    assert_eq!((stage.lines("starts").len(), stage.lines("terms").len()), (1, 1));
    // Nobody was told of the end, so the permission still stands.
    let third = stage.agent(NOWHERE, &[]);
    stage.until_lines("starts", 2).await;
    assert_eq!(stage.lines("starts"), ["1", "1"]);
    drop(third);
}

#[tokio::test]
async fn a_cut_connection_in_mid_shutdown_is_joined_again() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let proxy = TcpProxy::start(scheduler.attach_address).await;
    scheduler.book().attach_endpoint = proxy.address().to_string();
    let agent = stage.agent_at(&scheduler, &[]);
    let mut hook = scheduler.hook_after(0).await;
    stage.until_lines("starts", 1).await;
    let seen = until_phase(&mut hook, "s1", ShutdownPhase::Stopping).await.sequence;
    stage.until_lines("terms", 1).await;
    let connections = scheduler.connections();
    proxy.cut_connections();

    let mut hook = scheduler.hook_after(connections).await;
    let joined = until_phase(&mut hook, "s1", ShutdownPhase::Stopping).await;
    assert!(joined.sequence >= seen);
    stage.let_go();
    let last = until_phase(&mut hook, "s1", ShutdownPhase::Stopped).await;
    assert_eq!(last.result.unwrap().outcome(), Outcome::Stopped);
    assert_eq!(stage.lines("terms").len(), 1);
    drop(agent);
}

#[tokio::test]
async fn an_agent_killed_in_mid_shutdown_goes_on_and_tells_nobody_twice() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let mut first = stage.agent_at(&scheduler, &[]);
    let mut hook = scheduler.hook_after(0).await;
    stage.until_lines("starts", 1).await;
    let seen = until_phase(&mut hook, "s1", ShutdownPhase::Stopping).await.sequence;
    stage.until_lines("terms", 1).await;
    let connections = scheduler.connections();
    first.kill_9().await;

    let second = stage.agent_at(&scheduler, &[]);
    let mut hook = scheduler.hook_after(connections).await;
    let joined = until_phase(&mut hook, "s1", ShutdownPhase::Stopping).await;
    assert!(joined.sequence > seen, "{} > {seen}", joined.sequence);
    stage.let_go();
    let last = until_phase(&mut hook, "s1", ShutdownPhase::Stopped).await;
    let result = last.result.unwrap();
    assert!(result.outcome() == Outcome::Stopped && result.held && last.completion_token == "qct1.x");
    assert_eq!((stage.lines("starts").len(), stage.lines("terms").len()), (1, 1));
    drop(second);
}

#[tokio::test]
async fn a_hold_survives_and_only_a_higher_epoch_lifts_it() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    stage.let_go();
    let mut first = stage.agent_at(&scheduler, &[]);
    let mut hook = scheduler.hook_after(0).await;
    stage.until_lines("starts", 1).await;
    until_phase(&mut hook, "s1", ShutdownPhase::Stopped).await;
    let connections = scheduler.connections();
    scheduler.book().permits = false;
    first.kill_9().await;

    let second = stage.agent_at(&scheduler, &[]);
    let mut hook = scheduler.hook_after(connections).await;
    second.wait_for_line("held: waiting for the scheduler", LIMIT).await;
    let registered = scheduler.book().registrations.last().unwrap().clone();
    assert!(registered.held && registered.default_application.is_none());
    assert_eq!(scheduler.book().admissions.last().unwrap().held_by, "operations/op-1");
    let start = |epoch| v1::StartApplicationRequest { epoch, ..Default::default() };
    assert!(hook.start_application(start(1)).await.is_err());
    hook.start_application(start(2)).await.unwrap();
    stage.until_lines("starts", 2).await;
    assert_eq!(stage.lines("starts"), ["1", "2"]);
    drop(second);
}

#[tokio::test]
async fn a_standby_waits_to_be_started() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let agent = stage.agent_at(&scheduler, &["--standby"]);
    let mut hook = scheduler.hook_after(0).await;
    assert_eq!(info(&mut hook).await.app_state(), AppState::Held);
    assert!(scheduler.book().registrations[0].held && scheduler.book().admissions.is_empty());
    let request = v1::StartApplicationRequest { epoch: 5, ..Default::default() };
    let mut stream = hook.start_application(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(response) = stream.message().await.unwrap() {
        last = response.status;
    }
    assert_eq!(last.unwrap().phase(), v1::StartPhase::Ready);
    assert_eq!(stage.lines("starts"), ["5"]);
    drop(agent);
}

#[tokio::test]
async fn a_deleted_application_does_not_come_back() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    stage.let_go();
    let mut agent = stage.agent_at(&scheduler, &[]);
    let mut hook = scheduler.hook_after(0).await;
    stage.until_lines("starts", 1).await;
    until_phase(&mut hook, "s1", ShutdownPhase::Stopped).await;
    let disposition = Disposition::Retired.into();
    hook.conclude_shutdown(v1::ConcludeShutdownRequest { disposition, ..Default::default() }).await.unwrap();
    assert_eq!(agent.wait(LIMIT).await.code(), Some(3), "that of the application");

    let mut again = stage.agent_at(&scheduler, &[]);
    assert_eq!(again.wait(LIMIT).await.code(), Some(78));
    again.wait_for_line("new life", LIMIT).await;
    assert_eq!(stage.lines("starts").len(), 1);
}

#[tokio::test]
async fn a_held_agent_that_learns_of_the_deletion_later_retires() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    scheduler.book().deleted = true;
    let mut agent = stage.agent_at(&scheduler, &["--standby"]);
    assert_eq!(agent.wait(LIMIT).await.code(), Some(0));
    let mut again = stage.agent_at(&scheduler, &["--standby"]);
    assert_eq!(again.wait(LIMIT).await.code(), Some(78));
}

#[tokio::test]
async fn a_refused_attachment_is_tried_again_with_another_token() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    scheduler.book().refuse_attach = 2;
    let agent = stage.agent_at(&scheduler, &[]);
    scheduler.hook_after(0).await;
    assert!(scheduler.book().registrations.len() >= 3);
    agent.wait_for_line("CREDENTIALS_INVALID", LIMIT).await;
}

#[tokio::test]
async fn a_listening_agent_registers_where_it_is_and_asks_for_the_token() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let agent = stage.agent_at(&scheduler, &["--listen", "127.0.0.1:0"]);
    stage.until_lines("starts", 1).await;
    let instance = scheduler.book().registrations[0].instance.clone().unwrap();
    assert_eq!(instance.connect_mode(), v1::instance::ConnectMode::Listen);
    assert!(!instance.endpoint.ends_with(":0"), "{}", instance.endpoint);
    let hook = ShutdownHookClient::connect(format!("http://{}", instance.endpoint)).await.unwrap();
    let call = async |token: &str| {
        let mut request = Request::new(v1::GetHookInfoRequest {});
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        hook.clone().get_hook_info(request).await
    };
    eventually("the hook to know its token", LIMIT, || call(HOOK_TOKEN)).await;
    assert_eq!(call("other").await.unwrap_err().code(), Code::Unauthenticated);
    drop(agent);
}

#[tokio::test]
async fn a_unix_socket_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let short = quiesce_testkit::directory::short_temp_dir();
    let socket = short.path().join("hook");
    let agent = stage.agent_at(&scheduler, &["--listen", &format!("unix:{}", socket.display())]);
    eventually("the socket", LIMIT, || ready(socket.exists())).await;
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let hook = ShutdownHookClient::connect(format!("unix:{}", socket.display())).await.unwrap();
    assert_eq!(info(&mut hook.clone()).await.instance, INSTANCE);
    drop(agent);
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_is_said() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_quiesce-agent"));
    command.args(["--application", "shop", "--cluster", "edge-1", "--instance", "shop-0"]);
    command.arg("--scheduler").arg(format!("http://{}", scheduler.address)).arg("--state-dir").arg(stage.state());
    command.args(["--", "/nonexistent/program"]);
    let mut agent = quiesce_testkit::process::spawn("agent", command);
    assert_eq!(agent.wait(LIMIT).await.code(), Some(127));
    agent.wait_for_line("/nonexistent/program", LIMIT).await;
}

#[tokio::test]
async fn a_running_shutdown_goes_before_the_wish_that_the_agent_ends() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let mut agent = stage.agent_at(&scheduler, &[]);
    let mut hook = scheduler.hook_after(0).await;
    stage.until_lines("starts", 1).await;
    until_phase(&mut hook, "s1", ShutdownPhase::Stopping).await;
    stage.until_lines("terms", 1).await;
    agent.signal(Signal::TERM);
    agent.wait_for_line("it goes first", LIMIT).await;
    let mut follower = hook.clone();
    let followed = tokio::spawn(async move { until_phase(&mut follower, "s1", ShutdownPhase::Stopped).await });
    // Only once the call is there is it among those the agent waits for.
    assert_eq!(info(&mut hook).await.app_state(), AppState::Stopping);
    stage.let_go();
    assert_eq!(followed.await.unwrap().result.unwrap().outcome(), Outcome::Stopped);
    assert_eq!(agent.wait(LIMIT).await.code(), Some(0));
    assert_eq!(stage.lines("terms").len(), 1);
}

#[tokio::test]
async fn a_drain_command_gives_the_time_to_cancel() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let drained = stage.path().join("drained");
    let command = format!("echo $QUIESCE_KIND > {}; sleep 1000", drained.display());
    let agent = stage.agent_at(&scheduler, &["--drain-command", &command]);
    let mut hook = scheduler.hook_after(0).await;
    stage.until_lines("starts", 1).await;
    until_phase(&mut hook, "s1", ShutdownPhase::Draining).await;
    stage.until_lines("drained", 1).await;
    assert_eq!(stage.lines("drained"), ["migrate"]);
    let request = v1::CancelShutdownRequest { shutdown_id: "s1".to_owned(), ..Default::default() };
    let status = hook.cancel_shutdown(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.phase(), ShutdownPhase::Cancelled);
    let info = info(&mut hook).await;
    assert!(matches!(info.app_state(), AppState::Running | AppState::Starting) && stage.lines("terms").is_empty());
    drop(agent);
}
