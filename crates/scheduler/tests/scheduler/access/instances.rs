//! Agents: they join with one token, and are the instance they joined as with another.

use quiesce_protocol::v1;
use tonic::Code;
use v1::token::Role;

use super::callers::{House, dialling, wanted};
use crate::world::{expect_error, seconds};

const ONE: &str = "applications/shop/instances/one";

fn start(agent_id: &str) -> v1::AdmitStartRequest {
    v1::AdmitStartRequest {
        instance: ONE.to_owned(),
        start_id: "start".to_owned(),
        agent_id: agent_id.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_instance_goes_on_when_the_token_it_joined_with_is_used_up_and_over_restarts() {
    let house = House::open().await;
    house.application("shop").await;
    let join = house.person(Role::Agent, &["shop"]).await;
    let mut agent = house.caller(&join);
    let answer = agent.gateway.register_instance(dialling(ONE, "agent")).await.unwrap().into_inner();
    let refused = agent.gateway.register_instance(dialling(ONE, "agent")).await;
    expect_error(refused, Code::Unauthenticated, "CREDENTIALS_INVALID");
    drop(agent);
    let (store, directory) = house.close().await;
    let house = House::again(store, directory).await;
    let mut instance = house.caller(&answer.instance_token);
    let again = instance.gateway.register_instance(dialling(ONE, "agent")).await.unwrap().into_inner();
    assert_eq!(again.instance_token, answer.instance_token, "it has it for life");
    assert_eq!(instance.gateway.admit_start(start("agent")).await.unwrap().into_inner().epoch, 1);
    drop(instance);
    house.close().await;
}

#[tokio::test]
async fn nobody_takes_over_a_name_whose_copy_may_run() {
    let house = House::open().await;
    house.application("shop").await;
    let token = v1::Token { max_uses: Some(10), ..wanted(Role::Agent, &["shop"]).token.unwrap() };
    let (join, _) = house.token(v1::CreateTokenRequest { token: Some(token), ..Default::default() }).await;
    let mut joins = house.caller(&join);
    let first = joins.gateway.register_instance(dialling(ONE, "agent")).await.unwrap().into_inner().instance_token;
    let mut holder = house.caller(&first);
    let epoch = holder.gateway.admit_start(start("agent")).await.unwrap().into_inner().epoch;
    // Whoever says the same agent id knows no more than what everybody can read.
    for agent_id in ["agent", "another"] {
        let refused = joins.gateway.register_instance(dialling(ONE, agent_id)).await;
        expect_error(refused, Code::FailedPrecondition, "INSTANCE_IN_USE");
    }
    let end = v1::ReportEndRequest {
        instance: ONE.to_owned(),
        agent_id: "agent".to_owned(),
        epoch,
        result: Some(v1::StopResult {
            outcome: v1::stop_result::Outcome::Stopped.into(),
            evidence: v1::Evidence::GroupEmpty.into(),
            ..Default::default()
        }),
    };
    expect_error(joins.gateway.report_end(end.clone()).await, Code::PermissionDenied, "CALLER_NOT_ALLOWED");
    holder.gateway.report_end(end).await.unwrap();
    // Its end is known, and it is not there.
    let second = joins.gateway.register_instance(dialling(ONE, "another")).await.unwrap().into_inner().instance_token;
    assert_ne!(first, second);
    for mut old in [house.caller(&first)] {
        let refused = old.gateway.register_instance(dialling(ONE, "agent")).await;
        expect_error(refused, Code::Unauthenticated, "CREDENTIALS_INVALID");
        expect_error(old.gateway.admit_start(start("agent")).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    }
    house.caller(&second).gateway.admit_start(start("another")).await.unwrap();
    drop((joins, holder));
    house.close().await;
}

#[tokio::test]
async fn what_is_forgotten_does_not_come_back_with_its_old_credential() {
    let house = House::open().await;
    house.application("shop").await;
    let old = house.instance("shop", "one").await;
    house
        .caller(&old)
        .gateway
        .deregister_instance(v1::DeregisterInstanceRequest { name: ONE.to_owned() })
        .await
        .unwrap();
    house.instance("shop", "one").await;
    let refused = house.caller(&old).gateway.register_instance(dialling(ONE, "agent")).await;
    expect_error(refused, Code::Unauthenticated, "CREDENTIALS_INVALID");
    house.close().await;
}

#[tokio::test]
async fn a_join_token_is_counted_however_many_come_at_once() {
    let house = House::open().await;
    house.application("shop").await;
    let token = v1::Token { max_uses: Some(3), ..wanted(Role::Agent, &["shop"]).token.unwrap() };
    let request = v1::CreateTokenRequest { token: Some(token), lifetime: seconds(60) };
    let (join, _) = house.token(request).await;
    let joining = (0..8).map(|number| {
        let mut agent = house.caller(&join);
        async move {
            let name = format!("applications/shop/instances/i{number}");
            agent.gateway.register_instance(dialling(&name, "agent")).await
        }
    });
    let joined = futures::future::join_all(joining).await;
    assert_eq!(joined.iter().filter(|one| one.is_ok()).count(), 3);
    house.close().await;
}
