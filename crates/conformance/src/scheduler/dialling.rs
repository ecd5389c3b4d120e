//! A: agents that dial in.

use std::time::Duration;

use quiesce_protocol::v1;
use quiesce_protocol::v1::instance::ConnectMode;
use quiesce_protocol::v1::operation::State;
use quiesce_runtime::machine::Socket;
use quiesce_runtime::telemetry::chain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::fake::{Act, Call, Fake, Script, stopped, stopping, stops};
use super::stage::{PLENTY, Stage, ok, patient};
use super::{Check, rules};
use crate::check::{Stop, Verdict, expect};

/// For ALPN.
const PROTOCOL: &[u8] = b"quiesce-attach/1";
/// Longest line of the contract.
const LINE_MAX: usize = 512;

pub(super) const CHECKS: &[Check] = checks! {
    A01 Must "attached with the token: OK, and a migration goes over the reversed connection",
        rules::ATTACH, "Speak HTTP/2 as client on the accepted socket.", [], attached;
    A02 Must "a wrong token, a used one, no token: an ERROR line with code and reason, then the end",
        rules::ATTACH_ERROR, "Answer one line and close.", [], error_line;
    A03 Must "a second connection replaces the first, which is closed",
        rules::A1, "Close the older one once the newer has answered GetHookInfo.", [], replaced;
    A04 Must "a connection that sends half a line is closed within 5 to 10 s",
        rules::A2, "Give the line a few seconds.", [], slow_line;
    A05 Must "gRPC and dialling in on one port, if attach_endpoint says so",
        rules::ONE_PORT, "Look at the first bytes of a connection.", [], one_port;
    A06 Must "the connection is cut during a shutdown: joined over the next with the same id",
        rules::A5, "Join when the agent is back; nothing has ended.", [], cut;
};

async fn register(stage: &Stage, application: &str) -> Result<v1::RegisterInstanceResponse, Stop> {
    let name = format!("{application}/instances/one");
    let instance = v1::Instance {
        agent_id: format!("agent of {name}"),
        name,
        connect_mode: ConnectMode::DialIn.into(),
        cluster: stage.cluster("a"),
        ..Default::default()
    };
    let answer = stage.register(instance).await?;
    if answer.attach_token.is_empty() {
        return Err(Stop::Skipped("registered to dial in, and no attach_token came: dialling in is off".to_owned()));
    }
    Ok(answer)
}

/// A connection to where agents dial in.
async fn dial(stage: &Stage, answer: &v1::RegisterInstanceResponse) -> Result<Box<dyn Socket>, Stop> {
    let endpoint = &stage.subject.endpoint;
    let place = if answer.attach_endpoint.is_empty() { endpoint.clone() } else { endpoint.at(&answer.attach_endpoint) };
    let opened = place.open(PROTOCOL).await;
    opened.map_err(|error| Stop::failed("a connection to attach_endpoint", chain(&error).to_string()))
}

/// The answer to a preface, without its end.
async fn answer_to(socket: &mut Box<dyn Socket>, line: &str) -> Result<String, Stop> {
    let failed = |error: std::io::Error| Stop::failed("an answer to the preface", error.to_string());
    socket.write_all(line.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    // Byte by byte: what comes behind the line is HTTP/2.
    while !answer.ends_with(b"\r\n") && answer.len() < LINE_MAX {
        let byte = timeout(PLENTY, socket.read_u8()).await;
        let byte = byte.map_err(|_elapsed| Stop::failed(format!("a line within {PLENTY:?}"), "nothing"))?;
        answer.push(byte.map_err(failed)?);
    }
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

async fn attach(stage: &Stage, application: &str, hook: &Fake) -> Verdict {
    let registered = register(stage, application).await?;
    let mut socket = dial(stage, &registered).await?;
    let answer = answer_to(&mut socket, &format!("QUIESCE/1 ATTACH {}\r\n", registered.attach_token)).await?;
    expect(answer == "QUIESCE/1 OK", "QUIESCE/1 OK", answer)?;
    let since = Instant::now();
    hook.attach(socket);
    let asked =
        |calls: &[(Instant, Call)]| calls.iter().any(|(at, call)| *at >= since && matches!(call, Call::Info(_)));
    expect(hook.told(PLENTY, asked).await, "GetHookInfo over the reversed connection", "nothing")
}

async fn attached(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let hook = stage.fake(Script::of([stops()]));
    attach(stage, &name, &hook).await?;
    let operation = stage.migrate(&name).await?;
    stage.until_state(&operation, State::Succeeded).await.map(drop)
}

async fn error_line(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let hook = stage.fake(Script::of([stops()]));
    let registered = register(stage, &name).await?;
    let used = registered.attach_token.clone();
    let mut socket = dial(stage, &registered).await?;
    let answer = answer_to(&mut socket, &format!("QUIESCE/1 ATTACH {used}\r\n")).await?;
    expect(answer == "QUIESCE/1 OK", "QUIESCE/1 OK", answer)?;
    hook.attach(socket);
    for token in ["garbage", used.as_str(), ""] {
        let mut socket = dial(stage, &registered).await?;
        let answer = answer_to(&mut socket, &format!("QUIESCE/1 ATTACH {token}\r\n")).await?;
        let words: Vec<_> = answer.split(' ').collect();
        let shape = words.len() == 4 && words[..2] == ["QUIESCE/1", "ERROR"];
        expect(shape, "QUIESCE/1 ERROR <code> <reason>", &answer)?;
        let known = super::errors::code_of(words[3]).map(crate::check::code_name);
        expect(known.as_deref() == Some(words[2]), "a reason with its code", &answer)?;
        expect_closed(&mut socket).await?;
    }
    Ok(())
}

async fn expect_closed(socket: &mut Box<dyn Socket>) -> Verdict {
    let mut rest = Vec::new();
    match timeout(PLENTY, socket.read_to_end(&mut rest)).await {
        // A reset closes as well.
        Ok(_closed) => Ok(()),
        Err(_elapsed) => Err(Stop::failed(format!("the end of the connection within {PLENTY:?}"), "open")),
    }
}

async fn replaced(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let (older, newer) = (stage.fake(Script::of([stops()])), stage.fake(Script::of([stops()])));
    attach(stage, &name, &older).await?;
    attach(stage, &name, &newer).await?;
    let operation = stage.migrate(&name).await?;
    stage.until_state(&operation, State::Succeeded).await?;
    let (old, new) = (older.ids().len(), newer.ids().len());
    expect((old, new) == (0, 1), "the shutdown over the newer connection", format!("{old} older, {new} newer"))
}

async fn slow_line(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let registered = register(stage, &name).await?;
    let mut socket = dial(stage, &registered).await?;
    let began = Instant::now();
    let sent = socket.write_all(b"QUIESCE/1 ATT").await;
    sent.map_err(|error| Stop::failed("a connection", error.to_string()))?;
    expect_closed(&mut socket).await?;
    let took = began.elapsed();
    let fits = took >= Duration::from_secs(4) && took <= Duration::from_secs(13);
    expect(fits, "closed after 5 to 10 s", format!("{took:?}"))
}

async fn one_port(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let registered = register(stage, &name).await?;
    let (place, called) = (&registered.attach_endpoint, format!("{:?}", stage.subject.endpoint));
    if !place.is_empty() && *place != called {
        return Err(Stop::Skipped(format!("agents dial in at {place}, callers come in at {called}")));
    }
    let hook = stage.fake(Script::of([stops()]));
    attach(stage, &name, &hook).await?;
    let mut calls = stage.subject.connect().await?;
    ok("GetServerInfo", calls.scheduler.get_server_info(v1::GetServerInfoRequest {}).await).map(drop)
}

async fn cut(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let hook = stage.fake(Script::of([[stopping(), vec![Act::UntilReleased, stopped()]].concat()]));
    attach(stage, &name, &hook).await?;
    let operation = stage.migrate(&name).await?;
    stage.until(&operation, "the point of no return", |operation| operation.point_of_no_return_time.is_some()).await?;
    hook.vanish();
    attach(stage, &name, &hook).await?;
    hook.release();
    let found = stage.until_state(&operation, State::Succeeded).await?;
    expect(
        found.attempt == 1 && hook.ids().len() == 1,
        "one attempt, one shutdown",
        format!("attempt {}", found.attempt),
    )?;
    expect(hook.shutdowns().len() >= 2, "joined over the next connection", hook.shutdowns().len())
}
