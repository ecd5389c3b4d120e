//! `quiesce cancel`, `retry`, `confirm`, `extend`: one word to a running operation, and how it stands then.

use std::time::Duration;

use quiesce_protocol::v1::{
    CancelOperationRequest, ConfirmOperationRequest, ExtendOperationRequest, Operation, RetryOperationRequest,
};
use tonic::Status;

use super::{Ending, Session, get, note, policy, request};
use crate::args::{CancelArgs, ConfirmArgs, ExtendArgs, Format, RetryArgs};
use crate::error::Error;
use crate::live::{verdict, view};
use crate::name;
use crate::output::json::Document;
use crate::output::text::{self, Line};
use crate::output::words;

pub(super) async fn cancel(session: &Session, args: CancelArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let request = CancelOperationRequest { name: name::operation(&args.operation), reason: args.reason };
    let what = format!("cancel {}", name::short(&request.name));
    let answer = client.call(&what, async |mut api| api.cancel_operation(request.clone()).await).await?;
    stands(session, &what, answer.operation)
}

pub(super) async fn retry(session: &Session, args: RetryArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let request_id = request::request_id(args.request_id.as_deref());
    let request = RetryOperationRequest {
        name: name::operation(&args.operation),
        force: args.force,
        policy: policy::overrides(&args.policy, false),
        request_id: request_id.clone(),
        reason: args.reason,
    };
    let what = format!("retry {}", name::short(&request.name));
    let answer = client.call(&what, async |mut api| api.retry_operation(request.clone()).await).await;
    stands(session, &what, answer.map_err(|error| error.with_request_id(&request_id))?.operation)
}

pub(super) async fn confirm(session: &Session, args: ConfirmArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let request = ConfirmOperationRequest { name: name::operation(&args.operation), reason: args.reason };
    let what = format!("confirm {}", name::short(&request.name));
    let answer = client.call(&what, async |mut api| api.confirm_operation(request.clone()).await).await?;
    stands(session, &what, answer.operation)
}

/// The contract wants the new total, so that a repeated call adds nothing twice: the present one is read first.
pub(super) async fn extend(session: &Session, args: ExtendArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let operation = get::operation(&client, &args.operation).await?;
    let what = format!("extend {}", name::short(&operation.name));
    let total = present_total(&operation) + args.by;
    let request = ExtendOperationRequest {
        name: operation.name,
        grace_period: prost_types::Duration::try_from(total).ok(),
        reason: args.reason,
    };
    let answer = client.call(&what, async |mut api| api.extend_operation(request.clone()).await).await?;
    if session.format == Format::Table {
        note(format!("the grace period is now {} in all", text::span(total)));
    }
    stands(session, &what, answer.operation)
}

/// The grace period in force: that of the policy, or of the instance that was granted most. What was granted is not taken
/// from `extension`: an earlier extension by an operator counts there and in the policy.
fn present_total(operation: &Operation) -> Duration {
    let policy = operation.policy.as_ref().and_then(|policy| text::duration(policy.grace_period.as_ref()));
    let running = operation.instances.iter().filter(|instance| !view::is_over(instance)).filter_map(|instance| {
        let begin = text::time(instance.accept_time.as_ref())?;
        text::time(instance.deadline_time.as_ref())?.duration_since(begin).ok()
    });
    running.chain(policy).max().unwrap_or_default()
}

fn stands(session: &Session, what: &str, operation: Option<Operation>) -> Result<Ending, Error> {
    let operation =
        operation.ok_or_else(|| Error::rpc(what, Status::internal("the scheduler answered without an operation")))?;
    session.show(&Document::of(&operation), || {
        let id = name::short(&operation.name);
        let state = words::operation_state(operation.state);
        vec![Line::new(format!("{id} is {state}"), words::operation_style(operation.state))]
    })?;
    if session.format == Format::Table && !verdict::is_settled(&operation) {
        note(format!("follow it: quiesce watch {}", name::short(&operation.name)));
    }
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quiesce_protocol::v1::{InstanceShutdown, ShutdownPolicy};

    #[test]
    fn what_was_granted_before_counts_once() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let instance = |deadline, verified| InstanceShutdown {
            accept_time: at(100),
            deadline_time: at(deadline),
            extension: seconds(30),
            verified,
            ..InstanceShutdown::default()
        };
        let mut operation = Operation {
            policy: Some(ShutdownPolicy { grace_period: seconds(60), ..ShutdownPolicy::default() }),
            instances: vec![InstanceShutdown::default(), instance(190, false), instance(999, true)],
            ..Operation::default()
        };
        assert_eq!(present_total(&operation), Duration::from_secs(90));
        operation.instances.clear();
        assert_eq!(present_total(&operation), Duration::from_secs(60));
    }
}
