//! I: who is there, and who may ask.

use std::time::Duration;

use futures::future::join_all;
use prost::Message as _;
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{self, Capability};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::reports::show;
use super::stage::{PLENTY, POLL, Running, Stage};
use crate::check::{Check, Level, Need, Stop, Verdict, code_name, expect, tell};
use crate::fixture::Mode;
use crate::raw::{RawRequest, UNKNOWN_FIELD};
use crate::reach::{Credential, Hook};
use crate::{reflection, rules};

/// What the contract gives GetHookInfo.
const INFO_LIMIT: Duration = Duration::from_secs(2);
/// How long a hook may need to notice that its application is gone.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);
/// A kind of operation nobody has.
const UNKNOWN_KIND: i32 = 4_711;

const ADVICE_CREDENTIALS: &str =
    "Look at the credentials before anything else, on every RPC, in one place that no RPC can get past.";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "I01",
        level: Level::Must,
        title: "GetHookInfo is answered within 2 s",
        rule: rules::INFO,
        advice: "Answer from what is known already; do not ask the application.",
        needs: &[],
        run: |stage| Box::pin(answers_quickly(stage)),
    },
    Check {
        id: "I02",
        level: Level::Must,
        title: "GetHookInfo 100 times, 10 in parallel: the same capabilities, and the application is left alone",
        rule: rules::INFO,
        advice: "GetHookInfo only reads; capabilities are fixed when the hook starts.",
        needs: &[],
        run: |stage| Box::pin(answers_the_same(stage)),
    },
    Check {
        id: "I03",
        level: Level::Must,
        title: "app_state of a running application is RUNNING, STARTING or unset",
        rule: rules::INFO,
        advice: "Look at the process when you are asked, or leave app_state unset.",
        needs: &[],
        run: |stage| Box::pin(sees_it_run(stage)),
    },
    Check {
        id: "I04",
        level: Level::Should,
        title: "app_state of a killed application is STOPPED, HELD or unset within 5 s",
        rule: rules::INFO,
        advice: "Watch the process (pidfd, wait, the manager), or look at it when you are asked.",
        needs: &[],
        run: |stage| Box::pin(sees_it_gone(stage)),
    },
    Check {
        id: "I05",
        level: Level::Should,
        title: "implementation is named, protocol_version begins with \"1.\"",
        rule: rules::INFO,
        advice: "Fill in HookInfo.implementation and HookInfo.protocol_version (\"1.0\").",
        needs: &[],
        run: |stage| Box::pin(names_itself(stage)),
    },
    Check {
        id: "I06",
        level: Level::Must,
        title: "every RPC without credentials is UNAUTHENTICATED, and does nothing",
        rule: rules::CALLER,
        advice: ADVICE_CREDENTIALS,
        needs: &[Need::Bearer],
        run: |stage| Box::pin(stranger(stage, None, &[Code::Unauthenticated])),
    },
    Check {
        id: "I07",
        level: Level::Must,
        title: "every RPC with a wrong bearer token is UNAUTHENTICATED or PERMISSION_DENIED, and does nothing",
        rule: rules::CALLER,
        advice: ADVICE_CREDENTIALS,
        needs: &[Need::Bearer],
        run: |stage| Box::pin(stranger(stage, Some("wrong"), &[Code::Unauthenticated, Code::PermissionDenied])),
    },
    Check {
        id: "I08",
        level: Level::Should,
        title: "grpc.health.v1 Check of \"\" is SERVING or UNIMPLEMENTED",
        rule: rules::REVERSED,
        advice: "Serve grpc.health.v1.Health with the status of the hook itself, or not at all.",
        needs: &[],
        run: |stage| Box::pin(is_healthy(stage)),
    },
    Check {
        id: "I09",
        level: Level::Should,
        title: "reflection lists quiesce.v1.ShutdownHook, and no service of the scheduler",
        rule: rules::UNANNOUNCED,
        advice: "Serve reflection (v1, or v1alpha) and register the services that are served, no others.",
        needs: &[],
        run: |stage| Box::pin(reflects(stage)),
    },
    Check {
        id: "I10",
        level: Level::Must,
        title: "RPCs that are not announced are UNIMPLEMENTED, and do nothing",
        rule: rules::UNANNOUNCED,
        advice: "Announce what works, and leave the rest to the generated server code.",
        needs: &[],
        run: |stage| Box::pin(does_what_it_says(stage)),
    },
    Check {
        id: "I11",
        level: Level::Must,
        title: "requests with unknown fields are treated as without them",
        rule: rules::UNANNOUNCED,
        advice: "Use the parser of protobuf as it is; do not refuse what it does not know.",
        needs: &[],
        run: |stage| Box::pin(takes_unknown_fields(stage)),
    },
    Check {
        id: "I12",
        level: Level::Must,
        title: "an unknown value in `kind` is accepted",
        rule: rules::KIND,
        advice: "Treat a kind you do not know as DELETE.",
        needs: &[],
        run: |stage| Box::pin(takes_unknown_kind(stage)),
    },
];

async fn answers_quickly(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let began = Instant::now();
    running.info().await?;
    let took = began.elapsed();
    expect(took < INFO_LIMIT, format!("an answer within {INFO_LIMIT:?}"), format!("it took {took:?}"))
}

async fn answers_the_same(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let mut all = Vec::new();
    for _ in 0..10 {
        let calls = (0..10).map(|_| {
            let mut hook = running.hook();
            async move { hook.get_hook_info(v1::GetHookInfoRequest {}).await }
        });
        all.extend(join_all(calls).await);
    }
    for answer in all {
        let info = answer.map_err(|status| Stop::failed("100 answers", tell(&status)))?.into_inner().info;
        let said: std::collections::BTreeSet<_> = info.unwrap_or_default().capabilities().collect();
        let expected = format!("the capabilities {:?} each time", stage.capabilities);
        expect(said == stage.capabilities, expected, format!("{said:?}"))?;
    }
    running.expect_untouched("after 100 GetHookInfo").await
}

async fn sees_it_run(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let state = running.info().await?.app_state();
    let fits = matches!(state, AppState::Running | AppState::Starting | AppState::Unspecified);
    expect(fits, "APP_STATE_RUNNING, APP_STATE_STARTING or unset", state.as_str_name())
}

async fn sees_it_gone(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    stage.subject.fixture.kill().await?;
    stage.until_gone(PLENTY).await?;
    let end = Instant::now() + NOTICE_LIMIT;
    loop {
        let Ok(Ok(answer)) =
            timeout(NOTICE_LIMIT, running.connection.hook.get_hook_info(v1::GetHookInfoRequest {})).await
        else {
            return Err(Stop::Skipped("the hook ends together with its application".to_owned()));
        };
        let state = answer.into_inner().info.unwrap_or_default().app_state();
        if matches!(state, AppState::Stopped | AppState::Held | AppState::Unspecified) {
            return Ok(());
        }
        if Instant::now() >= end {
            let expected = format!("APP_STATE_STOPPED, APP_STATE_HELD or unset within {NOTICE_LIMIT:?}");
            return Err(Stop::failed(expected, state.as_str_name()));
        }
        sleep(POLL).await;
    }
}

async fn names_itself(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let info = running.info().await?;
    expect(!info.implementation.is_empty(), "HookInfo.implementation", "it is empty")?;
    let version = &info.protocol_version;
    expect(version.starts_with("1."), "HookInfo.protocol_version that begins with \"1.\"", format!("{version:?}"))
}

/// One RPC with a request that would be good. The name of the RPC, and the capability that offers it.
type Rpc = (&'static str, Option<Capability>);

const RPCS: [Rpc; 9] = [
    ("GetHookInfo", None),
    ("CheckShutdown", Some(Capability::Check)),
    ("GetShutdown", Some(Capability::Status)),
    ("CancelShutdown", Some(Capability::Cancel)),
    ("UpdateDeadline", Some(Capability::UpdateDeadline)),
    ("KillApplication", Some(Capability::Kill)),
    ("StartApplication", Some(Capability::Start)),
    ("ConcludeShutdown", Some(Capability::Conclude)),
    ("Shutdown", None),
];

async fn call(running: &Running<'_>, mut hook: Hook, name: &str) -> Result<(), Status> {
    let request = running.stage.request();
    let (shutdown_id, instance) = (request.shutdown_id.clone(), request.instance.clone());
    match name {
        "GetHookInfo" => hook.get_hook_info(v1::GetHookInfoRequest {}).await.map(drop),
        "CheckShutdown" => {
            hook.check_shutdown(v1::CheckShutdownRequest { instance, ..Default::default() }).await.map(drop)
        }
        "GetShutdown" => hook.get_shutdown(v1::GetShutdownRequest { shutdown_id }).await.map(drop),
        "CancelShutdown" => {
            hook.cancel_shutdown(v1::CancelShutdownRequest { shutdown_id, ..Default::default() }).await.map(drop)
        }
        "UpdateDeadline" => {
            hook.update_deadline(v1::UpdateDeadlineRequest { shutdown_id, ..Default::default() }).await.map(drop)
        }
        "KillApplication" => {
            let completion_token = request.completion_token;
            let request = v1::KillApplicationRequest { shutdown_id, completion_token, ..Default::default() };
            hook.kill_application(request).await.map(drop)
        }
        "StartApplication" => opened(hook.start_application(running.start_request(i64::from(u32::MAX))).await).await,
        "ConcludeShutdown" => {
            let operation = request.operation;
            let request = v1::ConcludeShutdownRequest { instance, operation, ..Default::default() };
            hook.conclude_shutdown(request).await.map(drop)
        }
        _ => opened(hook.shutdown(request).await).await,
    }
}

/// The error of a stream may come at once or as its first message.
async fn opened<T>(call: Result<tonic::Response<tonic::Streaming<T>>, Status>) -> Result<(), Status> {
    match timeout(PLENTY, call?.into_inner().message()).await {
        Ok(message) => message.map(drop),
        Err(_elapsed) => Err(Status::deadline_exceeded("nothing came")),
    }
}

async fn stranger(stage: &Stage, bearer: Option<&str>, codes: &[Code]) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let stranger = stage.subject.connect_as(bearer).await?;
    let names: Vec<_> = codes.iter().map(|code| code_name(*code)).collect();
    for (name, _) in RPCS {
        let expected = format!("{} of {name}", names.join(" or "));
        match call(&running, stranger.hook.clone(), name).await {
            Err(status) => expect(codes.contains(&status.code()), expected, tell(&status))?,
            Ok(()) => return Err(Stop::failed(expected, "OK")),
        }
    }
    running.expect_untouched("after the calls of a stranger").await
}

async fn is_healthy(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let credential = Credential::new(stage.subject.bearer().as_deref());
    let mut health = HealthClient::with_interceptor(running.connection.line.channel.clone(), credential);
    match health.check(tonic_health::pb::HealthCheckRequest::default()).await {
        Ok(answer) => {
            let status = answer.into_inner().status();
            expect(status == ServingStatus::Serving, "SERVING", status.as_str_name())
        }
        Err(status) => expect(status.code() == Code::Unimplemented, "SERVING or UNIMPLEMENTED", tell(&status)),
    }
}

async fn reflects(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let credential = Credential::new(stage.subject.bearer().as_deref());
    let channel = running.connection.line.channel.clone();
    let expected = "a list of services with quiesce.v1.ShutdownHook";
    let names = match reflection::services(channel.clone(), credential.clone()).await {
        Err(status) if status.code() == Code::Unimplemented => reflection::services_by_alpha(channel, credential).await,
        answer => answer,
    };
    let names = names.map_err(|status| Stop::failed(expected, tell(&status)))?;
    expect(names.iter().any(|name| name == "quiesce.v1.ShutdownHook"), expected, format!("{names:?}"))?;
    let foreign = names.iter().find(|name| name.starts_with("quiesce.v1.") && *name != "quiesce.v1.ShutdownHook");
    expect(foreign.is_none(), "no service that a hook does not serve", format!("{names:?}"))
}

async fn does_what_it_says(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let unannounced = |(_, capability): &Rpc| capability.is_some_and(|capability| !stage.has(capability));
    let unannounced: Vec<_> = RPCS.into_iter().filter(unannounced).collect();
    if unannounced.is_empty() {
        return Err(Stop::Skipped("the hook announces everything there is".to_owned()));
    }
    for (name, _) in unannounced {
        let expected = format!("UNIMPLEMENTED of {name}");
        match call(&running, running.hook(), name).await {
            Err(status) => expect(status.code() == Code::Unimplemented, expected, tell(&status))?,
            Ok(()) => return Err(Stop::failed(expected, "OK")),
        }
    }
    running.expect_untouched("after calls of what is not announced").await
}

async fn takes_unknown_fields(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let mut request = stage.request().encode_to_vec();
    prost::encoding::string::encode(UNKNOWN_FIELD, &"from the future".to_owned(), &mut request);
    let path = http::uri::PathAndQuery::from_static("/quiesce.v1.ShutdownHook/Shutdown");
    let credential = Credential::new(stage.subject.bearer().as_deref());
    let channel =
        tonic::service::interceptor::InterceptedService::new(running.connection.line.channel.clone(), credential);
    let mut client = tonic::client::Grpc::new(channel);
    let expected = "a shutdown as without the unknown field";
    let failed = |status: Status| Stop::failed(expected, tell(&status));
    client.ready().await.map_err(|error| Stop::failed(expected, error.to_string()))?;
    let call = client.server_streaming(Request::new(request), path, RawRequest::<v1::ShutdownResponse>::new()).await;
    let mut reports = call.map_err(failed)?.into_inner();
    loop {
        let next = timeout(PLENTY, reports.message()).await;
        let next = next.map_err(|_elapsed| Stop::failed(expected, "nothing comes"))?.map_err(failed)?;
        let status = next.map(|response| response.status.unwrap_or_default());
        let Some(status) = status else { return Err(Stop::failed(expected, "the call ends without a result")) };
        if let Some(result) = &status.result {
            return expect(result.outcome() == Outcome::Stopped, expected, show(&status));
        }
    }
}

async fn takes_unknown_kind(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let request = v1::ShutdownRequest { kind: UNKNOWN_KIND, ..stage.request() };
    let last = running.stop(request).await?;
    let outcome = last.result.clone().unwrap_or_default().outcome();
    expect(outcome == Outcome::Stopped, "OUTCOME_STOPPED", show(&last))
}
