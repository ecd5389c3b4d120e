//! The contract's enums as words: the value's name without its prefix, so that what is printed can be looked up.
//!
//! Owns which state is good news and which is bad. A value this build does not know shows as its number.

use quiesce_protocol::v1::{
    Application, Evidence, FailureStrategy, OperationKind, Placement, ShutdownPhase, StartPhase, application, failure,
    hook_info, instance, operation, operation_event, r#override, placement, start_result, stop_result,
};

use crate::output::text::Style;

fn word<E: TryFrom<i32>>(raw: i32, name: impl Fn(&E) -> &'static str, prefix: &str) -> String {
    match E::try_from(raw) {
        Ok(value) => {
            let word = name(&value);
            word.strip_prefix(prefix).unwrap_or(word).to_owned()
        }
        Err(_) => format!("UNKNOWN({raw})"),
    }
}

macro_rules! words {
    ($($function:ident: $type:ty, $prefix:literal;)*) => {
        $(
            #[doc = concat!("The word for a `", stringify!($type), "`.")]
            pub(crate) fn $function(raw: i32) -> String {
                word::<$type>(raw, <$type>::as_str_name, $prefix)
            }
        )*
    };
}

words! {
    application_state: application::State, "STATE_";
    instance_state: instance::State, "STATE_";
    connect_mode: instance::ConnectMode, "CONNECT_MODE_";
    app_state: hook_info::AppState, "APP_STATE_";
    operation_state: operation::State, "STATE_";
    event_type: operation_event::Type, "TYPE_";
    shutdown_phase: ShutdownPhase, "SHUTDOWN_PHASE_";
    start_phase: StartPhase, "START_PHASE_";
    evidence: Evidence, "EVIDENCE_";
    stop_outcome: stop_result::Outcome, "OUTCOME_";
    readiness: start_result::Readiness, "READINESS_";
    failure_reason: failure::Reason, "REASON_";
    failure_strategy: FailureStrategy, "FAILURE_STRATEGY_";
    override_kind: r#override::Kind, "KIND_";
    capability: quiesce_protocol::v1::Capability, "CAPABILITY_";
}

/// How an application stands; the word for one that waits to be readmitted is ours.
pub(crate) fn standing(application: &Application) -> String {
    match application.restore_time {
        Some(_) => "UNCONFIRMED".to_owned(),
        None => application_state(application.state),
    }
}

/// "migrate", "delete".
pub(crate) fn kind(raw: i32) -> String {
    word::<OperationKind>(raw, OperationKind::as_str_name, "OPERATION_KIND_").to_lowercase()
}

/// Who moves the application; unset and unknown mean external.
pub(crate) fn placement(placement: Option<&Placement>) -> &'static str {
    match placement.and_then(|placement| placement.driver.as_ref()) {
        Some(placement::Driver::Agents(_)) => "agents",
        Some(placement::Driver::External(external)) if external.require_confirmation => "external, with confirmation",
        Some(placement::Driver::External(_)) | None => "external",
    }
}

/// How an operation's state is to be taken.
pub(crate) fn operation_style(raw: i32) -> Style {
    use operation::State;
    match State::try_from(raw) {
        Ok(State::Succeeded) => Style::Good,
        Ok(State::Degraded | State::Abandoned) => Style::Bad,
        Ok(
            State::Forcing
            | State::RollingBack
            | State::RolledBack
            | State::Cancelling
            | State::Cancelled
            | State::BackingOff,
        ) => Style::Warning,
        Ok(
            State::Unspecified
            | State::Pending
            | State::Preparing
            | State::Stopping
            | State::Stopped
            | State::Starting
            | State::Finalizing,
        )
        | Err(_) => Style::Plain,
    }
}

/// How an application's state is to be taken.
pub(crate) fn application_style(application: &Application) -> Style {
    match application.state() {
        _ if application.restore_time.is_some() => Style::Bad,
        application::State::Active => Style::Good,
        application::State::Degraded => Style::Bad,
        application::State::Stopping | application::State::Stopped => Style::Warning,
        application::State::Unspecified => Style::Plain,
    }
}

/// How an instance's state is to be taken.
pub(crate) fn instance_style(raw: i32) -> Style {
    use instance::State;
    match State::try_from(raw) {
        Ok(State::Ready) => Style::Good,
        Ok(State::Unreachable | State::NotReady) => Style::Bad,
        Ok(State::Stopping | State::Starting) => Style::Warning,
        Ok(State::Unspecified | State::Stopped | State::Held) | Err(_) => Style::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_contract() {
        assert_eq!(operation_state(operation::State::RolledBack.into()), "ROLLED_BACK");
        assert_eq!(evidence(Evidence::GroupEmpty.into()), "GROUP_EMPTY");
        assert_eq!(kind(OperationKind::Migrate.into()), "migrate");
        assert_eq!(operation_state(4711), "UNKNOWN(4711)");
    }
}
