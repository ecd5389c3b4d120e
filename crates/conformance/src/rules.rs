//! The rules, in the words of `proto/quiesce/v1`. A test holds them against it.

/// Rules of `ShutdownHook`.
pub const H1: &str = "H1 Shutdown is idempotent by shutdown_id. A repeated call with a known id never signals the application again: it joins the running shutdown, or returns the final report of the finished one. Of a repeated request nothing but shutdown_id counts.";
/// The first report.
pub const H2: &str = "H2 The first report comes at once, without waiting for the application.";
/// Heartbeats.
pub const H3: &str =
    "H3 While the shutdown runs, a report comes at least every heartbeat_interval, even if nothing is new.";
/// Sequence.
pub const H4: &str = "H4 `sequence` rises from report to report of a shutdown_id, also across calls. The final report keeps its sequence when it is sent again.";
/// Phases.
pub const H5: &str = "H5 Phases do not go back.";
/// Result.
pub const H6: &str = "H6 `result` is set in the last report and in no other. After it the call ends with OK. A call that ends with OK without a result is a protocol error.";
/// The truth.
pub const H7: &str = "H7 OUTCOME_STOPPED, _KILLED and _NOT_RUNNING are reported only when no process of the application is left. \"I have sent SIGTERM\" is not an outcome.";
/// No is a result.
pub const H8: &str = "H8 Not being able to stop the application is a result (STILL_RUNNING, UNKNOWN), not an error. An error means: the call itself could not be served.";
/// The call and the shutdown.
pub const H9: &str = "H9 The end of the RPC is not the end of the shutdown. When the caller goes away, cancels the call or runs into its RPC deadline, the shutdown goes on. Only CancelShutdown takes it back.";
/// One at a time.
pub const H10: &str = "H10 One shutdown at a time. A request with another shutdown_id while one runs is refused with ABORTED / SHUTDOWN_IN_PROGRESS, unless it has the same `operation` and a higher `attempt`, or another `operation` and a higher `epoch` than the one that runs: then it takes over, the older stream ends with ABORTED / SHUTDOWN_SUPERSEDED";
/// The final report is kept.
pub const H11: &str = "H11 The final report is kept until the next shutdown with another id, at least for 10 minutes while the agent lives.";
/// Who kills.
pub const H12: &str = "H12 A hook never kills on its own account. When grace_period is over it either goes on watching and reporting or ends with STILL_RUNNING. Killing takes KillApplication.";
/// Whose instance.
pub const H13: &str = "H13 A hook that is told an `instance` which it knows not to be its own refuses with FAILED_PRECONDITION / WRONG_INSTANCE and does nothing.";
/// The token.
pub const H14: &str =
    "H14 completion_token is sent back with the result, exactly as received, and appears nowhere else.";
/// Epochs.
pub const H15: &str = "H15 (CAPABILITY_START) A hook starts its application only with an epoch higher than any it has seen, and records the epoch durably before it does. It refuses a Shutdown whose epoch is set and lower than the one its application runs under, and a StartApplication whose epoch is not higher, with FAILED_PRECONDITION / EPOCH_STALE. An accepted Shutdown uses up its epoch: a start under that epoch that arrives later is refused.";
/// The hold.
pub const H16: &str = "H16 (CAPABILITY_HOLD) The hold is durable before the application is told to stop, and ends only with StartApplication.";
/// Never two.
pub const H17: &str = "H17 A hook never starts its application while a process of it is left.";
/// Who calls.
pub const CALLER: &str = "A hook that finds neither answers UNAUTHENTICATED.";
/// What GetHookInfo is for.
pub const INFO: &str = "Who is there, what can it do, does the application run. Cheap: called at registration, before every operation, every few seconds as a sign of life and once more after a verified stop. Has no effects.";
/// What is not announced.
pub const UNANNOUNCED: &str = "Everything else is announced in HookInfo.capabilities; what is not announced answers UNIMPLEMENTED, which is what generated server code does by itself.";
/// Errors.
pub const ERRORS: &str = "A hook SHOULD do the same; a scheduler MUST get along with a hook that sends a bare code.";
/// Unknown values.
pub const KIND: &str = "What an operation is for. Unknown value: treat as DELETE (the graver one).";
/// Evidence.
pub const EVIDENCE: &str =
    "How the end of an application is known, from weak to strong: a larger number is better evidence.";
/// A clean end.
pub const CLEAN: &str = "Exit status, if the hook saw one and it was a normal exit.";
/// Names of shutdowns.
pub const SHUTDOWN_ID: &str = "Names this shutdown: one attempt on one instance for one operation. 1 to 128 characters of [A-Za-z0-9._-]. The only required field.";
/// CAPABILITY_KILL.
pub const KILL: &str = "Grace is over: kill (SIGKILL to every process of the application). CAPABILITY_KILL. Needs a running shutdown, so that there is a stream to report the result; returns as soon as the signal is out. Calling it again, or when everything has ended, is OK and does nothing.";
/// CAPABILITY_UPDATE_DEADLINE.
pub const DEADLINE: &str = "UpdateDeadline is implemented: the hook acts on a changed deadline.";
/// CAPABILITY_CANCEL.
pub const CANCEL: &str = "Take a shutdown back. CAPABILITY_CANCEL. Succeeds below SHUTDOWN_PHASE_STOPPING; the Shutdown call then ends with phase CANCELLED and OUTCOME_CANCELLED. Calling it again gives the same answer.";
/// CAPABILITY_CHECK.
pub const CHECK: &str =
    "Would a Shutdown work: process found, permission to signal it, stop command present? Has no effects.";
/// The answer of a check.
pub const CHECK_NO: &str = "The answer \"no\" is a response with ok = false, not an error.";
/// CAPABILITY_STATUS.
pub const STATUS: &str = "The latest report, without waiting. CAPABILITY_STATUS.";
/// Its token.
pub const STATUS_TOKEN: &str = "Without completion_token unless `result` is set.";
/// CAPABILITY_SETTLE.
pub const SETTLE: &str =
    "ShutdownRequest.settle_period is honoured: the hook notices an application that is started again behind its back.";
/// CAPABILITY_DURABLE.
pub const DURABLE: &str = "Shutdowns survive a restart of the agent: a repeated Shutdown call with a known shutdown_id never signals the application a second time, even then.";
/// Reports of a start.
pub const START: &str = "Idempotent by epoch: a repeated call with the epoch of the last start joins it, or returns its final report. The first report comes at once, then at least every heartbeat_interval; `result` is in the last report only. The end of the RPC is not the end of the start. A start that fails leaves no process behind and the application held.";
/// CAPABILITY_CONCLUDE.
pub const CONCLUDE: &str = "DISPOSITION_STANDBY: stay held and stand by.";
/// The other disposition.
pub const RETIRED: &str = "DISPOSITION_RETIRED: the application has been deleted; mark the hold as deleted so that no restart policy brings it back, answer, then leave with the application's exit code.";
/// The preface.
pub const PREFACE: &str = "It then opens a second connection, TCP or TLS (ALPN \"quiesce-attach/1\"), to attach_endpoint, which may be the very port of this service, and sends one line: QUIESCE/1 ATTACH <attach_token> CRLF";
/// After the preface.
pub const REVERSED: &str = "After OK the roles are reversed: the scheduler sends the HTTP/2 connection preface and is the gRPC client, the agent is the gRPC server and serves ShutdownHook (and grpc.health.v1.Health, if it likes) on this connection.";
/// One connection.
pub const A1: &str = "A1 An instance has one attached connection. A new one with a valid token replaces the older, which the scheduler closes once the new one has answered GetHookInfo.";
/// Tokens.
pub const A2: &str = "A2 attach_token is good for 60 seconds and for one connection. To reconnect, register again.";
/// PINGs.
pub const A3: &str = "A3 The agent, being the HTTP/2 server, sends PINGs (every 20s, give up after 20s without answer): it keeps the NAT entry alive and nothing forbids a server to ping.";
/// Reconnecting.
pub const A5: &str = "A5 A lost connection does not end a shutdown (H9). The agent reconnects with backoff (1s doubling to 30s, +-20%; behind a connection, however short, no longer than 5s) and the scheduler joins again. The timers of the shutdown go on meanwhile.";
/// Staying.
pub const A6: &str = "A6 Before the application ends the agent must not go away by itself: in a pod it outlives the application container.";

/// All of them.
pub const ALL: &[&str] = &[
    H1,
    H2,
    H3,
    H4,
    H5,
    H6,
    H7,
    H8,
    H9,
    H10,
    H11,
    H12,
    H13,
    H14,
    H15,
    H16,
    H17,
    CALLER,
    INFO,
    UNANNOUNCED,
    ERRORS,
    KIND,
    EVIDENCE,
    CLEAN,
    SHUTDOWN_ID,
    KILL,
    DEADLINE,
    CANCEL,
    CHECK,
    CHECK_NO,
    STATUS,
    STATUS_TOKEN,
    SETTLE,
    DURABLE,
    START,
    CONCLUDE,
    RETIRED,
    PREFACE,
    REVERSED,
    A1,
    A2,
    A3,
    A5,
    A6,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_words_of_the_contract() {
        let files = [
            include_str!("../../../proto/quiesce/v1/shutdown_hook.proto"),
            include_str!("../../../proto/quiesce/v1/agent_gateway.proto"),
            include_str!("../../../proto/quiesce/v1/types.proto"),
            include_str!("../../../proto/quiesce/v1/errors.proto"),
        ];
        let lines = files.iter().flat_map(|file| file.lines()).map(|line| line.trim().trim_start_matches("//"));
        let contract: String = lines.flat_map(str::split_whitespace).map(|word| format!("{word} ")).collect();
        for rule in ALL {
            assert!(contract.contains(rule), "not in proto/quiesce/v1: {rule}");
        }
    }
}
